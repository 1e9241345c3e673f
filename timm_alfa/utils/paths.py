"""Hiding where files lie on a machine, in text that is published."""

import getpass
import re
import socket
from contextlib import suppress
from typing import Any

PLACE = '/PATH'
_PUBLIC_HOSTS = re.compile(r'https?://(?:[\w-]+\.)*(?:huggingface\.co|hf\.co)(?:[/?#]|$)')
_HOMES = ('home', 'Users', 'users')

_START = r'(?:(?:~[\w.-]*|\.\.|\$\{?\w+\}?)?/(?=[^\s/])|[A-Za-z]:[\\/]|\\\\(?=\w))'
# One option's value, whose path may hold blanks: PATH, --flag=PATH, or KIND/PATH of a dataset.
_VALUE = re.compile(rf'(?P<before>--?[\w-]+=|\w+/(?=/)|)(?P<path>{_START}.*)', re.DOTALL)
# In other text: an address, a file on another machine, or a path without blanks.
_IN_TEXT = re.compile(
    r"""(?P<url>\b[a-z][a-z0-9+.-]{1,20}://[^\s"'<>]+)"""
    r"""|[\w.-]+@[\w.-]+:[~/\w][^\s"'<>]*"""
    rf"""|(?<![^\s"'=,;:(\[{{|/]){_START}[^\s"'<>,;)\]}}|]*"""
)


def hide_paths(value: Any) -> Any:
    """A value in which paths and addresses keep their last part only: '/PATH/pets' for '/home/me/data/pets'.

    Text in mappings and lists is treated likewise. Relative paths below the working folder, names on the Hub and
    addresses of the Hub stay. The last part goes, too, if it is the name of a user or of this machine.
    """
    if isinstance(value, dict):
        return {hide_paths(key): hide_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_paths(item) for item in value]
    return _hide_in_text(value) if isinstance(value, str) else value


def _hide_in_text(text: str) -> str:
    value = _VALUE.fullmatch(text)
    if value and '://' not in text:
        return value['before'] + _last_part(value['path'])
    return _IN_TEXT.sub(_hidden, text)


def _hidden(match: re.Match) -> str:
    text = match[0]
    if not match['url']:
        return _last_part(text)
    if _PUBLIC_HOSTS.match(text):
        return text
    _, _, place = re.split(r'[?#]', text)[0].partition('://')
    return _last_part(f'/{place.partition("/")[2]}')


def _last_part(path: str) -> str:
    """PLACE and the last part of a path, if that is neither a home folder nor a private name."""
    parts = [part for part in re.split(r'[\\/]+', path) if part]
    last = parts[-1] if parts else ''
    above = parts[-2] if len(parts) > 1 else ''
    hidden = above in _HOMES or last in _private_names() or last.startswith(('~', '..', '$')) or last.endswith(':')
    return PLACE if not last or hidden else f'{PLACE}/{last}'


def _private_names() -> set[str]:
    """The name of the user, and that of this machine."""
    names = {'root', socket.gethostname(), socket.gethostname().partition('.')[0]}
    with suppress(OSError, KeyError):  # no such user, as in some containers
        names.add(getpass.getuser())
    return names

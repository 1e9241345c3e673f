"""Hiding secrets in text that is stored, printed or published."""

import os
import re
from typing import Any

HIDDEN = '***'
_WORDS = r'(?:token|secret|passwo?r?d|passphrase|(?:api|access|private)[-_]?key|credential|authori[sz]ation)'
_NAME = rf'[\w.-]{{0,64}}{_WORDS}[\w.-]{{0,64}}'  # bounded: a long text takes linear time
SECRET_NAME = re.compile(_WORDS, re.IGNORECASE)
_SECRET_FLAG = re.compile(rf'--?{_NAME}', re.IGNORECASE)

# Tokens that their prefix gives away. What comes before may be an underscore: names are joined by them.
TOKENS = re.compile(
    r'(?<![A-Za-z0-9])(?:'
    r'hf_[A-Za-z0-9]{16,}'  # Hugging Face
    r'|github_pat_\w{10,}|gh[pousr]_[A-Za-z0-9]{10,}'  # GitHub
    r'|glpat-[\w-]{10,}'  # GitLab
    r'|xox[a-z]-[\w-]{8,}'  # Slack
    r'|sk-[\w-]{16,}'  # OpenAI, Anthropic
    r'|(?:AKIA|ASIA)[A-Z0-9]{12,}'  # AWS
    r'|AIza[\w-]{30,}'  # Google
    r'|eyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*)?'  # JSON web tokens
    r')'
)
_PRIVATE_KEY = re.compile(r'-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)', re.DOTALL)
_BEARER = re.compile(r'\b(Bearer\s+)[^\s\'",;]{8,}', re.IGNORECASE)

# name=VALUE, name: VALUE, --name VALUE in text; a number or a truth value is no secret (class_token=False).
_ASSIGNED = re.compile(
    rf'((?:\b{_NAME}["\']?\s*[=:]|--{_NAME}[\s=])\s*(?:(?:basic|bearer|token)\s+)?)'
    r'(?!(?:true|false|none|null|\d+(?:\.\d+)?)(?:$|[\s,;&)\]}]))'
    r'("[^"]*"|\'[^\']*\'|[^\s"\'&,;<>]+)',
    re.IGNORECASE,
)

_URL = re.compile(r'\b[a-z][a-z0-9+.-]{0,20}://[^\s<>"\']+', re.IGNORECASE)
# user:password@; a password may hold @ and /, a port is digits
_URL_USER = re.compile(r'(?<=://)(?:[^/?#\s]{0,500}@|[^/?#@\s:]{1,100}:(?!\d+(?:[/?#]|$))[^\s@]{0,500}@)')
_URL_PARAMETER = re.compile(
    r'([?&#;](?:[^=&#;\s]*(?:token|key|secret|sig|signature|passw|auth|credential)[^=&#;\s]*)=)[^&#;\s]+', re.IGNORECASE
)
_URL_AFTER_NAME = re.compile(rf'(/{_WORDS}s?[/=])[^/?#\s]+', re.IGNORECASE)
# a part of the path that looks drawn at random, as in the address of a webhook
_URL_RANDOM = re.compile(
    r'(?<=/)(?=[A-Za-z0-9]*[a-z])(?=[A-Za-z0-9]*[A-Z])(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{20,}(?=$|[/?#])'
)


def redact(value: Any, name: str = '') -> Any:
    """A value without secrets; text in mappings and lists is redacted, other values are kept.

    Hidden are tokens known by their prefix, secrets in any part of a URL, values of names such as 'api_key', the word
    after a flag such as `--token`, and the values of environment variables such as HF_TOKEN.

    Args:
        value: Text, a number, or mappings and lists of them.
        name: The value's name, if it has one.
    """
    if isinstance(value, dict):
        return {
            redact_text(key) if isinstance(key, str) else key: redact(item, f'{name}.{key}')
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return redact_words(value, name)
    if not isinstance(value, str):
        return value
    return HIDDEN if SECRET_NAME.search(name) else redact_text(value)


def redact_words(words, name: str = '') -> list[Any]:
    """A list without secrets, such as a command line: the word after `--token` is hidden, too."""
    kept, hide = [], False
    for word in words:
        follows = hide and isinstance(word, str) and not word.startswith('--')
        kept.append(HIDDEN if follows else redact(word, name))
        hide = isinstance(word, str) and _SECRET_FLAG.fullmatch(word) is not None
    return kept


def redact_text(text: str) -> str:
    """Text without secrets."""
    for secret in _secrets_of_environment():
        text = text.replace(secret, HIDDEN)
    text = _PRIVATE_KEY.sub(HIDDEN, text)
    text = TOKENS.sub(HIDDEN, text)
    text = _BEARER.sub(rf'\1{HIDDEN}', text)
    text = _URL.sub(_redact_url, text)
    return _ASSIGNED.sub(_redact_assigned, text)


def _redact_assigned(match: re.Match) -> str:
    quote = match[2][0] if match[2][0] in '"\'' else ''
    return f'{match[1]}{quote}{HIDDEN}{quote}'


def _redact_url(match: re.Match) -> str:
    url = _URL_USER.sub(f'{HIDDEN}@', match[0])
    url = _URL_PARAMETER.sub(rf'\1{HIDDEN}', url)
    url = _URL_AFTER_NAME.sub(rf'\1{HIDDEN}', url)
    return _URL_RANDOM.sub(HIDDEN, url)


def _secrets_of_environment() -> list[str]:
    """Values of variables such as HF_TOKEN that are long enough to be recognized."""
    return [
        value
        for key, value in os.environ.items()
        if re.search(r'(TOKEN|SECRET|PASSWORD|API_?KEY)', key, re.IGNORECASE) and len(value) >= 8
    ]

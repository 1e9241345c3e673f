"""How the user calls a command: `train.py` in a clone, elsewhere `timm-alfa train` or `python -m timm_alfa train`."""

import shlex
import sys
from pathlib import Path
from typing import NamedTuple, Optional

from timm_alfa.version import __version__

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = 'timm-alfa'
# The commands that are scripts in a clone.
SCRIPTS = {'train': 'train.py', 'validate': 'validate.py', 'publish': 'hub/publish.py'}
PRECISIONS = ('no', 'fp8', 'fp16', 'bf16')  # accelerate's words


class Spelling(NamedTuple):
    """How a command is written.

    Attributes:
        name: In a message.
        start: What starts it in one process.
        launch: What follows `accelerate launch` or `torchrun`.
    """

    name: str
    start: tuple[str, ...]
    launch: tuple[str, ...]


def installed(command: str) -> Spelling:
    """The spelling that works wherever the package is installed."""
    return Spelling(f'{INSTALLED} {command}', (INSTALLED, command), ('-m', f'timm_alfa.{command}'))


def spelling(command: str) -> Spelling:
    """The spelling of a command for this user, who called the running program in the same way.

    Args:
        command: Such as 'train', as in `timm-alfa train`.
    """
    if Path(sys.argv[0]).stem == INSTALLED:
        return installed(command)
    if _called_as_module():
        words = ('python', '-m', 'timm_alfa', command)
        return installed(command)._replace(name=' '.join(words), start=words)
    script = SCRIPTS.get(command)
    if script is None or not (PACKAGE.parent / script).is_file():
        return installed(command)
    return Spelling(script, ('python', script), (script,))


def _called_as_module() -> bool:
    """Whether the running program was started by `python -m`."""
    called = Path(sys.argv[0])
    return called.is_absolute() and called.is_relative_to(PACKAGE)


def all_commands() -> str:
    """What is written before the name of any command."""
    return 'python -m timm_alfa' if _called_as_module() else INSTALLED


def program(command: str) -> str:
    """The name of a command in a message."""
    return spelling(command).name


def launch_command(*words: object, mixed_precision: Optional[str] = None, explicit: bool = False) -> str:
    """A command line of accelerate, quoted for a shell.

    Args:
        words: The script and its arguments.
        mixed_precision: The precision that the launcher sets, if any.
        explicit: Name the precision even if it is 'no', which may not be what is configured for accelerate.
    """
    precision = []
    if mixed_precision is not None and (explicit or mixed_precision != 'no'):
        precision = ['--mixed_precision', str(mixed_precision)]
    return shlex.join(['accelerate', 'launch', *precision, *map(str, words)])


def version() -> str:
    """What `--version` prints."""
    return f'timm_alfa {__version__}'

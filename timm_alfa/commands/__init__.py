"""The commands of `timm-alfa` and `python -m timm_alfa`. A command is a row below and a module with `main(argv)`."""

import sys
from functools import partial
from importlib import import_module
from typing import NamedTuple, Optional, Sequence

from timm_alfa.errors import ConfigError, one_of
from timm_alfa.training.exit import before_work, run_main
from timm_alfa.utils.program import all_commands, version


class Command(NamedTuple):
    """A command.

    Attributes:
        name: As in `timm-alfa NAME`.
        module: Its module, imported when the command is called. `main(argv)` runs it and may return an exit code.
        summary: One line for `timm-alfa --help`.
        words: What it passes to its module before the user's words.
    """

    name: str
    module: str
    summary: str
    words: tuple[str, ...] = ()


ROWS = (
    Command('train', 'timm_alfa.commands.train', 'train a model, or resume a run'),
    Command('validate', 'timm_alfa.commands.validate', 'evaluate a checkpoint, on clean images or under attack'),
    Command('predict', 'timm_alfa.commands.predict', 'print the most probable classes of images'),
    Command(
        'probe',
        'timm_alfa.commands.train',
        'measure what a perturbation does at each block of a model (train --probe)',
        words=('--probe',),
    ),
    Command('publish', 'timm_alfa.commands.publish', 'publish a run on the Hugging Face Hub'),
    Command('list', 'timm_alfa.commands.listing', 'list the names of weights that can be loaded'),
)
COMMANDS = {row.name: row for row in ROWS}


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Runs the command that the first word names, and exits.

    Args:
        argv: The words after the program; None: those of this process.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    run_main(partial(dispatch, words))


def dispatch(words: Sequence[str]) -> Optional[int]:
    """Runs a command, and returns its exit code.

    Raises:
        ConfigError: There is no such command.
    """
    if not words or words[0] in ('-h', '--help', 'help'):
        print(help_text())
        return None
    if words[0] in ('--version', 'version'):
        print(version())
        return None
    with before_work():
        command = find(words[0])
    return import_module(command.module).main([*command.words, *words[1:]])


def find(name: str) -> Command:
    """The command of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in COMMANDS:
        raise ConfigError(f'{one_of("command", name, list(COMMANDS))} `{all_commands()} --help` says what each does.')
    return COMMANDS[name]


def help_text() -> str:
    """What `timm-alfa --help` shows."""
    program = all_commands()
    width = max(map(len, COMMANDS)) + 2
    lines = [f'usage: {program} COMMAND [options]', '', 'Adversarial training in feature space for any timm model.', '']
    lines += [f'  {row.name:{width}}{row.summary}' for row in ROWS]
    lines += [
        '',
        f'`{program} COMMAND --help` lists the options of a command, `{program} --version` shows the version.',
        'On several GPUs: accelerate launch -m timm_alfa.train [options]',
    ]
    return '\n'.join(lines)

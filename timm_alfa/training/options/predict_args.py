"""The command line of predict."""

import dataclasses
from dataclasses import dataclass
from typing import Optional, Sequence

from timm_alfa.data import DataConfig
from timm_alfa.errors import ConfigError
from timm_alfa.options import option
from timm_alfa.training.options.config import InputConfig
from timm_alfa.training.options.parser import Option, build_parser, options_of_groups, read_command_line, resolve_groups
from timm_alfa.training.options.validate_args import CheckpointConfig, batch_size_errors, errors_in_timm

DESCRIPTION = (
    'Prints the most probable classes of images, one line per image. Images that cannot be read are named and left '
    'out, and the exit code is then 1.'
)
DATA_KEYS = ('batch_size', 'workers', 'pin_mem')
OPERAND = 'images'


@dataclass(frozen=True)
class PredictConfig:
    """Which images, and what is shown of each."""

    images: tuple[str, ...] = option(
        (),
        "image files, folders whose images are found at any depth, or '-' to read their names from standard input, one "
        'per line',
        metavar='IMAGES',
    )
    top_k: int = option(5, 'classes shown per image', low=1, flag='-k')
    output: Optional[str] = option(
        None, 'also write classes and probabilities to this file, .csv or .parquet', metavar='FILE'
    )

    def errors(self, flag_name):
        if not self.images:
            yield "no images are named: pass files or folders, or '-' to read their names from standard input."


GROUPS = {'predict': PredictConfig, 'checkpoint': CheckpointConfig, 'input': InputConfig, 'data': DataConfig}
TITLES = {'predict': 'Predictions', 'checkpoint': 'Model', 'input': 'Input of the model', 'data': 'Loader'}


@dataclass(frozen=True)
class PredictArgs:
    """All options of predict."""

    predict: PredictConfig
    checkpoint: CheckpointConfig
    input: InputConfig
    data: DataConfig


def all_options() -> list[Option]:
    """Every flag of predict, and its operand."""
    return options_of_groups(GROUPS, DATA_KEYS)


def parse_args(argv: Optional[Sequence[str]] = None) -> PredictArgs:
    """The resolved options.

    Raises:
        ConfigError: With all errors.
    """
    flags = [item for item in all_options() if item.key != OPERAND]
    (operand,) = (item for item in all_options() if item.key == OPERAND)
    given, errors = read_command_line(build_parser('predict', DESCRIPTION, TITLES, flags, operand), argv, flags)
    groups, found = resolve_groups(GROUPS, given)
    errors += [*found, *batch_size_errors(given)]
    if not errors:
        errors += errors_in_timm(groups['checkpoint'], given)
    if errors:
        raise ConfigError(errors)
    groups['data'] = dataclasses.replace(groups['data'], skip_corrupt=True)
    return PredictArgs(**groups)

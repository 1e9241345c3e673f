"""Options that reach beyond a run and its folder, where a file and not the user has set them."""

from typing import Any, Iterator, Sequence

from timm_alfa.options import default_of, long_flag
from timm_alfa.training.options.parser import Given, Option

# What makes a run read or write elsewhere, or contact a service.
REACH_OUTSIDE = (
    'model',
    'pretrained',
    'initial_checkpoint',
    'checkpoint',
    'dataset',
    'data_dir',
    'class_map',
    'class_weights',
    'dataset_download',
    'output',
    'log_with',
)
# Of these, what --resume RUN does not take from the run: it sends what a run measures to a service, or writes into a
# folder of data. The run is the same without it.
NOT_RESUMED = ('dataset_download', 'log_with')
# How a run is resumed, which no file decides: its folder is written, and old states in it are removed.
COMMAND_LINE_ONLY = ('resume', 'resume_anyway')


def external_options(given: Given, options: Sequence[Option]) -> Iterator[str]:
    """A line for each option that a file has set and that reaches outside of the run's folder."""
    for item in options:
        source = given.source.get(item.key)
        if source and item.key in REACH_OUTSIDE and _reaches(item, given.values[item.key]):
            yield f"from '{source}': {_spelled(item, given.values[item.key])}{_kept_in(item, given)}"


def _kept_in(item: Option, given: Given) -> str:
    """What --data-dir means beside the dataset of a recipe, which a user may have wanted to replace by a folder."""
    typed = given.values.get('data_dir') and not given.source['data_dir']
    if item.key != 'dataset' or item.key in given.inherited or not typed:
        return ''
    return f", kept in --data-dir {given.values['data_dir']}; add --dataset '' to use that folder of images instead"


def dropped_on_resume(file: str, content: dict[str, Any], given: Given, options: Sequence[Option]) -> Iterator[str]:
    """A line for each option of a resumed run that is not taken from its args.yaml.

    Args:
        file: The args.yaml.
        content: Its options.
        given: What the user set.
        options: All options.
    """
    for item in options:
        value = content.get(item.key)
        if item.key in NOT_RESUMED and value and item.key not in given.values:
            yield f"not taken from '{file}': {_spelled(item, value)}; pass it again to keep it"


def command_line_only_errors(given: Given) -> Iterator[str]:
    """A line for each option in a file that only the command line may set."""
    for key in COMMAND_LINE_ONLY:
        if given.source.get(key) and given.values[key]:
            yield f'{given.flag_name(key)}: a run is resumed only by {long_flag(key)} on the command line.'


def _reaches(item: Option, value: Any) -> bool:
    if item.key == 'model':
        return ':' in str(value)  # of the Hub, or of a folder
    inside = (item.key, value) in (('dataset', 'digits'), ('class_weights', 'auto'))
    return bool(value) and value != default_of(item.field) and not inside


def _spelled(item: Option, value: Any) -> str:
    if value is True:
        return item.spelling
    words = value if isinstance(value, (list, tuple)) else [value]
    return ' '.join(map(str, (item.spelling, *words)))

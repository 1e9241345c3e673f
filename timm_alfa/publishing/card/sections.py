"""What the first sections of a model card state about a run: the model at a glance, and its accuracies."""

from typing import Any, Optional, Sequence

from timm_alfa.errors import HubError
from timm_alfa.publishing.card.metadata import base_model, dataset_names
from timm_alfa.publishing.card.paper import EPOCHS, differences, rows_of
from timm_alfa.publishing.card.starting_weights import pretrained_name
from timm_alfa.tasks import TASKS
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.markdown import Markdown, code_span, escape, markdown_table
from timm_alfa.utils.text import short_number
from timm_alfa.zoo.tags import DATASETS

NOT_KNOWN = 'not recorded'

_NONE = '-'
_COLUMNS = {
    'title': 'Model',
    'top1': 'Top-1',
    'top5': 'Top-5',
    'robust': 'Robust top-1',
    'images': 'Training images',
    'epochs': 'Epochs',
}
# Of a run and the baseline that it is compared with, what must be equal.
_SAME = ('model', 'dataset', 'num_classes', 'epochs', 'batch_size', 'train_images')


def method_texts(task: str) -> tuple[str, str]:
    """The title and the description of a method; its name alone if it is not registered here."""
    if task not in TASKS:
        return task, ''
    return TASKS[task].title, TASKS[task].text


def format_value(value: Any) -> str:
    """An option's value for a reader: step sizes as fractions of 255, as they were typed."""
    if value is None:
        return 'none'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(format_value, value))
    if not isinstance(value, float):
        return str(value)
    halves = value * 255 * 2
    if 0 < abs(halves) < 33 and abs(halves - round(halves)) < 1e-6:
        return f'{value * 255:g}/255'
    return f'{value:g}'


def format_options(options: dict[str, Any]) -> str:
    """Options in one line."""
    return ', '.join(f'{key} {format_value(value)}' for key, value in options.items())


def details(run: FinishedRun, dataset_id: Optional[str], license: Optional[str]) -> list[tuple[str, str]]:
    """The model at a glance: the same rows for every run."""
    channels, height, width = input_size(run)
    params = run.record.get('params')
    base = base_model(run)
    return [
        ('Architecture', code_span(run.architecture)),
        ('Parameters', NOT_KNOWN if params is None else short_number(params)),
        ('Image size', f'{height} x {width}, {channels} channels'),
        ('Dataset', f'{dataset_names(run, dataset_id)[0]} ({run.config["num_classes"]} classes)'),
        ('Training method', method_texts(run.record['task'])[0]),
        ('Starting weights', code_span(base) if base else starting_weights(run)),
        ('License', license or NOT_KNOWN),
    ]


def starting_weights(run: FinishedRun) -> str:
    """What training started from, in words."""
    if run.args.get('initial_checkpoint'):
        return 'a checkpoint of the author'
    if (name := pretrained_name(run)) is not None:
        return f'pretrained ({name})'
    return 'random'


def input_size(run: FinishedRun) -> tuple[int, int, int]:
    """Channels, height and width of the images."""
    return tuple(run.config['pretrained_cfg'].get('input_size') or (3, 224, 224))


def accuracy_rows(run: FinishedRun, standard: Optional[FinishedRun] = None) -> list[dict[str, str]]:
    """The accuracies of this run, of the standard run, and of the paper's rows with this model, dataset and method.

    Raises:
        HubError: `standard` is not the baseline of this run.
    """
    rows = [_measured_row('This model', run)]
    if standard is not None:
        check_baseline(run, standard)
        rows.append(_measured_row('Standard training with the same code', standard))

    if any(differences(run)):
        return rows
    return rows + [_paper_row(row) for row in rows_of(run)]


def accuracy_table(rows: list[dict[str, str]]) -> Markdown:
    """The rows as a table; all cards have the same columns."""
    return table(list(_COLUMNS.values()), [[row[key] for key in _COLUMNS] for row in rows])


def paper_text(run: FinishedRun) -> Optional[str]:
    """How the paper's accuracies relate to the run's, or None if the paper has none of this model."""
    if not rows_of(run):
        return None
    if found := list(differences(run)):
        return f"The paper's accuracies of this model cannot be compared with this run: {'; '.join(found)}."
    return "The paper's figures are from its own code and protocol, and trained on the whole training set."


def check_baseline(run: FinishedRun, standard: FinishedRun) -> None:
    """Check that a run of standard training is the baseline of a run.

    Raises:
        HubError: It differs in more than the method.
    """
    errors = []
    if standard.record['task'] != 'standard':
        errors.append(f'its task is {standard.record["task"]}')
    for key in _SAME:
        ours, theirs = run.record.get(key), standard.record.get(key)
        if ours != theirs:
            errors.append(f'its {key} is {theirs}, this run has {ours}')
    ours, theirs = run.evaluation, standard.evaluation
    if theirs.split != ours.split:
        errors.append(f'it was evaluated on {theirs.split}, this run on {ours.split}')
    if theirs.attack is not None and ours.attack is not None and theirs.attack != ours.attack:
        errors.append(
            f'it was attacked with {format_options(theirs.attack)}, this run with {format_options(ours.attack)}'
        )
    if errors:
        raise HubError(f"'{standard.folder}' is not the standard run of '{run.folder}': {'; '.join(errors)}.")


def _measured_row(title: str, run: FinishedRun) -> dict[str, str]:
    found, record = run.evaluation, run.record
    return {
        'title': title,
        'top1': _percent(found.top1),
        'top5': _percent(found.top5),
        'robust': _percent(found.robust_top1),
        'images': _count(record.get('train_images')),
        'epochs': _count(record.get('epochs_done', record.get('epochs'))),
    }


def _paper_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        'title': f'Paper, table {row["table"]}: {method_texts(row["method"])[0]}',
        'top1': _percent(row['top1']),
        'top5': _NONE,
        'robust': _NONE,
        'images': _count(DATASETS[row['dataset']].images[0]),
        'epochs': _count(EPOCHS[row['dataset']]),
    }


def _count(value: Optional[int]) -> str:
    return _NONE if value is None else f'{value:,}'


def _percent(value: Optional[float]) -> str:
    return _NONE if value is None else f'{value:.2f}'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markdown:
    """A table whose cells are shown literally, except those that are Markdown already."""
    return Markdown(markdown_table(columns, [[escape(cell) for cell in row] for row in rows]))

"""What the sections of a model card state about a run: accuracies, options, command and circumstances."""

import functools
import json
from pathlib import Path
from typing import Any, Optional, Sequence

from timm_alfa.errors import HubError
from timm_alfa.publishing.card_data import dataset_names
from timm_alfa.tasks import TASKS
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.launcher import launch_command
from timm_alfa.utils.markdown import Markdown, code_block, code_span, escape, markdown_table
from timm_alfa.utils.text import printable, short_number

# Of a run and the baseline that it is compared with, what must be equal.
_SAME = ('model', 'dataset', 'num_classes', 'epochs', 'batch_size', 'train_images')


@functools.cache
def paper_rows() -> tuple[dict[str, Any], ...]:
    """The ALFA paper's accuracies on clean images: model, dataset (key of `DATASETS`), method, top1, table."""
    return tuple(json.loads(Path(__file__).with_name('paper.json').read_text(encoding='utf-8')))


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


def details(run: FinishedRun, dataset_id: Optional[str], license: Optional[str]) -> list[tuple[str, Any]]:
    """The model at a glance."""
    channels, height, width = input_size(run)
    params = run.record.get('params')
    found = (
        ('Architecture', code_span(run.architecture)),
        ('Parameters', None if params is None else short_number(params)),
        ('Image size', f'{height} x {width}' + ('' if channels == 3 else f', {channels} channels')),
        ('Dataset', f'{dataset_names(run, dataset_id)[0]} ({run.config["num_classes"]} classes)'),
        ('Training method', method_texts(run.record['task'])[0]),
        ('License', license),
    )
    return [(key, value) for key, value in found if value is not None]


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

    dataset = run.dataset.key if run.dataset else None
    methods = (run.record['task'], 'standard')
    for row in paper_rows():
        if (row['model'], row['dataset']) == (run.architecture, dataset) and row['method'] in methods:
            title = f'Paper, table {row["table"]}: {method_texts(row["method"])[0]}'
            rows.append({'title': title, 'top1': _percent(row['top1']), 'top5': '', 'robust': ''})
    return rows


def accuracy_table(rows: list[dict[str, str]]) -> Markdown:
    """The rows as a table; the column of robust accuracies is there if there are any."""
    columns = {'title': 'Model', 'top1': 'Top-1', 'top5': 'Top-5'}
    if any(row['robust'] for row in rows):
        columns['robust'] = 'Robust top-1'
    return _table(list(columns.values()), [[row[key] for key in columns] for row in rows])


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


def option_table(run: FinishedRun) -> Optional[Markdown]:
    """The options of the method and the features that they named, or None if it has no options."""
    options = run.record.get('task_options') or {}
    rows: list[tuple[str, str]] = [(code_span(key), format_value(value)) for key, value in options.items()]
    if blocks := run.record.get('blocks'):
        rows.append(('perturbed features', Markdown(', '.join(map(code_span, blocks)))))
    return _table(('Option', 'Value'), rows) if rows else None


def eta_table(run: FinishedRun) -> Optional[Markdown]:
    """L-ALFA's learned weight of each feature, or None."""
    eta = run.record.get('eta')
    if not eta:
        return None
    blocks = run.record.get('blocks') or [str(at) for at in range(len(eta))]
    rows = [(code_span(block), f'{value:.4f}') for block, value in zip(blocks, eta, strict=False)]
    return _table(('Feature', 'Eta'), rows)


def facts(run: FinishedRun) -> list[tuple[str, str]]:
    """Hyperparameters, time, hardware and versions, as far as the record has them."""
    record = run.record
    commit = record.get('commit')
    versions = record.get('versions') or {}
    found = (
        ('Epochs', record.get('epochs_done', record.get('epochs'))),
        ('Batch size', record.get('batch_size')),
        ('Learning rate', record.get('lr')),
        ('Seed', record.get('seed')),
        ('Training images', record.get('train_images')),
        ('Training time', None if record.get('seconds') is None else _time(record['seconds'])),
        ('Images per second', record.get('images_per_second')),
        ('Device', record.get('device')),
        ('Processes', record.get('num_processes')),
        ('Mixed precision', record.get('mixed_precision')),
        ('Versions', ', '.join(f'{package} {version}' for package, version in versions.items())),
        ('Commit of timm_alfa', commit and commit.replace('+', ', with uncommitted changes')),
    )
    shown = [(key, f'{value:.4g}' if isinstance(value, float) else value) for key, value in found]
    return [(key, str(value)) for key, value in shown if value not in (None, '')]


def command(run: FinishedRun) -> Markdown:
    """The command that started the run, and those that resumed it with other options, as a block of code."""
    record = run.record
    if not record.get('command'):
        return Markdown('It was not recorded.')
    continued = record.get('continued') or []
    precision = continued[0]['before'] if continued else record.get('mixed_precision')
    lines = [_launch(record['command'], precision)]
    for each in continued:
        lines.append(f'# resumed after epoch {each["epoch"]} with other options:')
        lines.append(_launch(each['command'], each['mixed_precision']))
    return code_block('\n'.join(lines), 'shell')


def _launch(words: Sequence[str], precision: Optional[str]) -> str:
    """A command line; a word with line breaks is escaped, so that it stays on its line."""
    return launch_command(*map(printable, words), mixed_precision=precision)


def _measured_row(title: str, run: FinishedRun) -> dict[str, str]:
    found = run.evaluation
    return {
        'title': title,
        'top1': _percent(found.top1),
        'top5': _percent(found.top5),
        'robust': _percent(found.robust_top1),
    }


def _percent(value: Optional[float]) -> str:
    return '' if value is None else f'{value:.2f}'


def _time(seconds: float) -> str:
    return f'{seconds / 3600:.2f} hours' if seconds >= 360 else f'{seconds:.0f} seconds'


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markdown:
    """A table whose cells are shown literally, except those that are Markdown already."""
    return Markdown(markdown_table(columns, [[escape(cell) for cell in row] for row in rows]))

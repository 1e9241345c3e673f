"""The model card: a template, filled from a run's record."""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from timm_alfa.errors import HubError
from timm_alfa.publishing.card_data import card_data, dataset_names
from timm_alfa.publishing.license import from_imagenet
from timm_alfa.publishing.snippets import snippets
from timm_alfa.tasks import TASKS
from timm_alfa.training.run_dir.finished import Run
from timm_alfa.utils.launcher import launch_command

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

TEMPLATE = Path(__file__).with_name('card.md.jinja')

_LICENSE_TEXT = "The weights: {license}. The data set's own terms may bind what is trained on it, too."
_IMAGENET_TEXT = (
    'Trained on ImageNet, or from weights that were: assume that its terms of access apply to these '
    'weights, that is, non-commercial research only.'
)


@functools.cache
def paper_rows() -> tuple[dict[str, Any], ...]:
    """The ALFA paper's accuracies on clean images: model, dataset (key of `DATASETS`), method, top1, table."""
    return tuple(json.loads(Path(__file__).with_name('paper.json').read_text(encoding='utf-8')))


def spell(value: Any) -> str:
    """An option's value for a reader: sizes of steps as fractions of 255, as they were typed."""
    if isinstance(value, float) and 0 < abs(value) * 255 < 16.5 and abs(value * 510 - round(value * 510)) < 1e-6:
        return f'{value * 255:g}/255'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(spell, value))
    return 'none' if value is None else f'{value:g}' if isinstance(value, float) else str(value)


def _spell_all(options: dict[str, Any]) -> str:
    return ', '.join(f'{key} {spell(value)}' for key, value in options.items())


def _method(task: str) -> tuple[str, str]:
    """Title and text of a method; of one that is not registered here, its name."""
    return (TASKS[task].title, TASKS[task].text) if task in TASKS else (task, '')


def _percent(value: Optional[float]) -> str:
    return '' if value is None else f'{value:.2f}'


def accuracy_rows(run: Run, standard: Optional[Run] = None) -> list[dict[str, str]]:
    """This run, the standard run beside it, and the paper's rows of the same model, data set and method.

    Raises:
        HubError: `standard` is not the baseline of this run.
    """
    runs = [('this run', run)]
    if standard is not None:
        _check_standard(run, standard)
        runs.append(('standard training, the same code', standard))
    rows = [
        {
            'title': title,
            'top1': _percent(each.evaluation.top1),
            'top5': _percent(each.evaluation.top5),
            'robust': _percent(each.evaluation.robust_top1),
        }
        for title, each in runs
    ]
    key = run.dataset.key if run.dataset else None
    task = run.record['task']
    for row in paper_rows():
        if (row['model'], row['dataset']) == (run.architecture, key) and row['method'] in (task, 'standard'):
            title = f'the paper (table {row["table"]}): {_method(row["method"])[0]}'
            rows.append({'title': title, 'top1': _percent(row['top1']), 'top5': '', 'robust': ''})
    return rows


def _check_standard(run: Run, standard: Run) -> None:
    faults = [] if standard.record['task'] == 'standard' else [f'its task is {standard.record["task"]}']
    for key in ('model', 'dataset', 'num_classes', 'epochs', 'batch_size', 'train_images'):
        ours, theirs = run.record.get(key), standard.record.get(key)
        if ours != theirs:
            faults.append(f'its {key} is {theirs}, this run has {ours}')
    if standard.evaluation.split != run.evaluation.split:
        faults.append(f'it was measured on {standard.evaluation.split}, this run on {run.evaluation.split}')
    attacks = [each.evaluation.attack for each in (standard, run)]
    if None not in attacks and attacks[0] != attacks[1]:
        faults.append(f'it was attacked with {_spell_all(attacks[0])}, this run with {_spell_all(attacks[1])}')
    if faults:
        raise HubError(f"'{standard.folder}' is not the standard run of '{run.folder}': {'; '.join(faults)}.")


def _facts(run: Run) -> list[tuple[str, str]]:
    """Versions, hardware and time, as far as the record has them."""
    record = run.record
    hours = record['seconds'] / 3600 if record.get('seconds') is not None else None
    spent = None if hours is None else f'{hours:.2f} hours' if hours >= 0.1 else f'{record["seconds"]:.0f} seconds'
    processes = record.get('num_processes')
    facts = (
        ('Epochs', record.get('epochs_done', record.get('epochs'))),
        ('Batch size', record.get('batch_size')),
        ('Learning rate', record.get('lr')),
        ('Seed', record.get('seed')),
        ('Training images', record.get('train_images')),
        ('Parameters', record.get('params')),
        ('Time', spent),
        ('Images a second', record.get('images_per_second')),
        ('Device', record.get('device')),
        ('Processes', processes),
        ('Mixed precision', record.get('mixed_precision')),
        ('Versions', ', '.join(f'{k} {v}' for k, v in (record.get('versions') or {}).items())),
        ("timm_alfa's commit", (record.get('commit') or '').replace('+', ', with changes that were not committed')),
    )
    return [
        (key, f'{value:.4g}' if isinstance(value, float) else str(value))
        for key, value in facts
        if value not in (None, '')
    ]


def _eta(run: Run) -> list[tuple[str, float]]:
    eta = run.record.get('eta') or []
    blocks = run.record.get('blocks') or [str(i) for i in range(len(eta))]
    return list(zip(blocks, eta, strict=False))


def _options(run: Run) -> list[tuple[str, str]]:
    options = dict(run.record.get('task_options') or {})
    if run.record.get('blocks'):
        options['features found'] = ', '.join(f'`{block}`' for block in run.record['blocks'])
    return [(key, spell(value)) for key, value in options.items()]


def build_card(
    run: Run,
    repo_id: str,
    revision: str = 'main',
    standard: Optional[Run] = None,
    license: Optional[str] = None,
    dataset_id: Optional[str] = None,
) -> 'ModelCard':
    """The card of a run.

    Args:
        run: What is published.
        repo_id: ORG/NAME.
        revision: The branch it goes to, which the card's snippets load from.
        standard: The run of standard training to compare with.
        license: As in `card_data`.
        dataset_id: As in `card_data`.

    Raises:
        HubError: `standard` is not the baseline of this run, or the terms are not known.
    """
    from huggingface_hub import ModelCard

    name = repo_id.partition('/')[2]
    data = card_data(run, name, license, dataset_id)
    record, found = run.record, run.evaluation
    title, text = _method(record['task'])
    rows = accuracy_rows(run, standard)
    plots = {
        key: file if (run.folder / file).is_file() else None
        for key, file in (('eta_plot', 'eta.png'), ('curves', 'curves.png'))
    }
    size = tuple(run.config['pretrained_cfg'].get('input_size', (3, 224, 224)))
    body = _render(
        name=name,
        architecture=run.architecture,
        dataset=dataset_names(run, dataset_id)[0],
        method_title=title,
        method_text=text,
        **{**vars(found), 'attack': _spell_all(found.attack or {})},
        best_epoch=record.get('best_epoch'),
        accuracies=rows,
        paper_note=any('the paper' in r['title'] for r in rows),
        options=_options(run),
        eta=_eta(run),
        facts=_facts(run),
        **plots,
        command=_command(record),
        test_reads=record.get('test_reads') or 1,
        snippets=snippets(repo_id, revision, run.architecture, size),
        limits_data=f'It knows the {run.config["num_classes"]} classes of its data set, at {size[1]}x{size[2]} pixels.',
        license_text=_IMAGENET_TEXT if from_imagenet(run, dataset_id) else _LICENSE_TEXT.format(license=data.license),
    )
    return ModelCard(f'---\n{data.to_yaml()}\n---\n\n{body}')


def _command(record: dict[str, Any]) -> str:
    """What began the run, with the launcher that gives it its precision, and what went on with other options."""
    if not record.get('command'):
        return '(not recorded)'
    later = record.get('continued') or ()
    first = later[0]['before'] if later else record.get('mixed_precision')
    lines = [launch_command(*record['command'], mixed_precision=first)]
    for each in later:
        lines.append(f'# after epoch {each["epoch"]}, with other options:')
        lines.append(launch_command(*each['command'], mixed_precision=each['mixed_precision']))
    return '\n'.join(lines)


def _render(**values) -> str:
    import jinja2  # torch needs it, too

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(**values)

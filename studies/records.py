"""results/runs/: the record that is kept of each run, one JSON file each."""

import csv
import json
import re
from pathlib import Path
from typing import Any, Mapping, Optional

from studies import ROOT
from studies.files import replace_text
from studies.jobs import Job, published_command, trained
from timm_alfa.options import long_flag

RUNS = ROOT / 'results' / 'runs'
# Keys of result.json. Those that name places on a machine (command, run, dataset as read) are left out.
KEPT = (
    'status',
    'model',
    'task',
    'task_options',
    'blocks',
    'num_classes',
    'epochs',
    'epochs_done',
    'batch_size',
    'lr',
    'train_images',
    'val_images',
    'test_images',
    'labels_sha256',
    'best_epoch',
    'val_top1',
    'val_top5',
    'val_loss',
    'val_correct',
    'test_top1',
    'test_top5',
    'test_loss',
    'test_correct',
    'test_split',
    'test_reads',
    'unused_images',
    'unused_top1',
    'unused_top5',
    'unused_loss',
    'unused_correct',
    'robust_top1',
    'eta',
    'seconds',
    'seconds_per_epoch',
    'images_per_second',
    'params',
    'mixed_precision',
    'num_processes',
    'cuda_graph',
    'channels_last',
    'device',
    'versions',
    'commit',
    'skipped_updates',
    'skipped_images',
)
# How a run was made, beside its recipe: options that change a result in its last bits at most.
HOW = ('cuda_graph', 'channels_last')
HISTORY = ('train_loss', 'train_loss_clean', 'train_loss_adv', 'train_top1', 'delta_norm', 'val_loss', 'val_top1')


def make_record(job: Job, run: Path, threads: int, jobs: int) -> dict[str, Any]:
    """Makes the record of a finished run.

    Args:
        job: What was run.
        run: The run folder.
        threads: CPU threads the run had.
        jobs: Number of processes at a time on the machine; the record counts the runs in them.
    """
    result = json.loads((run / 'result.json').read_text(encoding='utf-8'))
    record = dict(
        name=job.name,
        recipe=job.recipe.name,
        seed=job.seed,
        epochs_scale=job.scale,
        options=job.options,
        dataset=job.options['dataset'],
        **{key: result.get(key) for key in KEPT},
        threads=threads,
        jobs=jobs * result.get('runs_together', 1),
        changed_after=[each['epoch'] for each in result.get('continued') or ()],
        reproduce=published_command(job, flags_of(result)),
        history=read_history(run / 'summary.csv'),
    )
    robust = run / 'robust.json'
    if robust.exists():
        record['robust_top1'] = json.loads(robust.read_text(encoding='utf-8'))['robust_top1']
    return record


def flags_of(result: Mapping[str, Any]) -> list[str]:
    """The flags of how a run was made that are no part of its recipe, such as --cuda-graph.

    Args:
        result: Its record; older ones do not say.
    """
    return [long_flag(key) for key in HOW if result.get(key) is True]


def read_history(summary: Path) -> dict[str, list]:
    """Columns of summary.csv, to five digits.

    What a method reports per block (NAME_0, NAME_1, ...) becomes one column NAME with a list for each epoch.
    """
    with summary.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    history: dict[str, list] = {}
    for name in HISTORY:
        if any(row.get(name) for row in rows):
            history[name] = [_number(row[name]) for row in rows]
    for name, keys in vector_columns(rows[0] if rows else ()).items():
        history[name] = [[_number(row[key]) for key in keys] for row in rows]
    return history


def vector_columns(columns) -> dict[str, list[str]]:
    """Columns that belong together, NAME_0, NAME_1, ..., in the order of their numbers, by name."""
    found: dict[str, list[str]] = {}
    for column in columns:
        match = re.fullmatch(r'(\w+)_\d+', column)
        if match:
            found.setdefault(match[1], []).append(column)
    return {name: sorted(keys, key=lambda key: int(key.rpartition('_')[2])) for name, keys in found.items()}


def _number(text: str) -> Optional[float]:
    return float(f'{float(text):.5g}') if text else None


def dump(record: dict[str, Any]) -> str:
    """JSON with one key per line, and each column of the history on one line."""
    lines = []
    for key, value in record.items():
        if key == 'history':
            inner = ',\n'.join(f'  {json.dumps(name)}: {json.dumps(column)}' for name, column in value.items())
            lines.append(f' "history": {{\n{inner}\n }}')
        else:
            lines.append(f' {json.dumps(key)}: {json.dumps(value)}')
    return '{\n' + ',\n'.join(lines) + '\n}\n'


def save(record: dict[str, Any], folder: Path) -> Path:
    """Writes a record atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{record["name"]}.json'
    replace_text(path, dump(record))
    return path


def load(path: Path) -> Optional[dict[str, Any]]:
    """A record; None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, json.JSONDecodeError):
        return None


def load_all(folder: Path = RUNS) -> list[dict[str, Any]]:
    """The records of all finished runs, by name."""
    found = (load(path) for path in sorted(folder.glob('*.json')))
    return [record for record in found if record is not None and record.get('status') == 'finished']


def matches(record: Optional[dict[str, Any]], job: Job) -> bool:
    """Whether a record belongs to a job: finished, complete, and with the recipe's present options.

    Records from before the recipe scored more are complete: they are not run again for it.
    """
    if record is None or record.get('status') != 'finished':
        return False
    if job.recipe.robust and record.get('robust_top1') is None:
        return False
    if trained(record['options']) != trained(job.options):
        return False
    return (record['seed'], record['mixed_precision']) == (job.seed, job.precision)

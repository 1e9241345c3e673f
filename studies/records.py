"""results/runs/: what stays of a run, one JSON file each."""
import csv
import json
import os
from pathlib import Path
from typing import Any, Optional

from studies import ROOT
from studies.jobs import Job, published_command

RUNS = ROOT / 'results' / 'runs'
# Of result.json; what names places of a machine (command, run, dataset as read) stays behind.
KEPT = (
    'status', 'model', 'task', 'task_options', 'blocks', 'num_classes', 'epochs', 'epochs_done', 'batch_size', 'lr',
    'train_images', 'val_images', 'test_images', 'best_epoch', 'val_top1', 'val_top5', 'val_loss', 'test_top1',
    'test_top5', 'test_loss', 'test_split', 'test_reads', 'robust_top1', 'eta', 'seconds', 'seconds_per_epoch',
    'images_per_second', 'params', 'mixed_precision', 'num_processes', 'device', 'versions', 'commit',
    'skipped_updates', 'skipped_images')
HISTORY = ('train_loss', 'train_loss_clean', 'train_loss_adv', 'train_top1', 'delta_norm', 'val_loss', 'val_top1')


def make_record(job: Job, run: Path, threads: int, jobs: int) -> dict[str, Any]:
    """The record of a finished run.

    Args:
        run: Its folder.
        threads: CPU threads it had.
        jobs: Runs side by side on the machine.
    """
    result = json.loads((run / 'result.json').read_text(encoding='utf-8'))
    record = dict(
        name=job.name, recipe=job.recipe.name, seed=job.seed, epochs_scale=job.scale, options=job.options,
        dataset=job.options['dataset'], **{key: result.get(key) for key in KEPT}, threads=threads, jobs=jobs,
        changed_after=[each['epoch'] for each in result.get('continued') or ()],
        reproduce=published_command(job), history=history(run / 'summary.csv'))
    robust = run / 'robust.json'
    if robust.exists():
        record['robust_top1'] = json.loads(robust.read_text(encoding='utf-8'))['robust_top1']
    return record


def history(summary: Path) -> dict[str, list]:
    """Columns of summary.csv, five digits each; eta's as one list an epoch."""
    with summary.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    columns = {name: [_short(row[name]) for row in rows] for name in HISTORY if rows and row_has(rows, name)}
    etas = sorted((key for key in (rows[0] if rows else ()) if key.startswith('eta_')), key=lambda k: int(k[4:]))
    if etas:
        columns['eta'] = [[_short(row[key]) for key in etas] for row in rows]
    return columns


def row_has(rows: list[dict[str, str]], name: str) -> bool:
    return any(row.get(name) for row in rows)


def _short(text: str) -> Optional[float]:
    return float(f'{float(text):.5g}') if text else None


def dump(record: dict[str, Any]) -> str:
    """JSON with a key a line and its columns on one line each."""
    lines = []
    for key, value in record.items():
        if key == 'history':
            inner = ',\n'.join(f'  {json.dumps(name)}: {json.dumps(column)}' for name, column in value.items())
            lines.append(f' "history": {{\n{inner}\n }}')
        else:
            lines.append(f' {json.dumps(key)}: {json.dumps(value)}')
    return '{\n' + ',\n'.join(lines) + '\n}\n'


def save(record: dict[str, Any], folder: Path) -> Path:
    """Writes a record, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['name']}.json"
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(dump(record), encoding='utf-8')
    os.replace(temporary, path)
    return path


def load(path: Path) -> Optional[dict[str, Any]]:
    """A record, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, json.JSONDecodeError):
        return None


def load_all(folder: Path = RUNS) -> list[dict[str, Any]]:
    """All records of finished runs, by name."""
    found = (load(path) for path in sorted(folder.glob('*.json')))
    return [record for record in found if record is not None and record.get('status') == 'finished']


def matches(record: Optional[dict[str, Any]], job: Job) -> bool:
    """Whether a record is of this very job: finished, and with the options that its recipe has today."""
    return (record is not None and record.get('status') == 'finished' and record['options'] == job.options
            and record['seed'] == job.seed and record['mixed_precision'] == job.precision
            and not (job.recipe.robust and record.get('robust_top1') is None))

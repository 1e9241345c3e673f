"""Accuracy under attack, as validate.py measured it for a run's weights after training."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

from timm_alfa.errors import HubError
from timm_alfa.publishing.record_checks import is_count, is_mapping, is_number, is_text
from timm_alfa.publishing.verify import check_accuracy
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.plain_data import parse_json
from timm_alfa.utils.program import launch_command, spelling
from timm_alfa.utils.redact import redact


def read_records(path: Union[str, Path]) -> list[dict[str, Any]]:
    """Read validate.py's records: the lines of a file that are JSON.

    Raises:
        HubError: It cannot be read, or holds none.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
        records = [parse_json(line) for line in lines if line.startswith('{')]
        error = _unusable(records)
    except OSError as failed:
        error = failed.strerror
    except ValueError as failed:
        error = str(failed)
    if error:
        raise HubError(
            f"--validated '{path}' cannot be used: {error}. It must hold the last line of the output of "
            f'{" ".join(spelling("validate").start)} --checkpoint RUN --robust > FILE'
        )
    return records


def _unusable(records: list[dict[str, Any]]) -> Optional[str]:
    """Why no record can be looked up by the sha256 of its weights, or None."""
    if not records:
        return 'it holds no record'
    for record in records:
        sha256 = record.get('checkpoint_sha256')
        if sha256 is not None and not is_text(sha256):
            return 'its checkpoint_sha256 is not text'
    return None


def with_robust(records: list[dict[str, Any]], runs: list[FinishedRun]) -> list[FinishedRun]:
    """Add the accuracy under attack to the runs whose weights, identified by sha256, the records measured.

    Raises:
        HubError: A record is of other weights or of another split, or was made without --robust.
        CheckpointError: Its clean accuracy is not the run's.
    """
    by_sha256 = {record.get('checkpoint_sha256'): record for record in records}
    sums = [sha256_of(run.weights) for run in runs]
    if foreign := sorted(str(record.get('checkpoint')) for key, record in by_sha256.items() if key not in sums):
        words = (*spelling('validate').launch, '--checkpoint', runs[0].folder, '--robust')
        raise HubError(
            f"--validated has a record of '{foreign[0]}', whose checkpoint_sha256 is not that of the "
            f'weights that are published: {launch_command(*words)}'
        )
    return [_with_record(run, by_sha256[key]) if key in by_sha256 else run for run, key in zip(runs, sums, strict=True)]


def _with_record(run: FinishedRun, record: dict[str, Any]) -> FinishedRun:
    found = run.evaluation
    if errors := list(_errors(found, record)):
        words = ('--checkpoint', run.folder, '--split', found.split, '--robust')
        advice = f'Run: {launch_command(*spelling("validate").launch, *words)}'
        if ' ' in found.split:
            advice = 'A held-out part of the training split cannot be scored separately: leave --validated out.'
        raise HubError(f"--validated does not fit '{run.folder}': {'; '.join(errors)}. {advice}")
    check_accuracy(found.top1, record['top1'], record['count'], found.images, found.split)
    robust, attack = record['robust_top1'], redact(record['attack'])
    return dataclasses.replace(
        run,
        record={**run.record, 'robust_top1': robust, 'attack': attack},
        evaluation=dataclasses.replace(found, robust_top1=robust, attack=attack),
    )


def _errors(found, record: dict[str, Any]) -> Iterator[str]:
    """Why a record is not one of a run's accuracy under attack."""
    count = record.get('count')
    if record.get('robust_top1') is None or not record.get('attack'):
        yield 'it was made without --robust'
    elif not is_mapping(record['attack']):
        yield f'its attack is {record["attack"]!r}, expected a mapping'
    for key, value in (('top1', record.get('top1')), ('robust_top1', record.get('robust_top1') or 0)):
        if not (is_number(value) and 0 <= value <= 100):
            yield f'its {key} is {value!r}, expected a percentage'
    if (attacked := record.get('robust_count', count)) != count:
        yield f'{attacked} of {count} images were attacked: leave --max-images out'
    if record.get('split') != found.split or count != (found.images or count) or not is_count(count):
        yield (
            f'it is of {count} images of split {record.get("split")}, the accuracy of the run '
            f'of {found.images or "those"} of split {found.split}'
        )

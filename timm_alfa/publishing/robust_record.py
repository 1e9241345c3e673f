"""What validate.py measured of a run's weights after training: accuracy under attack."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Union

from timm_alfa.errors import HubError
from timm_alfa.publishing.verify import check_reproduced
from timm_alfa.training.run_dir.finished import Run
from timm_alfa.utils.files import sha256_of


def read_validated(path: Union[str, Path]) -> list[dict[str, Any]]:
    """validate.py's records: the lines of a file that are JSON.

    Raises:
        HubError: It cannot be read, or holds none.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
        records = [json.loads(line) for line in lines if line.startswith('{')]
        fault = None if records else 'it holds no record'
    except (OSError, ValueError) as error:
        fault = str(error)
    if fault:
        raise HubError(
            f"--validated '{path}' cannot be used: {fault}. Give a file with the last line of validate.py's "
            'output: validate.py --checkpoint RUN --robust > FILE'
        )
    return records


def with_robust(records: list[dict[str, Any]], runs: list[Run]) -> list[Run]:
    """Runs with the accuracy under attack that records state of their weights, told apart by sha256.

    Raises:
        HubError: A record is of other weights or of another split, or was made without --robust.
        CheckpointError: Its clean accuracy is not the run's.
    """
    own = {record.get('checkpoint_sha256'): record for record in records}
    sums = [sha256_of(run.weights) for run in runs]
    if strange := sorted(str(record.get('checkpoint')) for sha256, record in own.items() if sha256 not in sums):
        raise HubError(
            f"--validated has a record of '{strange[0]}', whose checkpoint_sha256 is not that of the "
            f'weights that are published: validate.py --checkpoint {runs[0].folder} --robust'
        )
    return [_measured(run, own[sha256]) if sha256 in own else run for run, sha256 in zip(runs, sums, strict=True)]


def _measured(run: Run, record: dict[str, Any]) -> Run:
    found, robust, attack = run.evaluation, record.get('robust_top1'), record.get('attack')
    faults = [] if robust is not None and attack else ['it was made without --robust']
    if record.get('split') != found.split or record.get('count') != (found.images or record.get('count')):
        faults.append(
            f'it is of {record.get("count")} images of split {record.get("split")}, the accuracy of the run '
            f'of {found.images or "those"} of split {found.split}'
        )
    if faults:
        advice = (
            f'validate.py --checkpoint {run.folder} --split {found.split} --robust'
            if ' ' not in found.split
            else 'A held-out part of the training split cannot be scored apart: leave --validated out.'
        )
        raise HubError(f"--validated does not fit '{run.folder}': {'; '.join(faults)}. {advice}")
    check_reproduced(found.top1, record['top1'], record['count'], found.images, found.split)
    return dataclasses.replace(
        run,
        record={**run.record, 'robust_top1': robust, 'attack': attack},
        evaluation=dataclasses.replace(found, robust_top1=robust, attack=attack),
    )

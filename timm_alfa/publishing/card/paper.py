"""The ALFA paper's accuracies, and which runs may be compared with them."""

import functools
import json
from pathlib import Path
from typing import Any, Iterator

from timm_alfa.training.run_dir.finished import FinishedRun

# Epochs of the paper's protocols, by the key of their dataset.
EPOCHS = {'c10': 200, 'c100': 200, 'in1k': 90}
# A run with a smaller part of the images or epochs is another experiment. A tenth may be held out to validate on.
_LEAST = 0.9


@functools.cache
def paper_rows() -> tuple[dict[str, Any], ...]:
    """The ALFA paper's accuracies on clean images: model, dataset (key of `DATASETS`), method, top1, table."""
    return tuple(json.loads(Path(__file__).with_name('paper.json').read_text(encoding='utf-8')))


def rows_of(run: FinishedRun) -> list[dict[str, Any]]:
    """The paper's rows with the model and dataset of a run, of its method and of standard training."""
    key = run.dataset.key if run.dataset else None
    wanted = (run.architecture, key, {run.record['task'], 'standard'})
    return [row for row in paper_rows() if (row['model'], row['dataset']) == wanted[:2] and row['method'] in wanted[2]]


def differences(run: FinishedRun) -> Iterator[str]:
    """Why the paper's accuracies say nothing about a run on the same dataset."""
    record, dataset, found = run.record, run.dataset, run.evaluation
    if dataset is None or dataset.key not in EPOCHS:
        return
    train, test = dataset.images
    if (images := record.get('train_images') or 0) < _LEAST * train:
        yield f'it trained on {images:,} of the {train:,} images'
    if (epochs := record.get('epochs_done') or record.get('epochs') or 0) < _LEAST * EPOCHS[dataset.key]:
        yield f'it trained for {epochs} epochs, not {EPOCHS[dataset.key]}'
    if found.images != test:
        yield f'it was evaluated on {found.images or "an unknown number of"} images, the paper on {test:,}'
    if run.args.get('pretrained') or run.args.get('initial_checkpoint'):
        yield 'it started from pretrained weights'

"""--probe: what a search does at each block of the run's model, on the run's data; trains nothing."""

import json
from pathlib import Path
from typing import Any

import torch

from timm_alfa.probing.probe import probe
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.config import TrainConfig, task_key
from timm_alfa.training.run import Run
from timm_alfa.training.run_dir.folder import RunFolder
from timm_alfa.training.start import restore
from timm_alfa.utils.distributed import on_main
from timm_alfa.utils.text import printable

SEARCH = ('steps', 'norm')


def probe_run(run: Run, folder: Path) -> None:
    """Prints a table of what was measured and last one line of JSON, and writes probe.json and probe.png.

    The batch is the first one of the run or, with --resume, of the epoch that the run stands in, whose weights are
    probed. With several processes it is that of the first.

    Args:
        folder: The run's.
    """
    # the weights and the batch
    destination = RunFolder(folder)
    state = restore(run, destination, Totals(run.accelerator.device))
    batch = first_batch(run, state.epoch)
    model = run.unsharded(run.model)

    # every process makes the passes: synchronized batch norms wait for each other
    options = probe_options(run.config)
    with torch.compiler.set_stance('force_eager'), run.accelerator.autocast():
        result = probe(model, *batch, criterion=run.task.criterion, **options)

    # what was found
    title = f'{run.config.model.model} on {run.config.data.short_name}, {len(batch[0])} images'
    content = dict(
        model=run.config.model.model,
        dataset=run.config.data.short_name,
        images=len(batch[0]),
        updates=state.updates,
        mixed_precision=run.accelerator.mixed_precision,
        **result.to_dict(),
    )
    on_main(run.accelerator, save, destination, content, result.to_png(title))
    if run.accelerator.is_main_process:
        print(f'{printable(title)}\n{result}\n{printable(f"written to {folder}: probe.json, probe.png")}')
        print(json.dumps(dict(status='probed', **content, run=str(folder))), flush=True)


def save(folder: RunFolder, content: dict[str, Any], picture: bytes) -> None:
    """Writes what was found into a folder, which it makes if needed."""
    folder.create()
    folder.save_probe(content, picture)


def first_batch(run: Run, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first batch of an epoch; the loaders cannot be used afterwards."""
    run.data.train.set_epoch(epoch, 0)
    try:
        return next(iter(run.data.train))
    finally:
        run.data.close()


def probe_options(config: TrainConfig) -> dict[str, Any]:
    """The run's own search if its method searches at features, and its blocks if they were given; else all stages."""
    options = vars(config.task_options)
    chosen = {}
    if 'blocks' in options:
        chosen = {name: options[name] for name in SEARCH if name in options}
    if task_key(config.task_prefix, 'blocks') in config.given:
        chosen['blocks'] = options['blocks']
    return chosen

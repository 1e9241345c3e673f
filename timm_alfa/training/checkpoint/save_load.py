"""What a state holds: everything needed to go on, bit for bit."""

import json
import pickle
from pathlib import Path
from typing import Any, Optional

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from timm_alfa.errors import CheckpointError, first_line
from timm_alfa.replay.norms import running_buffers
from timm_alfa.training.checkpoint.resume import division, move_position
from timm_alfa.training.checkpoint.store import CheckpointStore, state_folders
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.checkpoint.weights import load_weights, plain_state
from timm_alfa.training.console import logger
from timm_alfa.training.metrics import Totals
from timm_alfa.utils.distributed import gather, on_main
from timm_alfa.utils.fsdp import distribute_state, full_state

_SCALE = 'loss_scale.'


def process_state(run, totals: Totals) -> dict[str, torch.Tensor]:
    """What differs between processes: running statistics, of the average too, the epoch's sums, a search's scale."""
    own = {f'norms.{at}': buffer for at, buffer in enumerate(running_buffers(*with_norms(run)))}
    if run.task.loss_scale is not None:
        own.update({f'{_SCALE}{key}': torch.tensor(value) for key, value in run.task.loss_scale.state_dict().items()})
    return {name: tensor.detach().cpu().clone() for name, tensor in {**own, 'totals': totals.sums}.items()}


def with_norms(run) -> list[nn.Module]:
    """What has running statistics: the task, and the average."""
    return [run.task, *([run.ema.module] if run.ema is not None else [])]


def save_state(states: CheckpointStore, run, state: TrainState, totals: Totals, options: dict[str, Any]) -> None:
    """Saves all of a run. Every process calls it; the main one writes.

    Raises:
        CheckpointError: It could not be written; earlier states are still there.
    """
    processes = gather(run.accelerator, [process_state(run, totals)])
    skipped = skipped_images(run)
    # of what is sharded every process has a part, so all take part before the main one writes
    keep = run.accelerator.is_main_process
    weights = plain_state(run.model, keep)
    average = plain_state(run.ema.module, keep) if run.ema is not None else None
    optimizer = full_state(run.optimizer.state_dict(), keep)
    task = full_state(run.task.get_task_state(), keep)

    def write_files(folder: Path) -> None:
        save_file(weights, folder / 'weights.safetensors')
        if average is not None:
            save_file(average, folder / 'average.safetensors')
        for rank, tensors in enumerate(processes):
            save_file(tensors, folder / f'process-{rank}.safetensors')
        torch.save(optimizer, folder / 'optimizer.pt')
        torch.save(task, folder / 'task.pt')
        scaler = run.accelerator.scaler
        content = dict(
            progression=state.to_dict(),
            options=options,
            num_processes=len(processes),
            mixed_precision=run.accelerator.mixed_precision,
            loader=run.data.loader,
            scaler=scaler.state_dict() if scaler is not None else None,
            skipped=skipped,
        )
        (folder / 'state.json').write_text(json.dumps(content, indent=1))

    on_main(run.accelerator, states.write, state.updates, write_files)


def skipped_images(run) -> dict[str, list[int]]:
    """Corrupt images left out so far, by part, over all processes."""
    parts = {name: getattr(run.data, name) for name in ('train', 'val', 'test')}
    return {
        name: sorted(set(gather(run.accelerator, sorted(part.skipped_indices))))
        for name, part in parts.items()
        if part is not None
    }


def read_state(path: Path) -> Optional[tuple[Path, dict[str, Any]]]:
    """The newest usable state in a `last/` folder and its state.json; None if there is none."""
    for folder in reversed(state_folders(path)):
        try:
            return folder, json.loads((folder / 'state.json').read_text())
        except (OSError, ValueError):
            logger.warning("warning: state '%s' cannot be read: passed over", folder)
    return None


def load_state(folder: Path, content: dict[str, Any], run, totals: Totals, changed: bool = False) -> TrainState:
    """Puts a run where a state stands. Every process calls it and reads the files; sharded, they wait for each other.

    Args:
        folder: The state's.
        content: Its state.json.
        totals: Takes up the sums of the epoch at hand.
        changed: Options differ from the state's: the optimizer keeps the hyperparameters it was built with.

    Raises:
        CheckpointError: The state does not fit the run, or holds what could run code.
    """
    rank, processes = run.accelerator.process_index, content['num_processes']
    try:
        load_weights(run.model, load_file(folder / 'weights.safetensors'), folder)
        averaged = run.ema is not None and (folder / 'average.safetensors').is_file()
        if averaged:
            load_weights(run.ema.module, load_file(folder / 'average.safetensors'), folder)
        _load_optimizer(run.optimizer, _load_pickle(folder / 'optimizer.pt'), changed)
        run.task.load_task_state(_load_pickle(folder / 'task.pt'))
        if run.accelerator.scaler is not None and content['scaler']:
            run.accelerator.scaler.load_state_dict(content['scaler'])
        _load_process(folder, rank, processes, run, totals, with_norms(run) if averaged else [run.task])
        if run.ema is not None and not averaged:
            run.ema.set(run.model)  # averaging begins here, and not with the random weights it was built from
    except CheckpointError:
        raise
    except Exception as error:  # of damaged or foreign files, readers raise whatever their bytes lead them to
        raise CheckpointError(f"state '{folder}' does not fit this run: {first_line(error)}.") from error
    for name, indices in content['skipped'].items():
        if (part := getattr(run.data, name)) is not None:  # --val-fraction may be another one now
            part.skipped_indices.update(indices)
    state = TrainState(**content['progression'])
    if division(content['options'], processes) != division(run.config.flat(), run.accelerator.num_processes):
        move_position(state, content, run)
    if run.schedule is not None:
        run.schedule.step_update(state.updates)
    return state


def _load_optimizer(optimizer, content: dict[str, Any], changed: bool) -> None:
    """An optimizer's state; its groups come with the hyperparameters of then, which give way where options changed."""
    built = [{key: value for key, value in group.items() if key != 'params'} for group in optimizer.param_groups]
    optimizer.load_state_dict(distribute_state(content, optimizer))
    for group, own in zip(optimizer.param_groups, built, strict=True) if changed else ():
        group.update(own)


def _load_process(folder: Path, rank: int, processes: int, run, totals: Totals, modules: list[nn.Module]) -> None:
    own = load_file(folder / f'process-{rank % processes}.safetensors')
    for at, buffer in enumerate(running_buffers(*modules)):
        buffer.data.copy_(own[f'norms.{at}'])
    scale = {key.removeprefix(_SCALE): value.item() for key, value in own.items() if key.startswith(_SCALE)}
    if run.task.loss_scale is not None and scale:
        run.task.loss_scale.load_state_dict(scale)
    if processes == run.accelerator.num_processes:
        totals.sums.copy_(own['totals'])
    elif rank == 0:
        totals.sums.copy_(sum(load_file(folder / f'process-{each}.safetensors')['totals'] for each in range(processes)))


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{path}' holds more than tensors, so that loading it could run code: refused."
        ) from error

"""What a state holds: everything that is needed to resume a run bit for bit."""

import json
from pathlib import Path
from typing import Any, Optional

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from timm_alfa.errors import CheckpointError, first_line
from timm_alfa.replay.norms import running_buffers
from timm_alfa.training.checkpoint.resume import division, move_position
from timm_alfa.training.checkpoint.state_file import content_errors
from timm_alfa.training.checkpoint.store import MARKER, CheckpointStore, damaged_states, number, state_folders
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.checkpoint.weights import load_tensors_only, load_weights, plain_state
from timm_alfa.training.metrics import Totals
from timm_alfa.utils.console import logger
from timm_alfa.utils.distributed import gather, on_main
from timm_alfa.utils.fsdp import distribute_state, full_state
from timm_alfa.utils.plain_data import read_json

_SCALE = 'loss_scale.'


def process_state(run, totals: Totals) -> dict[str, torch.Tensor]:
    """What differs between processes: running statistics, also of the EMA, the epoch's sums, and a loss scale."""
    state = {f'norms.{at}': buffer for at, buffer in enumerate(running_buffers(*with_norms(run)))}
    if run.task.loss_scale is not None:
        for key, value in run.task.loss_scale.state_dict().items():
            state[f'{_SCALE}{key}'] = torch.tensor(value)
    state['totals'] = totals.sums
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def with_norms(run) -> list[nn.Module]:
    """The modules that have running statistics: the task, and the EMA of the model."""
    return [run.task] if run.ema is None else [run.task, run.ema.module]


def save_state(store: CheckpointStore, run, state: TrainState, totals: Totals, options: dict[str, Any]) -> None:
    """Saves everything that is needed to resume a run. Every process calls it; the main one writes.

    Args:
        options: The run's flat options, redacted.

    Raises:
        CheckpointError: It could not be written; earlier states are still there.
    """
    # what is sharded has a part in every process: all of them take part before the main one writes
    keep = run.accelerator.is_main_process
    processes = gather(run.accelerator, [process_state(run, totals)])
    skipped = skipped_images(run)
    weights = plain_state(run.model, keep)
    ema = plain_state(run.ema.module, keep) if run.ema is not None else None
    optimizer = full_state(run.optimizer.state_dict(), keep)
    task = full_state(run.task.get_task_state(), keep)

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

    def write_files(folder: Path) -> None:
        save_file(weights, folder / 'weights.safetensors')
        if ema is not None:
            save_file(ema, folder / 'average.safetensors')
        for rank, tensors in enumerate(processes):
            save_file(tensors, folder / f'process-{rank}.safetensors')
        torch.save(optimizer, folder / 'optimizer.pt')
        torch.save(task, folder / 'task.pt')
        (folder / 'state.json').write_text(json.dumps(content, indent=1))

    on_main(run.accelerator, store.write, state.updates, write_files)


def skipped_images(run) -> dict[str, list[int]]:
    """Indices of the corrupt images left out so far, by part of the dataset, over all processes."""
    skipped = {}
    for name in ('train', 'val', 'test'):
        part = getattr(run.data, name)
        if part is not None:
            indices = gather(run.accelerator, sorted(part.skipped_indices))
            skipped[name] = sorted(set(indices))
    return skipped


def read_state(path: Path) -> Optional[tuple[Path, dict[str, Any]]]:
    """The newest usable state in a `last/` folder and its state.json; None if there are no states.

    Raises:
        CheckpointError: Its state.json holds what train.py does not write, or none of the states is usable: training
            from the beginning would delete what is left of them.
    """
    damaged = damaged_states(path)
    for folder in reversed(state_folders(path)):
        try:
            content = read_json(folder / 'state.json')
        except (OSError, ValueError):
            damaged.append(folder)
            continue
        for each in damaged:
            if number(each) > number(folder):  # an older one may be what is left of removing it
                logger.warning("warning: state '%s' is damaged: ignored", each)
        if found := list(content_errors(content)):
            raise CheckpointError(f"state '{folder}' cannot be used, its state.json is invalid: {'; '.join(found)}.")
        return folder, content
    if damaged:
        raise CheckpointError(
            f"--resume: no state in '{path}' is usable. '{damaged[-1]}' is damaged: its files are not those that its "
            f"marker '{MARKER}' lists, as after a copy that was cut short. Copy it again; or start from the beginning "
            'with another --experiment, or after removing that folder.'
        )
    return None


def load_state(folder: Path, content: dict[str, Any], run, totals: Totals, changed: bool = False) -> TrainState:
    """Restores a run from a state. Every process calls it and reads the files; if sharded, they wait for each other.

    Args:
        folder: The state's.
        content: Its state.json.
        totals: Receives the sums of the current epoch.
        changed: Options differ from the state's: the optimizer keeps the hyperparameters it was built with.

    Raises:
        CheckpointError: The state does not fit the run, or holds something that could run code.
    """
    try:
        _load_files(folder, content, run, totals, changed)
    except CheckpointError:
        raise
    except Exception as error:  # a reader raises whatever the bytes of a damaged file lead it to
        raise CheckpointError(f"state '{folder}' does not fit this run: {first_line(error)}.") from error

    for name, indices in content['skipped'].items():
        part = getattr(run.data, name)
        if part is not None:  # another --val-fraction may have removed it
            part.skipped_indices.update(indices)

    state = TrainState(**content['progression'])
    now = division(run.config.flat(), run.accelerator.num_processes)
    if division(content['options'], content['num_processes']) != now:
        move_position(state, content, run)
    if run.schedule is not None:
        run.schedule.step_update(state.updates)
    return state


def _load_files(folder: Path, content: dict[str, Any], run, totals: Totals, changed: bool) -> None:
    load_weights(run.model, load_file(folder / 'weights.safetensors'), folder)
    with_ema = run.ema is not None and (folder / 'average.safetensors').is_file()
    if with_ema:
        load_weights(run.ema.module, load_file(folder / 'average.safetensors'), folder)

    _load_optimizer(run.optimizer, load_tensors_only(folder / 'optimizer.pt', 'optimizer state'), changed)
    run.task.load_task_state(load_tensors_only(folder / 'task.pt', 'task state'))
    if run.accelerator.scaler is not None and content['scaler']:
        run.accelerator.scaler.load_state_dict(content['scaler'])

    modules = with_norms(run) if with_ema else [run.task]
    _load_process(folder, content['num_processes'], run, totals, modules)
    if run.ema is not None and not with_ema:
        run.ema.set(run.model)  # the EMA starts here, and not with the random weights it was built from


def _load_optimizer(optimizer, content: dict[str, Any], changed: bool) -> None:
    """Loads an optimizer's state, which has the hyperparameters of its run; if options changed, those built stay."""
    built = []
    for group in optimizer.param_groups:
        built.append({key: value for key, value in group.items() if key != 'params'})
    optimizer.load_state_dict(distribute_state(content, optimizer))
    if changed:
        for group, own in zip(optimizer.param_groups, built, strict=True):
            group.update(own)
        place_steps(optimizer)


def place_steps(optimizer) -> None:
    """Moves the counts of steps (Adam's) to where the groups' forms of the optimizer keep them.

    Fused and capturable forms keep them on the device, as float32, and the others on the host. What `load_state_dict`
    does follows the form that saved them. Optimizers that have no fused form keep theirs where they are.
    """
    for group in optimizer.param_groups:
        if 'fused' not in group:
            continue
        on_device = group.get('fused') or group.get('capturable')
        for parameter in group['params']:
            state = optimizer.state.get(parameter, {})
            if isinstance(state.get('step'), torch.Tensor):
                place = parameter.device if on_device else torch.device('cpu')
                state['step'] = state['step'].to(place, torch.float32)


def _load_process(folder: Path, processes: int, run, totals: Totals, modules: list[nn.Module]) -> None:
    """Loads what differs between processes; `processes` of them saved the state."""
    rank = run.accelerator.process_index
    own = load_file(folder / f'process-{rank % processes}.safetensors')

    for at, buffer in enumerate(running_buffers(*modules)):
        buffer.data.copy_(own[f'norms.{at}'])

    scale = {key.removeprefix(_SCALE): value.item() for key, value in own.items() if key.startswith(_SCALE)}
    if run.task.loss_scale is not None and scale:
        run.task.loss_scale.load_state_dict(scale)

    if processes == run.accelerator.num_processes:
        _load_sums(folder, own['totals'], totals)
    elif rank == 0:
        saved = [load_file(folder / f'process-{each}.safetensors')['totals'] for each in range(processes)]
        _load_sums(folder, sum(saved[1:], start=saved[0]), totals)


def _load_sums(folder: Path, saved: torch.Tensor, totals: Totals) -> None:
    """Loads the sums of the current epoch. A state from before a column was added has no sum of it.

    Raises:
        CheckpointError: They are those of a later version of timm_alfa, in the middle of an epoch.
    """
    known = saved.shape[1] if saved.dim() == 2 and len(saved) == 2 else 0
    if 0 < known <= totals.sums.shape[1]:
        totals.sums.zero_()
        totals.sums[:, :known].copy_(saved)
    elif saved.any():  # between epochs there is nothing to lose
        raise CheckpointError(
            f"state '{folder}' is from the middle of an epoch and sums other columns of summary.csv than this version "
            'of timm_alfa does: resume it with the version that saved it, to the end of the epoch at least.'
        )

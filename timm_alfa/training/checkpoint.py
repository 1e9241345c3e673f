"""States: everything needed to go on, bit for bit, in folders that are whole or not there.

`last/` holds one folder a state, `NNNNNN-update-U/`. A state is written under a temporary name, flushed, renamed, and
only then are older ones removed; its marker lists the files and their sizes, and what has no marker, or does not match
it, is never picked up.
"""
import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any, Iterator, Optional

import torch
from safetensors.torch import load_file, save_file

from timm_alfa.errors import CheckpointError
from timm_alfa.sharded import cut_state, whole_state
from timm_alfa.training import files
from timm_alfa.training.console import launch_in, logger
from timm_alfa.training.gathering import gather
from timm_alfa.training.guard import RunningStatistics
from timm_alfa.training.state import Progression
from timm_alfa.training.totals import Totals
from timm_alfa.training.weights import load_weights, plain_state

MARKER = 'COMPLETE'
NAME = re.compile(r'(\d{6,})-update-\d+')


def state_folders(path: Path) -> list[Path]:
    """Usable states, the oldest first."""
    if not path.is_dir():
        return []
    return sorted((each for each in path.iterdir() if NAME.fullmatch(each.name) and is_whole(each)), key=_number)


def _number(path: Path) -> int:
    return int(NAME.fullmatch(path.name)[1])


def is_whole(path: Path) -> bool:
    """Whether a state's marker is there and its files have the sizes it tells."""
    try:
        sizes = json.loads((path / MARKER).read_text())
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


class States:
    """The states in a run's `last/`.

    Args:
        path: That folder.
        keep: States kept.
    """

    def __init__(self, path: Path, keep: int = 1):
        self.path, self.keep = Path(path), keep

    def write(self, updates: int, write_files) -> Path:
        """Writes a state and prunes older ones.

        Args:
            updates: For its name.
            write_files: Called with a folder; fills it.

        Raises:
            CheckpointError: It could not be written; all states before it are still there.
        """
        try:
            self.path.mkdir(exist_ok=True)  # not its parents: a run's folder that has vanished is a fault
            taken = [_number(each) for each in self.path.iterdir() if NAME.fullmatch(each.name)]
            target = self.path / f'{max(taken, default=0) + 1:06d}-update-{updates}'
            temporary = self.path / f'.{target.name}.tmp'
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            write_files(temporary)
            seal(temporary)
            os.rename(temporary, target)
            files.sync(self.path)
        except Exception as error:
            for left in self.path.glob('.*.tmp') if self.path.is_dir() else ():
                shutil.rmtree(left, ignore_errors=True)
            if not files.is_write_fault(error):
                raise
            raise CheckpointError(files.write_fault(self.path, error)) from error
        self.prune(target)
        return target

    def prune(self, newest: Path) -> None:
        """Removes all but the newest states, and what writers that were killed have left."""
        keep = {newest, *state_folders(self.path)[-self.keep:]}
        for each in self.path.iterdir():
            if each not in keep and (NAME.fullmatch(each.name) or each.name.endswith('.tmp')):
                shutil.rmtree(each, ignore_errors=True)


def seal(folder: Path) -> None:
    """Flushes a state's files and writes its marker, last."""
    sizes = {}
    for each in sorted(folder.iterdir()):
        files.sync(each)
        sizes[each.name] = each.stat().st_size
    marker = folder / MARKER
    marker.write_text(json.dumps(sizes))
    files.sync(marker)
    files.sync(folder)


# what a state holds


def process_state(run, totals: Totals) -> dict[str, torch.Tensor]:
    """What differs between processes: running statistics, of the average too, and the epoch's sums."""
    own = {f'norms.{at}': buffer for at, buffer in enumerate(running_statistics(run).buffers)}
    return {name: tensor.detach().cpu().clone() for name, tensor in {**own, 'totals': totals.sums}.items()}


def running_statistics(run) -> RunningStatistics:
    """Those of the task, and of the average."""
    return RunningStatistics(run.task, *([run.ema.module] if run.ema is not None else []))


def save_state(states: States, run, state: Progression, totals: Totals, options: dict[str, Any]) -> None:
    """Saves all of a run. Every process calls it; the main one writes.

    Raises:
        CheckpointError: It could not be written; earlier states are still there.
    """
    from timm_alfa.training.setup import on_main
    processes = gather(run.accelerator, [process_state(run, totals)])
    skipped = skipped_images(run)
    # of what is sharded every process has a part, so all take part before the main one writes
    keep = run.accelerator.is_main_process
    weights = plain_state(run.model, keep)
    average = plain_state(run.ema.module, keep) if run.ema is not None else None
    optimizer = whole_state(run.optimizer.state_dict(), keep)
    task = whole_state(run.task.get_task_state(), keep)

    def write_files(folder: Path) -> None:
        save_file(weights, folder / 'weights.safetensors')
        if average is not None:
            save_file(average, folder / 'average.safetensors')
        for rank, tensors in enumerate(processes):
            save_file(tensors, folder / f'process-{rank}.safetensors')
        torch.save(optimizer, folder / 'optimizer.pt')
        torch.save(task, folder / 'task.pt')
        scaler = run.accelerator.scaler
        content = dict(progression=state.to_dict(), options=options, num_processes=len(processes),
                       mixed_precision=run.accelerator.mixed_precision,
                       scaler=scaler.state_dict() if scaler is not None else None, skipped=skipped)
        (folder / 'state.json').write_text(json.dumps(content, indent=1))

    on_main(run.accelerator, states.write, state.updates, write_files)


def skipped_images(run) -> dict[str, list[int]]:
    """Corrupt images left out so far, by part, over all processes."""
    parts = {name: getattr(run.data, name) for name in ('train', 'val', 'test')}
    return {name: sorted(set(gather(run.accelerator, sorted(part.skipped_indices))))
            for name, part in parts.items() if part is not None}


def read_state(path: Path) -> Optional[tuple[Path, dict[str, Any]]]:
    """The newest usable state in a `last/` folder and its state.json; None if there is none."""
    for folder in reversed(state_folders(path)):
        try:
            return folder, json.loads((folder / 'state.json').read_text())
        except (OSError, ValueError):
            logger.warning("warning: state '%s' cannot be read: passed over", folder)
    return None


def load_state(folder: Path, content: dict[str, Any], run, totals: Totals, changed: bool = False) -> Progression:
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
        if run.ema is not None and (folder / 'average.safetensors').is_file():
            load_weights(run.ema.module, load_file(folder / 'average.safetensors'), folder)
        _load_optimizer(run.optimizer, _load_pickle(folder / 'optimizer.pt'), changed)
        run.task.load_task_state(_load_pickle(folder / 'task.pt'))
        if run.accelerator.scaler is not None and content['scaler']:
            run.accelerator.scaler.load_state_dict(content['scaler'])
        _load_process(folder, rank, processes, run, totals)
    except CheckpointError:
        raise
    except Exception as error:  # of damaged or foreign files, readers raise whatever their bytes lead them to
        raise CheckpointError(f"state '{folder}' does not fit this run: {files.first_line(error)}") from error
    for name, indices in content['skipped'].items():
        getattr(run.data, name).skipped_indices.update(indices)
    state = Progression(**content['progression'])
    if division(content['options'], processes) != division(run.config.flat(), run.accelerator.num_processes):
        move_position(state, content, run)
    if run.schedule is not None:
        run.schedule.step_update(state.updates)
    return state


def _load_optimizer(optimizer, content: dict[str, Any], changed: bool) -> None:
    """An optimizer's state; its groups come with the hyperparameters of then, which give way where options changed."""
    built = [{key: value for key, value in group.items() if key != 'params'} for group in optimizer.param_groups]
    optimizer.load_state_dict(cut_state(content, optimizer))
    for group, own in zip(optimizer.param_groups, built, strict=True) if changed else ():
        group.update(own)


def _load_process(folder: Path, rank: int, processes: int, run, totals: Totals) -> None:
    own = load_file(folder / f'process-{rank % processes}.safetensors')
    for at, buffer in enumerate(running_statistics(run).buffers):
        buffer.data.copy_(own[f'norms.{at}'])
    if processes == run.accelerator.num_processes:
        totals.sums.copy_(own['totals'])
    elif rank == 0:
        totals.sums.copy_(sum(load_file(folder / f'process-{each}.safetensors')['totals'] for each in range(processes)))


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{path}' holds more than tensors, so that loading it could run code: refused.") from error


def division(options: dict[str, Any], processes: int) -> tuple[int, int, int]:
    """How the images of an update are divided: into batches, accumulation steps and processes."""
    return options['batch_size'], options['grad_accum_steps'], processes


def move_position(state: Progression, content: dict[str, Any], run) -> None:
    """The same place in the epoch for another division of an update, down to a whole update."""
    options, accumulated = content['options'], run.config.optim.grad_accum_steps
    images = state.batch * options['batch_size'] * content['num_processes']
    window = run.config.data.batch_size * run.accelerator.num_processes * accumulated
    state.batch = min(images // window * accumulated, len(run.data.train))
    state.updates = state.epoch * run.updates_per_epoch + -(-state.batch // accumulated)
    before = options['batch_size'] * options['grad_accum_steps'] * content['num_processes']
    if content['num_processes'] != run.accelerator.num_processes:
        logger.info('the state was saved by %d processes, now there are %d: it goes on, not bit for bit',
                    content['num_processes'], run.accelerator.num_processes)
    if before != run.effective_batch:
        logger.warning('warning: an update takes %d images now, %d before: set -b or --grad-accum-steps to keep it, '
                       'and --lr to keep the learning rate', run.effective_batch, before)


# options at a resume

FREE = frozenset((
    'output', 'experiment', 'resume', 'resume_anyway', 'checkpoint_every', 'keep', 'nan_patience', 'log_interval',
    'log_with', 'dry_run', 'workers', 'pin_mem', 'dataset_download', 'loader'))


def differing_options(before: dict[str, Any], now: dict[str, Any], same_batch: bool) -> Iterator[str]:
    """A line for each option that would make the run another one.

    Args:
        before: Flat options of the state.
        now: Flat options given.
        same_batch: An update takes as many images as before, by whatever division.
    """
    free = FREE | ({'batch_size', 'grad_accum_steps'} if same_batch else set())
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if key not in free and old != new:
            yield f"--{key.replace('_', '-')} was {_text(old)}, is {_text(new)}"


def _text(value: Any) -> str:
    return 'unset' if value is None else ' '.join(map(str, value)) if isinstance(value, list) else str(value)


def check_options(content: dict[str, Any], run, options: dict[str, Any]) -> bool:
    """Refuses to go on with other options or in another precision, unless they are wanted; says whether they differ.

    Raises:
        CheckpointError: They differ, and --resume-anyway was not given.
    """
    before = content['options']
    was = before['batch_size'] * before['grad_accum_steps'] * content['num_processes']
    lines = list(differing_options(before, json.loads(json.dumps(options)), was == run.effective_batch))
    precision = run.accelerator.mixed_precision
    if (trained := content.get('mixed_precision', precision)) != precision:
        lines.append(f'precision was {trained}, is {precision} ({launch_in(trained)} ...)')
    if not lines:
        return False
    if not run.config.run.resume_anyway:
        raise CheckpointError('--resume: the run was started with other options: ' + '; '.join(lines)
                              + '. Give the same, another --experiment, or --resume-anyway.')
    logger.warning('warning: going on with other options: %s', '; '.join(lines))
    return True

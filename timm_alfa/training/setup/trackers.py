"""accelerate's experiment trackers: whether they can start, and under which name a run continues in them."""

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import numpy as np
from PIL import Image

from timm_alfa.errors import CheckpointError, ConfigError, first_line
from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.run import Run
from timm_alfa.utils.distributed import is_main_process
from timm_alfa.utils.redact import redact

PROJECT = 'timm_alfa'


def check_trackers(names: Optional[tuple[str, ...]]) -> None:
    """Checks that the trackers are installed, and that wandb is logged in.

    Raises:
        ConfigError: Trackers are not installed, or would not start.
    """
    missing = [name for name in names or () if not is_installed(name)]
    if missing:
        raise ConfigError([f"--log-with {name} is not installed: pip install 'timm_alfa[{name}]'." for name in missing])
    if 'wandb' in (names or ()) and is_main_process():
        check_login()


def is_installed(tracker: str) -> bool:
    """Whether a tracker can be imported; tensorboard comes in two packages."""
    packages = ('tensorboard', 'tensorboardX') if tracker == 'tensorboard' else (tracker,)
    return any(find_spec(package) is not None for package in packages)


def check_login() -> None:
    """Logs in to wandb as it would do itself; offline there is nothing to do.

    Raises:
        ConfigError: It cannot.
    """
    import wandb

    try:
        wandb.login()
    except Exception as error:  # of its own, or of the network
        raise ConfigError(
            f'--log-with wandb: {first_line(error)}. To send nothing now, set WANDB_MODE=offline.'
        ) from error


def start_trackers(run: Run, folder: Path, state: TrainState) -> None:
    """Starts accelerate's trackers, with the options as their config. A resumed run goes on where it was tracked.

    Args:
        folder: The run's.
        state: Where the run stands; keeps what wandb knows it by.

    Raises:
        CheckpointError: A tracker does not start.
    """
    names = run.config.run.log_with
    if not names:
        return
    options = {key: _trackable(value) for key, value in redact(run.config.flat()).items()}
    run.accelerator.project_configuration.logging_dir = str(folder)  # not known earlier
    try:
        run.accelerator.init_trackers(PROJECT, config=options, init_kwargs=tracker_arguments(names, folder, state))
    except Exception as error:  # whatever a service or its client raises
        raise CheckpointError(
            f'--log-with {" ".join(names)} cannot start: {type(error).__name__}: {first_line(error)}. Leave it out, '
            'or fix the cause and resume with --resume auto.'
        ) from error


def tracker_arguments(names: Sequence[str], folder: Path, state: TrainState) -> dict[str, dict[str, Any]]:
    """What trackers are started with: the name of the run, and which of their runs it continues.

    tensorboard needs nothing: it reads all files in the run's folder as one run.
    """
    arguments: dict[str, dict[str, Any]] = {}
    if 'wandb' in names:
        state.wandb_id = state.wandb_id or secrets.token_hex(4)
        arguments['wandb'] = {'name': folder.name, 'dir': str(folder), 'id': state.wandb_id, 'resume': 'allow'}
    if 'trackio' in names:
        arguments['trackio'] = {'name': folder.name, 'resume': 'allow' if state.updates else 'never'}
    return arguments


def tracked(row: Mapping[str, Any], plots: Sequence[EpochPlot]) -> dict[str, Any]:
    """An epoch's row by the names of trackers: in groups, and columns of blocks by the blocks' names.

    Args:
        row: Of summary.csv.
        plots: Of the method: what each of its columns is called.
    """
    names = {}
    for plot in plots:
        for column, label in zip(plot.columns, plot.labels, strict=True):
            names[column] = f'{column.rpartition("_")[0]}/{label}' if column[-1].isdecimal() else f'train/{column}'
    values = {key: value for key, value in row.items() if value is not None}
    if 'delta_ratio' in values:
        values.pop('delta_norm', None)  # relative to the feature it says more
    return {names.get(key) or grouped(key): value for key, value in values.items()}


def grouped(column: str) -> str:
    """The name in trackers of a column of summary.csv, such as 'val/top1'."""
    if column in ('epoch', 'eval_seconds'):
        return column.replace('eval_', 'val/')
    group, _, rest = column.partition('_')
    return f'{group}/{rest}' if group in ('train', 'val') else f'train/{column}'


def track_picture(run: Run, picture: Path, step: int) -> None:
    """Gives a picture of the run's folder to the trackers that take pictures. The main process calls it.

    Args:
        step: Updates done.
    """
    takers = [tracker for tracker in run.accelerator.trackers if hasattr(tracker, 'log_images')]
    if not takers or not picture.is_file():
        return
    with Image.open(picture) as image:
        array = np.asarray(image.convert('RGB'))[None]
    for tracker in takers:
        layout = {'dataformats': 'NHWC'} if tracker.name == 'tensorboard' else {}
        tracker.log_images({picture.stem: array}, step=step, **layout)


def _trackable(value: Any) -> Any:
    """A value that every tracker takes."""
    return value if isinstance(value, (int, float, str, bool)) else str(value)

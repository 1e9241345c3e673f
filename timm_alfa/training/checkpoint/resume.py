"""A resume that is not quite the run before: other options, another division of an update."""

import json
from typing import Any, Iterator

from timm_alfa.data.loaders.sampling import train_steps
from timm_alfa.errors import CheckpointError
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.console import logger
from timm_alfa.training.options.train_args import NOT_FROM_RUN
from timm_alfa.utils.launcher import launch_command
from timm_alfa.utils.redact import redact

FREE = frozenset(
    (
        *NOT_FROM_RUN,
        'checkpoint_every',
        'keep',
        'nan_patience',
        'log_interval',
        'log_with',
        'workers',
        'pin_mem',
        'dataset_download',
        'loader',
    )
)  # what it came to is compared: 'auto' and its choice are the same


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
            yield f'--{key.replace("_", "-")} was {_text(old)}, is {_text(new)}'


def _text(value: Any) -> str:
    return 'unset' if value is None else ' '.join(map(str, value)) if isinstance(value, list) else str(value)


def check_options(content: dict[str, Any], run, options: dict[str, Any]) -> bool:
    """Refuses to go on with other options or in another precision, unless they are wanted; says whether they differ.

    Where no epoch is left that would train with them, they are refused in any case: the record would tell of options
    that the weights have never seen. As many --epochs as are done, and nothing else, end a run early.

    Raises:
        CheckpointError: They differ, and --resume-anyway was not given, or nothing is left to be trained.
    """
    before = redact(content['options'])  # as they are redacted now: an older version may have known fewer secrets
    was = before['batch_size'] * before['grad_accum_steps'] * content['num_processes']
    lines = list(differing_options(before, json.loads(json.dumps(options)), was == run.effective_batch))
    precision = run.accelerator.mixed_precision
    if (trained := content.get('mixed_precision', precision)) != precision:
        command = launch_command('train.py', '...', mixed_precision=trained, explicit=True)
        lines.append(f'precision was {trained}, is {precision} ({command})')
    loader = run.data.loader
    chosen = before['loader'] if before['loader'] != 'auto' else loader  # of states from before they told it
    if (trained := content.get('loader', chosen)) != loader:
        lines.append(f'--loader was {trained}, is {loader}')
    if not lines:
        return False
    if before['opt'] != options['opt']:
        raise CheckpointError(
            f'--resume: --opt was {before["opt"]}, is {options["opt"]}, which cannot go on from its state. Give --opt '
            f'{before["opt"]}, or begin another run with --initial-checkpoint RUN/model_last.safetensors.'
        )
    done, alone = content['progression']['epoch'], len(lines) == 1 and before['epochs'] != run.config.epochs
    if done > run.config.epochs or (done == run.config.epochs and not (alone and done < before['epochs'])):
        raise CheckpointError(
            f'--resume: {done} epochs are done, so that nothing would be trained with other options: '
            f'{"; ".join(lines)}. Give more --epochs, or another --experiment.'
        )
    if not run.config.run.resume_anyway:
        raise CheckpointError(
            '--resume: the run was started with other options: '
            + '; '.join(lines)
            + '. Give the same, another --experiment, or --resume-anyway.'
        )
    logger.warning('warning: going on with other options: %s', '; '.join(lines))
    return True


def division(options: dict[str, Any], processes: int) -> tuple[int, int, int]:
    """How the images of an update are divided: into batches, accumulation steps and processes."""
    return options['batch_size'], options['grad_accum_steps'], processes


def move_position(state: TrainState, content: dict[str, Any], run) -> None:
    """The same place in the epoch for another division of an update, down to a whole update."""
    options, accumulated = content['options'], run.config.optim.grad_accum_steps
    images = state.batch * options['batch_size'] * content['num_processes']
    window = run.config.data.batch_size * run.accelerator.num_processes * accumulated
    done = train_steps(run.data.train_images, options['batch_size'], content['num_processes'])
    whole = len(run.data.train)
    # an epoch that was through stays so, however short its last window
    state.batch = whole if state.batch >= done else min(images // window * accumulated, whole)
    state.updates = state.epoch * run.updates_per_epoch + -(-state.batch // accumulated)
    before = options['batch_size'] * options['grad_accum_steps'] * content['num_processes']
    if content['num_processes'] != run.accelerator.num_processes:
        logger.info(
            'the state was saved by %d processes, now there are %d: it goes on, not bit for bit',
            content['num_processes'],
            run.accelerator.num_processes,
        )
    if before != run.effective_batch:
        logger.warning(
            'warning: an update takes %d images now, %d before: set -b or --grad-accum-steps to keep it, '
            'and --lr to keep the learning rate',
            run.effective_batch,
            before,
        )

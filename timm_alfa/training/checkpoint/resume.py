"""Resuming with other options, or with another division of an update into batches and processes."""

import json
from typing import Any, Iterator

from timm_alfa.data.loaders.sampling import train_steps
from timm_alfa.errors import CheckpointError
from timm_alfa.options import long_flag
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.options.train_args import NOT_FROM_RUN
from timm_alfa.utils.console import logger
from timm_alfa.utils.program import launch_command, spelling
from timm_alfa.utils.redact import redact

# Options that may change: they do not affect what is computed. Of the loader, the resolved choice is compared.
# Options that older states do not have, and what they were trained with.
ADDED = {
    'cuda_graph': False,
    'linear_probe': False,
    'balanced_sampling': False,
    'eval_metric': 'top1',
    'num_best': 1,
}
ADDED_TO_TASKS = {'_unit': 'absolute'}  # the same for options of methods, by the end of their key

FREE = frozenset(
    (
        *NOT_FROM_RUN,
        'checkpoint_every',
        'keep',
        'num_best',
        'nan_patience',
        'log_interval',
        'log_with',
        'workers',
        'pin_mem',
        'dataset_download',
        'loader',
        'score_unused',
    )
)


def check_options(content: dict[str, Any], run, options: dict[str, Any]) -> bool:
    """Refuses to resume with other options or in another precision, unless --resume-anyway is given.

    If no epoch is left that would be trained with them, they are refused in any case: the record would show options
    that the weights were never trained with. The exception is --epochs alone, to end a run early.

    Args:
        content: The state.json of the state.
        options: The run's flat options, redacted.

    Returns:
        Whether anything differs.

    Raises:
        CheckpointError: Something differs, and it is not wanted or cannot be had.
    """
    before = redact(content['options'])  # as they are redacted now: an older version may have known fewer secrets
    differences = list(_differences(content, before, run, options))
    if not differences:
        return False
    listed = '; '.join(differences)

    if before['opt'] != options['opt']:
        raise CheckpointError(
            f'--resume: --opt was {before["opt"]}, is {options["opt"]}, which cannot use its state. Pass --opt '
            f'{before["opt"]}, or start another run with --initial-checkpoint RUN/model_last.safetensors.'
        )
    only_epochs = len(differences) == 1 and before['epochs'] != run.config.epochs
    if not _trains_on(content['progression']['epoch'], run.config.epochs, before['epochs'], only_epochs):
        raise CheckpointError(
            f'--resume: {content["progression"]["epoch"]} epochs are done, so that nothing would be trained with other '
            f'options: {listed}. Use more --epochs, or another --experiment.'
        )
    if not run.config.run.resume_anyway:
        raise CheckpointError(
            f'--resume: the run was started with other options: {listed}. '
            'Pass the same ones, or use another --experiment or --resume-anyway.'
        )
    logger.warning('warning: resuming with other options: %s', listed)
    return True


def _trains_on(done: int, epochs: int, epochs_before: int, only_epochs: bool) -> bool:
    """Whether a resumed run trains with its options, or is only ended early after the epochs that are done."""
    ends_early = only_epochs and done == epochs < epochs_before
    return done < epochs or ends_early


def _differences(content: dict[str, Any], before: dict[str, Any], run, options: dict[str, Any]) -> Iterator[str]:
    """A line for each difference between a state and the run that resumes from it."""
    same_batch = images_per_update(before, content['num_processes']) == run.effective_batch
    yield from differing_options(before, json.loads(json.dumps(options)), same_batch)

    # older states do not hold the precision
    precision = run.accelerator.mixed_precision
    trained = content.get('mixed_precision', precision)
    if trained != precision:
        command = launch_command(*spelling('train').launch, '...', mixed_precision=trained, explicit=True)
        yield f'precision was {trained}, is {precision} ({command})'

    # older states do not hold what --loader auto resolved to
    loader = run.data.loader
    trained = content.get('loader', before['loader'] if before['loader'] != 'auto' else loader)
    if trained != loader:
        yield f'--loader was {trained}, is {loader}'


def differing_options(before: dict[str, Any], now: dict[str, Any], same_batch: bool) -> Iterator[str]:
    """A line for each option that would change what the run computes.

    Args:
        before: Flat options of the state.
        now: Flat options given.
        same_batch: Whether an update has as many images as before, however they are divided.
    """
    free = FREE | {'batch_size', 'grad_accum_steps'} if same_batch else FREE
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, _default_of_added(key)), now.get(key)
        if key not in free and old != new:
            yield f'{long_flag(key)} was {_text(old)}, is {_text(new)}'


def _default_of_added(key: str) -> Any:
    """What a state from before there was an option was made with."""
    of_tasks = (value for end, value in ADDED_TO_TASKS.items() if key.endswith(end))
    return ADDED.get(key, next(of_tasks, None))


def _text(value: Any) -> str:
    if value is None:
        return 'unset'
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value)


def division(options: dict[str, Any], processes: int) -> tuple[int, int, int]:
    """How the images of an update are divided: into batches, accumulation steps and processes."""
    return options['batch_size'], options['grad_accum_steps'], processes


def images_per_update(options: dict[str, Any], processes: int) -> int:
    """The images of one update, over all processes and accumulation steps."""
    return options['batch_size'] * options['grad_accum_steps'] * processes


def move_position(state: TrainState, content: dict[str, Any], run) -> None:
    """Moves a state to the same place in its epoch with another division of updates, rounded down to a whole update."""
    options, processes = content['options'], content['num_processes']
    now = run.accelerator.num_processes
    accumulated = run.config.optim.grad_accum_steps

    # an epoch that was complete stays so, however short its last window
    batches = len(run.data.train)
    if state.batch >= train_steps(run.data.train_images, options['batch_size'], processes):
        state.batch = batches
    else:
        images = state.batch * options['batch_size'] * processes
        windows = images // (run.config.data.batch_size * now * accumulated)
        state.batch = min(windows * accumulated, batches)
    state.updates = state.epoch * run.updates_per_epoch + -(-state.batch // accumulated)

    if processes != now:
        logger.info(
            'the state was saved by %d processes, now there are %d: the run is resumed, but not bit for bit',
            processes,
            now,
        )
    before = images_per_update(options, processes)
    if before != run.effective_batch:
        logger.warning(
            'warning: an update has %d images, before it had %d: set -b or --grad-accum-steps to keep them, '
            'and --lr to keep the learning rate',
            run.effective_batch,
            before,
        )

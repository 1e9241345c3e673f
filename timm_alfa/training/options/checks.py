"""Checks of options against each other: errors between groups, and options that cannot have an effect."""

from typing import Any, Callable, Iterator, NamedTuple, Optional

from timm_alfa.data import pair_errors
from timm_alfa.errors import nearest, one_of
from timm_alfa.training.options.config import BALANCED
from timm_alfa.training.options.opt_kwargs import constructor_arguments, optimizer_argument_errors


def errors_in_timm(config, flag_name) -> Iterator[str]:
    """Errors that need timm's registries. timm takes seconds to import: ask once the options can be read.

    Args:
        config: A resolved `TrainConfig`.
        flag_name: How the user wrote an option's key.
    """
    from timm_alfa.models.arguments import argument_errors

    yield from _unknown_names(config)
    yield from argument_errors(config.model.model_kwargs, flag_name('model_kwargs'), _architecture(config.model.model))
    yield from optimizer_argument_errors(config.optim.opt_kwargs, flag_name('opt_kwargs'), config.optim.opt)
    yield from graph_errors(config, flag_name)


def errors_across(config, flag_name) -> Iterator[str]:
    """Errors that need more than one group.

    Args:
        config: A resolved `TrainConfig`.
        flag_name: How the user wrote an option's key.
    """
    yield from pair_errors(config.data, config.aug, flag_name)
    epochs, warmup = config.epochs, config.schedule.warmup_epochs
    if warmup > epochs:
        yield (
            f'{flag_name("warmup_epochs")} is {warmup:g}, but the run has {epochs} epochs: pass more --epochs, or '
            '--warmup-epochs 0.'
        )
    if config.optim.bce_loss is False:
        for name in ('bce_sum', 'bce_target_thresh'):
            if getattr(config.optim, name) not in (False, None):
                yield f'{flag_name(name)} belongs to {flag_name("bce_loss")}, which is off.'


class NoGraph(NamedTuple):
    """Options that `--cuda-graph` does not support.

    Attributes:
        key: Of the option.
        given: Whether a `TrainConfig` has it.
        instead: What to type.
    """

    key: str
    given: Callable[[Any], Any]
    instead: str


NO_GRAPH = (
    NoGraph(
        'torchcompile',
        lambda c: c.model.torchcompile == 'cudagraphs',
        'use inductor, since this backend makes its own graphs',
    ),
    NoGraph('model_ema', lambda c: c.ema.model_ema, 'leave one out'),
    NoGraph('grad_accum_steps', lambda c: c.optim.grad_accum_steps > 1, 'use a larger --batch-size'),
    NoGraph('grad_checkpointing', lambda c: c.model.grad_checkpointing, 'leave one out'),
    NoGraph(
        'torchcompile_mode',
        lambda c: c.model.torchcompile_mode in ('reduce-overhead', 'max-autotune'),
        'use max-autotune-no-cudagraphs, since this mode makes its own graphs',
    ),
)


def graph_errors(config, flag_name) -> Iterator[str]:
    """A line for each option that `--cuda-graph` does not support."""
    if not config.model.cuda_graph:
        return
    for row in NO_GRAPH:
        if row.given(config):
            yield f'{flag_name("cuda_graph")} does not support {flag_name(row.key)}: {row.instead}.'
    if not _has_fused_form(config.optim.opt):
        yield (
            f"{flag_name('cuda_graph')} needs an optimizer with a fused form, and '{config.optim.opt}' has none: use "
            'sgd, momentum, adam or adamw.'
        )
    for name in config.optim.opt_kwargs.keys() & {'fused', 'foreach', 'differentiable', 'dampening'}:
        yield f"{flag_name('cuda_graph')} does not support '{name}' in {flag_name('opt_kwargs')}: leave one out."


def _has_fused_form(name: str) -> bool:
    """Whether an optimizer can leave an update out on the device; one that timm does not know is reported elsewhere.

    Adagrad is not among them: torch 2.11 has its fused form on CPUs alone.
    """
    arguments = constructor_arguments(name)
    return arguments is None or ('fused' in arguments and 'initial_accumulator_value' not in arguments)


def _unknown_names(config) -> Iterator[str]:
    from timm.optim import get_optimizer_info, list_optimizers

    yield from model_errors(config.model.model)
    if config.model.pretrained:
        yield from pretrained_errors(config.model.model)
    known = [str(name) for name in list_optimizers()]
    if config.optim.opt.lower() not in known:
        yield nearest('optimizer', config.optim.opt, known, 'timm.optim.list_optimizers() lists them')
    elif get_optimizer_info(config.optim.opt.lower()).second_order:
        yield f"optimizer '{config.optim.opt}' needs second derivatives, which train.py does not compute: use another."
    if config.model.torchcompile:
        from torch._dynamo import list_backends

        if config.model.torchcompile not in (backends := list_backends(None)):
            yield one_of('backend of torch.compile', config.model.torchcompile, backends)


def _architecture(name: str) -> Optional[str]:
    """The architecture that a model's name alone says: not that of a folder or a repo, or of an unknown name."""
    import timm

    base = name.partition('.')[0]
    return base if ':' not in name and timm.is_model(base) else None


def model_errors(name: str) -> Iterator[str]:
    """A line if timm knows no such model, or no such tag of it."""
    import timm

    from timm_alfa.zoo import TAGS

    base, dot, _ = name.partition('.')
    if ':' in name:
        yield from _bad_source(name)
    elif '/' in name or '\\' in name:
        yield f"--model is '{name}', which looks like a path or a Hub id: write 'local-dir:{name}' or 'hf-hub:{name}'."
    elif not timm.is_model(base):
        yield nearest('model', name, timm.list_models(), '`timm.list_models()` lists them')
    elif dot:
        tags = timm.list_pretrained(base + '.*') + [tag for tag in TAGS if tag.startswith(f'{base}.')]
        if name not in tags:
            yield nearest('model', name, tags, 'A tag follows the dot')


def pretrained_errors(name: str) -> Iterator[str]:
    """A line if a name of timm's registry has no weights of its own; it names the tags that have."""
    import timm

    base, dot, _ = name.partition('.')
    if ':' in name or not timm.is_model(base):  # weights lie elsewhere, or the name is reported already
        return
    cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False) if not dot else None
    if dot or cfg is None or cfg.has_weights:
        return
    tags = timm.list_pretrained(f'{base}.*')
    choice = f'use --model {" or ".join(tags)}' if tags else 'leave --pretrained out'
    yield f"--pretrained: '{name}' has no weights of its own: {choice}."


def _bad_source(name: str) -> Iterator[str]:
    from timm.models import parse_model_name

    try:
        parse_model_name(name)
    except ValueError as error:
        yield str(error)


class NoEffect(NamedTuple):
    """Options that have no effect unless a condition holds.

    Attributes:
        keys: Of the options.
        condition: Of a `TrainConfig`.
        reason: Completes 'has no effect ...'.
    """

    keys: tuple[str, ...]
    condition: Callable[[Any], Any]
    reason: str


def _sched_in(*names: str) -> Callable[[Any], bool]:
    return lambda config: config.schedule.sched in names


NO_EFFECT = (
    NoEffect(('model_ema_decay', 'model_ema_warmup'), lambda c: c.ema.model_ema, 'without --model-ema'),
    NoEffect(('clip_mode',), lambda c: c.optim.clip_grad is not None, 'without --clip-grad'),
    NoEffect(('torchcompile_mode',), lambda c: c.model.torchcompile, 'without --torchcompile'),
    NoEffect(('warmup_lr',), lambda c: c.schedule.warmup_epochs or c.schedule.warmup_updates, 'without warmup'),
    NoEffect(('lr_base', 'lr_base_size', 'lr_base_scale'), lambda c: c.optim.lr is None, 'together with --lr'),
    NoEffect(('decay_milestones',), _sched_in('multistep'), 'unless --sched is multistep'),
    NoEffect(('decay_rate',), _sched_in('multistep', 'step', 'poly'), 'unless --sched is multistep, step or poly'),
    NoEffect(('decay_epochs',), _sched_in('step', 'wsd', 'rsqrt'), 'unless --sched is step, wsd or rsqrt'),
    NoEffect(
        ('min_lr',),
        _sched_in('cosine', 'tanh', 'poly', 'wsd', 'rsqrt'),
        'with a --sched that has no lowest learning rate',
    ),
    NoEffect(('filter_bias_and_bn',), lambda c: c.optim.weight_decay > 0, 'without --weight-decay'),
    NoEffect(
        ('layer_decay', 'warmup_epochs', 'warmup_updates'),
        lambda c: c.schedule.sched != 'none',
        'with --sched none, which never changes a learning rate: use --sched constant',
    ),
    NoEffect(
        ('layer_decay',), lambda c: not c.model.linear_probe, 'with --linear-probe, which trains the classifier alone'
    ),
    NoEffect(
        ('clip_grad',),
        lambda c: not (c.model.linear_probe and c.optim.clip_mode == 'agc'),
        'with --linear-probe and --clip-mode agc, which leaves out the classifier: use --clip-mode norm',
    ),
    NoEffect(
        ('output', 'experiment'), lambda c: c.run.resume in (None, 'auto'), 'with --resume RUN, which stays in RUN'
    ),
    NoEffect(('resume_anyway',), lambda c: c.run.resume, 'without --resume'),
)


def starts_from_weights(config) -> bool:
    """Whether a run starts from weights that were trained before."""
    return config.model.pretrained or config.model.initial_checkpoint is not None


def without_effect(config, flag_name) -> Iterator[str]:
    """A line for each option that was given and cannot have an effect."""
    values, defaults = config.flat(), type(config)().flat()
    for row in NO_EFFECT:
        for key in row.keys:
            changed = key in config.given and values[key] != defaults[key]
            if changed and not row.condition(config):
                yield f'{flag_name(key)} has no effect {row.reason}.'
    if (config.model.freeze is not None or config.model.linear_probe) and not starts_from_weights(config):
        key = 'linear_probe' if config.model.linear_probe else 'freeze'
        yield f'{flag_name(key)} freezes random weights: add --pretrained or --initial-checkpoint FILE.'
    if config.data.balanced_sampling and config.optim.class_weights == BALANCED:
        yield (
            f'{flag_name("balanced_sampling")} and {flag_name("class_weights")} {BALANCED} both favor rare classes: '
            'leave one out.'
        )
    if config.run.log_with and (config.run.dry_run or config.run.probe):
        yield f'{flag_name("log_with")} has no effect with {"--dry-run" if config.run.dry_run else "--probe"}.'

    # epochs that the run does not have
    epochs = config.epochs
    if config.schedule.sched == 'multistep':
        late = [f'{epoch:g}' for epoch in config.schedule.decay_milestones or () if epoch >= epochs]
        if late:
            yield f'{flag_name("decay_milestones")}: {", ".join(late)} is never reached in {epochs} epochs.'
    patience = config.selection.patience
    if patience is not None and patience >= epochs:
        yield f'{flag_name("patience")}: {patience} epochs without a better checkpoint cannot occur in {epochs} epochs.'
    if config.aug.mixup_off_epoch >= epochs and config.aug.mixes:
        yield f'{flag_name("mixup_off_epoch")}: {config.aug.mixup_off_epoch} is never reached in {epochs} epochs.'


def without_effect_in(config, updates: int) -> Iterator[str]:
    """A line for each option that has no effect in a run of so many updates, which only the dataset determines."""
    start = getattr(config.task_options, 'start', 0)
    if start >= updates:
        yield f'--{config.task_prefix}-start: {start} is never reached in {updates} updates: nothing is perturbed.'

    schedule = config.schedule
    warmup = schedule.warmup_updates
    if warmup is None:
        warmup = round(schedule.warmup_epochs * updates / config.epochs)
    if 2 * warmup > updates:
        yield (
            f'{warmup} of {updates} updates are warm-up, so that the learning rate hardly reaches --lr: use a smaller '
            '-b, more --epochs, or --warmup-epochs 0.'
        )

    ema = config.ema
    if not ema.model_ema or ema.model_ema_warmup:
        return
    initial = ema.model_ema_decay**updates
    if initial > 0.5:
        yield (
            f'--model-ema: after {updates} updates with a decay of {ema.model_ema_decay:g}, {initial:.0%} of the EMA '
            'is still the initial weights: lower --model-ema-decay or add --model-ema-warmup.'
        )

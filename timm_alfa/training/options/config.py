"""Everything train.py can be told: groups of options, each a frozen dataclass.

Flags, YAML keys, `args.yaml` and `--help` come from these fields (see `cli`). Names are timm's where timm has one.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Iterator, Optional

from timm_alfa.data import AugConfig, DataConfig
from timm_alfa.options import option
from timm_alfa.utils.text import parse_interval

SCHEDULES = ('multistep', 'cosine', 'step', 'constant', 'tanh', 'poly', 'wsd', 'rsqrt', 'none')
TRACKERS = ('tensorboard', 'trackio', 'wandb')


@dataclass(frozen=True)
class ModelConfig:
    """The network, what it takes in, and how it is run."""

    model: str = option('resnet20s', "Any timm model, 'hf-hub:owner/name' or 'local-dir:folder'.")
    pretrained: bool = option(False, 'Start from the published weights of that model.')
    initial_checkpoint: Optional[str] = option(
        None, 'Start from these weights (.safetensors or .pth); the head may differ.'
    )
    in_chans: Optional[int] = option(None, "Input channels (none: the model's).", low=1)
    img_size: Optional[int] = option(None, "Side of the input image in pixels (none: the model's).", low=1)
    mean: Optional[tuple[float, ...]] = option(None, "Mean of each input channel, in [0, 1] (none: the model's).")
    std: Optional[tuple[float, ...]] = option(None, "Deviation of each input channel (none: the model's).", above=0)
    interpolation: Optional[str] = option(
        None, "How images are resized (none: the model's).", choices=('bilinear', 'bicubic', 'nearest')
    )
    crop_pct: Optional[float] = option(
        None, "Share of the side kept by the evaluation crop (none: the model's).", above=0
    )
    gp: Optional[str] = option(None, "Global pooling: fast, avg, max, avgmax, catavgmax (none: the model's).")
    drop: float = option(0.0, 'Dropout rate before the classifier.', low=0, high=1)
    drop_path: Optional[float] = option(None, 'Stochastic depth rate.', low=0, high=1)
    model_kwargs: dict = option({}, 'Further arguments of the model: name=value ...')
    sync_bn: bool = option(False, 'Batch statistics over all processes.')
    freeze_bn: bool = option(False, 'Keep every batch norm as it is: statistics, weight and bias.')
    grad_checkpointing: bool = option(False, 'Recompute features in the backward pass: less memory, more time.')
    channels_last: bool = option(False, 'Channels-last memory layout.')
    torchcompile: Optional[str] = option(None, "Compile the model with this backend (given alone: 'inductor').")
    torchcompile_mode: Optional[str] = option(
        None,
        'Mode of torch.compile.',
        choices=('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs'),
    )

    def errors(self, flag_name) -> Iterator[str]:
        if self.freeze_bn and self.sync_bn:
            yield (
                f'{flag_name("freeze_bn")} and {flag_name("sync_bn")} exclude each other: frozen norms gather no '
                'statistics.'
            )


@dataclass(frozen=True)
class TaskConfig:
    """What is minimised. Each task's own options follow under its prefix."""

    task: str = option('alfa', 'The training task; `timm_alfa.list_tasks()` lists them.')


@dataclass(frozen=True)
class OptimConfig:
    """Loss, optimizer and accumulation."""

    opt: str = option('sgd', "Any of timm's optimizers.")
    lr: Optional[float] = option(None, 'Learning rate (none: --lr-base scaled by the effective batch).', above=0)
    lr_base: float = option(0.1, 'Learning rate for an effective batch of --lr-base-size.', above=0)
    lr_base_size: int = option(256, 'The batch that --lr-base is meant for.', low=1)
    lr_base_scale: Optional[str] = option(
        None,
        'How it scales with the batch (none: sqrt for adaptive optimizers, else linear).',
        choices=('linear', 'sqrt'),
    )
    momentum: float = option(0.9, 'Momentum, where the optimizer has one.', low=0, high=1)
    weight_decay: float = option(5e-4, 'Weight decay.', low=0)
    filter_bias_and_bn: bool = option(True, 'Leave biases and norms without decay (the paper decays everything).')
    opt_eps: Optional[float] = option(None, 'Epsilon of the optimizer.', above=0)
    opt_betas: Optional[tuple[float, ...]] = option(None, 'Betas of the optimizer.', low=0, high=1)
    opt_kwargs: dict = option({}, 'Further arguments of the optimizer: name=value ...')
    layer_decay: Optional[float] = option(None, 'Layer-wise decay of the learning rate.', above=0, high=1)
    clip_grad: Optional[float] = option(None, 'Clip gradients at this value (none: never).', above=0)
    clip_mode: str = option(
        'norm', 'What is clipped; agc leaves the classifier alone.', choices=('norm', 'value', 'agc')
    )
    grad_accum_steps: int = option(1, 'Batches a process runs for one update.', low=1)
    bce_loss: bool = option(False, 'Binary cross-entropy over the classes in place of softmax cross-entropy.')
    bce_sum: bool = option(False, 'Sum it over the classes, not mean.')
    bce_target_thresh: Optional[float] = option(None, 'Make its targets 0 or 1 at this threshold.', low=0, high=1)

    def errors(self, flag_name) -> Iterator[str]:
        if self.opt_betas is not None and len(self.opt_betas) not in (2, 3):
            yield f'{flag_name("opt_betas")} is {self.opt_betas}: give two or three numbers.'


@dataclass(frozen=True)
class ScheduleConfig:
    """Length and learning-rate schedule. Schedules are evaluated at every update."""

    epochs: int = option(200, 'Passes over the training set.', low=1)
    sched: str = option('multistep', "timm's schedules, by update.", choices=SCHEDULES)
    decay_milestones: Optional[tuple[float, ...]] = option(
        None,
        'multistep: epochs after which the rate is multiplied by --decay-rate (none: a quarter and three '
        'quarters of the epochs, which is 50 and 150 of 200).',
        above=0,
    )
    decay_rate: float = option(0.1, 'multistep, step: the factor; poly: the power.', above=0)
    decay_epochs: Optional[float] = option(
        None, 'step: epochs between decays (90); wsd, rsqrt: length of the decay, or share of the run (0.2).', above=0
    )
    warmup_epochs: float = option(0.0, 'Epochs of linear warm-up.', low=0)
    warmup_updates: Optional[int] = option(None, 'The same counted in updates, exactly.', low=0)
    warmup_lr: float = option(1e-5, 'Learning rate at the first update of the warm-up.', low=0)
    min_lr: float = option(0.0, 'Smallest learning rate of schedules that decay to one.', low=0)

    def errors(self, flag_name) -> Iterator[str]:
        if self.warmup_epochs and self.warmup_updates is not None:
            yield (
                f'{flag_name("warmup_epochs")} {self.warmup_epochs:g} and {flag_name("warmup_updates")} '
                f'{self.warmup_updates} are both given: give one.'
            )
        milestones = self.decay_milestones
        if milestones is not None and list(milestones) != sorted(set(milestones)):
            yield f'{flag_name("decay_milestones")} is {milestones}: give rising epochs, such as 50 150.'


@dataclass(frozen=True)
class EmaConfig:
    """A moving average of the weights. With it on, the average is what is selected, saved and scored."""

    model_ema: bool = option(False, 'Keep one.')
    model_ema_decay: float = option(0.9998, 'Share of the average that an update keeps.', low=0, high=1)
    model_ema_warmup: bool = option(False, 'Raise the decay from zero over the first updates.')


@dataclass(frozen=True)
class RunConfig:
    """Where results go, how a run goes on, and what it says."""

    seed: int = option(42, 'Seed of everything that is random.', low=0, high=2**31 - 1)
    output: str = option('output', 'Folder of all runs.')
    experiment: Optional[str] = option(None, "Name of this run's folder in it (none: MODEL-TASK-DATASET).")
    resume: Optional[str] = option(
        None, "'auto': go on from the newest state of this experiment, or start; or a run's folder."
    )
    resume_anyway: bool = option(False, 'Go on even though options differ from those of the run.')
    checkpoint_every: str = option('10m', "State inside an epoch every so many minutes ('10m') or updates ('500').")
    keep: int = option(1, 'States kept in last/.', low=1)
    nan_patience: int = option(10, 'Updates in a row with a loss that is not finite before the run ends.', low=1)
    log_interval: int = option(50, 'Updates between log lines where there is no terminal for a bar.', low=1)
    log_with: Optional[tuple[str, ...]] = option(None, 'Trackers to report to, by way of accelerate.', choices=TRACKERS)
    dry_run: bool = option(False, 'Print the resolved options, blocks, shapes and parameters, and stop.')

    def errors(self, flag_name) -> Iterator[str]:
        try:
            parse_interval(self.checkpoint_every)
        except ValueError:
            yield (
                f"{flag_name('checkpoint_every')} is '{self.checkpoint_every}': "
                "give minutes ('10m') or updates ('500')."
            )
        name = self.experiment
        if name is not None and (not name or name in ('.', '..') or set(name) & set('/\\\0')):
            yield (
                f"{flag_name('experiment')} is '{name}': give the plain name of a folder; "
                f'{flag_name("output")} says where it is.'
            )
        if self.resume == '':
            yield f"{flag_name('resume')} is empty: give 'auto' or the folder of a run."


# What fits 1,437 images of 8x8 pixels, whose mirror images are no digits; the other defaults fit CIFAR and larger sets.
DIGITS_DEFAULTS = dict(epochs=6, batch_size=32, lr=0.03, sched='cosine', hflip=0.0)

# Options that say another thing than these defaults: where one is given, the default stays away.
DIGITS_UNLESS = dict(
    lr={'lr_base', 'lr_base_size', 'lr_base_scale'},
    hflip={'no_aug'},
    sched={'decay_milestones', 'decay_rate', 'decay_epochs'},
)


def means_digits(dataset: Optional[str], data_dir: Optional[str]) -> bool:
    """Whether the embedded digits are meant: by name, or because nothing is named."""
    return dataset == 'digits' or not (dataset or data_dir)


GROUPS = {
    'model': ModelConfig,
    'data': DataConfig,
    'aug': AugConfig,
    'task': TaskConfig,
    'optim': OptimConfig,
    'schedule': ScheduleConfig,
    'ema': EmaConfig,
    'run': RunConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """All options of a run, resolved.

    Args:
        task_options: The chosen task's own frozen options.
        given: Names the user set, by flag or YAML.
        recipe_precision: Mixed precision that --config says it ran in, if it says so.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    aug: AugConfig = AugConfig()
    task: TaskConfig = TaskConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig = EmaConfig()
    run: RunConfig = RunConfig()
    task_options: Any = None
    task_prefix: str = ''
    given: frozenset = frozenset()
    recipe_precision: Optional[str] = None

    def flat(self) -> dict[str, Any]:
        """Every option by its YAML key, with values that JSON and YAML hold."""
        flat = {}
        for group in GROUPS:
            flat.update(dataclasses.asdict(getattr(self, group)))
        if self.task_options is not None:
            options = dataclasses.asdict(self.task_options)
            flat.update({task_key(self.task_prefix, name): value for name, value in options.items()})
        return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}

    @property
    def is_digits(self) -> bool:
        """Whether the data are the embedded digits."""
        return means_digits(self.data.dataset, self.data.data_dir)

    @property
    def epochs(self) -> int:
        return self.schedule.epochs


def task_key(prefix: str, name: str) -> str:
    """The YAML key of a task's option: its row's prefix and the field's name."""
    return f'{prefix.replace("-", "_")}_{name}' if prefix else name

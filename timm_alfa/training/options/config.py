"""The options of train.py: groups, each of them a frozen dataclass.

Flags, YAML keys, `args.yaml` and `--help` come from these fields (see `parser`). Names are timm's where timm has one.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Iterator, Optional

from timm_alfa.data import AugConfig, DataConfig
from timm_alfa.data.datasets.registry import find_kind
from timm_alfa.options import option, own_flag_errors
from timm_alfa.tasks import list_tasks
from timm_alfa.training.options.selection import SelectionConfig
from timm_alfa.utils.text import parse_interval

# Arguments of models that have their own flags, or are taken from the data.
MODEL_FLAGS = {
    'num_classes': '--num-classes',
    'in_chans': '--in-chans',
    'img_size': '--img-size',
    'global_pool': '--gp',
    'drop_rate': '--drop',
    'drop_path_rate': '--drop-path',
}
SCHEDULES = ('multistep', 'cosine', 'step', 'constant', 'tanh', 'poly', 'wsd', 'rsqrt', 'none')
TRACKERS = ('tensorboard', 'trackio', 'wandb')
BALANCED = 'auto'  # class weights that make up for the number of images


@dataclass(frozen=True)
class ModelConfig:
    """The network and how it is run."""

    model: str = option('resnet20s', "any timm model, 'hf-hub:OWNER/NAME' or 'local-dir:FOLDER'")
    pretrained: bool = option(False, "start from the model's pretrained weights")
    initial_checkpoint: Optional[str] = option(
        None,
        "start from the weights in this file (.safetensors or .pth) or a run's folder; the classifier and the size of "
        'images may differ',
        metavar='FILE',
    )
    gp: Optional[str] = option(None, "global pooling: fast, avg, max, avgmax or catavgmax (default: the model's)")
    drop: float = option(0.0, 'dropout rate before the classifier', low=0, high=1)
    drop_path: Optional[float] = option(None, "stochastic depth rate (default: the model's)", low=0, high=1)
    model_kwargs: dict = option({}, 'additional arguments of the model, as name=value ...')
    sync_bn: bool = option(False, 'synchronize the batch statistics of all processes')
    freeze_bn: bool = option(False, 'freeze batch norm layers: statistics, weight and bias')
    freeze: Optional[str] = option(
        None,
        'train only what follows this stage: a number, or the name of a module; batch norms up to it keep their '
        'statistics',
        metavar='STAGE',
    )
    linear_probe: bool = option(False, 'train the classifier only')
    grad_checkpointing: bool = option(False, 'recompute activations in the backward pass: less memory, more time')
    channels_last: bool = option(False, 'use the channels_last memory layout')
    torchcompile: Optional[str] = option(None, "compile the model with this backend (without a value: 'inductor')")
    torchcompile_mode: Optional[str] = option(
        None,
        'mode of torch.compile',
        choices=('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs'),
    )
    cuda_graph: bool = option(
        False, 'run each update as a CUDA graph, with a fused optimizer; on a CPU the same updates, not as a graph'
    )

    def errors(self, flag_name) -> Iterator[str]:
        if self.freeze_bn and self.sync_bn:
            yield (
                f'{flag_name("freeze_bn")} and {flag_name("sync_bn")} cannot be combined: frozen layers do not use '
                'batch statistics.'
            )
        if self.freeze is not None and self.linear_probe:
            yield (
                f'{flag_name("freeze")} and {flag_name("linear_probe")} cannot be combined: a linear probe freezes '
                'everything but the classifier.'
            )
        yield from own_flag_errors(self.model_kwargs, flag_name('model_kwargs'), MODEL_FLAGS)


@dataclass(frozen=True)
class InputConfig:
    """The images that the model takes, in training and in evaluation."""

    in_chans: Optional[int] = option(None, "number of input channels (default: the model's)", low=1)
    img_size: Optional[int] = option(None, "height and width of the input in pixels (default: the model's)", low=1)
    mean: Optional[tuple[float, ...]] = option(None, "mean of each input channel, in [0, 1] (default: the model's)")
    std: Optional[tuple[float, ...]] = option(
        None, "standard deviation of each input channel (default: the model's)", above=0
    )
    interpolation: Optional[str] = option(
        None, "how images are resized (default: the model's)", choices=('bilinear', 'bicubic', 'nearest')
    )
    crop_pct: Optional[float] = option(
        None, "fraction of the image's side kept by the evaluation crop (default: the model's)", above=0
    )

    def errors(self, flag_name) -> Iterator[str]:
        for name in ('mean', 'std'):
            values = getattr(self, name)
            if None not in (values, self.in_chans) and len(values) not in (1, self.in_chans):
                yield (
                    f'{flag_name(name)} has {len(values)} values: pass one, or {self.in_chans} as '
                    f'{flag_name("in_chans")} says.'
                )


@dataclass(frozen=True)
class TaskConfig:
    """The method. Each task's own options follow under its prefix."""

    task: str = option('alfa', f'training task: {", ".join(list_tasks())}')


@dataclass(frozen=True)
class OptimConfig:
    """Loss, optimizer and accumulation."""

    opt: str = option('sgd', "any of timm's optimizers")
    lr: Optional[float] = option(None, 'learning rate (default: --lr-base scaled by the effective batch size)', above=0)
    lr_base: float = option(0.1, 'learning rate at an effective batch size of --lr-base-size', above=0)
    lr_base_size: int = option(256, 'effective batch size that --lr-base is for', low=1)
    lr_base_scale: Optional[str] = option(
        None,
        'how --lr-base scales with the batch size (default: sqrt for adaptive optimizers, otherwise linear)',
        choices=('linear', 'sqrt'),
    )
    momentum: float = option(0.9, 'momentum, if the optimizer has one', low=0, high=1)
    weight_decay: float = option(5e-4, 'weight decay', low=0)
    filter_bias_and_bn: bool = option(True, 'no weight decay on biases and norm layers; the paper decays everything')
    opt_eps: Optional[float] = option(None, "epsilon of the optimizer (default: the optimizer's)", above=0)
    opt_betas: Optional[tuple[float, ...]] = option(
        None, "betas of the optimizer (default: the optimizer's)", low=0, high=1
    )
    opt_kwargs: dict = option({}, 'additional arguments of the optimizer, as name=value ...')
    layer_decay: Optional[float] = option(None, 'layer-wise learning rate decay', above=0, high=1)
    clip_grad: Optional[float] = option(None, 'clip gradients at this value (default: no clipping)', above=0)
    clip_mode: str = option(
        'norm', 'how gradients are clipped; agc leaves out the classifier', choices=('norm', 'value', 'agc')
    )
    grad_accum_steps: int = option(1, 'batches accumulated per process for one update', low=1)
    class_weights: Optional[str] = option(
        None,
        "weights of the classes in the loss: 'auto' for the inverse of their number of images, or a YAML file",
        metavar='FILE',
    )
    bce_loss: bool = option(False, 'binary cross-entropy over the classes instead of softmax cross-entropy')
    bce_sum: bool = option(False, 'sum the binary cross-entropy over the classes instead of averaging it')
    bce_target_thresh: Optional[float] = option(
        None, 'threshold at which targets of the binary cross-entropy become 0 or 1', low=0, high=1
    )

    def errors(self, flag_name) -> Iterator[str]:
        if self.opt_betas is not None and len(self.opt_betas) not in (2, 3):
            yield f'{flag_name("opt_betas")} is {self.opt_betas}: pass two or three numbers.'
        if self.class_weights is not None and self.bce_loss:
            yield f'{flag_name("class_weights")} and {flag_name("bce_loss")} cannot be combined: leave one out.'
        if self.class_weights == '':
            yield f"{flag_name('class_weights')} is empty: pass 'auto' or a YAML file."


@dataclass(frozen=True)
class ScheduleConfig:
    """Length and learning rate schedule. Schedules are evaluated at every update."""

    epochs: int = option(200, 'number of epochs', low=1)
    sched: str = option('multistep', "timm's learning rate schedules, stepped per update", choices=SCHEDULES)
    decay_milestones: Optional[tuple[float, ...]] = option(
        None,
        'multistep: epochs after which the learning rate is multiplied by --decay-rate (default: a quarter and three '
        'quarters of the epochs, such as 50 150 of 200)',
        above=0,
    )
    decay_rate: float = option(0.1, 'multistep, step: factor of the decay; poly: its power', above=0)
    decay_epochs: Optional[float] = option(
        None,
        'step: epochs between decays (default: 90); wsd, rsqrt: epochs of decay, or their fraction of the run '
        '(default: 0.2)',
        above=0,
    )
    warmup_epochs: float = option(0.0, 'epochs of linear warmup', low=0)
    warmup_updates: Optional[int] = option(None, 'updates of linear warmup, instead of --warmup-epochs', low=0)
    warmup_lr: float = option(1e-5, 'learning rate of the first warmup update', low=0)
    min_lr: float = option(0.0, 'lowest learning rate, for schedules that decay to one', low=0)

    def errors(self, flag_name) -> Iterator[str]:
        if self.warmup_epochs and self.warmup_updates is not None:
            yield (
                f'{flag_name("warmup_epochs")} is {self.warmup_epochs:g} and {flag_name("warmup_updates")} is '
                f'{self.warmup_updates}: pass only one of them.'
            )
        milestones = self.decay_milestones
        if milestones is not None and list(milestones) != sorted(set(milestones)):
            yield f'{flag_name("decay_milestones")} is {milestones}: pass increasing epochs, such as 50 150.'


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average (EMA) of the weights. If there is one, it is what is evaluated and saved."""

    model_ema: bool = option(False, 'keep an exponential moving average of the weights, and evaluate and save it')
    model_ema_decay: float = option(0.9998, 'decay of the EMA per update', low=0, high=1)
    model_ema_warmup: bool = option(False, 'raise the decay from zero over the first updates')


@dataclass(frozen=True)
class RunConfig:
    """Where results go, how a run is resumed, and what it reports."""

    seed: int = option(42, 'random seed', low=0, high=2**31 - 1)
    output: str = option('output', 'folder for all runs', metavar='FOLDER')
    experiment: Optional[str] = option(
        None, "name of this run's folder in --output (default: MODEL-TASK-DATASET, numbered)"
    )
    resume: Optional[str] = option(
        None,
        "'auto': resume from the latest state of this experiment, or start it; or the folder of a run to resume",
        metavar='RUN',
    )
    resume_anyway: bool = option(False, 'resume even if options differ from those of the run')
    checkpoint_every: str = option(
        '10m', "interval of saved states within an epoch, in minutes ('10m') or updates ('500')", metavar='INTERVAL'
    )
    keep: int = option(1, 'number of states to keep in last/', low=1)
    nan_patience: int = option(10, 'consecutive updates without a finite loss after which the run ends', low=1)
    log_interval: int = option(
        50, 'updates between the numbers of the progress bar or log lines, and of trackers', low=1
    )
    log_with: Optional[tuple[str, ...]] = option(None, 'experiment trackers to log to', choices=TRACKERS)
    probe: bool = option(
        False,
        'measure how much a search raises the loss at each block and what it costs, write it to the folder, and exit',
    )
    dry_run: bool = option(False, 'print the resolved options, blocks, feature shapes and parameter count, and exit')

    def errors(self, flag_name) -> Iterator[str]:
        try:
            parse_interval(self.checkpoint_every)
        except ValueError:
            yield (
                f"{flag_name('checkpoint_every')} is '{self.checkpoint_every}': "
                "pass minutes ('10m') or updates ('500')."
            )
        if self.experiment is not None and not _is_plain_name(self.experiment):
            yield (
                f"{flag_name('experiment')} is '{self.experiment}': pass a plain folder name; "
                f'{flag_name("output")} says where it is.'
            )
        if self.probe and self.dry_run:
            yield f'{flag_name("probe")} and {flag_name("dry_run")} cannot be combined: a dry run writes nothing.'
        if self.resume == '':
            yield f"{flag_name('resume')} is empty: pass 'auto' or the folder of a run."


def _is_plain_name(name: str) -> bool:
    return name not in ('', '.', '..') and name[0] != '~' and not set(name) & set('/\\\0')


# They suit 1,437 images of 8x8 pixels that must not be mirrored; the other defaults suit CIFAR and larger datasets.
DIGITS_DEFAULTS = dict(epochs=6, batch_size=32, lr=0.03, sched='cosine', hflip=0.0)

# Options that contradict one of these defaults: if one of them is given, that default does not apply.
DIGITS_UNLESS = dict(
    lr={'lr_base', 'lr_base_size', 'lr_base_scale'},
    hflip={'no_aug'},
    sched={'decay_milestones', 'decay_rate', 'decay_epochs'},
)


def means_digits(dataset: Optional[str], data_dir: Optional[str]) -> bool:
    """Whether these options mean the embedded digits: by name, or because they name nothing."""
    return find_kind(str(dataset or ''), str(data_dir or '')) == 'digits'


GROUPS = {
    'model': ModelConfig,
    'input': InputConfig,
    'data': DataConfig,
    'aug': AugConfig,
    'task': TaskConfig,
    'optim': OptimConfig,
    'schedule': ScheduleConfig,
    'ema': EmaConfig,
    'selection': SelectionConfig,
    'run': RunConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """All options of a run, resolved.

    Attributes:
        task_options: The chosen task's own frozen options.
        task_prefix: The prefix of their flags.
        given: Keys that the user set, by flag or YAML.
        recipe_precision: The mixed precision that --config says its run had, if it does.
        words: The command line that was parsed; None if it is that of the process.
    """

    model: ModelConfig = ModelConfig()
    input: InputConfig = InputConfig()
    data: DataConfig = DataConfig()
    aug: AugConfig = AugConfig()
    task: TaskConfig = TaskConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig = EmaConfig()
    selection: SelectionConfig = SelectionConfig()
    run: RunConfig = RunConfig()
    task_options: Any = None
    task_prefix: str = ''
    given: frozenset = frozenset()
    recipe_precision: Optional[str] = None
    words: Optional[tuple[str, ...]] = dataclasses.field(default=None, compare=False)

    def flat(self) -> dict[str, Any]:
        """Every option by its YAML key, as values that JSON and YAML hold."""
        flat = {}
        for group in GROUPS:
            flat.update(dataclasses.asdict(getattr(self, group)))
        if self.task_options is not None:
            for name, value in dataclasses.asdict(self.task_options).items():
                flat[task_key(self.task_prefix, name)] = value
        return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}

    @property
    def is_digits(self) -> bool:
        """Whether the dataset is the embedded digits."""
        return means_digits(self.data.dataset, self.data.data_dir)

    @property
    def epochs(self) -> int:
        return self.schedule.epochs


def task_key(prefix: str, name: str) -> str:
    """The YAML key of a task's option: the task's prefix and the field's name."""
    return f'{prefix.replace("-", "_")}_{name}' if prefix else name

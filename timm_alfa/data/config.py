"""What can be asked of data and augmentation, and which of it goes together."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from timm_alfa.options import default_of, option

# What the in-memory loader leaves to timm's transforms, which work on one PIL image at a time.
TIMM_ONLY = ('scale', 'ratio', 'color_jitter', 'aa', 'train_interpolation')


def flag(name: str) -> str:
    """How the command line spells a field."""
    return '--' + name.replace('_', '-')


@dataclass(frozen=True)
class DataConfig:
    """Which images, in which parts, by how many at a time."""

    dataset: str = option(
        '', 'digits, hfds/NAME or hfds/FOLDER, torch/NAME, wds/FOLDER; empty: --data-dir, or else digits'
    )
    data_dir: str = option('', 'root of an image folder, or where the data set is kept')
    train_split: str = option('train', 'split to train on')
    val_split: str = option('validation', 'split to validate on; with --val-fraction it is the test split')
    input_key: str | None = option(None, 'column of the images (hfds), or their extensions (wds: jpg;png)')
    target_key: str | None = option(None, 'column of the labels (hfds), or field of the .json files (wds)')
    class_map: str = option('', 'file with one class name a line, in the order of the labels')
    dataset_download: bool = option(False, 'let torchvision download the data set')
    num_classes: int | None = option(None, 'number of classes (default: as the data says)', low=1)
    val_fraction: float = option(0.0, 'fraction of the training split to validate on', low=0, high=0.9)
    train_subset: int | None = option(None, 'train on this many images only, drawn by the seed', low=1)
    batch_size: int = option(128, 'images a batch and process', low=1, flag='-b')
    validation_batch_size: int | None = option(
        None, 'images a validation batch (default: the batch size)', low=1, flag='-vb'
    )
    workers: int = option(2, 'processes (or decoding threads) that read images', low=0, flag='-j')
    loader: str = option(
        'auto', 'memory: decode once, augment in batches; timm: read from disk', choices=('auto', 'memory', 'timm')
    )
    skip_corrupt: bool = option(False, 'leave out images that cannot be read, and count them')
    pin_mem: bool = option(False, 'pin host memory for faster copies to a GPU')


@dataclass(frozen=True)
class AugConfig:
    """What is done to training images. Targets are soft where mixup or cutmix is on."""

    no_aug: bool = option(False, 'no crops, flips, jitter or erasing')
    crop_padding: int = option(4, 'zero padding of the random crop, in pixels (memory loader)', low=0, high=256)
    scale: tuple[float, ...] | None = option(None, 'area of the random resized crop (default 0.08 1)', above=0)
    ratio: tuple[float, ...] | None = option(None, 'aspect of the random resized crop (default 3/4 4/3)', above=0)
    hflip: float = option(0.5, 'probability of a horizontal flip', low=0, high=1)
    vflip: float = option(0.0, 'probability of a vertical flip', low=0, high=1)
    color_jitter: float | None = option(None, 'strength of colour jitter (default 0.4 with the timm loader)', low=0)
    aa: str | None = option(None, 'AutoAugment policy, such as rand-m9-mstd0.5 or original')
    reprob: float = option(0.0, 'probability of random erasing', low=0, high=1)
    remode: str = option('pixel', 'what erased pixels become', choices=('const', 'rand', 'pixel'))
    recount: int = option(1, 'most erased boxes an image', low=1)
    train_interpolation: str = option(
        'random', 'resizing of training images', choices=('random', 'nearest', 'bilinear', 'bicubic', 'lanczos')
    )
    mixup: float = option(0.0, 'mixup alpha; 0 is off', low=0)
    cutmix: float = option(0.0, 'cutmix alpha; 0 is off', low=0)
    cutmix_minmax: tuple[float, ...] | None = option(
        None, 'least and greatest side of the cutmix box, relative; switches cutmix on', low=0, high=1
    )
    mixup_prob: float = option(1.0, 'probability of mixup or cutmix', low=0, high=1)
    mixup_switch_prob: float = option(0.5, 'probability of cutmix where both are on', low=0, high=1)
    mixup_mode: str = option('batch', 'draw for each batch, pair or element', choices=('batch', 'pair', 'elem'))
    mixup_off_epoch: int = option(0, 'switch mixup off from this epoch on; 0 is never', low=0)
    smoothing: float = option(0.0, 'label smoothing', low=0, high=0.99)

    @property
    def mixes(self) -> bool:
        """Whether targets are soft: mixup or cutmix is on."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    def errors(self, flag_name=flag) -> Iterator[str]:
        for name in ('scale', 'ratio', 'cutmix_minmax'):
            pair = getattr(self, name)
            if pair is not None and (len(pair) != 2 or pair[0] > pair[1]):
                yield f'{flag_name(name)} is {" ".join(map(str, pair))}: give two numbers, the smaller first.'
        if self.aa is not None and not _is_policy(self.aa):
            yield (
                f"{flag_name('aa')} is '{self.aa}': use a policy such as rand-m9-mstd0.5, augmix-m5-w4, original or 3a."
            )


def _is_policy(name: str) -> bool:
    """Whether timm makes transforms of an AutoAugment policy's name."""
    from timm.data import create_transform

    try:
        create_transform(32, is_training=True, auto_augment=name)
    except (AssertionError, KeyError, ValueError, IndexError):
        return False
    return True


def given(config, names) -> list[str]:
    """Those of the named fields that are not at their default."""
    known = {f.name: f for f in fields(config)}
    return [name for name in names if getattr(config, name) != default_of(known[name])]


def pair_errors(data: DataConfig, aug: AugConfig, flag_name=flag) -> Iterator[str]:
    """What one of the two configs rules out in the other."""
    if data.loader == 'memory':
        for name in given(aug, TIMM_ONLY):
            yield f"{flag_name(name)} needs timm's transforms: drop it, or {flag_name('loader')} timm."


def idle_options(data: DataConfig, aug: AugConfig, kind: str, loader: str, flag_name=flag) -> Iterator[str]:
    """One line an option that is set and cannot have an effect.

    Args:
        kind: What the data is: 'digits', 'hfds', 'torch', 'wds' or 'folder'.
        loader: What was chosen: 'memory' or 'timm'.
    """
    rows = (
        (data, kind == 'digits', 'with the embedded digits', ('data_dir', 'class_map')),
        (data, kind not in ('hfds', 'wds'), 'without an hfds/ or wds/ data set', ('input_key', 'target_key')),
        (data, kind != 'torch', 'without a torch/ data set', ('dataset_download',)),
        (aug, loader == 'timm', 'with the timm loader', ('crop_padding',)),
        (aug, loader == 'memory', 'with the memory loader', ('train_interpolation',)),
        (data, loader == 'memory', 'with the memory loader', ('pin_mem',)),
        (
            aug,
            aug.no_aug,
            'with ' + flag_name('no_aug'),
            ('crop_padding', 'scale', 'ratio', 'hflip', 'vflip', 'color_jitter', 'aa', 'reprob'),
        ),
        (aug, aug.reprob == 0, f'while {flag_name("reprob")} is 0', ('remode', 'recount')),
        (
            aug,
            not aug.mixes,
            'without mixup or cutmix',
            ('mixup_prob', 'mixup_switch_prob', 'mixup_mode', 'mixup_off_epoch'),
        ),
    )
    for config, idle, why, names in rows:
        if idle:
            yield from (f'{flag_name(name)} has no effect {why}.' for name in given(config, names))

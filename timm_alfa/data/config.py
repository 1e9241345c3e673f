"""The options of data and augmentation."""

from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from timm_alfa.data.datasets.registry import DEFAULT, dataset_help, option_help
from timm_alfa.options import long_flag, option

AUTO = 0  # a batch size that is yet to be found


@dataclass(frozen=True)
class DataConfig:
    """Which images, in which splits, and how they are read."""

    dataset: str = option('', dataset_help())
    data_dir: str = option('', 'root of an image folder, or where the dataset is kept', metavar='FOLDER')
    train_split: str = option('train', 'split to train on')
    val_split: str = option('validation', 'split to validate on; with --val-fraction it is the test split')
    input_key: Optional[str] = option(None, option_help('input_key'))
    target_key: Optional[str] = option(None, option_help('target_key'))
    class_map: str = option('', 'file with one class name per line, in the order of the labels', metavar='FILE')
    dataset_download: bool = option(False, option_help('dataset_download'))
    num_classes: Optional[int] = option(None, 'number of classes (default: that of the data)', low=1)
    val_fraction: float = option(0.0, 'fraction of the training split to validate on', low=0, high=0.9)
    train_subset: Optional[int] = option(None, 'train on this many images only, drawn with the seed', low=1)
    score_unused: bool = option(
        False, 'with --train-subset: also score the best checkpoint on the training images that were left out'
    )
    balanced_sampling: bool = option(
        False, 'draw training images with replacement so that each class is seen equally often'
    )
    batch_size: int = option(
        128,
        'images per batch and process; auto: as many as memory allows, at most the default',
        low=1,
        flag='-b',
        words={'auto': AUTO},
    )
    validation_batch_size: Optional[int] = option(
        None, 'images per validation batch (default: the batch size)', low=1, flag='-vb'
    )
    workers: int = option(2, 'processes (or decoding threads) that read images', low=0, flag='-j')
    loader: str = option(
        'auto', 'memory: decode once, augment in batches; timm: read from disk', choices=('auto', 'memory', 'timm')
    )
    skip_corrupt: bool = option(False, 'skip images that cannot be read, and count them')
    pin_mem: bool = option(False, 'pin host memory for faster copies to a GPU')

    @property
    def name(self) -> str:
        """What the user calls the data: the dataset, the image folder, or the default dataset."""
        return self.dataset or self.data_dir or DEFAULT

    @property
    def short_name(self) -> str:
        """The last part of the name, without the folders or the owner before it."""
        return self.name.rstrip('/').split('/')[-1]


@dataclass(frozen=True)
class AugConfig:
    """Augmentation of the training images. Targets are soft if mixup or cutmix is on."""

    no_aug: bool = option(False, 'no crops, flips, jitter or erasing')
    crop_padding: int = option(4, 'zero padding of the random crop, in pixels (memory loader)', low=0, high=256)
    scale: Optional[tuple[float, float]] = option(None, 'area of the random resized crop (default 0.08 1)', above=0)
    ratio: Optional[tuple[float, float]] = option(None, 'aspect of the random resized crop (default 3/4 4/3)', above=0)
    hflip: float = option(0.5, 'probability of a horizontal flip', low=0, high=1)
    vflip: float = option(0.0, 'probability of a vertical flip', low=0, high=1)
    color_jitter: Optional[float] = option(None, 'strength of color jitter (default 0.4 with the timm loader)', low=0)
    aa: Optional[str] = option(None, 'AutoAugment policy, such as rand-m9-mstd0.5 or original')
    reprob: float = option(0.0, 'probability of random erasing', low=0, high=1)
    remode: str = option('pixel', 'what erased pixels become', choices=('const', 'rand', 'pixel'))
    recount: int = option(1, 'maximum number of erased boxes per image', low=1)
    train_interpolation: str = option(
        'random', 'resizing of training images', choices=('random', 'nearest', 'bilinear', 'bicubic', 'lanczos')
    )
    mixup: float = option(0.0, 'mixup alpha; 0 is off', low=0)
    cutmix: float = option(0.0, 'cutmix alpha; 0 is off', low=0)
    cutmix_minmax: Optional[tuple[float, float]] = option(
        None, 'minimum and maximum side of the cutmix box, relative; switches cutmix on', low=0, high=1
    )
    mixup_prob: float = option(1.0, 'probability of mixup or cutmix', low=0, high=1)
    mixup_switch_prob: float = option(0.5, 'probability of cutmix if both are on', low=0, high=1)
    mixup_mode: str = option('batch', 'draw for each batch, pair or element', choices=('batch', 'pair', 'elem'))
    mixup_off_epoch: int = option(0, 'switch mixup off from this epoch on; 0 is never', low=0)
    smoothing: float = option(0.0, 'label smoothing', low=0, high=0.99)

    @property
    def mixes(self) -> bool:
        """Whether targets are soft: mixup or cutmix is on."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    def errors(self, flag_name: Callable[[str], str] = long_flag) -> Iterator[str]:
        """Yields one line per invalid option."""
        for name in ('scale', 'ratio', 'cutmix_minmax'):
            pair = getattr(self, name)
            if pair is not None and (len(pair) != 2 or pair[0] > pair[1]):
                yield f'{flag_name(name)} is {" ".join(map(str, pair))}: use two numbers, the smaller first.'
        if self.aa is not None and not _is_policy(self.aa):
            yield (
                f"{flag_name('aa')} is '{self.aa}': use a policy such as rand-m9-mstd0.5, augmix-m5-w4, original or 3a."
            )


def _is_policy(name: str) -> bool:
    """Whether timm knows an AutoAugment policy."""
    from timm.data import create_transform

    try:
        create_transform(32, is_training=True, auto_augment=name)
    except (AssertionError, KeyError, ValueError, IndexError):
        return False
    return True

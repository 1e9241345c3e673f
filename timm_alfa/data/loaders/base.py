"""What both loaders promise, and what is done to a whole batch."""

from dataclasses import dataclass, field
from typing import Iterator, Optional

import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing

from timm_alfa.data.config import AugConfig
from timm_alfa.data.datasets.base import Subset
from timm_alfa.data.loaders import sampling

CPU = torch.device('cpu')
Batch = tuple[torch.Tensor, torch.Tensor]  # input, target


@dataclass(frozen=True)
class LoaderSpec:
    """How batches are made.

    Attributes:
        batch_size: Images per batch and process.
        input_size: Channels, height, width.
        mean: Per channel, for pixels in [0, 1].
        std: Per channel, for pixels in [0, 1].
        num_classes: Number of classes, for soft targets.
        aug: Augmentation of the training images.
        interpolation: How images are resized.
        crop_pct: Share of the side kept by the evaluation crop.
        crop_mode: timm's mode of the evaluation crop.
        seed: Of the order and the augmentation: the same on every rank.
        rank: Which of the processes this is.
        world_size: Number of processes.
        device: Where batches are made.
        channels_last: Memory format of the batches.
        workers: Processes (or decoding threads) that read images.
        pin_mem: Whether worker processes' batches are pinned.
        skip_corrupt: Whether images that cannot be read are skipped.
        balanced: Whether training images are drawn so that each class is seen equally often.
    """

    batch_size: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    aug: AugConfig = field(default_factory=AugConfig)
    interpolation: str = 'bicubic'
    crop_pct: Optional[float] = None
    crop_mode: Optional[str] = None
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    channels_last: bool = False
    workers: int = 0
    pin_mem: bool = False
    skip_corrupt: bool = False
    balanced: bool = False


class Loader:
    """Batches of a subset, for one rank.

    Iterating gives `(input, target)` on the device: normalized float32 (batch, channels, height, width), and int64
    (batch,) or, with mixup or cutmix, float32 (batch, num_classes). Everything is a function of the seed, the epoch and
    the step, so that `set_epoch(e, k)` continues exactly where another process stopped after k batches.

    Attributes:
        name: The value of `--loader` for this class.
        subset: Images to load.
        spec: How batches are made.
        last_indices: Indices into the source of the latest batch, int64.
        skipped_indices: Corrupt images skipped so far, each once.
    """

    name: str

    def __init__(self, subset: Subset, spec: LoaderSpec):
        self.subset, self.spec = subset, spec
        self.epoch, self.start_batch = 0, 0
        self.last_indices = torch.empty(0, dtype=torch.int64)
        self.skipped_indices: set[int] = set()
        self._mean = _per_channel(spec.mean, spec.device)
        self._std = _per_channel(spec.std, spec.device)
        self._augment = BatchAugment(spec) if subset.train else None

    @property
    def images(self) -> int:
        """Number of images that an epoch draws from, over all ranks."""
        return len(self.subset)

    def __len__(self) -> int:
        spec = self.spec
        if self.subset.train:
            return sampling.train_steps(self.images, spec.batch_size, spec.world_size)
        return -(-len(sampling.eval_slice(self.images, spec.rank, spec.world_size)) // spec.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        raise NotImplementedError

    def parts(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields for each batch what `assemble` makes it of, on the device."""
        yield from self

    def assemble(self, *parts: torch.Tensor) -> Batch:
        """Makes a batch of its parts: a function of them that draws nothing, so it can be part of a CUDA graph."""
        input, target = parts
        return input, target

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Sets the epoch of the next iteration, and its first batch."""
        self.epoch, self.start_batch = epoch, start_batch

    def order(self, epoch: int) -> torch.Tensor:
        """Returns an epoch's order, (images,) int64: shuffled or drawn to train, as stored to evaluate."""
        if self.subset.train and self.spec.balanced:
            targets = self.subset.source.targets[self.subset.indices]
            return sampling.balanced_order(targets, self.spec.seed, epoch)
        if self.subset.train:
            return sampling.epoch_order(self.images, self.spec.seed, epoch)
        return torch.arange(self.images)

    def positions(self, start_batch: int) -> Iterator[torch.Tensor]:
        """Yields for each step from `start_batch` on its positions in the epoch's order, (batch,) int64."""
        spec = self.spec
        if self.subset.train:
            for step in range(start_batch, len(self)):
                yield sampling.train_slice(self.images, step, spec.batch_size, spec.rank, spec.world_size)
            return
        mine = sampling.eval_slice(self.images, spec.rank, spec.world_size)
        if len(mine):
            yield from mine.split(spec.batch_size)[start_batch:]

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Converts uint8 (batch, channels, height, width) on the device to normalized float32."""
        layout = torch.channels_last if self.spec.channels_last else torch.contiguous_format
        return pixels.to(torch.float32, memory_format=layout).sub_(self._mean).div_(self._std)

    def augment(self, input: torch.Tensor, target: torch.Tensor, epoch: int, step: int) -> Batch:
        """Returns the batch after random erasing, mixup and cutmix; unchanged to evaluate."""
        return (input, target) if self._augment is None else self._augment(input, target, epoch, step)

    def close(self) -> None:
        """Ends worker processes, if there are any."""


def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Returns values for pixels in [0, 255], (1, channels, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32).mul(255).view(1, -1, 1, 1).to(device)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor from the host to a device; for a GPU from pinned memory, so that the host need not wait."""
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class BatchAugment:
    """Random erasing, then mixup or cutmix, by timm's classes, seeded for each batch."""

    def __init__(self, spec: LoaderSpec):
        self.spec = spec
        self.erase = _random_erasing(spec)
        self.mix = _mixup(spec)

    @property
    def has_effect(self) -> bool:
        """Whether there is anything to do."""
        return self.erase is not None or self.mix is not None

    def __call__(self, input: torch.Tensor, target: torch.Tensor, epoch: int, step: int) -> Batch:
        spec = self.spec
        if not self.has_effect:
            return input, target
        # 'finish' is part of the seed: another word would be other random numbers
        seed = sampling.stream_seed('finish', spec.seed, epoch, step, spec.rank)
        with sampling.seeded(seed, spec.device):
            if self.erase is not None:
                input = self.erase(input)
            if self.mix is not None:
                input, target = self._mixed(self.mix, input, target, epoch)
        return input, target

    def _mixed(self, mix: Mixup, input: torch.Tensor, target: torch.Tensor, epoch: int) -> Batch:
        off = self.spec.aug.mixup_off_epoch
        mix.mixup_enabled = not (off and epoch >= off)
        even = len(input) // 2 * 2  # timm mixes pairs: the last image of an odd batch stays as it is
        rest = mixup_target(target[even:], self.spec.num_classes, 1.0, mix.label_smoothing)
        if not even:
            return input, rest
        _, soft = mix(input[:even], target[:even])  # in place
        return input, torch.cat([soft, rest])


def _random_erasing(spec: LoaderSpec) -> Optional[RandomErasing]:
    aug = spec.aug
    if aug.reprob == 0 or aug.no_aug:
        return None
    return RandomErasing(aug.reprob, mode=aug.remode, max_count=aug.recount, device=spec.device)


def _mixup(spec: LoaderSpec) -> Optional[Mixup]:
    aug = spec.aug
    if not aug.mixes:
        return None
    return Mixup(
        mixup_alpha=aug.mixup,
        cutmix_alpha=aug.cutmix,
        cutmix_minmax=aug.cutmix_minmax,
        prob=aug.mixup_prob,
        switch_prob=aug.mixup_switch_prob,
        mode=aug.mixup_mode,
        label_smoothing=aug.smoothing,
        num_classes=spec.num_classes,
    )

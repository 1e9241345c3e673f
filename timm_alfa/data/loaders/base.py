"""What both loaders promise, and what is done to a whole batch."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing

from timm_alfa.data.config import AugConfig
from timm_alfa.data.datasets.base import Part
from timm_alfa.data.loaders import sampling

CPU = torch.device('cpu')


@dataclass(frozen=True)
class LoaderSpec:
    """How batches are made.

    Attributes:
        input_size: Channels, height, width.
        mean: Per channel, in [0, 1] pixel units. `std` likewise.
    """

    batch_size: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    aug: AugConfig = field(default_factory=AugConfig)
    interpolation: str = 'bicubic'
    crop_pct: float | None = None
    crop_mode: str | None = None
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    channels_last: bool = False
    workers: int = 0
    pin_mem: bool = False
    skip_corrupt: bool = False


class Loader:
    """Batches of one part of the data, for one rank.

    Iterating gives `(input, target)` on the device: normalised float32 (batch, channels, height, width), and int64
    (batch,) or, where mixup or cutmix is on, float32 (batch, num_classes). Everything follows from the seed, the epoch
    and the step, so that `set_epoch(e, k)` goes on exactly where another process stopped after k batches.

    Attributes:
        name: How options call this kind of loader.
        last_indices: Indices into the source of the latest batch, int64.
        skipped_indices: Distinct corrupt images left out so far.
    """

    name: str

    def __init__(self, part: Part, spec: LoaderSpec):
        self.part, self.spec = part, spec
        self.epoch, self.start_batch = 0, 0
        self.last_indices = torch.empty(0, dtype=torch.int64)
        self.skipped_indices: set[int] = set()
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32).mul(255).view(1, -1, 1, 1).to(spec.device)
            for values in (spec.mean, spec.std)
        )
        self._finish = Finish(spec) if part.train else None

    @property
    def images(self) -> int:
        """Images that an epoch draws from, over all ranks."""
        return len(self.part)

    def __len__(self) -> int:
        spec = self.spec
        if self.part.train:
            return sampling.train_steps(self.images, spec.batch_size, spec.world_size)
        return -(-len(sampling.eval_slice(self.images, spec.rank, spec.world_size)) // spec.batch_size)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Which epoch the next iteration is, and which of its batches comes first."""
        self.epoch, self.start_batch = epoch, start_batch

    def positions(self) -> Iterator[torch.Tensor]:
        """For each step from `start_batch` on, places in the epoch's order, (batch,)."""
        spec = self.spec
        if self.part.train:
            for step in range(self.start_batch, len(self)):
                yield sampling.train_slice(self.images, step, spec.batch_size, spec.rank, spec.world_size)
        else:
            mine = sampling.eval_slice(self.images, spec.rank, spec.world_size)
            yield from mine.split(spec.batch_size)[self.start_batch :] if len(mine) else ()

    def order(self) -> torch.Tensor:
        """The epoch's order: shuffled to train, as stored to evaluate."""
        if self.part.train:
            return sampling.epoch_order(self.images, self.spec.seed, self.epoch)
        return torch.arange(self.images)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (batch, channels, height, width) on the device as normalised float32."""
        layout = torch.channels_last if self.spec.channels_last else torch.contiguous_format
        return pixels.to(torch.float32, memory_format=layout).sub_(self._mean).div_(self._std)

    def close(self) -> None:
        """Ends worker processes, if there are any."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        raise NotImplementedError


class Finish:
    """Random erasing, then mixup or cutmix, by timm's classes under a seed of their own."""

    def __init__(self, spec: LoaderSpec):
        aug = spec.aug
        self.spec = spec
        self.erase = (
            RandomErasing(
                aug.reprob,
                mode=aug.remode,
                max_count=aug.recount,
                device=spec.device,
            )
            if aug.reprob > 0 and not aug.no_aug
            else None
        )
        self.mix = (
            Mixup(
                mixup_alpha=aug.mixup,
                cutmix_alpha=aug.cutmix,
                cutmix_minmax=aug.cutmix_minmax,
                prob=aug.mixup_prob,
                switch_prob=aug.mixup_switch_prob,
                mode=aug.mixup_mode,
                label_smoothing=aug.smoothing,
                num_classes=spec.num_classes,
            )
            if aug.mixes
            else None
        )

    def __call__(self, input: torch.Tensor, target: torch.Tensor, epoch: int, step: int):
        spec = self.spec
        if self.erase is None and self.mix is None:
            return input, target
        with sampling.seeded(sampling.stream_seed('finish', spec.seed, epoch, step, spec.rank), spec.device):
            if self.erase is not None:
                input = self.erase(input)
            return self._mixed(input, target, epoch) if self.mix is not None else (input, target)

    def _mixed(self, input: torch.Tensor, target: torch.Tensor, epoch: int):
        off = self.spec.aug.mixup_off_epoch
        self.mix.mixup_enabled = not (off and epoch >= off)
        even = len(input) // 2 * 2  # timm mixes pairs: of an odd batch the last image stays as it is
        alone = mixup_target(target[even:], self.spec.num_classes, 1.0, self.mix.label_smoothing)
        if not even:
            return input, alone
        _, soft = self.mix(input[:even], target[:even])  # in place
        return input, torch.cat([soft, alone])

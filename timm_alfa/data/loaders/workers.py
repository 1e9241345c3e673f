"""Images read and transformed one at a time by worker processes: timm's transforms, in this package's order."""

import os
import signal
from typing import Callable, Iterator, Optional, Union

import torch
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from timm_alfa.data.datasets.base import Source, Subset, image_mode
from timm_alfa.data.loaders import sampling
from timm_alfa.data.loaders.base import Loader, LoaderSpec, send
from timm_alfa.data.loaders.worker_errors import connection_error, worker_error
from timm_alfa.errors import DataError

Key = tuple[int, ...]  # epoch, index into the source, and how often the epoch has drawn it before, if it has
Read = tuple[int, torch.Tensor, int]  # index, image, label
Unreadable = tuple[int, None, str]  # index, None, message
Sample = Union[Read, Unreadable]


class Samples(Dataset):
    """Transformed images by their key. Each draws from its own seed, so that it does not matter who makes it.

    An error is returned, not raised: its message arrives unchanged.

    Args:
        source: Where the images come from.
        transform: From a PIL image to uint8.
        mode: PIL's mode of the images.
        seed: Of the augmentation.
    """

    def __init__(self, source: Source, transform: Callable, mode: str, seed: int):
        self.source, self.transform, self.mode, self.seed = source, transform, mode, seed

    def __getitem__(self, key: Key) -> Sample:
        index = key[1]
        try:
            image = self.source.image(index, self.mode)
            with sampling.seeded(sampling.stream_seed('sample', self.seed, *key)):
                return index, self.transform(image), int(self.source.targets[index])
        except DataError as error:
            return index, None, str(error)


def collate(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[int, str]]]:
    """Returns indices, uint8 images, labels, and (index, message) of what could not be read."""
    good = [sample for sample in samples if sample[1] is not None]
    errors = [(sample[0], sample[2]) for sample in samples if sample[1] is None]
    indices = torch.tensor([index for index, _, _ in good], dtype=torch.int64)
    pixels = torch.stack([image for _, image, _ in good]) if good else torch.empty(0)
    targets = torch.tensor([target for _, _, target in good], dtype=torch.int64)
    return indices, pixels, targets, errors


def ignore_signals(worker: int) -> None:
    """Leaves signals to the main process, which finishes its update and saves: also one to the process group.

    SIGTERM stays: torch ends workers by it.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    os.setpgrp()


class Batches:
    """A batch sampler: yields the lists of keys that were set last."""

    def __init__(self):
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class WorkerLoader(Loader):
    """Batches read from a source by worker processes."""

    name = 'timm'

    def __init__(self, subset: Subset, spec: LoaderSpec):
        super().__init__(subset, spec)
        self.batches = Batches()
        transform = transform_of(spec, subset.train)
        self.loader: Optional[DataLoader] = DataLoader(
            Samples(subset.source, transform, image_mode(spec.input_size[0]), spec.seed),
            batch_sampler=self.batches,
            num_workers=spec.workers,
            collate_fn=collate,
            pin_memory=spec.pin_mem,
            persistent_workers=subset.train and spec.workers > 0,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # or each epoch would draw a seed from the global generator
        )

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, start_batch = self.epoch, self.start_batch
        indices = self.subset.indices[self.order(epoch)]
        keys = self._keys(epoch, indices)
        self.batches.keys = [[keys[at] for at in positions.tolist()] for positions in self.positions(start_batch)]
        for step, (read, pixels, target, errors) in enumerate(self._read(), start_batch):
            self._account(read, errors)
            if not len(read) and not self.subset.train:
                continue
            input = self.normalize(send(pixels, self.spec.device))
            yield self.augment(input, send(target, self.spec.device), epoch, step)

    def _keys(self, epoch: int, indices: torch.Tensor) -> list[Key]:
        """The key of each image of an epoch, in its order: an image that is drawn again is augmented anew."""
        if not (self.subset.train and self.spec.balanced):
            return [(epoch, index) for index in indices.tolist()]
        counted = zip(indices.tolist(), sampling.repeats(indices), strict=True)
        return [(epoch, index, again) if again else (epoch, index) for index, again in counted]

    def _read(self) -> Iterator[tuple]:
        """Yields what `collate` returns; a dead worker is a DataError."""
        if self.loader is None:
            raise RuntimeError('this loader is closed: create the data again.')
        iterator = iter(self.loader)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                raise worker_error(error) or error from None
            except (ConnectionError, EOFError) as error:
                raise connection_error(error) if self.spec.workers else error from None
            yield batch

    def _account(self, indices: torch.Tensor, errors: list[tuple[int, str]]) -> None:
        """Notes what was read.

        Raises:
            DataError: An image could not be read, unless such images are skipped; or none of a training batch could.
        """
        if errors and not self.spec.skip_corrupt:
            raise DataError(errors[0][1])
        if self.subset.train and not len(indices):
            raise DataError(f'no image of a whole batch can be read; one of them: {errors[0][1]}')
        self.last_indices = indices
        self.skipped_indices.update(index for index, _ in errors)

    def close(self) -> None:
        self.loader = None  # deletes its iterator, which ends the workers


def transform_of(spec: LoaderSpec, train: bool) -> Callable:
    """Returns timm's transform to uint8: normalizing and erasing are done in batches on the device."""
    aug = spec.aug
    if not train:
        return create_transform(
            spec.input_size,
            interpolation=spec.interpolation,
            crop_pct=spec.crop_pct,
            crop_mode=spec.crop_mode,
            mean=spec.mean,
            std=spec.std,
            use_prefetcher=True,
        )
    return create_transform(
        spec.input_size,
        is_training=True,
        no_aug=aug.no_aug,
        scale=aug.scale,
        ratio=aug.ratio,
        hflip=aug.hflip,
        vflip=aug.vflip,
        color_jitter=0.4 if aug.color_jitter is None else aug.color_jitter,
        auto_augment=aug.aa,
        interpolation=aug.train_interpolation,
        mean=spec.mean,
        std=spec.std,
        use_prefetcher=True,
    )

"""Images read and transformed one at a time by worker processes: timm's transforms, with an order of our own."""

import os
import signal
import time
from collections.abc import Iterator

import torch
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from timm_alfa.data.datasets.base import Part, Source, image_mode
from timm_alfa.data.loaders import sampling
from timm_alfa.data.loaders.base import Loader, LoaderSpec
from timm_alfa.errors import DataError


class Samples(Dataset):
    """Transformed images by (epoch, index): each draws from a seed of its own, whichever worker makes it.

    A fault is given back, not raised, so that its message comes through as it is.
    """

    def __init__(self, source: Source, transform, mode: str, seed: int):
        self.source, self.transform, self.mode, self.seed = source, transform, mode, seed

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        try:
            image = self.source.image(index, self.mode)
            with sampling.seeded(sampling.stream_seed('sample', self.seed, epoch, index)):
                return index, self.transform(image), int(self.source.targets[index])
        except DataError as error:
            return index, None, str(error)


def collate(items):
    """Indices, uint8 images, labels, and (index, message) of what could not be read."""
    good = [item for item in items if item[1] is not None]
    faults = [(index, message) for index, image, message in items if image is None]
    indices = torch.tensor([index for index, _, _ in good], dtype=torch.int64)
    pixels = torch.stack([image for _, image, _ in good]) if good else torch.empty(0)
    return indices, pixels, torch.tensor([target for *_, target in good], dtype=torch.int64), faults


def worker_fault(error: BaseException) -> DataError | None:
    """The DataError for torch's report of a dead worker, or None for any other error.

    torch raises that report from a signal handler, so wherever the main process happens to be: a training loop asks
    this of every RuntimeError it ends with.
    """
    lines = str(error).splitlines()
    if isinstance(error, RuntimeError) and lines and lines[0].startswith('DataLoader worker (pid'):
        return died(lines[0].rstrip(' .'))
    return None


def died(sign: str) -> DataError:
    return DataError(
        f'{sign}: a process that reads images died (memory full, or killed). '
        'Try fewer --workers, or --workers 0 to see its own error.'
    )


def hung_up(error: ConnectionError | EOFError, patience: float = 2.0) -> Exception:
    """The DataError for a worker that died before its batch was fetched: a broken connection is seen first.

    torch's report comes by a signal a moment later. It is waited for, or it would strike wherever the error is handled.
    """
    if ' in DataLoader worker process ' in str(error):  # raised in a worker that lives, by what it read
        return error
    try:
        time.sleep(patience)
    except RuntimeError as report:
        return worker_fault(report) or report
    return died(f'DataLoader worker: {type(error).__name__}')


def keep_out_of_signals(worker: int) -> None:
    """Leaves Ctrl-C, and a SIGTERM to the process group, to the main process, which finishes its update and saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgrp()


class Batches:
    """The batch sampler: whatever list of keys it was last given."""

    def __init__(self):
        self.keys: list[list[tuple[int, int]]] = []

    def __iter__(self):
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class WorkerLoader(Loader):
    """Batches read from a source by worker processes."""

    name = 'timm'

    def __init__(self, part: Part, spec: LoaderSpec):
        super().__init__(part, spec)
        self.batches = Batches()
        samples = Samples(part.source, transform_of(spec, part.train), image_mode(spec.input_size[0]), spec.seed)
        self.loader = DataLoader(
            samples,
            batch_sampler=self.batches,
            num_workers=spec.workers,
            collate_fn=collate,
            pin_memory=spec.pin_mem,
            persistent_workers=part.train and spec.workers > 0,
            worker_init_fn=keep_out_of_signals,
            generator=torch.Generator(),  # or each epoch would draw a seed from the global generator
        )

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, start, places = self.epoch, self.start_batch, self.part.indices[self.order()]
        self.batches.keys = [[(epoch, index) for index in places[at].tolist()] for at in self.positions()]
        for step, (indices, pixels, target, faults) in enumerate(self._read(), start):
            self._account(indices, faults)
            if not len(indices) and not self._finish:
                continue
            input = self.normalise(pixels.to(self.spec.device, non_blocking=self.spec.pin_mem))
            target = target.to(self.spec.device, non_blocking=self.spec.pin_mem)
            yield self._finish(input, target, epoch, step) if self._finish else (input, target)

    def _read(self):
        iterator = iter(self.loader)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                raise worker_fault(error) or error from None
            except (ConnectionError, EOFError) as error:
                raise hung_up(error) if self.spec.workers else error from None
            yield batch

    def _account(self, indices: torch.Tensor, faults: list[tuple[int, str]]) -> None:
        """Notes what was read; raises for what was not, unless that is to be left out."""
        if faults and not self.spec.skip_corrupt:
            raise DataError(faults[0][1])
        if self.part.train and not len(indices):
            raise DataError(f'no image of a whole batch can be read; one of them: {faults[0][1]}')
        self.last_indices = indices
        self.skipped_indices.update(index for index, _ in faults)

    def close(self) -> None:
        self.loader = None  # its iterator ends the workers when it goes


def transform_of(spec: LoaderSpec, train: bool):
    """timm's transform to uint8: normalising and erasing are done in batches on the device."""
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

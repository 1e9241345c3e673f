import itertools
import os
import signal

import numpy as np
import pytest
import torch
from helpers.loader_batches import batches, same
from PIL import Image

from timm_alfa.data import AugConfig, worker_error
from timm_alfa.data.datasets.base import Source, Subset
from timm_alfa.data.loaders import sampling
from timm_alfa.data.loaders.base import LoaderSpec
from timm_alfa.data.loaders.worker_errors import connection_error
from timm_alfa.data.loaders.workers import WorkerLoader
from timm_alfa.errors import DataError


class Pictures(Source):
    """Random 20x24 images; `broken` cannot be read, and reading `deadly` kills the process that reads."""

    def __init__(self, count=11, broken=(), deadly=None):
        super().__init__('train', torch.arange(count) % 3)
        self.broken, self.deadly, self.home = broken, deadly, os.getpid()

    def open(self, index):
        if index in self.broken:
            raise OSError('truncated')
        if index == self.deadly and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return Image.fromarray(np.random.RandomState(index).randint(0, 256, (20, 24, 3), dtype=np.uint8))


@pytest.fixture
def make():
    made = []

    def loader(source=None, train=True, aug=None, **spec):
        source = source or Pictures()
        spec = LoaderSpec(
            **dict(
                batch_size=2,
                input_size=(3, 16, 16),
                mean=(0.5,) * 3,
                std=(0.2,) * 3,
                num_classes=3,
                aug=aug or AugConfig(),
            )
            | spec
        )
        made.append(WorkerLoader(Subset(source, torch.arange(len(source)), train), spec))
        return made[-1]

    yield loader
    for one in made:
        one.close()


STRONG = AugConfig(aa='rand-m9-mstd0.5', color_jitter=0.4, reprob=0.5, mixup=0.2, cutmix=1.0)


def test_any_batch_can_be_resumed_bit_for_bit_with_any_number_of_workers(make):
    undisturbed = batches(make(aug=STRONG), epoch=3)
    assert len(undisturbed) == 5 and undisturbed[0][1].shape == (2, 3)
    assert not same(undisturbed, batches(make(aug=STRONG), epoch=4))
    for workers, start in ((0, 2), (1, 0), (2, 1), (2, 5), (2, 4)):
        torch.manual_seed(start)
        assert same(batches(make(aug=STRONG, workers=workers), 3, start), undisturbed[start:])


def test_an_image_is_augmented_anew_each_epoch(make):
    made = make(Pictures(1), batch_size=1)
    first, second = (batches(made, epoch) for epoch in range(2))
    assert first[0][2].equal(second[0][2]) and not first[0][0].equal(second[0][0])


def test_workers_continue_through_epochs_and_after_a_stop(make):
    made = make(workers=2)
    expected = [batches(make(), epoch) for epoch in range(3)]
    assert same(batches(made, 0), expected[0])
    made.set_epoch(1)
    next(iter(made))
    assert same(batches(made, 1), expected[1]) and same(batches(made, 2), expected[2])


@pytest.mark.parametrize('workers', [0, 2])
def test_the_global_generator_is_left_alone(make, workers):
    before = torch.get_rng_state()
    batches(make(aug=STRONG, workers=workers))
    assert torch.get_rng_state().equal(before)


def test_an_image_is_augmented_alike_however_many_processes_share_the_batch(make):
    alone = batches(make(batch_size=4))
    ranks = [batches(make(rank=rank, world_size=2)) for rank in range(2)]
    for step, whole in enumerate(alone):
        assert same([tuple(torch.cat(parts) for parts in zip(*(r[step] for r in ranks), strict=True))], [whole])


@pytest.mark.parametrize('world', [1, 2, 3])
def test_every_image_is_evaluated_once_and_as_timm_does(make, world):
    from timm.data import create_transform

    source = Pictures()
    seen = [
        batch
        for rank in range(world)
        for batch in batches(make(source, train=False, rank=rank, world_size=world, crop_pct=0.9))
    ]
    assert torch.cat([indices for *_, indices in seen]).tolist() == list(range(11))
    transform = create_transform((3, 16, 16), crop_pct=0.9, interpolation='bicubic', mean=(0.5,) * 3, std=(0.2,) * 3)
    expected = torch.stack([transform(source.image(at, 'RGB')) for at in range(11)])
    assert torch.allclose(torch.cat([input for input, *_ in seen]), expected, atol=1e-5)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_corrupt_image_is_named(make, workers):
    with pytest.raises(DataError, match=r"^cannot read image 4 of split 'train': truncated\. .*--skip-corrupt\.$"):
        batches(make(Pictures(broken=(4,)), workers=workers))


def test_corrupt_images_are_left_out_and_counted_once(make):
    made = make(Pictures(broken=(4, 7)), train=False, batch_size=3, skip_corrupt=True, workers=1)
    for _ in range(2):
        seen = batches(made)
        assert torch.cat([indices for *_, indices in seen]).tolist() == [0, 1, 2, 3, 5, 6, 8, 9, 10]
        assert torch.cat([target for _, target, _ in seen]).tolist() == [0, 1, 2, 0, 2, 0, 2, 0, 1]
    assert sorted(made.skipped_indices) == [4, 7]
    training = make(Pictures(broken=(4,)), skip_corrupt=True, aug=AugConfig(mixup=0.5), batch_size=3)
    assert sorted(len(target) for _, target, _ in batches(training))[0] in (2, 3)


def test_a_batch_of_nothing(make):
    broken = Pictures(4, broken=(0, 1))
    assert [len(target) for _, target, _ in batches(make(broken, train=False, skip_corrupt=True))] == [2]
    with pytest.raises(DataError, match='whole batch'):
        batches(make(Pictures(2, broken=(0, 1)), skip_corrupt=True))


def test_a_worker_that_dies_is_an_error_and_no_hang(make):
    try:
        batches(make(Pictures(deadly=5), workers=2))
    except DataError as error:
        died = error
    except RuntimeError as error:  # torch's signal handler may strike outside the loader, where a loop would ask:
        died = worker_error(error)
    assert 'a process that reads images died' in str(died) and '--workers' in str(died)
    assert '\n' not in str(died)


class Dying:
    """In place of torch's loader: the connection to a worker breaks, and only then its death is reported."""

    def __iter__(self):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        raise ConnectionResetError(104, 'Connection reset by peer')
        yield

    @staticmethod
    def report(*_):
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')


@pytest.mark.parametrize(
    ('report', 'sign'),
    [
        (Dying.report, 'DataLoader worker (pid 7) is killed by signal: Killed: '),
        (signal.SIG_IGN, 'DataLoader worker: ConnectionResetError: '),
    ],
)
def test_a_connection_that_breaks_is_a_worker_that_died_and_its_report_strikes_nobody_else(make, report, sign):
    made = make(workers=2)
    made.loader = Dying()
    before = signal.signal(signal.SIGALRM, report)
    try:
        with pytest.raises(DataError) as caught:
            batches(made)
        assert signal.setitimer(signal.ITIMER_REAL, 0) == (0, 0)  # it has struck
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert str(caught.value).startswith(sign) and '--workers 0' in str(caught.value)


def test_a_connection_that_breaks_without_workers_is_its_own_error(make):
    made = make()
    made.loader = Dying()
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with pytest.raises(ConnectionResetError):
            batches(made)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_connection_that_breaks_in_a_worker_is_its_own_error():
    error = ConnectionResetError('Caught ConnectionResetError in DataLoader worker process 0.')
    assert connection_error(error) is error


class Interrupted(Pictures):
    def open(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        if index == 5:
            assert os.getpgrp() != os.getpgid(self.home)
        return super().open(index)


def test_an_interrupt_at_the_keyboard_does_not_reach_the_workers(make):
    assert same(batches(make(Interrupted(), workers=1)), batches(make()))


def test_other_errors_are_no_worker_error():
    assert worker_error(RuntimeError('CUDA out of memory')) is None
    assert worker_error(RuntimeError()) is None
    assert worker_error(KeyError('DataLoader worker (pid 3)')) is None


def test_batches_are_sent_as_those_of_the_memory_loader(make, monkeypatch):
    """From pinned memory, so that updates that the host starts ahead are not waited for."""
    sent = []

    def send(tensor, device):
        sent.append(tensor.dtype)
        return tensor.to(device)

    monkeypatch.setattr('timm_alfa.data.loaders.workers.send', send)
    loader = make()
    assert len(list(loader)) == 5 and sent == [torch.uint8, torch.int64] * 5


def test_balanced_epochs_resume_and_augment_an_image_anew_each_time(make):
    source = Pictures(count=12)
    source.targets = torch.tensor([0] + [1] * 11)
    loader = make(source, balanced=True, batch_size=3)
    whole = batches(loader, 1)
    assert loader.order(1).equal(sampling.balanced_order(source.targets, 0, 1))
    assert same(batches(loader, 1, 2), whole[2:])

    inputs = torch.cat([input for input, *_ in whole])
    rare = inputs[torch.cat([target for _, target, _ in whole]) == 0]
    assert len(rare) > 2 and not any(a.equal(b) for a, b in itertools.combinations(rare, 2))

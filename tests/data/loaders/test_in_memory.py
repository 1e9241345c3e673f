import numpy as np
import pytest
import torch
from helpers.loader_batches import batches, same
from PIL import Image

from timm_alfa.data import AugConfig
from timm_alfa.data.datasets.base import Source, Subset
from timm_alfa.data.loaders import sampling
from timm_alfa.data.loaders.base import LoaderSpec
from timm_alfa.data.loaders.image_cache import ImageCache
from timm_alfa.data.loaders.in_memory import MemoryLoader, crop, draw_crops, flip
from timm_alfa.errors import DataError


class Random(Source):
    """Random 6x6 images; those in `broken` cannot be read, those in `large` are twice as large."""

    def __init__(self, count=23, broken=(), large=()):
        super().__init__('train', torch.arange(count) % 3)
        self.pixels = np.random.RandomState(0).randint(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        self.broken, self.large = broken, large

    def open(self, index):
        if index in self.broken:
            raise OSError('truncated')
        image = Image.fromarray(self.pixels[index])
        return image.resize((12, 12), Image.Resampling.NEAREST) if index in self.large else image


def loader(source=None, train=True, indices=None, aug=None, size=(3, 6, 6), cache=None, **spec):
    source = source or Random()
    indices = torch.arange(len(source)) if indices is None else indices
    spec = LoaderSpec(
        **dict(
            batch_size=4,
            input_size=size,
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.3, 0.4),
            num_classes=3,
            aug=aug or AugConfig(crop_padding=2),
        )
        | spec
    )
    cache = cache or ImageCache(source, indices, (size[0], 6, 6), workers=2, skip_corrupt=spec.skip_corrupt)
    return MemoryLoader(Subset(source, indices, train), spec, cache)


def crop_flip(pixels, uniform, padding, hflip=0.0, vflip=0.0):
    draws = draw_crops(uniform, padding, hflip, vflip)
    return flip(flip(crop(pixels, draws[:2], padding), draws[2], 3), draws[3], 2)


def test_crops_and_flips_are_those_of_a_plain_loop():
    pixels = torch.randint(0, 256, (40, 3, 5, 7), dtype=torch.uint8)
    uniform = torch.rand(40, 4)
    padding = 2
    made = crop_flip(pixels, uniform, padding, 0.5, 0.25)
    for image, draw, result in zip(pixels, uniform, made, strict=True):
        padded = torch.zeros(3, 5 + 2 * padding, 7 + 2 * padding, dtype=torch.uint8)
        padded[:, padding:-padding, padding:-padding] = image
        top, left = (int(value * 5) for value in draw[:2])
        expected = padded[:, top : top + 5, left : left + 7]
        expected = expected.flip(2) if draw[2] < 0.5 else expected
        assert result.equal(expected.flip(1) if draw[3] < 0.25 else expected)


def test_crops_reach_every_corner_and_nothing_beyond():
    uniform = torch.tensor([[0.0, 0.0, 1, 1], [1 - 2**-24, 1 - 2**-24, 1, 1], [0.5, 0.5, 1, 1]])
    pixels = torch.ones(3, 1, 4, 4)
    made = crop_flip(pixels, uniform, 2)
    assert made[0, 0, :2].sum() == 0 and made[0, 0, 2:, 2:].all()
    assert made[1, 0, 2:].sum() == 0 and made[1, 0, :2, :2].all()
    assert made[2].all()


def test_evaluation_gives_the_normalized_images_in_order():
    source = Random()
    made = batches(loader(source, train=False))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    expected = (torch.from_numpy(source.pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    assert torch.allclose(torch.cat([input for input, *_ in made]), expected, atol=1e-5)
    assert torch.cat([target for _, target, _ in made]).equal(source.targets)
    assert torch.cat([indices for *_, indices in made]).equal(torch.arange(23))
    assert [len(target) for _, target, _ in made] == [4, 4, 4, 4, 4, 3]
    assert same(batches(loader(source, train=False), start=4), made[4:])


AUGS = (AugConfig(), AugConfig(mixup=0.3, cutmix=1.0), AugConfig(reprob=0.7, vflip=0.5), AugConfig(no_aug=True))


@pytest.mark.parametrize('aug', AUGS, ids=range(len(AUGS)))
def test_any_batch_can_be_resumed_bit_for_bit(aug):
    undisturbed = batches(loader(aug=aug), epoch=2)
    assert len(undisturbed) == len(loader()) == 5
    for start in range(len(undisturbed) + 1):
        torch.manual_seed(start)
        assert same(batches(loader(aug=aug), 2, start), undisturbed[start:])


def test_epochs_and_seeds_differ_and_repeat():
    first = loader()
    made = [batches(first, 0), batches(first, 1), batches(loader(seed=1), 0)]
    assert not same(made[0], made[1]) and not same(made[0], made[2])
    assert same(batches(first, 0), made[0])


@pytest.mark.parametrize(
    'aug',
    [
        AugConfig(crop_padding=2),
        AugConfig(crop_padding=0, hflip=0, reprob=0.5),
        AugConfig(crop_padding=0, hflip=0, mixup=0.5),
    ],
    ids=['crops', 'erasing', 'mixup'],
)
def test_what_is_drawn_depends_on_seed_and_epoch(aug):
    """Every image is the same, and so its order does not matter: what differs are crops, erased parts and mixtures."""
    source = Random(24)
    source.pixels[:] = source.pixels[0]
    one, other = loader(source, aug=aug), loader(source, aug=aug, seed=1)
    made = [torch.cat([x for x, *_ in batches(*each)]) for each in ((one, 0), (one, 1), (other, 0), (one, 0))]
    mixed = [torch.cat([y for _, y, _ in batches(*each)]) for each in ((one, 0), (one, 1), (other, 0))]
    assert made[0].equal(made[3])
    if aug.mixup:  # of equal images only the labels tell
        shares = [each.max(1).values.sort().values for each in mixed]
        assert not shares[0].equal(shares[1]) and not shares[0].equal(shares[2])
    else:
        assert not made[0].equal(made[1]) and not made[0].equal(made[2])


def test_no_augmentation_is_the_image_itself():
    plain = torch.cat([input for input, *_ in batches(loader(train=False))])
    for input, target, indices in batches(loader(aug=AugConfig(no_aug=True))):
        assert input.equal(plain[indices]) and target.equal(indices % 3)


@pytest.mark.parametrize('world', [2, 4])
def test_processes_share_a_batch_as_one_would_see_it(world):
    alone = batches(loader(batch_size=8))
    ranks = [batches(loader(batch_size=8 // world, rank=rank, world_size=world)) for rank in range(world)]
    for step, whole in enumerate(alone):
        together = [torch.cat(parts) for parts in zip(*(made[step] for made in ranks), strict=True)]
        assert same([tuple(together)], [whole])


def test_ranks_draw_different_augmentations_of_a_repeated_image():
    source = Random(16)
    source.pixels[:] = source.pixels[0]
    left, right = (batches(loader(source, rank=rank, world_size=2), 0)[0][0] for rank in range(2))
    assert not left.equal(right)


@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_every_image_is_evaluated_once_over_all_ranks(world):
    source = Random(10)
    seen = [
        indices
        for rank in range(world)
        for *_, indices in batches(loader(source, train=False, rank=rank, world_size=world))
    ]
    assert torch.cat(seen).tolist() == list(range(10))


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [len(target) for _, target, _ in batches(loader(batch_size=64))] == [23]
    shares = [len(batches(loader(batch_size=64, rank=rank, world_size=2))[0][1]) for rank in range(2)]
    assert shares == [12, 11]


def test_subsets_share_a_cache_and_keep_to_their_images():
    source = Random()
    stay, held = sampling.random_split(23, 0.3, 0)
    cache = ImageCache(source, torch.arange(23), (3, 6, 6))
    train, val = loader(source, True, stay, cache=cache), loader(source, False, held, cache=cache)
    assert train.pixels is val.pixels
    assert set(torch.cat([i for *_, i in batches(train)]).tolist()) <= set(stay.tolist())
    assert torch.cat([i for *_, i in batches(val)]).equal(held)
    assert all(target.equal(indices % 3) for _, target, indices in batches(train) + batches(val))


def test_corrupt_images_are_named_or_left_out_and_counted_once():
    source = Random(broken=(3, 11))
    with pytest.raises(DataError, match=r"image 3 of split 'train': truncated.*\(2 such images\.\)"):
        loader(source)
    made = loader(source, train=False, skip_corrupt=True)
    for _ in range(2):
        seen = torch.cat([indices for *_, indices in batches(made)])
        assert seen.tolist() == [at for at in range(23) if at not in (3, 11)]
    assert (len(made.skipped_indices), made.images) == (2, 21)
    assert torch.cat([target for _, target, _ in batches(made)]).equal(seen % 3)
    plain = batches(loader(Random(), train=False))
    kept = torch.cat([input for input, *_ in plain])[seen]
    assert torch.cat([input for input, *_ in batches(made)]).equal(kept)
    with pytest.raises(DataError, match='no image'):
        loader(Random(2, broken=(0, 1)), skip_corrupt=True)


def test_images_of_another_size_are_fitted():
    plain, fitted = (loader(Random(large=large), train=False) for large in ((), (0,)))
    assert fitted.pixels.shape == (23, 3, 6, 6) and fitted.pixels[1:].equal(plain.pixels[1:])
    assert (fitted.pixels[0].float() - plain.pixels[0].float()).abs().mean() < 30


def test_small_images_are_enlarged_to_what_the_model_takes():
    made = loader(size=(1, 12, 12), mean=(0.5,), std=(0.2,), channels_last=True)
    input, _ = next(iter(made))
    assert input.shape == (4, 1, 12, 12) and made.pixels.shape == (23, 1, 6, 6)
    wide = next(iter(loader(channels_last=True)))[0]
    assert wide.is_contiguous(memory_format=torch.channels_last)
    assert wide.equal(next(iter(loader()))[0])


def test_a_batch_is_a_function_of_rows_and_draws():
    """Nothing is drawn and no state is kept between the table of an epoch and its batches."""
    made = loader(aug=AugConfig(crop_padding=2, vflip=0.3))
    table = made.epoch_table(2)
    expected = batches(made, epoch=2)
    before = torch.get_rng_state()
    for step in (3, 0, 3):  # in any order
        batch = slice(4 * step, 4 * step + 4)
        input, target = made.assemble(table.columns[:, batch])
        assert input.equal(expected[step][0])
        assert target.equal(expected[step][1]) and table.indices[batch].equal(expected[step][2])
    assert torch.get_rng_state().equal(before)


def test_an_epoch_is_moved_to_the_device_in_one_copy(monkeypatch):
    from timm_alfa.data.loaders import in_memory

    moved = []
    monkeypatch.setattr(in_memory, 'send', lambda tensor, device: moved.append(tensor.shape) or tensor)
    assert len(batches(loader(), epoch=1)) == 5
    assert moved == [(6, 20)]
    moved.clear()
    batches(loader(train=False))
    assert moved == [(2, 23)]
    moved.clear()
    batches(loader(), epoch=1, start=3)
    assert moved == [(6, 8)]


def test_a_batch_is_made_without_reading_from_the_device(monkeypatch):
    """The meta device refuses any read. A cache that is too large for the device stays in the host's memory."""
    from timm_alfa.data.loaders import image_cache

    meta, source = torch.device('meta'), Random()
    small, large = (ImageCache(source, torch.arange(23), (3, 6, 6)) for _ in range(2))
    small.move_to(meta)
    monkeypatch.setattr(image_cache, 'ON_DEVICE_BELOW', large.pixels.numel() - 1)
    for cache, place in ((small, 'meta'), (large, 'cpu')):
        made = loader(source, cache=cache, device=meta, aug=AugConfig(crop_padding=2, vflip=0.5))
        assert made.pixels.device.type == made.epoch_table(0).rows.device.type == place
        for input, target in made:
            assert (input.device, input.shape, target.device, target.shape) == (meta, (4, 3, 6, 6), meta, (4,))


@pytest.mark.parametrize('reprob', [0.0, 1.0])
def test_parts_make_the_same_batches(reprob):
    """The columns of a batch where it is a function of them; the batch itself where more is drawn."""
    made = loader(aug=AugConfig(crop_padding=2, reprob=reprob))
    expected = batches(made, epoch=1, start=2)
    made.set_epoch(1, 2)
    count = 0
    for parts, (input, target, indices) in zip(made.parts(), expected, strict=True):
        assert [tuple(part.shape) for part in parts] == ([(4, 3, 6, 6), (4,)] if reprob else [(6, 4)])
        assert made.last_indices.equal(indices)
        found = made.assemble(*parts)
        assert found[0].equal(input) and found[1].equal(target)
        count += 1
    assert count == 3

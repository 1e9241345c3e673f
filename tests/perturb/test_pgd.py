"""PGD in pixels: against a plain loop, a linear loss whose worst point is known, and another library."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from timm_alfa.errors import ConfigError
from timm_alfa.options import build
from timm_alfa.perturb.options import AttackConfig
from timm_alfa.perturb.pgd import pgd, robust_correct
from timm_alfa.perturb.pixels import Pixels, ascend_pixels, pixels_of

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Net(nn.Module):
    """Small, smooth and without a normalization layer."""

    def __init__(self, channels=3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.LazyLinear(5)
        )

    def forward(self, x):
        return self.body(x)


def normalized(images):
    return (images - images.new_tensor(MEAN).view(-1, 1, 1)) / images.new_tensor(STD).view(-1, 1, 1)


@pytest.fixture(scope='module')
def trained():
    """A network that has learned something, in float32, and images of which most are right."""
    torch.manual_seed(0)
    centers = 0.5 + 0.08 * torch.randn(5, 3, 9, 9)
    target = torch.arange(5).repeat(20)
    images = (centers[target] + 0.12 * torch.randn(100, 3, 9, 9)).clamp(0, 1)
    model = Net()
    model(normalized(images))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(normalized(images)), target).backward()
        optimizer.step()
    return model.eval(), (images + 0.1 * torch.randn_like(images)).clamp(0, 1), target


def plain_pgd(model, images, target, steps, step_size, eps, start):
    """Madry's attack, written on images in [0, 1]."""
    at = (images + start).clamp(0, 1)
    for _ in range(steps):
        at = at.detach().requires_grad_()
        F.cross_entropy(model(normalized(at)), target, reduction='sum').backward()
        at = at.detach() + step_size * at.grad.sign()
        at = torch.maximum(torch.minimum(at, images + eps), images - eps).clamp(0, 1)
    return at


@pytest.mark.parametrize('random_start', [False, True])
def test_the_attack_is_a_plain_loop_over_images_in_0_1(random_start):
    model, images, target = Net().double(), torch.rand(6, 3, 8, 8).double(), torch.randint(5, (6,))
    images[0, 0] = 0.0
    images[1, 1] = 1.0
    model(normalized(images))
    model.eval()
    target = model(normalized(images)).argmax(1)
    torch.manual_seed(3)
    start = torch.empty_like(images).uniform_(-0.1, 0.1) if random_start else torch.zeros_like(images)
    expected = plain_pgd(model, images, target, 7, 0.03, 0.1, start)
    torch.manual_seed(3)
    found = pgd(
        model,
        normalized(images),
        target,
        steps=7,
        step_size=0.03,
        eps=0.1,
        random_start=random_start,
        mean=MEAN,
        std=STD,
    )
    torch.testing.assert_close(found, normalized(expected), rtol=1e-12, atol=1e-12)


def test_of_a_linear_loss_the_worst_point_is_found():
    images, weights = torch.rand(4, 3, 5, 5).double(), torch.randn(4, 3, 5, 5).double()
    delta = ascend_pixels(
        lambda x: (x * weights).sum(), normalized(images), Pixels(MEAN, STD), steps=20, step_size=0.02, eps=0.1
    )
    worst = (images + 0.1 * weights.sign()).clamp(0, 1) - images
    torch.testing.assert_close(delta, worst, rtol=0, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 4), st.floats(1e-3, 1))
def test_bounds_hold_zero_and_never_lead_away_from_0_1(pixel, eps):
    input = normalized(torch.full((1, 3, 1, 1), pixel, dtype=torch.float64))
    low, high = Pixels(MEAN, STD).bounds(input, eps)
    assert (low <= 0).all()
    assert (high >= 0).all()
    assert (low >= -eps).all()
    assert (high <= eps).all()
    for bound in (low, high):
        moved = pixel + bound
        assert ((moved >= min(pixel, 0) - 1e-9) & (moved <= max(pixel, 1) + 1e-9)).all()


def test_half_precision_images_are_attacked_in_single_precision(trained):
    model, images, target = trained
    half, attack = normalized(images).bfloat16(), dict(steps=2, random_start=False, mean=MEAN, std=STD)
    with torch.autocast('cpu', torch.bfloat16):
        found = pgd(model, half, target, **attack)
    expected = pgd(model, half.float(), target, **attack)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_another_library_fells_the_same_images(trained):
    art = pytest.importorskip('art.attacks.evasion')
    from art.estimators.classification import PyTorchClassifier

    model, images, target = trained

    class Normalizing(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(normalized(x))

    theirs = PyTorchClassifier(Normalizing(), nn.CrossEntropyLoss(), tuple(images.shape[1:]), 5, clip_values=(0.0, 1.0))
    ours = dict(steps=10, step_size=2 / 255, eps=8 / 255, random_start=False, mean=MEAN, std=STD)
    attack = art.ProjectedGradientDescentPyTorch(
        theirs, eps=8 / 255, eps_step=2 / 255, max_iter=10, num_random_init=0, batch_size=len(images), verbose=False
    )
    expected = torch.from_numpy(attack.generate(images.numpy(), y=F.one_hot(target, 5).numpy()))
    right = model(normalized(images)).argmax(1) == target
    fallen = right & (model(normalized(expected)).argmax(1) != target)
    standing = robust_correct(model, normalized(images), target, **ours)
    assert 10 <= fallen.sum() <= 90, 'an attack that fells all or none shows nothing'
    assert torch.equal(standing, right & ~fallen)
    found = pgd(model, normalized(images), target, **ours)
    torch.testing.assert_close(found[right], normalized(expected)[right], rtol=0, atol=1e-4)


def test_an_image_counts_if_it_withstands_every_restart(trained):
    model, images, target = trained
    attack = dict(steps=1, step_size=8 / 255, eps=12 / 255, mean=MEAN, std=STD)

    def at(function, restarts):
        return function(
            model, normalized(images), target, restarts=restarts, generator=torch.Generator().manual_seed(0), **attack
        )

    once, often = at(robust_correct, 1), at(robust_correct, 8)
    clean = model(normalized(images)).argmax(1) == target
    assert not (often & ~once).any()
    assert not (once & ~clean).any()
    assert often.sum() < once.sum() < clean.sum()
    found = at(pgd, 8)
    assert torch.equal(model(found).argmax(1) == target, often)
    assert torch.equal(found[~clean], normalized(images)[~clean])


def test_a_batch_is_attacked_as_its_images_one_by_one(trained):
    model, images, target = trained
    attack = dict(steps=5, random_start=False, mean=MEAN, std=STD)
    whole = robust_correct(model, normalized(images[:20]), target[:20], **attack)
    single = [robust_correct(model, normalized(images[i : i + 1]), target[i : i + 1], **attack) for i in range(20)]
    assert torch.equal(whole, torch.cat(single))


def test_nothing_of_the_attack_stays_on_the_model(trained):
    model, images, target = trained
    model.zero_grad()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        robust_correct(model, normalized(images), target, steps=2, mean=MEAN, std=STD)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training


def test_a_gradient_that_is_not_a_number_moves_nothing():
    images = torch.rand(2, 3, 4, 4).double()
    delta = ascend_pixels(
        lambda x: (x * x.new_tensor([[[[math.nan]]], [[[1.0]]]])).sum(),
        normalized(images),
        Pixels(MEAN, STD),
        steps=1,
        step_size=0.01,
        eps=0.1,
        random_start=False,
    )
    assert not delta[0].any()
    assert (delta[1] != 0).any()


def test_mean_and_std_are_made_once(trained, monkeypatch):
    """Also for a pass in inference mode, and one with gradients after it."""
    model, images, target = trained
    attack = dict(steps=3, random_start=False, mean=(0.51, 0.41, 0.31), std=STD)
    with torch.inference_mode():
        robust_correct(model, normalized(images), target, mean=attack['mean'], std=STD, steps=0)
    made, make = [], torch.tensor
    monkeypatch.setattr(torch, 'tensor', lambda *args, **kwargs: made.append(args) or make(*args, **kwargs))
    found = pgd(model, normalized(images), target, **attack)
    assert (found != normalized(images)).any()
    assert not made


def test_the_models_own_normalization_is_the_default():
    model = Net()
    with pytest.raises(ConfigError, match='pass mean and std'):
        pixels_of(model)
    model.pretrained_cfg = dict(mean=MEAN, std=STD)
    assert pixels_of(model) == Pixels(MEAN, STD)
    assert pixels_of(model, (0.5,), (0.1,)) == Pixels((0.5,), (0.1,))
    assert Pixels((0.5,), (0.25,)).of(torch.zeros(1, 4, 2, 2)).eq(0.5).all()
    with pytest.raises(ConfigError, match='3 values and the images 4 channels'):
        Pixels(MEAN, STD).of(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (dict(attack_eps=8), 'attack_eps is 8: pixels lie in'),
        (dict(attack_step_size='2'), 'such as 2/255'),
        (dict(attack_restarts=2, attack_random_start=False), 'every attack would be the same'),
        (dict(attack_steps=0), 'must be at least 1'),
        (dict(attack_eps=0), 'must be above 0'),
    ],
    ids=str,
)
def test_wrong_attacks_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        build(AttackConfig, options)


def test_options_go_to_the_attack(trained):
    model, images, target = trained
    options = build(AttackConfig, dict(attack_eps='4/255', attack_steps=2)).options()
    assert options == dict(steps=2, step_size=2 / 255, eps=4 / 255, restarts=1, random_start=True)
    assert robust_correct(model, normalized(images), target, mean=MEAN, std=STD, **options).dtype == torch.bool

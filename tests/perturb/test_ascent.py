"""The search on losses whose maximum is known, and projections against other solvers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timm_alfa.perturb.ascent import ascend, direction, random_within, sample_norm
from timm_alfa.perturb.projections import project_ball, project_hyperplane, project_simplex

numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40)


def _bisected(eta, iterations=100):
    """The projection onto the simplex, its shift found by bisection."""
    low, high = eta.min() - 1 / eta.numel(), eta.max()
    for _ in range(iterations):
        middle = (low + high) / 2
        above = (eta - middle).clamp_min(0).sum() > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (eta - (low + high) / 2).clamp_min(0)


@given(numbers)
@settings(deadline=None, max_examples=100)
def test_simplex_is_the_bisected_solution(values):
    eta = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(project_simplex(eta), _bisected(eta), rtol=0, atol=1e-9)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_no_step_of_the_simplex_is_in_double_precision(dtype):
    """Not every device has it."""

    class Types(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            seen.update(x.dtype for x in tree_leaves(found) if isinstance(x, torch.Tensor) and x.is_floating_point())
            return found

    seen, eta = set(), torch.randn(9, dtype=dtype)
    with Types():
        moved = project_simplex(eta)
    assert seen <= {torch.float32, dtype}
    assert moved.dtype == dtype
    torch.testing.assert_close(moved, _bisected(eta.double()).to(dtype), rtol=1e-6, atol=1e-6)


@given(numbers)
@settings(deadline=None, max_examples=100)
def test_simplex_in_single_precision_is_on_the_simplex(values):
    eta = project_simplex(torch.tensor(values))
    assert eta.dtype == torch.float32
    assert eta.min() >= 0
    assert float(eta.double().sum()) == pytest.approx(1, abs=1e-4)


@given(numbers)
@settings(deadline=None, max_examples=100)
def test_hyperplane_is_the_nearest_point(values):
    """Its sum is one and the way to it is along the normal."""
    eta = torch.tensor(values, dtype=torch.float64)
    moved = project_hyperplane(eta)
    assert float(moved.sum()) == pytest.approx(1, abs=1e-9)
    way = moved - eta
    torch.testing.assert_close(way, way.mean().expand_as(way), rtol=0, atol=1e-9)


@given(numbers)
@settings(deadline=None, max_examples=50)
def test_projections_leave_what_is_projected(values):
    for function in (project_simplex, project_hyperplane):
        once = function(torch.tensor(values, dtype=torch.float64))
        torch.testing.assert_close(function(once), once, rtol=0, atol=1e-9)


def _ascent_on(goal, start, **kwargs):
    """Steps of ascent on -|delta - goal|^2."""
    return ascend(lambda delta: [2 * (g - d) for g, d in zip(goal, delta, strict=True)], start, **kwargs)


def test_steps_go_uphill_by_the_size_of_a_step():
    goal = [torch.tensor([[3.0, -3.0, 0.0]])]
    found = _ascent_on(goal, [torch.zeros(1, 3)], steps=4, step_size=0.5)
    assert found[0].tolist() == [[2.0, -2.0, 0.0]]
    bound = _ascent_on(goal, [torch.zeros(1, 3)], steps=4, step_size=0.5, eps=1.25)
    assert bound[0].tolist() == [[1.25, -1.25, 0.0]]


def test_l2_steps_are_of_equal_length_whatever_the_gradient():
    goal = [torch.tensor([[3e-20, 4e-20], [3e15, 4e15]])]
    found = _ascent_on(goal, [torch.zeros(2, 2)], steps=1, step_size=0.5, norm='l2')
    torch.testing.assert_close(found[0], torch.tensor([[0.3, 0.4], [0.3, 0.4]]))


def test_random_starts_fill_the_ball():
    """Uniformly: the share of a ball of radius q is q^n, in a cube each coordinate has its share."""
    like = torch.zeros(4000, 1, 3, dtype=torch.float64)
    for norm, lengths in (('l2', lambda x: x.norm(dim=1)), ('linf', lambda x: x.abs().amax(1))):
        found = random_within(like, 0.5, norm)
        assert found.shape == like.shape
        assert found.dtype == like.dtype
        flat = found.flatten(1)
        assert lengths(flat).max() <= 0.5 * (1 + 1e-12)
        shares = (lengths(flat) / 0.5) ** 3  # uniform between 0 and 1
        for q in (0.1, 0.5, 0.9):
            assert float((shares < q).double().mean()) == pytest.approx(q, abs=0.03)
        assert flat.mean(0).abs().max() < 0.02


def test_a_random_start_in_the_cube_is_torchs_own_draw():
    torch.manual_seed(3)
    want = torch.zeros(2, 5).uniform_(-0.3, 0.3)
    torch.manual_seed(3)
    assert torch.equal(random_within(torch.zeros(2, 5), 0.3, 'linf'), want)


def test_no_steps_leave_the_start():
    start = [torch.randn(2, 3)]
    assert ascend(None, start, steps=0, step_size=1) is start


def test_a_known_first_gradient_is_used_once():
    calls = []

    def gradient(delta):
        calls.append(delta[0].clone())
        return [torch.ones_like(delta[0])]

    found = ascend(gradient, [torch.zeros(1, 2)], 3, 1.0, first=[torch.tensor([[-1.0, 0.0]])])
    assert len(calls) == 2
    assert found[0].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize('norm', ['linf', 'l2'])
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(1e-30, 1e20))
@settings(deadline=None, max_examples=50)
def test_projection_is_within_the_ball_and_no_further(norm, seed, eps, scale):
    delta = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    order = math.inf if norm == 'linf' else 2
    moved = project_ball(delta, eps, norm)
    lengths = torch.linalg.vector_norm(moved.flatten(1), order, 1)
    before = torch.linalg.vector_norm(delta.flatten(1), order, 1)
    assert (lengths <= eps * (1 + 1e-12)).all()
    torch.testing.assert_close(lengths, before.clamp_max(eps), rtol=1e-9, atol=0)
    torch.testing.assert_close(project_ball(moved, eps, norm), moved, rtol=1e-12, atol=0)
    torch.testing.assert_close(project_ball(delta, None, norm), delta, rtol=0, atol=0)


def test_directions_of_zero_and_of_broken_gradients():
    """A zero gradient has no direction; what overflowed still points, what is NaN does not move."""
    for norm in ('linf', 'l2'):
        assert not direction(torch.zeros(2, 3), norm).any()
        half = direction(torch.tensor([[math.nan, 1.0, -1.0]], dtype=torch.float16), norm)
        assert half.dtype == torch.float32
        assert half.sign().tolist() == [[0.0, 1.0, -1.0]]
        full = direction(torch.tensor([[math.inf, 0.0]], dtype=torch.bfloat16), norm)
        assert full.tolist() == [[1.0, 0.0]]
        cast = direction(torch.tensor([[math.nan, math.inf, 0.0]]), norm)  # computed in fp16, accumulated in fp32
        assert cast.tolist() == [[0.0, 1.0, 0.0]]


def test_norm_of_a_sample_is_over_all_its_tensors():
    delta = [torch.tensor([[3.0], [0.0]]), torch.tensor([[[4.0]], [[1.0]]])]
    assert float(sample_norm(delta)) == 3.0
    assert float(sample_norm([torch.tensor([[0.0], [4.0]]), torch.tensor([[3.0], [0.0], [0.0], [3.0]])])) == 4.0

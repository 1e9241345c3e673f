"""Values with tensors in them, and placeholders: any use of one shows."""

from dataclasses import dataclass

import pytest
import torch

from timm_alfa.utils import pytree

SHARED = pytest.mark.parametrize('shared', [False, True], ids=['own', 'shared'])


@SHARED
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_placeholder_is_nan_and_takes_no_memory(dtype, shared):
    value = {'a': torch.zeros(3, 4, dtype=dtype), 'b': (torch.arange(2), torch.zeros(1, 1, dtype=dtype))}
    found = pytree.placeholder(value, shared)
    for old, new in zip(pytree.floats(value), pytree.floats(found), strict=True):
        assert new.isnan().all()
        assert (new.shape, new.dtype, new.device) == (old.shape, old.dtype, old.device)
        assert new.untyped_storage().nbytes() == old.element_size()
    assert found['b'][0] is value['b'][0]
    storages = {x.untyped_storage().data_ptr() for x in pytree.floats(found)}
    assert len(storages) == (1 if shared else 2)


@SHARED
@pytest.mark.parametrize('shape', [(2,), (3, 1), (), (1,)], ids=str)
def test_a_placeholder_is_nan_whatever_was_written_into_others(shape, shared):
    """torch lets `fill_` write where elements share memory, and anything where there is one element."""
    pytree.placeholder(torch.zeros(shape), shared).zero_()
    assert pytree.placeholder(torch.zeros(shape), shared).isnan().all()


def test_one_made_in_inference_mode_serves_a_backward_pass():
    pytree._NANS.clear()
    with torch.inference_mode():
        pytree.placeholder(torch.zeros(5), shared=True)
    weight = torch.ones(5, requires_grad=True)
    (weight * pytree.placeholder(torch.zeros(5), shared=True)).sum().backward()
    assert weight.grad.isnan().all()


@dataclass(frozen=True)
class Result:
    """What a model may return."""

    logits: torch.Tensor
    labels: torch.Tensor
    name: str = 'result'


class Box:
    """An object with attributes, one of which is the object itself."""

    def __init__(self, **values):
        self.values, self.itself, self.module = values, self, torch.nn.Linear(2, 2)


def test_tensors_are_found_in_objects():
    logits, scores, labels = torch.zeros(2), torch.ones(3), torch.arange(2)
    value = [Box(scores=scores, nested=(Result(logits, labels),)), 'text', None, Result(logits, labels)]
    assert [id(x) for x in pytree.floats(value)] == [id(scores), id(logits), id(logits)]
    assert len(pytree.tensors(value)) == 5

    changed = pytree.with_floats(value, [scores + 1, logits + 2, logits + 3])
    assert [float(x[0]) for x in pytree.floats(changed)] == [2, 2, 3]
    assert type(changed[0]) is Box and changed[0].itself is changed[0] and type(changed[3]) is Result
    assert changed[3].labels is labels and changed[1:3] == ['text', None]
    assert [float(x[0]) for x in pytree.floats(value)] == [1, 0, 0]  # what it was made from stays as it is


def test_values_of_other_shapes_are_not_close():
    zeros, empty = torch.zeros(2, 1), torch.zeros(0, 3)
    assert pytree.close([zeros, empty], [zeros, empty])
    assert not pytree.close(zeros, torch.zeros(1, 2))
    assert not pytree.close(torch.full((2,), float('nan')), torch.zeros(2))

"""Placeholders: any use of one shows."""

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

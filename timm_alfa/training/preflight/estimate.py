"""What a run will cost, before it starts: the operations of a step, and the memory it needs."""

from contextlib import contextmanager
from inspect import signature
from typing import Any, Iterable, Iterator, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from timm_alfa.replay.flops import count_flops
from timm_alfa.tasks.base import MethodTask

IMAGES = 4  # of a trial


class Estimate(NamedTuple):
    """What one step of a run costs.

    Attributes:
        relative_cost: Operations of an update on average, relative to standard training.
        perturbed_cost: The same for an update that perturbs.
        state_bytes: Of weights, gradients and the optimizer's state.
        activation_bytes: Of what is kept for the backward pass at most, for a whole batch.
    """

    relative_cost: float
    perturbed_cost: float
    state_bytes: int
    activation_bytes: int

    @property
    def memory(self) -> int:
        """Bytes, without what libraries and kernels use for themselves."""
        return self.state_bytes + self.activation_bytes


def estimate(task: MethodTask, batch: tuple, batch_size: int, optimizer: Any) -> Estimate:
    """Counts the operations of a step, and what it keeps for its backward pass, on a few images.

    Args:
        task: The method, in training mode.
        batch: `IMAGES` images and their targets.
        batch_size: Images of a batch of the run, per process.
        optimizer: Of the run.
    """
    half = tuple(tensor[: IMAGES // 2] for tensor in batch)
    step(task, half)  # in its first step, a method may learn what the model is like
    cost = count_flops(lambda: step(task, half)) / count_flops(lambda: clean_step(task, half))

    # what is kept grows with the images, from what does not depend on them
    few, more = kept_by(task, half), kept_by(task, batch)
    per_image = (more - few) / (IMAGES - IMAGES // 2)
    every = getattr(task.config, 'every', 1)
    return Estimate(
        relative_cost=1 + (cost - 1) / every,
        perturbed_cost=cost,
        state_bytes=weight_bytes(task, optimizer),
        activation_bytes=round(more + per_image * (batch_size - IMAGES)),
    )


def step(task: MethodTask, batch: tuple) -> None:
    """A forward and a backward pass of a task, which perturbs if it ever does; leaves no gradients."""
    with task.trial():
        task(*batch)['loss'].backward()
    task.zero_grad(set_to_none=True)


def clean_step(task: MethodTask, batch: tuple) -> None:
    """What the same step would be in standard training."""
    task.clean(*batch)['loss'].backward()
    task.zero_grad(set_to_none=True)


def kept_by(task: MethodTask, batch: tuple) -> int:
    """Bytes that a step keeps for its backward pass at most."""
    with kept_for_backward(task.parameters()) as kept:
        step(task, batch)
    return kept.most


def weight_bytes(task: nn.Module, optimizer: Any) -> int:
    """Bytes of the weights, their gradients, buffers, and the state that an optimizer keeps for each weight."""
    trained = [p for p in task.parameters() if p.requires_grad]
    total = sum(t.nbytes for t in (*task.parameters(), *task.buffers()))
    return total + (1 + state_tensors(optimizer)) * sum(p.nbytes for p in trained)


def state_tensors(optimizer: Any) -> int:
    """Tensors of a weight's size that an optimizer keeps for each weight, found out on a single small one."""
    inner = getattr(optimizer, 'optimizer', optimizer)  # accelerate's wrapper
    group = inner.param_groups[0]
    known = signature(type(inner)).parameters.keys() & inner.defaults.keys()
    weight = nn.Parameter(torch.zeros(7, 7))
    weight.grad = torch.ones_like(weight)
    try:
        copy = type(inner)([weight], **{key: group[key] for key in known})
        copy.step()
    except Exception:  # an optimizer that needs more than this: its state is not counted
        return 0
    state = copy.state[weight].values()
    return sum(1 for value in state if torch.is_tensor(value) and value.shape == weight.shape)


class _Kept:
    """Bytes of tensors that are kept for a backward pass, now and at most; each storage counts once."""

    def __init__(self):
        self.now = self.most = 0
        self.count: dict[int, int] = {}

    def add(self, storage: int, size: int) -> None:
        self.count[storage] = self.count.get(storage, 0) + 1
        if self.count[storage] == 1:
            self.now += size
            self.most = max(self.most, self.now)

    def remove(self, storage: int, size: int) -> None:
        self.count[storage] -= 1
        if not self.count[storage]:
            del self.count[storage]
            self.now -= size


class _Saved:
    """A tensor that autograd keeps; dropped with the graph."""

    def __init__(self, tensor: torch.Tensor, kept: _Kept):
        self.tensor, self.kept = tensor, kept
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        kept.add(self.key, self.size)

    def __del__(self):
        self.kept.remove(self.key, self.size)


@contextmanager
def kept_for_backward(parameters: Iterable[torch.Tensor]) -> Iterator[_Kept]:
    """While inside, counts the bytes that autograd keeps, except for parameters, which are there anyway."""
    kept = _Kept()
    known = {each.untyped_storage().data_ptr() for each in parameters}

    def pack(tensor: torch.Tensor) -> Any:
        return tensor if tensor.untyped_storage().data_ptr() in known else _Saved(tensor, kept)

    with saved_tensors_hooks(pack, lambda saved: saved.tensor if isinstance(saved, _Saved) else saved):
        yield kept

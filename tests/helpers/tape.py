"""What a CUDA graph does, on the CPU: the kernels of a call, recorded once and run again on the same memory.

Between two replays no Python runs, so a replay finds numbers that were baked in, counters that a replay does not move,
state that was bound anew, and reads of the device.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from timm_alfa.utils import rng

READS = ('aten::_local_scalar_dense', 'aten::is_nonzero', 'aten::nonzero', 'aten::equal', 'aten::masked_select')
UNDEFINED = ('aten::empty', 'aten::empty_like', 'aten::empty_strided', 'aten::new_empty')


class ReadsDevice(RuntimeError):
    """A call reads from the device, which would wait for it, and is illegal in a capture."""


class NoReads(TorchDispatchMode):
    """Refuses what reads from the device; as in a capture, states of random generators are not known."""

    def __enter__(self):
        self.states, rng.states = rng.states, lambda device: None
        return super().__enter__()

    def __exit__(self, *exception):
        rng.states = self.states
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in READS:
            raise ReadsDevice(str(func))
        return func(*args, **(kwargs or {}))


class Tape(NoReads):
    """Records the kernels that run while it is on."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = super().__torch_dispatch__(func, types, args, kwargs)
        outputs = [x.detach() for x in tree_leaves(output) if isinstance(x, torch.Tensor)]
        if is_kernel(func, outputs):
            made = [] if returns_alias(func) else outputs
            self.calls.append((func, tree_map(detached, args), tree_map(detached, kwargs), made))
        return output

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, outputs in self.calls:
            again = func(*args, **kwargs)
            if func._schema.name in UNDEFINED or not outputs:
                continue
            tensors = [x for x in tree_leaves(again) if isinstance(x, torch.Tensor)]
            for output, value in zip(outputs, tensors, strict=True):
                if output.numel():
                    output.copy_(value)


def is_kernel(func, outputs):
    """Whether a call computes something: no view, and not torch's bookkeeping."""
    if func._schema.name.endswith('_record_function_enter_new'):
        return False
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
    return writes or (bool(outputs) and not returns_alias(func))


def returns_alias(func):
    return any(r.alias_info is not None for r in func._schema.returns)


def detached(value):
    return value.detach() if isinstance(value, torch.Tensor) else value

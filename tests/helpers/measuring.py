"""What runs, and how much memory lives, while a model computes."""

import weakref
from contextlib import contextmanager

from torch.utils._python_dispatch import TorchDispatchMode

from timm_alfa.utils import pytree


@contextmanager
def recorded_calls(model):
    """Yields a list that receives the names of leaf modules, as they compute."""
    called = []
    handles = [
        m.register_forward_pre_hook(lambda m, a, n=n: called.append(n))
        for n, m in model.named_modules()
        if not list(m.children())
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def calls_of(model, run):
    """Leaf modules that compute while `run` runs, by name."""
    with recorded_calls(model) as called:
        run()
    return called


class Alive(TorchDispatchMode):
    """Bytes of all tensors that operations make: now, and at most."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for x in pytree.tensors(found):
            storage = x.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if size and key not in self.seen:
                self.seen.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.gone, key, size)
        return found

    def gone(self, key, size):
        self.seen.discard(key)
        self.now -= size

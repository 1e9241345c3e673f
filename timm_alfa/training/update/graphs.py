"""A function of tensors as CUDA graphs: run eagerly at first, captured, then replayed.

Several runs may share a GPU. So each has a stream, a memory pool and a random generator to itself:

- Graphs captured on one stream share a cuBLAS workspace, whatever their pools, and torch's default capture stream is
  shared by all captures. Two of them replayed at once would corrupt each other.
- Graphs that share a generator share its seed and offset on the device: a race between streams.
"""

import gc
import traceback
from contextlib import contextmanager, suppress
from typing import Callable, Hashable, Iterator, NamedTuple, Optional, Sequence

import torch

from timm_alfa.errors import AlfaError, first_line
from timm_alfa.utils.console import logger
from timm_alfa.utils.rng import seed_all, seed_device

WARM_UP = 3  # eager calls of a kind before its capture: real updates, so that nothing has to be undone
PATIENCE = 50  # eager calls of a kind after which a warning says that it is none


class CaptureError(AlfaError):
    """An update cannot be a CUDA graph."""


class Captured(NamedTuple):
    """A graph, and the tensors that it reads its arguments from."""

    graph: 'torch.cuda.CUDAGraph'
    arguments: list[torch.Tensor]


class Graphs:
    """Calls a function of tensors, each kind of call as a separate graph.

    Everything of a run belongs on its stream, from the first call on: autograd remembers the stream that a parameter
    was first used on. The function must not leave a graph of autograd behind.

    Args:
        function: Works on the device alone. What it keeps between calls it keeps in place.
        stream: Of the run; current in every call.
        is_settled: Whether the next call reads nothing from the device.
    """

    def __init__(self, function: Callable[..., None], stream: 'torch.cuda.Stream', is_settled: Callable[[], bool]):
        self.function, self.stream, self.is_settled = function, stream, is_settled
        self.pool = torch.cuda.graph_pool_handle()  # the graphs of a run take turns and live equally long
        self.random = OwnGenerator(stream.device)
        self.calls: dict[Hashable, int] = {}
        self.captured: dict[Hashable, Captured] = {}
        self.failed: list[torch.cuda.CUDAGraph] = []

    def __call__(self, arguments: Sequence[torch.Tensor], kind: Hashable, seed: tuple) -> None:
        """Calls the function, or replays what it did.

        Args:
            arguments: Its arguments; their values may differ in each call.
            kind: What else decides which operations there are, besides the shapes and types of the arguments.
            seed: Of everything random in the call.

        Raises:
            CaptureError: The function does what a graph cannot hold.
        """
        key = (kind, *((x.shape, x.dtype) for x in arguments))
        with self.random:
            if key not in self.captured and self.may_capture(key):
                self.captured[key] = self.capture(arguments)
            if key in self.captured:
                self.replay(self.captured[key], arguments, seed)
            else:
                seed_all(*seed)
                self.function(*arguments)
                self.count(key)

    def may_capture(self, key: Hashable) -> bool:
        """Whether calls of this kind have warmed up."""
        return self.calls.get(key, 0) >= WARM_UP and self.is_settled()

    def count(self, key: Hashable) -> None:
        """Counts an eager call of a kind, and says once if they do not come to an end."""
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] == PATIENCE:
            logger.warning(
                'warning: --cuda-graph: after %d updates the method still reads from the device in each: they run one '
                'operation at a time, no faster than without it.',
                PATIENCE,
            )

    def capture(self, arguments: Sequence[torch.Tensor]) -> Captured:
        """Records the function; nothing is computed yet."""
        gc.collect()  # what is left of an earlier graph of autograd remembers its stream
        static = [torch.empty_like(x, memory_format=torch.preserve_format).copy_(x) for x in arguments]
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads may load data meanwhile
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode='thread_local'):
                self.function(*static)
        except RuntimeError as error:
            self.end_failed_capture(graph)
            raise CaptureError(
                f'--cuda-graph: an update cannot be captured: {what_failed(error)}. Leave it out.'
            ) from error
        return Captured(graph, static)

    def end_failed_capture(self, graph: 'torch.cuda.CUDAGraph') -> None:
        """Tells the allocator that a capture is over, so that other runs can still capture.

        Before torch 2.12 a capture that fails does not end for the allocator (pytorch #180395), whose filter goes on
        pointing to the graph: it must not die.
        """
        self.failed.append(graph)
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(self.stream.device_index, self.pool)

    def replay(self, captured: Captured, arguments: Sequence[torch.Tensor], seed: tuple) -> None:
        """Runs a graph on other arguments."""
        for static, argument in zip(captured.arguments, arguments, strict=True):
            static.copy_(argument, non_blocking=True)
        seed_device(*seed)
        captured.graph.replay()


def what_failed(error: RuntimeError) -> str:
    """What a capture could not hold, and where: leaving the capture raises one more error, which says neither."""
    cause = error.__context__ if isinstance(error.__context__, Exception) else error
    frames = traceback.extract_tb(cause.__traceback__)
    place = f' (in {frames[-1].name}, {frames[-1].filename}:{frames[-1].lineno})' if frames else ''
    return f'{first_line(cause)}{place}'


class OwnGenerator:
    """A random generator of a run's own in place of its device's default one, while inside.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device):
        torch.cuda.init()
        self.default = torch.cuda.default_generators[device.index]
        self.own = self.default.clone_state()
        self.others: torch.Generator

    def __enter__(self) -> None:
        self.others = self.default.graphsafe_get_state()
        self.default.graphsafe_set_state(self.own)

    def __exit__(self, *exception) -> None:
        self.default.graphsafe_set_state(self.others)


def search_kernels(device: torch.device) -> None:
    """Lets cuDNN try its kernels for each shape and keep the fastest, as timm's train.py does.

    Warm-up does so before a capture, whose shapes stay. Another process may find others the fastest, whose last bits
    differ: a program that asks for deterministic kernels keeps cuDNN's own choice.
    """
    wants_same = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if device.type == 'cuda' and not wants_same:
        torch.backends.cudnn.benchmark = True


def own_stream(device: torch.device) -> Optional['torch.cuda.Stream']:
    """A new stream of a GPU, which waits for what was started on the current one; None for another device."""
    if device.type != 'cuda':
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


@contextmanager
def on_stream(stream: Optional['torch.cuda.Stream']) -> Iterator[None]:
    """While inside, work goes to a stream; with None, to the current one."""
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        yield

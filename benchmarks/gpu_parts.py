"""What gpu.py finds out before it trains: `python benchmarks/gpu_parts.py {check,rates} ...`.

- check: whether an update of standard training and one of ALFA can be a CUDA graph.
- rates: images per second of 1 to 12 runs together.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Sequence

import measure
import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timm_alfa.data.datasets.base import Source, Subset
from timm_alfa.data.loaders.image_cache import ImageCache
from timm_alfa.data.loaders.in_memory import MemoryLoader
from timm_alfa.errors import first_line
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run import Run
from timm_alfa.training.setup.prepare import prepare
from timm_alfa.training.update.agreement import Requests
from timm_alfa.training.update.device_step import DeviceStep
from timm_alfa.training.update.graphs import WARM_UP, on_stream
from timm_alfa.training.update.step import TrainStep

BATCH = 128
MOST = 12  # runs together
SETTINGS = ((1, True), (6, True), (1, False), (6, False), (MOST, True))  # runs together, channels_last
MIB = 2**20
TASKS = {'standard': ('--task', 'standard'), 'alfa': ('--task', 'alfa')}
LIKE_CIFAR = ('--img-size', '32', '--crop-padding', '4', '--hflip', '0.5', '--opt', 'momentum', '--lr', '0.01')


def write_line(results: Path, part: str, row: dict[str, Any]) -> None:
    """Adds a row to PART.jsonl, at once."""
    with (results / f'{part}.jsonl').open('a') as file:
        file.write(json.dumps(row) + '\n')
    print(row, flush=True)


# runs to measure


class Noise(Source):
    """Random images of 32x32 pixels."""

    def __init__(self, count: int):
        super().__init__('train', torch.arange(count) % 10)
        self.pixels = np.random.RandomState(0).randint(0, 256, (count, 32, 32, 3), dtype=np.uint8)

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def noise_run(args: argparse.Namespace, task: Sequence[str], cache: list, channels_last: bool = True) -> Run:
    """A run whose training images are noise of CIFAR's size, in the device's memory.

    Args:
        cache: Holds the images, once there are any.
        channels_last: Memory format.
    """
    batch = 8 if args.rehearse else BATCH
    words = ['--model', 'test_resnet' if args.rehearse else 'resnet20s', '-b', str(batch), *LIKE_CIFAR, *task]
    words += ['--channels-last'] if channels_last else []
    words += ['--cuda-graph' if args.cuda_graph else '--no-cuda-graph']
    run = prepare(parse_args([*words, '--workers', '0', '--output', str(args.work)]))
    if not cache:
        source = Noise(max(20 * batch, 4096))
        cache.append(ImageCache(source, torch.arange(len(source)), (3, 32, 32)))
    source = cache[0].source
    subset = Subset(source, torch.arange(len(source)), train=True)
    run.data = replace(run.data, train=MemoryLoader(subset, run.data.train.spec, cache[0]))
    run.wrapped.train()
    return run


class Updates:
    """The updates of a run, one by one."""

    def __init__(self, run: Run):
        self.run = run
        kind = DeviceStep if run.config.model.cuda_graph else TrainStep
        with on_stream(run.stream):
            self.step = kind(run, Totals(run.accelerator.device))
        self.update, self.batches = 0, iter(())

    def __call__(self) -> None:
        with on_stream(self.run.stream):
            batch = next(self.batches, None)
            if batch is None:
                self.run.data.train.set_epoch(self.update)
                self.batches = self.step.batches(self.run.data.train)
                batch = next(self.batches)
            self.step([batch], self.update, nothing_requested)
            self.update += 1

    def eagerly(self) -> None:
        """Makes an update operation by operation."""
        with on_stream(self.run.stream):
            batch = next(iter(self.step.batches(self.run.data.train)))
            if isinstance(self.step, DeviceStep):
                self.step.whole(*batch.tensors)
            else:
                self.step([batch], self.update, nothing_requested)


def nothing_requested() -> Requests:
    """What a process wants that neither stops nor saves."""
    return Requests(stop=False, save=False)


# check


def check(args: argparse.Namespace) -> bool:
    """Whether updates can be graphs; a row for each task, and a last one for all. Without a GPU they are none.

    The row before them says that the check began: what ends it afterwards is about graphs.
    """
    write_line(args.results, 'check', {'began': measure.machine()['device']})
    works, cache = {}, []
    for name, task in TASKS.items():
        error = None
        try:
            updates = Updates(noise_run(args, task, cache))
            for _ in range(WARM_UP + 3):
                updates()
            measure.synchronize()
            graphs = updates.step.graphs
            works[name] = graphs is None or bool(graphs.captured)
        except Exception as failure:  # whatever it is, runs could not train
            works[name], error = False, f'{type(failure).__name__}: {first_line(failure)}'
        write_line(args.results, 'check', {'task': name, 'captured': works[name], 'error': error})
    write_line(args.results, 'check', {'all': all(works.values())})
    return all(works.values())


# rates


class Traffic(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations read and write, each once per operation."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view:
            tensors = [x for x in tree_leaves((args, kwargs, output)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return output


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [measure.seconds(lambda: target.copy_(source)) for _ in range(5)]
    return 2 * size / min(times)


def rates(args: argparse.Namespace) -> None:
    """Images per second of 1 to 12 runs together, in two memory formats; of one, without graphs."""
    settings, updates, batch = SETTINGS, 100, BATCH
    if args.rehearse:
        settings, updates, batch = ((1, True), (2, True), (1, False)), 3, 8
    if not args.cuda_graph:
        settings = ((1, True),)
    cache: list = []
    made: dict[tuple[str, bool], list[Updates]] = {}
    for count, channels_last in settings:  # what matters most comes first: time may end
        for name, task in TASKS.items():
            runs = made.setdefault((name, channels_last), [])
            runs += [Updates(noise_run(args, task, cache, channels_last)) for _ in range(count - len(runs))]
            for _ in range(WARM_UP + 3):
                _turn(runs)
            seconds = measure.seconds(lambda those=runs: [_turn(those) for _ in range(updates)])
            rate = count * updates * batch / seconds
            row = {'task': name, 'precision': runs[0].run.accelerator.mixed_precision, 'together': count}
            row.update(channels_last=channels_last, cuda_graph=args.cuda_graph)
            row.update(images_per_second=rate, ms_per_update=1000 * batch / rate)
            row.update(_floor(args, runs[0], batch, rate))
            write_line(args.results, 'rates', {**row, 'device': measure.machine()['device']})


def _turn(runs: list[Updates]) -> None:
    for run in runs:
        run()


def _floor(args: argparse.Namespace, updates: Updates, batch: int, rate: float) -> dict[str, float]:
    """Bytes that an update moves, and the share of the measured bandwidth that a rate needs for them."""
    traffic = Traffic()
    with traffic:
        updates.eagerly()
    speed = bandwidth(updates.run.accelerator.device, MIB if args.rehearse else 1024 * MIB)
    return {'bytes_per_update': traffic.bytes, 'bandwidth': speed, 'share': traffic.bytes * rate / batch / speed}


def parse(description: str, parts: Sequence[str]) -> argparse.Namespace:
    """The command line of a part, as gpu.py makes it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('part', choices=parts)
    parser.add_argument('--results', type=Path, required=True)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--archives', type=Path, required=True)
    parser.add_argument('--dataset', required=True)
    parser.add_argument('--seeds', type=int, help='number of seeds (default: as many as fit)')
    parser.add_argument('--together', type=int, default=MOST, help='most runs at a time')
    parser.add_argument('--cuda-graph', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--rehearse', action='store_true')
    return parser.parse_args()


def main() -> None:
    args = parse(__doc__, ('check', 'rates'))
    if args.part == 'rates':
        rates(args)
    elif not check(args):
        sys.exit(1)


if __name__ == '__main__':
    main()

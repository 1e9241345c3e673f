"""The parts of gpu.py that are not other scripts: `python benchmarks/gpu_parts.py {rates,runs,pack} ...`."""

import argparse
import json
import os
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Sequence

import measure
import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timm_alfa.data.datasets.base import Source, Subset
from timm_alfa.data.loaders.image_cache import ImageCache
from timm_alfa.data.loaders.in_memory import MemoryLoader
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run import Run
from timm_alfa.training.setup.prepare import prepare
from timm_alfa.training.together import prepare_together, train_together
from timm_alfa.training.update.agreement import Requests
from timm_alfa.training.update.device_step import DeviceStep
from timm_alfa.training.update.graphs import WARM_UP, on_stream
from timm_alfa.utils.console import setup_logging

BATCH = 128
TOGETHER = (1, 4, 8, 12)
MIB = 2**20
ARCHIVES, ARCHIVE_SIZE = 4, 15 * MIB
EPOCHS, IMAGES = 200, 45_000
USED = 0.9  # of the time that is left, by runs
ALFA_COST = 1.3  # relative to standard training, where it was not measured
ARMS = {
    'standard': ('--config', 'recipes/paper/cifar10_resnet20s.yaml'),
    'doubled': ('--config', 'recipes/paper/cifar10_resnet20s_double.yaml'),
    'alfa': ('--config', 'recipes/paper/cifar10_resnet20s_alfa_step0.5.yaml'),
}
TINY = ('--model', 'test_resnet', '--img-size', '32', '--train-subset', '96', '-b', '16', '--epochs', '1')
TINY_ARMS = {
    'standard': (*TINY, '--task', 'standard', '--val-fraction', '0.1'),
    'doubled': (*TINY, '--task', 'standard', '--standard-weight', '2', '--val-fraction', '0.1'),
    'alfa': (*TINY, '--task', 'alfa', '--alfa-step-size', '0.5/255', '--val-fraction', '0.1'),
}


def write_line(results: Path, part: str, row: dict[str, Any]) -> None:
    """Adds a row to PART.jsonl, at once."""
    with (results / f'{part}.jsonl').open('a') as file:
        file.write(json.dumps(row) + '\n')
    print(row, flush=True)


# rates


class Noise(Source):
    """Random images of 32x32 pixels."""

    def __init__(self, count: int):
        super().__init__('train', torch.arange(count) % 10)
        self.pixels = np.random.RandomState(0).randint(0, 256, (count, 32, 32, 3), dtype=np.uint8)

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def noise_run(task: Sequence[str], model: str, batch: int, output: Path, cache: list) -> Run:
    """A run whose training images are noise of CIFAR's size, in the device's memory."""
    words = ['--model', model, '--img-size', '32', '-b', str(batch), '--lr', '0.01', '--cuda-graph', '--channels-last']
    run = prepare(parse_args([*words, *task, '--workers', '0', '--output', str(output)]))
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
        with on_stream(run.stream):
            self.step = DeviceStep(run, Totals(run.accelerator.device))
        self.update, self.batches = 0, iter(())

    def __call__(self) -> None:
        with on_stream(self.run.stream):
            batch = next(self.batches, None)
            if batch is None:
                self.run.data.train.set_epoch(self.update)
                self.batches = self.step.batches(self.run.data.train)
                batch = next(self.batches)
            self.step([batch], self.update, lambda: Requests(stop=False, save=False))
            self.update += 1


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
    """Images per second of 1 to 12 runs together."""
    model, batch, counts, updates = ('resnet20s', BATCH, TOGETHER, 100)
    if args.rehearse:
        model, batch, counts, updates = 'test_resnet', 8, (1, 2), 3
    torch.backends.cudnn.benchmark = True
    cache: list = []
    for name, task in (('standard', ('--task', 'standard')), ('alfa', ('--task', 'alfa'))):
        runs: list[Updates] = []
        for count in counts:
            runs += [Updates(noise_run(task, model, batch, args.work, cache)) for _ in range(count - len(runs))]
            for _ in range(WARM_UP + 3):
                _turn(runs)
            seconds = measure.seconds(lambda those=runs: [_turn(those) for _ in range(updates)])
            rate = count * updates * batch / seconds
            row = {'task': name, 'precision': runs[0].run.accelerator.mixed_precision, 'together': count}
            row.update(images_per_second=rate, ms_per_update=1000 * batch / rate)
            row.update(_floor(args, runs[0], batch, rate))
            write_line(args.results, 'rates', {**row, 'device': measure.machine()['device']})


def _turn(runs: list[Updates]) -> None:
    for run in runs:
        run()


def _floor(args: argparse.Namespace, updates: Updates, batch: int, rate: float) -> dict[str, float]:
    """Bytes that an update moves, and the share of the measured bandwidth that a rate needs for them."""
    traffic = Traffic()
    with on_stream(updates.run.stream), traffic:
        updates.step.whole(*next(iter(updates.run.data.train.parts())))
    speed = bandwidth(updates.run.accelerator.device, MIB if args.rehearse else 1024 * MIB)
    return {'bytes_per_update': traffic.bytes, 'bandwidth': speed, 'share': traffic.bytes * rate / batch / speed}


# runs


def seeds_that_fit(args: argparse.Namespace, seconds: float) -> int:
    """How many seeds of all arms fit into a time, by the rates that were measured; one if none were."""
    rates = {}
    for row in _rows(args.results / 'rates.jsonl'):
        if row['precision'] == 'bf16':
            rates[row['task']] = max(row['images_per_second'], rates.get(row['task'], 0))
    if args.rehearse or 'standard' not in rates:
        return 1
    alfa = rates.get('alfa', rates['standard'] / ALFA_COST)
    cost = EPOCHS * IMAGES * (2 / rates['standard'] + 1 / alfa)
    return max(1, min(max(TOGETHER) // len(ARMS), int(USED * seconds / cost)))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def runs(args: argparse.Namespace) -> None:
    """Trains all arms with the same seeds, together."""
    began, limit = time.monotonic(), float(os.environ.get('GPU_SECONDS', '400'))
    torch.backends.cudnn.benchmark = True
    setup_logging()
    seeds = range(args.seeds or seeds_that_fit(args, limit - 30))
    arms = TINY_ARMS if args.rehearse else ARMS
    common = ['--cuda-graph', '--output', str(args.work), '--checkpoint-every', '1000m', '--workers', '8']
    common += ['--channels-last', '--resume', 'auto']
    if not args.rehearse:
        common += ['--dataset', args.dataset, '-vb', '5000']
    configs = [
        parse_args([*words, *common, '--seed', str(seed), '--experiment', f'{arm}-s{seed}'])
        for seed in seeds
        for arm, words in arms.items()
    ]
    print(f'{len(configs)} runs together, {time.monotonic() - began:.0f} s after the start', flush=True)

    def ended(run: Run, result: Any) -> None:
        record = result if isinstance(result, dict) else {'status': 'failed', 'error': str(result)}
        write_line(args.results, 'runs', {'name': run.config.run.experiment, **record})

    train_together(prepare_together(configs), ended)


# pack


def pack(args: argparse.Namespace) -> None:
    """Puts records and best weights into archives that are small enough; records first."""
    names = ('result.json', 'summary.csv', 'args.yaml', 'config.json', 'model_best.safetensors')
    files = [path for name in names for path in sorted(args.work.glob(f'*/{name}'))]
    archive, size, count = None, 0, 0
    for path in files:
        if archive is None or size + path.stat().st_size > ARCHIVE_SIZE:
            archive, size, count = _next_archive(args.archives, archive, count)
            if archive is None:
                print(f'{path} and what follows are left out: {ARCHIVES} archives are full', flush=True)
                break
        archive.add(path, arcname=str(path.relative_to(args.work)))
        size += path.stat().st_size
    if archive is not None:
        archive.close()
    print(f'{len(files)} files, {count} archives', flush=True)


def _next_archive(folder: Path, archive: Optional[tarfile.TarFile], count: int) -> tuple:
    if archive is not None:
        archive.close()
    if count == ARCHIVES:
        return None, 0, count
    return tarfile.open(folder / f'runs-{count + 1}.tar.gz', 'w:gz'), 0, count + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('part', choices=('rates', 'runs', 'pack'))
    parser.add_argument('--results', type=Path, required=True)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--archives', type=Path, required=True)
    parser.add_argument('--dataset', required=True)
    parser.add_argument('--seeds', type=int, help='number of seeds (default: as many as fit)')
    parser.add_argument('--rehearse', action='store_true')
    args = parser.parse_args()
    {'rates': rates, 'runs': runs, 'pack': pack}[args.part](args)


if __name__ == '__main__':
    main()

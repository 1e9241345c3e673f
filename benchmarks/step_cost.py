"""What a training step costs, as a multiple of a standard step: time, operations, memory.

    python benchmarks/step_cost.py [--quick] [--models resnet50] [--tasks alfa] [--pairs 11] [--device cuda --amp]
"""
import argparse
import gc
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Callable

import measure
import timm
import torch

import timm_alfa
from timm_alfa.flops import count_flops


@dataclass(frozen=True)
class Workload:
    """A model, the side of its images in pixels, and the batch size that it is measured with."""
    model: str
    size: int
    batch: int


WORKLOADS = (
    Workload('resnet18_cifar', 32, 64),
    Workload('resnet56s', 32, 128),
    Workload('resnet50', 224, 8),
    Workload('efficientnet_b0', 224, 8),
    Workload('vit_tiny_patch16_224', 224, 16),
)
METHODS = (
    {'task': 'alfa'},
    {'task': 'l_alfa', 'mode': 'joint'},
    {'task': 'noise'},
    {'task': 'moex'},
    {'task': 'advprop'},
    {'task': 'adv_train'},
)
BLOCKS = ('last', '3', '2', '1', 'all', 'units:9')
STEPS = (1, 2, 3, 5, 7, 10)
BATCHES = (32, 64, 128, 256, 512)


def step(model, size: int, batch: int, task: str, device: str, amp: bool, **options) -> Callable[[], None]:
    """A function that runs a whole training step of one method, including the optimizer's."""
    method = timm_alfa.create_task(task, model, **options)
    optimizer = torch.optim.SGD([{'params': method.get_eval_model().parameters()}, *method.extra_param_groups()],
                                lr=1e-4, momentum=0.9)
    input = torch.randn(batch, 3, size, size, device=device)
    target = torch.randint(0, 10, (batch,), device=device)

    def run():
        with torch.autocast(device, torch.bfloat16) if amp else nullcontext():
            loss = method(input, target)['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.post_step()
    return run


def compare(workload: Workload, variants: dict[str, dict], args) -> list[dict]:
    """A row for each variant and one for standard training, measured in turns on one model."""
    model = timm.create_model(workload.model, num_classes=10).to(args.device)
    make = partial(step, model, workload.size, workload.batch, device=args.device, amp=args.amp)
    runs = [make(task='standard'), *(make(**options) for options in variants.values())]
    times = measure.turn_about(runs, args.pairs)
    flops, peaks = [count_flops(run) for run in runs], [measure.peak_bytes(run) for run in runs]
    rows = [{'model': workload.model, 'batch': workload.batch, 'variant': name,
             'time': measure.ratio(times[i], times[0]), 'FLOPs': flops[i] / flops[0], 'memory': peaks[i] / peaks[0],
             'pairs': args.pairs} for i, name in enumerate(('standard', *variants))]
    for row in rows:
        print(row, flush=True)
    gc.collect()
    return rows


def methods(args) -> list[dict]:
    """Rows of all methods, on all models asked for."""
    wanted = {' '.join(options.values()): options for options in METHODS if options['task'] in args.tasks}
    return [row for w in args.workloads for row in compare(w, wanted, args)]


def sweeps(args) -> dict[str, list[dict]]:
    """ALFA on one small network with other numbers of steps, blocks and batch sizes."""
    base = next((w for w in args.workloads if w.size == 32), WORKLOADS[0])
    steps = {f'K={k}': {'task': 'alfa', 'blocks': '2', 'steps': k} for k in STEPS}
    last = {f'last, K={k}': {'task': 'alfa', 'steps': k} for k in STEPS}
    blocks = {name: {'task': 'alfa', 'blocks': name} for name in BLOCKS}
    batches = [compare(Workload(base.model, base.size, batch), {'alfa': {'task': 'alfa'}}, args) for batch in BATCHES]
    return {'Steps of the search (stage 2, and last)': compare(base, {**steps, **last}, args),
            'Blocks': compare(base, blocks, args),
            'Batch size': [row for rows in batches for row in rows if row['variant'] != 'standard']}


def plot(sections: dict[str, list[dict]]) -> None:
    """Draws the cost against K and for each block: step_cost.png beside the tables."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    rows = sections['Steps of the search (stage 2, and last)']
    for label, prefix, color in (('stage 2', 'K=', 'C0'), ('last stage', 'last, K=', 'C1')):
        chosen = [row for row in rows if row['variant'].startswith(prefix)]
        steps = [int(row['variant'].removeprefix(prefix)) for row in chosen]
        left.plot(steps, [row['time'] for row in chosen], 'o-', color=color, label=f'{label}, time')
        left.plot(steps, [row['FLOPs'] for row in chosen], '--', color=color, label=f'{label}, FLOPs')
    left.set(xlabel='steps K', ylabel='cost of a step over standard training', ylim=(0, None))
    left.legend(frameon=False)
    rows = [row for row in sections['Blocks'] if row['variant'] != 'standard']
    places = range(len(rows))
    right.bar([p - 0.2 for p in places], [row['time'] for row in rows], 0.4, label='time')
    right.bar([p + 0.2 for p in places], [row['FLOPs'] for row in rows], 0.4, label='FLOPs')
    right.set_xticks(list(places), [row['variant'] for row in rows])
    right.set(xlabel='blocks (K = 5)')
    right.axhline(1, color='grey', linewidth=0.8)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
    figure.suptitle(f"{rows[0]['model']}, batch {rows[0]['batch']}")
    figure.savefig(measure.RESULTS / 'step_cost.png', dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [w.model for w in WORKLOADS]
    parser.add_argument('--models', nargs='+', choices=names, default=names)
    tasks = [options['task'] for options in METHODS]
    parser.add_argument('--tasks', nargs='+', choices=tasks, default=tasks)
    parser.add_argument('--pairs', type=int, default=11)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', action='store_true', help='autocast to bfloat16')
    parser.add_argument('--quick', action='store_true', help='methods only, no sweeps')
    args = parser.parse_args()
    args.workloads = [w for w in WORKLOADS if w.model in args.models]
    sections = {'Methods': methods(args)}
    if not args.quick:
        sections.update(sweeps(args))
    measure.write('step_cost', 'Cost of a step over a standard step', sections)
    if not args.quick:
        plot(sections)


if __name__ == '__main__':
    main()

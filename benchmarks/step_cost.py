"""What a training step costs, as a multiple of a standard step: time, operations, memory.

    python benchmarks/step_cost.py [--quick] [--models resnet50] [--tasks alfa] [--pairs 11] [--device cuda] [--amp]
        [--torchcompile]

Where a method searches in features, 'over the floor' is its operations, and its time, over what the design allows:
3F + max T_i + sum (2K + 1) T_i, with F the forward cost of the model and T_i that of what comes after block i.
"""
import argparse
import copy
import gc
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

import measure
import timm
import torch

import timm_alfa
from timm_alfa.replay.flops import count_flops, floor


@dataclass(frozen=True)
class Workload:
    """A model, the side of its images in pixels, and the batch size that it is measured with."""
    model: str
    size: int
    batch: int


WORKLOADS = (
    Workload('resnet18_cifar', 32, 16),
    Workload('resnet56s', 32, 64),
    Workload('resnet50', 224, 4),
    Workload('efficientnet_b0', 224, 8),
    Workload('vit_tiny_patch16_224', 224, 4),
)
SWEPT = WORKLOADS[1]  # the cheapest one: its stages cost the same, as ResNet-18's do
METHODS = {
    'alfa': {'task': 'alfa'},
    'l_alfa': {'task': 'l_alfa'},
    'l_alfa joint': {'task': 'l_alfa', 'mode': 'joint'},
    'noise': {'task': 'noise'},
    'moex': {'task': 'moex'},
    'advprop': {'task': 'advprop'},
    'adv_train': {'task': 'adv_train'},
}
BLOCKS = ('last', '3', '2', '1', 'all', 'units:9')
STEPS = (1, 2, 3, 5, 7, 10)
BATCHES = (32, 64, 128, 256, 512)


class Step:
    """A whole training step of one method, including the optimizer's, on one batch of noise.

    Args:
        model: Any classifier of 10 classes.
        size: Side of the images in pixels.
        batch: Images a step.
        task: Name of the method.
        device: Where the model is.
        amp: Autocast to bfloat16.
        options: The method's.
    """

    def __init__(self, model, size: int, batch: int, task: str, device: str, amp: bool, **options):
        self.method = timm_alfa.create_task(task, model, **options)
        groups = [{'params': self.method.get_eval_model().parameters()}, *self.method.extra_param_groups()]
        self.optimizer = torch.optim.SGD(groups, lr=1e-4, momentum=0.9)
        self.input = torch.randn(batch, 3, size, size, device=device)
        self.target = torch.randint(0, 10, (batch,), device=device)
        self.precision = partial(torch.autocast, device, torch.bfloat16) if amp else nullcontext

    def __call__(self) -> None:
        with self.precision():
            loss = self.method(self.input, self.target)['loss']
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.post_step()

    def floor(self) -> Optional[int]:
        """The least operations that an exact step can have; None where features are not searched, starting at zero."""
        config = self.method.config
        if not isinstance(config, timm_alfa.tasks.alfa.AlfaConfig) or config.random_start or config.bn == 'aux':
            return None
        blocks = self.method.blocks
        groups = [blocks] if config.mode == 'joint' else [[name] for name in blocks]
        return floor(self.method.model, groups, self.input, config.steps)


def compare(workload: Workload, variants: dict[str, dict], args) -> list[dict]:
    """A row for each variant and one for standard training, measured in turns."""
    model = timm.create_model(workload.model, num_classes=10).to(args.device)
    variants = {'standard': {'task': 'standard'}, **variants}
    # compiled code stays with a model: each variant gets its own
    models = [copy.deepcopy(model) if args.torchcompile else model for _ in variants]
    steps = [Step(own, workload.size, workload.batch, device=args.device, amp=args.amp, **options)
             for own, options in zip(models, variants.values(), strict=True)]
    for step in steps:
        step()  # the first one learns what a replay needs, which is no part of a step
    flops, least = [count_flops(step) for step in steps], [step.floor() for step in steps]
    for step in steps if args.torchcompile else ():
        step.method.compile()
        step()  # compiled code is found in the first step and made in the second, which warms up
    times, peaks = measure.turn_about(steps, args.pairs), [measure.peak_bytes(step) for step in steps]
    rows = []
    for i, name in enumerate(variants):
        row = {'model': workload.model, 'batch': workload.batch, 'variant': name,
               'time': measure.ratio(times[i], times[0]), 'FLOPs': flops[i] / flops[0], 'memory': peaks[i] / peaks[0]}
        row['FLOPs over the floor'] = flops[i] / least[i] if least[i] else None
        row['time over the floor'] = row['time'] * flops[0] / least[i] if least[i] else None
        rows.append(row)
        print(row, flush=True)
    gc.collect()
    return rows


def methods(args) -> list[dict]:
    """Rows of all methods, on all models asked for."""
    wanted = {name: options for name, options in METHODS.items() if options['task'] in args.tasks}
    return [row for w in args.workloads for row in compare(w, wanted, args)]


def sweeps(args) -> dict[str, list[dict]]:
    """ALFA on one small network with other numbers of steps, blocks and batch sizes."""
    steps = {f'K={k}': {'task': 'alfa', 'blocks': '2', 'steps': k} for k in STEPS}
    last = {f'last, K={k}': {'task': 'alfa', 'steps': k} for k in STEPS}
    blocks = {name: {'task': 'alfa', 'blocks': name} for name in BLOCKS}
    batches = [compare(Workload(SWEPT.model, SWEPT.size, batch), {'alfa': {'task': 'alfa'}}, args)
               for batch in BATCHES]
    return {'Steps of the search (stage 2, and last)': compare(SWEPT, {**steps, **last}, args),
            'Blocks': compare(SWEPT, blocks, args),
            'Batch size': [row for rows in batches for row in rows if row['variant'] != 'standard']}


def plot(sections: dict[str, list[dict]], path: Path) -> None:
    """Draws the cost against K and for each block."""
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
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [w.model for w in WORKLOADS]
    measure.add_results(parser)
    parser.add_argument('--models', nargs='+', choices=names, default=names)
    tasks = list(dict.fromkeys(options['task'] for options in METHODS.values()))
    parser.add_argument('--tasks', nargs='+', choices=tasks, default=tasks)
    parser.add_argument('--pairs', type=int, default=11)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', action='store_true', help='autocast to bfloat16')
    parser.add_argument('--torchcompile', action='store_true', help='compile each method, as train.py does')
    parser.add_argument('--quick', action='store_true', help='methods only, no sweeps')
    args = parser.parse_args()
    args.workloads = [w for w in WORKLOADS if w.model in args.models]
    sections = {'Methods': methods(args)}
    if not args.quick:
        sections.update(sweeps(args))
    flags = [name for name in ('amp', 'torchcompile') if getattr(args, name)]
    path = measure.write(args.results, '_'.join(('step_cost', *flags)), 'Cost of a step over a standard step', sections)
    if not args.quick:
        plot(sections, path.with_suffix('.png'))


if __name__ == '__main__':
    main()

"""Measures how time and memory of an ALFA step grow with batch size, steps, number of blocks and depth.

    python benchmarks/growth.py [--model resnet20s] [--pairs 11] [--device cuda --amp]

All of it should grow linearly. For blocks, each of which has a longer tail than the next, growth is against the
operations of the floor; for depth, against those of a standard step. Tables show the slope, and how far the points are
from the fitted line.
"""

import argparse
from functools import partial

import measure
import timm
import torch
from step_cost import Step

import timm_alfa
from timm_alfa.replay.flops import count_flops

DEPTHS = ('resnet18_cifar', 'resnet50_cifar', 'resnet101_cifar', 'resnet152_cifar')
BATCHES, STEPS, BLOCKS = (16, 32, 64, 128), (1, 2, 4, 8), (1, 2, 3, 5, 9)


def fit(xs, ys) -> tuple[float, float, float]:
    """Fits a line by least squares.

    Returns:
        Its intercept, its slope, and its largest error relative to the largest value.
    """
    x, y = torch.tensor(xs, dtype=torch.float64), torch.tensor(ys, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    start = y.mean() - slope * x.mean()
    return float(start), float(slope), float((y - start - slope * x).abs().max() / y.abs().max())


def line(what: str, unit: str, xs, runs, args) -> list[dict]:
    """Measures one row for time and one for memory.

    Args:
        what: What is varied.
        unit: One unit of it.
        xs: Its values.
        runs: A step for each value.
        args: The command line.
    """
    times = measure.interleave(runs, args.pairs)
    seconds = [sorted(t)[len(t) // 2] * 1e3 for t in times]
    peaks = [measure.peak_bytes(run) / 2**20 for run in runs]
    rows = []
    for quantity, values in (('time, ms', seconds), ('memory, MiB', peaks)):
        start, slope, off = fit(xs, values)
        points = ', '.join(f'{x:.4g}: {v:.1f}' for x, v in zip(xs, values, strict=True))
        rows.append(
            {
                'against': what,
                'quantity': quantity,
                'points': points,
                f'slope per {unit}': slope,
                'at zero': start,
                'off the line': off,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('--model', default='resnet20s')
    parser.add_argument('--pairs', type=int, default=11)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', action='store_true')
    args = parser.parse_args()

    # the models, the steps, and what their cost is compared with
    model = timm.create_model(args.model, num_classes=10).to(args.device)
    make = partial(Step, device=args.device, amp=args.amp)
    one = partial(make, model, 32, task='alfa')
    units = timm_alfa.resolve_blocks(model, 'units')
    blocks = [one(batch=32, blocks=','.join(units[-n:]), steps=2) for n in BLOCKS]
    deep = [timm.create_model(name, num_classes=10).to(args.device) for name in DEPTHS]
    cost = [count_flops(make(each, 32, 8, 'standard')) / 1e9 for each in deep]

    # each of them against what it should grow with
    sections = {
        'Batch (last block, K=5)': line('batch', 'image', BATCHES, [one(batch=batch) for batch in BATCHES], args),
        'Steps (stage 2)': line('K', 'step', STEPS, [one(batch=32, blocks='2', steps=k) for k in STEPS], args),
    }
    heading = f'Blocks (the last {", ".join(map(str, BLOCKS))} units, K=2)'
    floors = [step.floor() / 1e9 for step in blocks]
    sections[heading] = line('GFLOPs at the floor', 'GFLOP', floors, blocks, args)
    heading = f'Depth ({", ".join(DEPTHS)}; last block, K=5, batch 8)'
    sections[heading] = []
    for task in ('standard', 'alfa'):
        steps = [make(each, 32, 8, task) for each in deep]
        rows = line('GFLOPs of a standard step', 'GFLOP', cost, steps, args)
        sections[heading] += [{'task': task, **row} for row in rows]
    measure.write(args.results, 'growth', 'Growth of the cost of a step', sections)


if __name__ == '__main__':
    main()

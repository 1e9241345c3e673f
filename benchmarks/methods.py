"""Trains all methods with one recipe: test accuracy over seeds, and the cost of a step relative to a standard one.

    python benchmarks/methods.py [--tasks standard alfa] [--seeds 0 1 2] [--epochs 12] [--robust] [-- FLAGS OF train.py]

Trains resnet20s on the embedded digits with train.py, once per method and seed, and writes methods.json and methods.md
to results/benchmarks. Runs in --output that finished with the same options are not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Optional, Sequence

import measure
import timm
import torch
from step_cost import Step

import timm_alfa
from timm_alfa.replay.flops import count_flops

SHAPE = (64, 32)  # batch size, and side of the images, with which the cost of a step is measured
# With nine separate losses the gradient is ten times as large, too large for this recipe's learning rate.
OPTIONS = {'l_alfa': {'mode': 'joint'}}
VAL_FRACTION = '0.1'  # the model is selected on these training images, and the test images are scored once


def call(script: str, *options: str) -> dict:
    """Runs a script and returns its record, the last line it prints."""
    command = [sys.executable, str(measure.ROOT / script), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # nosec B603  # a script of this repository
    if done.returncode:
        raise SystemExit(f'{script} {" ".join(options)}: exit status {done.returncode}')
    return json.loads(done.stdout.splitlines()[-1])


def train(task: str, seed: int, args: argparse.Namespace) -> dict:
    """Trains, unless the run has finished before, and returns its record."""
    options = ['--model', args.model, '--task', task, '--seed', str(seed), '--val-fraction', VAL_FRACTION, *args.rest]
    prefix = timm_alfa.tasks.TASKS[task].prefix
    for name, value in OPTIONS.get(task, {}).items():
        options += [f'--{prefix}-{name}', value]
    if args.epochs:
        options += ['--epochs', str(args.epochs)]
    run = Path(args.output) / f'{args.model}-{task}-{seed}'
    made = run / 'options.json'
    if made.is_file() and json.loads(made.read_text()) == options:
        return json.loads((run / 'result.json').read_text())
    result = call('train.py', *options, '--output', args.output, '--experiment', run.name)
    made.write_text(json.dumps(options))
    return result


def robust(task: str, seed: int, args: argparse.Namespace) -> float:
    """Accuracy of a run's model on the test digits under PGD-20, in percent."""
    run = Path(args.output) / f'{args.model}-{task}-{seed}'
    record = call('validate.py', '--checkpoint', str(run), '--dataset', 'digits', '--split', 'test', '--robust')
    return record['robust_top1']


def costs(args: argparse.Namespace) -> dict[str, dict]:
    """Measures time and operations of a step of each method, relative to a standard step of the same model."""
    model = timm.create_model(args.model, num_classes=10)
    batch, side = SHAPE
    tasks = ['standard', *(task for task in args.tasks if task != 'standard')]
    runs = [Step(model, side, batch, task, 'cpu', False, **OPTIONS.get(task, {})) for task in tasks]
    times = measure.interleave(runs, args.pairs)
    flops = [count_flops(run) for run in runs]
    return {
        task: {'step time': measure.ratio(times[i], times[0]), 'step FLOPs': flops[i] / flops[0]}
        for i, task in enumerate(tasks)
    }


def row(task: str, results: Sequence[dict], scores: Sequence[Optional[float]], cost: dict) -> dict:
    """A method's row of the table; accuracies are in percent."""
    accuracy = [result['test_top1'] for result in results]
    line = {
        'task': ' '.join([task, *OPTIONS.get(task, {}).values()]),
        'test top-1': statistics.mean(accuracy),
        'standard deviation': statistics.stdev(accuracy) if len(accuracy) > 1 else None,
        'seeds': ', '.join(f'{value:.2f}' for value in accuracy),
    }
    if scores:
        line['PGD-20 top-1'] = statistics.mean(scores)
    return {**line, **cost, 'seconds per run': statistics.mean(result['seconds'] for result in results)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('--model', default='resnet20s')
    parser.add_argument('--tasks', nargs='+', choices=timm_alfa.list_tasks(), default=timm_alfa.list_tasks())
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, help="default: train.py's")
    parser.add_argument('--pairs', type=int, default=11, help='rounds in which a step is measured (default: 11)')
    output = measure.ROOT / 'output' / 'methods'
    parser.add_argument('--output', default=str(output), help='folder of the runs (default: output/methods)')
    parser.add_argument('--robust', action='store_true', help='also measure accuracy under PGD-20')

    # flags after -- are train.py's
    own, rest = split(sys.argv[1:])
    args = parser.parse_args(own, argparse.Namespace(rest=rest))
    if args.robust and {'--dataset', '--data-dir'} & {word.partition('=')[0] for word in rest}:
        parser.error(
            '--robust scores the embedded digits. For other data leave it out, and score each run with '
            'validate.py --checkpoint RUN --robust.'
        )
    # the cost of a step, then the runs
    torch.manual_seed(0)
    cost, rows = costs(args), []
    for task in args.tasks:
        results = [train(task, seed, args) for seed in args.seeds]
        scores = [robust(task, seed, args) for seed in args.seeds] if args.robust else []
        rows.append(row(task, results, scores, cost[task]))
        print(rows[-1], file=sys.stderr, flush=True)

    # what all runs have in common
    recipe = {
        'model': args.model,
        'dataset': results[0]['dataset'],
        'epochs': results[0]['epochs'],
        'batch size': results[0]['batch_size'],
        'learning rate': results[0]['lr'],
        'test images': results[0]['test_images'],
        'seeds': len(args.seeds),
    }
    measure.write(args.results, 'methods', 'All methods with one recipe', {'Methods': rows, 'Recipe': [recipe]})


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line at `--` into what is for this script and what is for train.py."""
    at = words.index('--') if '--' in words else len(words)
    return words[:at], words[at + 1 :]


if __name__ == '__main__':
    main()

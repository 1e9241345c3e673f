"""All methods under one recipe: test accuracy over seeds, and the cost of a step relative to a standard one.

    python benchmarks/methods.py [--tasks standard alfa] [--seeds 0 1 2] [--epochs 12] [--robust] [-- FLAGS OF train.py]

Trains resnet20s on the embedded digits with train.py, once for each method and seed, and writes methods.json and
methods.md to results/benchmarks. Runs in --output that finished with the same options are not made again.
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

SHAPE = (64, 32)  # batch and side of the images that a step's cost is measured on
# Nine separate losses are ten times the gradient, which this recipe's learning rate does not bear.
OPTIONS = {'l_alfa': {'mode': 'joint'}}
VAL_FRACTION = '0.1'  # the model is chosen on these training images, and the test images are scored once


def call(script: str, *options: str) -> dict:
    """Runs a script and returns its record, the last line that it prints."""
    done = subprocess.run([sys.executable, str(measure.ROOT / script), *options], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(options)}: exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def train(task: str, seed: int, args: argparse.Namespace) -> dict:
    """The record of a run, which is made unless it has finished before."""
    options = ['--model', args.model, '--task', task, '--seed', str(seed), '--val-fraction', VAL_FRACTION, *args.rest]
    prefix = timm_alfa.tasks.TASKS[task].prefix
    options += [word for name, value in OPTIONS.get(task, {}).items() for word in (f'--{prefix}-{name}', value)]
    options += ['--epochs', str(args.epochs)] if args.epochs else []
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
    """Time and operations of a step of each method relative to a standard step, measured in turns on one model."""
    model = timm.create_model(args.model, num_classes=10)
    batch, side = SHAPE
    tasks = ['standard', *(task for task in args.tasks if task != 'standard')]
    runs = [Step(model, side, batch, task, 'cpu', False, **OPTIONS.get(task, {})) for task in tasks]
    times = measure.turn_about(runs, args.pairs)
    flops = [count_flops(run) for run in runs]
    return {task: {'step time': measure.ratio(times[i], times[0]), 'step FLOPs': flops[i] / flops[0]}
            for i, task in enumerate(tasks)}


def row(task: str, results: Sequence[dict], scores: Sequence[Optional[float]], cost: dict) -> dict:
    """A method's row of the table; accuracies are in percent."""
    accuracy = [result['test_top1'] for result in results]
    line = {'task': ' '.join([task, *OPTIONS.get(task, {}).values()]), 'test top-1': statistics.mean(accuracy),
            'deviation': statistics.stdev(accuracy) if len(accuracy) > 1 else None,
            'seeds': ', '.join(f'{value:.2f}' for value in accuracy)}
    if scores:
        line['PGD-20 top-1'] = statistics.mean(scores)
    return {**line, **cost, 'seconds a run': statistics.mean(result['seconds'] for result in results)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('--model', default='resnet20s')
    parser.add_argument('--tasks', nargs='+', choices=timm_alfa.list_tasks(), default=timm_alfa.list_tasks())
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, help="train.py's default if not given")
    parser.add_argument('--pairs', type=int, default=11, help='rounds of the measurement of a step')
    parser.add_argument('--output', default=str(measure.ROOT / 'output' / 'methods'), help='folder of the runs')
    parser.add_argument('--robust', action='store_true', help='accuracy under PGD-20 too')
    own, rest = split(sys.argv[1:])
    args = parser.parse_args(own, argparse.Namespace(rest=rest))
    if args.robust and {'--dataset', '--data-dir'} & {word.partition('=')[0] for word in rest}:
        parser.error('--robust scores the embedded digits: with other data leave it out, and score each run with '
                     'validate.py --checkpoint RUN --robust')
    torch.manual_seed(0)
    cost, rows = costs(args), []
    for task in args.tasks:
        results = [train(task, seed, args) for seed in args.seeds]
        scores = [robust(task, seed, args) for seed in args.seeds] if args.robust else []
        rows.append(row(task, results, scores, cost[task]))
        print(rows[-1], file=sys.stderr, flush=True)
    recipe = {'model': args.model, 'dataset': results[0]['dataset'], 'epochs': results[0]['epochs'],
              'batch size': results[0]['batch_size'], 'learning rate': results[0]['lr'],
              'test images': results[0]['test_images'], 'seeds': len(args.seeds)}
    measure.write(args.results, 'methods', 'The methods under one recipe', {'Methods': rows, 'Recipe': [recipe]})


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words for this script, and those after `--`, which are for train.py."""
    at = words.index('--') if '--' in words else len(words)
    return words[:at], words[at + 1:]


if __name__ == '__main__':
    main()

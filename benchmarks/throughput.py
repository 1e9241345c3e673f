"""Images a second of train.py, of a bare loop and of timm's own train.py.

    python benchmarks/throughput.py --dataset hfds/uoft-cs/cifar10 --input-key img [--timm-train PATH] [--models ...]

The bare loop has the same model and optimizer and its batches ready in memory: no loader, metrics, log or checks. It
runs in the same process as train.py's loop, an epoch of each in turn.
"""
import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

import measure
import torch

from timm_alfa.training.arguments import parse_args
from timm_alfa.training.checkpoint import States
from timm_alfa.training.folder import RunFolder
from timm_alfa.training.guard import StopFlag
from timm_alfa.training.loop import Trainer
from timm_alfa.training.setup import prepare
from timm_alfa.training.state import Progression
from timm_alfa.training.totals import Totals

_RATE = re.compile(r'\(\s*([\d.]+)/s\)')


def trainer(arguments: list[str], output: str) -> Trainer:
    """The training loop, built as train.py builds it."""
    run = prepare(parse_args([*arguments, '--output', output]))
    states = States(Path(output) / 'last', 1)
    return Trainer(run, RunFolder(Path(output)), states, Progression(), Totals(run.accelerator.device), StopFlag())


def looped(turns: Trainer):
    """A function that runs one epoch of train.py's loop from its start."""
    def epoch():
        turns.state.epoch, turns.state.batch = 0, 0
        turns.train_epoch()
    return epoch


def bare(run):
    """A function that runs one epoch of a plain loop over the same task, and the number of images in it."""
    run.data.train.set_epoch(0)
    batches = [(input.clone(), target.clone()) for input, target in run.data.train]

    def epoch():
        run.wrapped.train()
        for input, target in batches:
            run.accelerator.backward(run.wrapped(input, target)['loss'])
            run.optimizer.step()
            run.optimizer.zero_grad()
    return epoch, sum(len(target) for _, target in batches)


def timm_rate(script: str, arguments: list[str]) -> Optional[float]:
    """Images a second that timm's script reports, the median of its log lines after the first."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, script, *arguments, '--output', output]
        done = subprocess.run(command, capture_output=True, text=True)
    rates = [float(rate) for rate in _RATE.findall(done.stdout + done.stderr)][1:]
    if not rates:
        raise SystemExit(f"timm's script reported no rate (exit code {done.returncode}):\n{done.stderr[-2000:]}")
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=['resnet20s', 'resnet18_cifar'])
    parser.add_argument('--dataset', default='hfds/uoft-cs/cifar10')
    parser.add_argument('--input-key', default='img')
    parser.add_argument('--images', type=int, default=2560, help='images an epoch')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--task', default='standard')
    parser.add_argument('--timm-train', help="path of timm's train.py, which is not in its package")
    args = parser.parse_args()
    rows = []
    for model in args.models:
        data = ['--model', model, '--dataset', args.dataset, '--input-key', args.input_key, '--batch-size', '128']
        with tempfile.TemporaryDirectory() as output:
            ours = trainer([*data, '--task', args.task, '--train-subset', str(args.images)], output)
            plain, images = bare(ours.run)
            times = measure.turn_about([looped(ours), plain], args.rounds)
        row = {'model': model, 'task': args.task, 'train.py, images/s': images / statistics.median(times[0]),
               'bare loop, images/s': images / statistics.median(times[1]),
               'train.py over bare loop': measure.ratio(times[1], times[0]), 'rounds': args.rounds}
        if args.timm_train:
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
            rate = timm_rate(args.timm_train, [*data, '--device', device, '--epochs', '1', '--sched', 'none',
                                               '--num-classes', '10', '--log-interval', '10'])
            row.update({"timm's train.py, images/s": rate, "over timm's": row['train.py, images/s'] / rate})
        rows.append(row)
        print(row, flush=True)
    if not args.timm_train:
        print("timm's own train.py was not measured: give its path by --timm-train.")
    measure.write('throughput', 'Images a second of the training loop', {'Loop': rows})


if __name__ == '__main__':
    main()

"""Measures images per second of train.py, of a bare loop and of timm's own train.py.

    python benchmarks/throughput.py --dataset hfds/uoft-cs/cifar10 --input-key img [--timm-train PATH] [--models ...]

The bare loop has the same model and optimizer, and its batches are ready in memory: no loader, metrics, log or checks.
It runs in the same process as train.py's loop, one epoch of each in turn. timm's script runs in a separate process with
the same dataset, batch size and optimizer, before and after those; its rate is read from its log. It does not augment,
while train.py's loop does.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import torch

from timm_alfa.training.checkpoint.store import CheckpointStore
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run_dir.folder import RunFolder
from timm_alfa.training.setup.prepare import prepare
from timm_alfa.training.stop import StopFlag
from timm_alfa.training.trainer import Trainer

_RATE = re.compile(r'Time: [\d.]+s,\s*([\d.]+)/s')  # of one batch; the mean follows in parentheses
WITH_OUR_MODELS = 'import runpy, sys, timm_alfa; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name="__main__")'
WARM_UP = 3  # first batches of timm's script, which are not counted


def trainer(arguments: list[str], output: str) -> Trainer:
    """The training loop, built as train.py builds it."""
    run = prepare(parse_args([*arguments, '--output', output]))
    states = CheckpointStore(Path(output) / 'last', 1)
    return Trainer(run, RunFolder(Path(output)), states, TrainState(), Totals(run.accelerator.device), StopFlag())


def looped(turns: Trainer):
    """A function that runs one epoch of train.py's loop from its start."""

    def epoch():
        turns.state.epoch, turns.state.batch = 0, 0
        turns.progress.epoch(1, 1)
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


def timm_rates(script: str, arguments: list[str], batches: int) -> list[float]:
    """Images per second of single batches, from the log of timm's script, without the first ones."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, '-c', WITH_OUR_MODELS, script, *arguments, '--output', output]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with subprocess.Popen(command, **pipes) as process:  # nosec B603  # timm's script, from the command line
            lines = []
            for line in process.stdout:
                lines.append(line)
                if len(rates := _RATE.findall(''.join(lines))) == WARM_UP + batches:
                    process.kill()
                    return [float(rate) for rate in rates[WARM_UP:]]
    raise SystemExit(f"timm's script ended early (exit code {process.returncode}):\n{''.join(lines[-20:])}")


def measured(model: str, images: int, args) -> dict:
    """Measures one model."""
    data = [
        '--model',
        model,
        '--dataset',
        args.dataset,
        '--input-key',
        args.input_key,
        '--val-split',
        args.val_split,
        '--batch-size',
        '128',
    ]
    timms = [
        *data,
        '--device',
        'cuda' if torch.cuda.is_available() else 'cpu',
        '--epochs',
        '1',
        '--num-classes',
        '10',
        '--no-aug',
        '--workers',
        '2',
        '--log-interval',
        '1',
    ]
    batches = images // 128

    # timm's script before, ours and the bare loop in turns, timm's script after
    rates = timm_rates(args.timm_train, timms, batches) if args.timm_train else []
    with tempfile.TemporaryDirectory() as output:
        ours = trainer([*data, '--task', args.task, '--train-subset', str(images)], output)
        plain, images = bare(ours.run)
        times = measure.interleave([looped(ours), plain], args.rounds)

    row = {
        'model': model,
        'task': args.task,
        'train.py, images/s': images / statistics.median(times[0]),
        'bare loop, images/s': images / statistics.median(times[1]),
        'train.py over bare loop': measure.ratio(times[1], times[0]),
    }
    if args.timm_train:
        rate = statistics.median(rates + timm_rates(args.timm_train, timms, batches))
        row.update({"timm's train.py, images/s": rate, "over timm's": row['train.py, images/s'] / rate})
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('--models', nargs='+', default=['resnet20s', 'resnet18_cifar'])
    parser.add_argument('--dataset', default='hfds/uoft-cs/cifar10')
    parser.add_argument('--input-key', default='img')
    parser.add_argument('--val-split', default='test')
    parser.add_argument('--images', type=int, nargs='+', default=[2560, 640], help='images per epoch, for each model')
    parser.add_argument('--rounds', type=int, default=11)
    parser.add_argument('--task', default='standard')
    parser.add_argument('--timm-train', help="path of timm's train.py, which its package does not include")
    args = parser.parse_args()

    if len(args.images) != len(args.models):
        parser.error(f'--images needs one number for each of the {len(args.models)} models.')
    rows = [measured(model, images, args) for model, images in zip(args.models, args.images, strict=True)]
    if not args.timm_train:
        print("timm's own train.py was not measured: pass its path as --timm-train.")
    measure.write(args.results, 'throughput', 'Images per second of the training loop', {'Loop': rows})


if __name__ == '__main__':
    main()

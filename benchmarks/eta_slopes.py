"""Measures what L-ALFA's eta descends on: the slope of the loss along each feature's perturbation.

    python benchmarks/eta_slopes.py results/runs/weights_resnet20s_l_alfa-s0.json \\
        --model resnet20s.l_alfa_c10 --pretrained --dataset hfds/uoft-cs/cifar10 --input-key img --split test

The record gives blocks, steps, step size, mode and the eta that training ended with; the flags after it are
validate.py's, and choose weights and images. With `--even` eta is the same for every feature, as at the start of
training: with weights that never saw a perturbation, the slopes show where eta would move before it has changed them.
Layers are in inference mode. Slopes exclude the l1 term, which the projection onto sum 1 cancels while no eta is
negative.
"""

import argparse
import itertools
import json
from pathlib import Path

import measure
import torch
from torch import nn

import timm_alfa
from timm_alfa.errors import ConfigError, first_line
from timm_alfa.training.exit import before_work, run_main
from timm_alfa.training.options.validate_args import parse_args
from timm_alfa.training.validate import prepare
from timm_alfa.utils.console import setup_logging

KEPT = ('blocks', 'steps', 'step_size', 'mode')


def read_record(path: Path) -> dict:
    """Reads a record of studies/.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read '{path}': {first_line(error)}.") from error


def search_of(record: dict) -> tuple[dict, list[float]]:
    """The options of a record's search, and the eta at the end of its training.

    Raises:
        ConfigError: The run has no eta.
    """
    if not record.get('history', {}).get('eta'):
        raise ConfigError(
            f'the record is of {record.get("recipe", "no recipe")}, which has no eta: pass one of L-ALFA '
            'such as results/runs/weights_resnet20s_l_alfa-s0.json.'
        )
    options = record['options']
    return {key: options[f'alfa_{key}'] for key in KEPT if f'alfa_{key}' in options}, record['history']['eta'][-1]


def slopes(model: nn.Module, loader, batches: int, eta: list[float], **search) -> tuple[dict[str, float], int]:
    """The slope of the perturbed loss by each entry of eta, as a mean over images.

    Args:
        model: A classifier.
        loader: Batches of images and classes.
        batches: How many of them to use.
        eta: Where the slopes are taken.
        search: Options of the search.

    Returns:
        Slopes by block, and the number of images.
    """
    task = timm_alfa.create_task('l_alfa', model.eval(), gamma=0, **search)
    model.training = True  # only its root: a method acts in training mode, while layers stay in inference mode
    task.eta.data = torch.tensor(eta, device=task.eta.device)
    total, count = torch.zeros(len(eta), dtype=torch.float64), 0
    for input, target in itertools.islice(loader, batches):
        (found,) = torch.autograd.grad(task(input, target)['loss'], task.eta)
        total += len(target) * found.double().cpu()
        count += len(target)
    return dict(zip(task.blocks, (total / count).tolist(), strict=True)), count


def main() -> None:
    setup_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('record', type=Path, help='results/runs/NAME.json of an L-ALFA run')
    parser.add_argument(
        '--batches',
        type=int,
        default=8,
        choices=range(1, 10000),
        metavar='N',
        help='batches of the split to use (default: 8)',
    )
    parser.add_argument('--even', action='store_true', help='take the slopes where eta starts, not where it ended')
    parser.add_argument('--name', help="name of the results (default: the record's)")
    own, rest = parser.parse_known_args()
    name = own.name or own.record.stem
    with before_work():
        search, eta = search_of(read_record(own.record))
        opened = prepare(parse_args(rest))
    if own.even:
        eta = [1 / len(eta)] * len(eta)
    found, count = slopes(opened.model, opened.loader, own.batches, eta, **search)
    rows = [
        {'feature': block, 'eta': value, 'slope there': slope, 'images': count}
        for (block, slope), value in zip(found.items(), eta, strict=True)
    ]
    measure.write(own.results, f'eta_slopes_{name}', 'What eta descends on', {name: rows})


if __name__ == '__main__':
    run_main(main)

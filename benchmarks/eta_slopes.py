"""What L-ALFA's eta descends on: the slope of the loss along each feature's perturbation, at the eta a run ended with.

    python benchmarks/eta_slopes.py results/runs/weights_resnet20s_l_alfa-s0.json \\
        --model resnet20s.l_alfa_c10 --pretrained --dataset hfds/uoft-cs/cifar10 --input-key img --split test

The record gives blocks, steps, step size, mode and eta; flags that follow it are validate.py's, and say which weights
and images. With `--even` eta is the same for every feature, which is where training begins: with weights that never saw
a perturbation, the slopes say where eta would go before it has changed them. Layers are as at inference. Slopes are
without the l1 term, which the projection on sum 1 takes out again as long as no eta is negative.
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
from timm_alfa.training import validate
from timm_alfa.training.console import setup_logging
from timm_alfa.training.exit import before_work, run_main

KEPT = ('blocks', 'steps', 'step_size', 'mode')


def read_record(path: Path) -> dict:
    """A record of studies/.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read '{path}': {first_line(error)}.") from error


def search_of(record: dict) -> tuple[dict, list[float]]:
    """The options of a record's search, and the eta that its training ended with.

    Raises:
        ConfigError: It is not of an L-ALFA run.
    """
    if not record.get('history', {}).get('eta'):
        raise ConfigError(f"the record is of {record.get('recipe', 'no recipe')}, which has no eta: give one of L-ALFA "
                          'such as results/runs/weights_resnet20s_l_alfa-s0.json.')
    options = record['options']
    return {key: options[f'alfa_{key}'] for key in KEPT if f'alfa_{key}' in options}, record['history']['eta'][-1]


def slopes(model: nn.Module, loader, batches: int, eta: list[float], **search) -> tuple[dict[str, float], int]:
    """Slope of the perturbed loss by each entry of eta, mean over a loader's first batches; and how many images."""
    task = timm_alfa.create_task('l_alfa', model.eval(), gamma=0, **search)
    model.training = True  # of its root alone: a method acts in training mode, layers go on as at inference
    task.eta.data = torch.tensor(eta, device=task.eta.device)
    total, count = torch.zeros(len(eta), dtype=torch.float64), 0
    for input, target in itertools.islice(loader, batches):
        found, = torch.autograd.grad(task(input, target)['loss'], task.eta)
        total += len(target) * found.double().cpu()
        count += len(target)
    return dict(zip(task.blocks, (total / count).tolist(), strict=True)), count


def main() -> None:
    setup_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('record', type=Path, help="results/runs/NAME.json of an L-ALFA run")
    parser.add_argument('--batches', type=int, default=8, choices=range(1, 10000), metavar='N',
                        help='of the split that are looked at (8)')
    parser.add_argument('--even', action='store_true', help='where eta begins, not where it ended')
    parser.add_argument('--name', help="of the results: whose weights these are (the record's)")
    own, rest = parser.parse_known_args()
    name = own.name or own.record.stem
    with before_work():
        search, eta = search_of(read_record(own.record))
        _, model, loader, _ = validate.run(validate.parse_args(rest))
    if own.even:
        eta = [1 / len(eta)] * len(eta)
    found, count = slopes(model, loader, own.batches, eta, **search)
    rows = [{'feature': block, 'eta': value, 'slope there': slope, 'images': count}
            for (block, slope), value in zip(found.items(), eta, strict=True)]
    measure.write(own.results, f'eta_slopes_{name}', 'What eta descends on', {name: rows})


if __name__ == '__main__':
    run_main(main)

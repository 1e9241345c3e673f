"""What perturbing each feature adds to the loss of a trained model: where L-ALFA's eta, descending on it, must go.

    python benchmarks/added_loss.py --steps 1 --step-size 1/255 --blocks units:9 \\
        --model resnet20s.l_alfa_c10 --pretrained --dataset hfds/uoft-cs/cifar10 --input-key img --split test

Flags other than those of the search are validate.py's. All layers are as at inference.
"""
import argparse
import itertools

import measure
import torch
from torch import nn

import timm_alfa
from timm_alfa.training import validate
from timm_alfa.training.console import setup_logging
from timm_alfa.training.ending import before_work, run_main


def added_loss(model: nn.Module, loader, batches: int, block: str, **search) -> dict[str, float]:
    """Means over a loader's first images: the clean loss, what the search adds at a feature, the l2 norm of delta."""
    task = timm_alfa.create_task('alfa', model.eval(), blocks=block, **search)
    model.training = True  # of the model alone: a method acts in training mode, its layers go on as at inference
    total, count = torch.zeros(3, dtype=torch.float64), 0
    for input, target in itertools.islice(loader, batches):
        found = task(input, target)
        total += len(target) * torch.stack([found[name].double().cpu() for name in (
            'loss_clean', 'loss_adv', 'delta_norm')])
        count += len(target)
    clean, adv, norm = (total / count).tolist()
    return {'clean loss': clean, 'added': adv - clean, 'norm of delta': norm}


def main() -> None:
    setup_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measure.add_results(parser)
    parser.add_argument('--blocks', default='units:9')
    parser.add_argument('--steps', default='5')
    parser.add_argument('--step-size', default='1/255')
    parser.add_argument('--batches', type=int, default=8, help='of the split that are looked at (8)')
    parser.add_argument('--name', default='added_loss', help='of the files that are written (added_loss)')
    own, rest = parser.parse_known_args()
    with before_work():
        _, model, loader, _ = validate.run(validate.parse_args(rest))
        blocks = timm_alfa.resolve_blocks(model, own.blocks)
    rows = [{'feature': block, **added_loss(
        model, loader, own.batches, block, steps=own.steps, step_size=own.step_size)} for block in blocks]
    measure.write(own.results, own.name, 'Loss that a perturbation adds, by feature', {own.blocks: rows})


if __name__ == '__main__':
    run_main(main)

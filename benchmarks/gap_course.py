"""How fast `gap` finds the step size that raises the loss by 5%, on real images and three kinds of networks.

    python benchmarks/gap_course.py [--updates 351] [--models resnet20s convnext_atto] [--dataset hfds/uoft-cs/cifar10]

Trains each network from random weights, with ALFA on its last block, and writes the rise of the loss and the step size
of every update to gap_course_updates.json and gap_course.png in results/benchmarks, with a table in gap_course.md.
"""

import argparse
import json
from typing import Any

import measure
import timm
import torch

import timm_alfa
from timm_alfa.utils.plotting import SERIES, add_legend, new_figure, png

GAP = 0.05
MODELS = ('resnet20s', 'test_convnext', 'test_vit')
NEAR = 1.5  # a rise within this factor of the target counts as settled


def batches(args, count: int):
    """Training images of the dataset in random order, normalized."""
    from datasets import load_dataset
    from torchvision.transforms.functional import pil_to_tensor

    rows = load_dataset(args.dataset.removeprefix('hfds/'), split='train').shuffle(seed=0)  # nosec B615: the user's own choice
    for at in range(count):
        part = rows[at * args.batch_size : (at + 1) * args.batch_size]
        images = torch.stack([pil_to_tensor(image) for image in part[args.input_key]]).float() / 255
        yield (images - 0.47) / 0.25, torch.tensor(part[args.target_key])


def course(name: str, args) -> list[dict[str, float]]:
    """Rise and step size of each update."""
    torch.manual_seed(0)
    size = {'img_size': 32} if 'vit' in name else {}
    model = timm.create_model(name, num_classes=10, **size).train()
    task = timm_alfa.create_task('alfa', model, blocks='last', gap=GAP, unit=args.unit)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    found = []
    for input, target in batches(args, args.updates):
        step = float(task.control.sizes)
        result = task(input, target)
        result['loss'].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.post_step()
        clean, adv = float(result['loss_clean']), float(result['loss_adv'])
        found.append({'step_size': step, 'rise': adv / clean - 1, 'loss': clean, 'ratio': float(result['delta_ratio'])})
    return found


def smoothed(values: list[float], width: int = 5) -> list[float]:
    """Means of as many values as there are, up to `width`, around each."""
    half = width // 2
    return [sum(part) / len(part) for part in (values[max(0, i - half) : i + half + 1] for i in range(len(values)))]


def settled(rises: list[float]) -> int:
    """Updates after which the smoothed rise stays near the target; all of them if it never does."""
    outside = [at for at, rise in enumerate(smoothed(rises)) if not GAP / NEAR <= rise <= GAP * NEAR]
    return outside[-1] + 1 if outside else 0


def summary(name: str, rows: list[dict[str, float]]) -> dict[str, Any]:
    """A row of the table."""
    rises = [row['rise'] for row in rows]
    at = settled(rises)
    after = rises[at:] or rises[-1:]
    return {
        'model': name,
        'settled after': f'{at} updates' if at < len(rises) else 'not yet',
        'step size, first': f'{rows[0]["step_size"]:.2g}',
        'last': f'{rows[-1]["step_size"]:.2g}',
        'mean rise after that': f'{sum(after) / len(after):.1%}',
        'largest': f'{max(after):.1%}',
        'perturbation / feature': f'{rows[-1]["ratio"]:.2g}',
    }


def draw(found: dict[str, list[dict[str, float]]]) -> bytes:
    figure, (rise, size) = new_figure(2, width=9.2)
    for (name, rows), color in zip(found.items(), SERIES, strict=False):
        rise.plot(smoothed([100 * row['rise'] for row in rows]), color=color, label=name)
        size.plot([row['step_size'] for row in rows], color=color, label=name)
    rise.axhline(100 * GAP, color='black', linewidth=0.8, linestyle='--', label='target')
    rise.set_title('rise of the loss, %, mean of five updates')
    size.set_title('step size')
    size.set_yscale('log')
    for axis in (rise, size):
        axis.set_xlabel('update')
        add_legend(axis)
    return png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=MODELS)
    parser.add_argument('--dataset', default='hfds/uoft-cs/cifar10')
    parser.add_argument('--input-key', default='img')
    parser.add_argument('--target-key', default='label')
    parser.add_argument('--updates', type=int, default=351)
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--lr', type=float, default=0.05)
    parser.add_argument('--unit', default='absolute')
    measure.add_results(parser)
    args = parser.parse_args()

    found = {name: course(name, args) for name in args.models}
    title = f'The course of `gap={GAP}`'
    setting = (
        f'{args.updates} updates of {args.batch_size} images from random weights, SGD at a learning rate of '
        f'{args.lr:g}; ALFA on the last block, K = 5, unit={args.unit!r}, step sizes from 1/255, one run each. '
        f'Settled: from there on the mean rise of five updates is within a factor of {NEAR:g} of the target'
    )
    path = measure.write(args.results, 'gap_course', title, {setting: [summary(*each) for each in found.items()]})
    path.write_text(f'{path.read_text()}\n![Rise of the loss and step size over the updates](gap_course.png)\n')
    path.with_suffix('.png').write_bytes(draw(found))
    path.with_name('gap_course_updates.json').write_text(json.dumps(found) + '\n')


if __name__ == '__main__':
    main()

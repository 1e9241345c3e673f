"""What a step of 1/255 and one of 5% of the feature's size do to the loss of different architectures.

    python benchmarks/rise.py [--models resnet18 vit_tiny_patch16_224] [--data-dir FOLDER] [--batch-size 16]

ALFA with K = 5 on the last block, in training mode, on one batch of images: random weights, or pretrained ones with
--pretrained. Writes rise.json and rise.md to results/benchmarks.
"""

import argparse
from pathlib import Path
from typing import Any

import measure
import timm
import torch
from timm.data import create_transform, resolve_data_config

import timm_alfa
from timm_alfa.perturb.strength import root_mean_square
from timm_alfa.utils import pytree

MODELS = (
    'resnet18',
    'resnet50',
    'mobilenetv3_small_100',
    'efficientnet_b0',
    'regnety_002',
    'convnext_atto',
    'vit_tiny_patch16_224',
    'mixer_s32_224',
)
NOTES = (
    'The head of `mixer_s32_224` starts at zero, so that nothing raises its loss before training. On the ViT the '
    'gradient\nreaches the class token alone: the perturbation is small relative to all tokens.\n'
)
SIZES = {'1/255': dict(step_size=1 / 255), '0.05 RMS': dict(step_size=0.05, unit='rms')}


def images(model: torch.nn.Module, folder: Path, count: int, side: int) -> torch.Tensor:
    """The first images of a folder of class folders, one class after the other, as the model takes them."""
    from PIL import Image

    config = {**resolve_data_config(model=model), 'input_size': (3, side, side)}
    transform = create_transform(**config)
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in ('.jpg', '.jpeg', '.png'))
    chosen = files[:: max(1, len(files) // count)][:count]
    return torch.stack([transform(Image.open(file).convert('RGB')) for file in chosen])


def row(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The root mean square of the feature, and for each size the rise of the loss and the perturbation's share."""
    torch.manual_seed(0)
    options = {'img_size': args.img_size} if name.startswith(('vit', 'mixer')) else {}
    model = timm.create_model(name, pretrained=args.pretrained, num_classes=1000, **options).train()
    input = images(model, args.data_dir, args.batch_size, args.img_size)
    target = torch.randint(1000, (len(input),))
    found: dict[str, Any] = {}
    features: list = []
    for title, options in SIZES.items():
        task = timm_alfa.create_task('alfa', model, blocks='last', **options)
        torch.manual_seed(1)
        result = task(input, target)
        found[f'rise at {title}, %'] = 100 * (float(result['loss_adv'] / result['loss_clean']) - 1)
        found[f'size at {title}'] = float(result['delta_ratio'])
    hook = model.get_submodule(task.blocks[0]).register_forward_hook(lambda m, a, out: features.append(out))
    with torch.no_grad():
        model(input)
    hook.remove()
    return {'model': name, 'RMS of the feature': float(root_mean_square(pytree.floats(features[0])[0])), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=MODELS)
    parser.add_argument('--data-dir', type=Path, required=True, help='folder of images')
    parser.add_argument('--pretrained', action='store_true')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=224)
    measure.add_results(parser)
    args = parser.parse_args()

    weights = 'pretrained weights' if args.pretrained else 'random weights'
    setting = (
        f'{args.batch_size} images at {args.img_size} pixels with random labels, {weights}, ALFA with K = 5 on the '
        'last block, one batch. Size: norm of the perturbation relative to that of the feature'
    )
    sections = {setting: [row(name, args) for name in args.models]}
    path = measure.write(args.results, 'rise', 'The rise of the loss at one step size', sections)
    if not args.pretrained:
        path.write_text(f'{path.read_text()}\n{NOTES}')


if __name__ == '__main__':
    main()

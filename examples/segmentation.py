"""A segmenter of segmentation_models_pytorch, with and without ALFA.

    python examples/segmentation.py --images DIR --masks DIR --task standard
    python examples/segmentation.py --images DIR --masks DIR --task alfa

An image and its mask have the same file name in the two folders; what is not 0 in a mask is foreground, so masks of
instances will do. The right quarter of every image is held out. Lines that ALFA adds to the loop are marked.
"""

import argparse
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import timm_alfa


class RandomCrops(Dataset):
    """Random crops of images [3, H, W], with flips, and of their masks [1, H, W]; `count` of them per epoch."""

    def __init__(self, pairs, size, count):
        self.pairs, self.size, self.count = pairs, size, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        both = torch.cat(self.pairs[index % len(self.pairs)])
        top, left = (int(torch.randint(extent - self.size + 1, ())) for extent in both.shape[1:])
        both = both[:, top : top + self.size, left : left + self.size]
        for axis in (1, 2):
            if torch.rand(()) < 0.5:
                both = both.flip(axis)
        return both[:3], both[3:]


def load_pairs(args):
    """Images, from 0 to 1, and masks, cut into what is trained on and what is held out."""
    train, val = [], []
    for path in sorted(Path(args.images).iterdir()):
        image = torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1) / 255
        mask_path = next(Path(args.masks).glob(f'{path.stem}.*'))
        mask = torch.from_numpy(np.array(Image.open(mask_path)) != 0)[None].float()
        cut = image.shape[2] * 3 // 4
        train.append((image[:, :, :cut], mask[:, :, :cut]))
        val.append((image[:, :, cut:], mask[:, :, cut:]))
    return train, val


@torch.no_grad()
def evaluate(model, pairs, device):
    """Intersection over union of the foreground in all images together."""
    model.eval()
    intersection = union = 0
    for image, mask in pairs:
        # encoders halve five times
        height, width = (extent // 32 * 32 for extent in image.shape[1:])
        predicted = model(image[None, :, :height, :width].to(device))[0].cpu() > 0
        truth = mask[:, :height, :width] > 0
        intersection += (predicted & truth).sum().item()
        union += (predicted | truth).sum().item()
    return intersection / union


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'

    # Data, model and loss
    train_pairs, val_pairs = load_pairs(args)
    loader = DataLoader(RandomCrops(train_pairs, args.crop_size, args.crops), args.batch_size)
    weights = 'imagenet' if args.pretrained else None
    model = smp.create_model(args.model, args.encoder, encoder_weights=weights, classes=1).to(device)
    dice = smp.losses.DiceLoss('binary')

    # ALFA: the loss is a function of the output and the whole batch
    strength = dict(steps=args.steps, unit='rms', step_size=args.step_size)
    options = {} if args.task == 'standard' else dict(blocks=args.blocks, **strength)
    task = timm_alfa.create_task(args.task, model, loss=lambda output, image, mask: dice(output, mask), **options)
    groups = [{'params': model.parameters()}, *task.extra_param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)

    for epoch in range(args.epochs):
        # Train
        model.train()
        losses = []
        for image, mask in loader:
            result = task(image.to(device), mask.to(device))  # ALFA
            optimizer.zero_grad()
            result['loss'].backward()
            optimizer.step()
            task.post_step()  # ALFA
            losses.append(result.get('loss_clean', result['loss']).detach())

        # Evaluate
        iou = evaluate(model, val_pairs, device)
        print(f'epoch {epoch}  loss {torch.stack(losses).mean():.4f}  IoU {iou:.4f}', flush=True)
    if args.save:
        torch.save(model.state_dict(), args.save)
    return task


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', required=True, help='folder of images')
    parser.add_argument('--masks', required=True, help='folder of their masks')
    parser.add_argument('--model', default='unet', help='any of segmentation_models_pytorch: unet, fpn, deeplabv3plus')
    parser.add_argument('--encoder', default='tu-resnet18', help="tu- and any of timm's, or one of its own encoders")
    parser.add_argument('--pretrained', action='store_true', help='an encoder with weights from ImageNet')
    parser.add_argument('--task', choices=['standard', 'alfa'], default='alfa')
    parser.add_argument('--blocks', default='last', help="features that are perturbed: the encoder's stages")
    parser.add_argument('--steps', type=int, default=1, help='K: the decoder runs 2K + 1 more times')
    parser.add_argument('--step-size', type=float, default=0.05, help="relative to the feature's root mean square")
    parser.add_argument('--crop-size', type=int, default=128)
    parser.add_argument('--crops', type=int, default=64, help='crops per epoch')
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save', help='file for the trained weights')
    return parser.parse_args(argv)


if __name__ == '__main__':
    main()

"""Draws the example of a segmenter: its curves, and what it finds in the held-out part of the image.

    for task in standard alfa; do
        python examples/segmentation.py --images DIR --masks DIR --epochs 20 --task $task --save RUNS/$task.pt \
            > RUNS/$task.log
    done
    python docs/figures/draw_nuclei.py RUNS --images DIR --masks DIR    # -> nuclei_curves.png, nuclei_masks.png
"""

import argparse
import re
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'examples')]

import segmentation
import segmentation_models_pytorch as smp

from timm_alfa.utils.plotting import BLUE, ORANGE, add_legend, new_figure, png

TASKS = {'standard': ('standard', BLUE), 'alfa': ('ALFA', ORANGE)}
LINE = re.compile(r'^epoch (\d+)  loss (\S+)  IoU (\S+)$', re.MULTILINE)
RIGHT, MISSED, WRONG = (0.95, 0.95, 0.95), (0.16, 0.44, 0.73), (0.85, 0.39, 0.17)


def curves(runs: Path) -> bytes:
    """Clean loss and IoU after each epoch."""
    figure, (loss, iou) = new_figure(2, width=9.2)
    for task, (label, color) in TASKS.items():
        rows = [tuple(map(float, found)) for found in LINE.findall((runs / f'{task}.log').read_text())]
        epochs, losses, scores = zip(*rows, strict=True)
        loss.plot([epoch + 1 for epoch in epochs], losses, color=color, label=label)
        iou.plot([epoch + 1 for epoch in epochs], scores, color=color, label=label)
    loss.set_title('Dice loss of the clean pass, training crops')
    iou.set_title('IoU, held-out quarter')
    iou.set_ylim(0, 1)
    for axis in (loss, iou):
        axis.set_xlabel('epoch')
        axis.xaxis.get_major_locator().set_params(integer=True)
        add_legend(axis)
    return png(figure)


def masks(args: argparse.Namespace) -> bytes:
    """The first held-out image, and for each task what is right, missed and wrong."""
    (image, mask), *_ = segmentation.load_pairs(args)[1]
    figure, axes = new_figure(1 + len(TASKS), width=5, height=4.6)
    axes[0].imshow(image.permute(1, 2, 0))
    axes[0].set_title('held-out quarter')
    for axis, (task, (label, _)) in zip(axes[1:], TASKS.items(), strict=True):
        model = smp.create_model('unet', 'tu-resnet18', encoder_weights=None, classes=1)
        model.load_state_dict(torch.load(args.runs / f'{task}.pt', weights_only=True))
        with torch.no_grad():
            found = model.eval()(image[None])[0, 0] > 0
        truth = mask[0] > 0
        picture = torch.zeros(*truth.shape, 3)
        for where, color in ((found & truth, RIGHT), (~found & truth, MISSED), (found & ~truth, WRONG)):
            picture[where] = torch.tensor(color)
        axis.imshow(picture)
        axis.set_title(label)
    for axis in axes:
        axis.set_axis_off()
    return png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', type=Path, help='folder of what the two runs printed and saved')
    parser.add_argument('--images', required=True)
    parser.add_argument('--masks', required=True)
    args = parser.parse_args()
    (HERE / 'nuclei_curves.png').write_bytes(curves(args.runs))
    (HERE / 'nuclei_masks.png').write_bytes(masks(args))


if __name__ == '__main__':
    main()

"""torchvision's Faster R-CNN, with and without ALFA.

    python examples/detection.py --train train.json --train-images DIR --val val.json --val-images DIR --task standard
    python examples/detection.py --train train.json --train-images DIR --val val.json --val-images DIR --task alfa

Annotations are in COCO's format: boxes, one JSON file per split. Lines that ALFA adds to the loop are marked.
"""

import argparse

import torch
from torch.utils.data import DataLoader, Subset
from torchmetrics.detection import MeanAveragePrecision
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.transforms import v2

import timm_alfa


def load_split(images, annotations, *augment):
    """Pairs of an image [3, H, W], from 0 to 1, and a dict of boxes (x1, y1, x2, y2) and labels; the classes' number.

    Images without a box are left out.
    """
    transform = v2.Compose([v2.ToImage(), *augment, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
    dataset = CocoDetection(images, annotations, transforms=transform)
    num_classes = max(dataset.coco.getCatIds()) + 1  # 0 is the background
    with_boxes = [i for i, image_id in enumerate(dataset.ids) if dataset.coco.getAnnIds(image_id)]
    return Subset(wrap_dataset_for_transforms_v2(dataset, target_keys=['boxes', 'labels']), with_boxes), num_classes


def collate(samples):
    """Lists of images and of dicts: images may differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def create_detector(args, num_classes):
    """A Faster R-CNN with a small backbone and feature pyramid."""
    weights = 'DEFAULT' if args.pretrained else None
    kwargs = dict(norm_layer=torch.nn.BatchNorm2d, trainable_layers=5)  # batch norms that train: no weights, no frozen
    backbone = resnet_fpn_backbone(backbone_name=args.backbone, weights=weights, **kwargs)
    size = dict(min_size=args.img_size, max_size=args.img_size)
    # fewer proposals than torchvision's 2000 and 1000, of which 128 train the heads, not 512: a CPU will do
    proposals = dict(rpn_post_nms_top_n_train=500, rpn_post_nms_top_n_test=500, box_batch_size_per_image=128)
    return FasterRCNN(backbone, num_classes, box_detections_per_img=200, **proposals, **size)


@torch.no_grad()
def evaluate(model, loader, device):
    """Mean average precision over IoU 0.5 to 0.95, and at 0.5."""
    model.eval()
    metric = MeanAveragePrecision()
    for images, targets in loader:
        outputs = model([image.to(device) for image in images])
        metric.update([{key: value.cpu() for key, value in output.items()} for output in outputs], targets)
    scores = metric.compute()
    return float(scores['map']), float(scores['map_50'])


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'

    # Data and model
    flips = v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()
    train, num_classes = load_split(args.train_images, args.train, *flips)
    val, _ = load_split(args.val_images, args.val)
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True, collate_fn=collate)
    val_loader = DataLoader(val, args.batch_size, collate_fn=collate)
    model = create_detector(args, num_classes).to(device)

    # ALFA: in training the detector takes the targets and returns a dict of losses
    strength = dict(steps=args.steps, unit='rms', step_size=args.step_size)
    options = {} if args.task == 'standard' else dict(blocks=args.blocks, **strength)
    task = timm_alfa.create_task(
        args.task,
        model,
        call=lambda model, images, targets: model(images, targets),
        loss=lambda losses, images, targets: sum(losses.values()),
        **options,
    )
    groups = [{'params': model.parameters()}, *task.extra_param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)

    for epoch in range(args.epochs):
        # Train
        model.train()
        losses = []
        for images, targets in loader:
            images = [image.to(device) for image in images]
            targets = [{key: value.to(device) for key, value in target.items()} for target in targets]
            result = task(images, targets)  # ALFA
            optimizer.zero_grad()
            result['loss'].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
            task.post_step()  # ALFA
            losses.append(result.get('loss_clean', result['loss']).detach())

        # Evaluate
        precision, precision_50 = evaluate(model, val_loader, device)
        mean_loss = torch.stack(losses).mean()
        print(f'epoch {epoch}  loss {mean_loss:.4f}  mAP {precision:.4f}  mAP50 {precision_50:.4f}', flush=True)
    if args.save:
        torch.save(model.state_dict(), args.save)
    return task


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--train', required=True, help='JSON file of annotations')
    parser.add_argument('--train-images', required=True, help='folder of their images')
    parser.add_argument('--val', required=True, help='JSON file of annotations to evaluate on')
    parser.add_argument('--val-images', required=True, help='folder of their images')
    parser.add_argument('--backbone', default='resnet18', help="a ResNet of torchvision's")
    parser.add_argument('--pretrained', action='store_true', help='a backbone with weights from ImageNet')
    parser.add_argument('--img-size', type=int, default=320, help='images are resized to it')
    parser.add_argument('--task', choices=['standard', 'alfa'], default='alfa')
    parser.add_argument('--blocks', default='backbone.body.layer4', help='features that are perturbed')
    parser.add_argument('--steps', type=int, default=1, help='K: the heads run 2K + 1 more times')
    parser.add_argument('--step-size', type=float, default=0.05, help="relative to the feature's root mean square")
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--lr', type=float, default=2e-4)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save', help='file for the trained weights')
    return parser.parse_args(argv)


if __name__ == '__main__':
    main()

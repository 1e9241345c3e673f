"""A classifier in a training loop of one's own, with and without ALFA.

    python examples/own_loop.py --data uoft-cs/cifar10 --input-key img --task standard
    python examples/own_loop.py --data uoft-cs/cifar10 --input-key img --task alfa

`--data` is a dataset of the Hugging Face Hub or a folder that `datasets.load_dataset` reads, such as one with a folder
of images per class in train/ and test/. Lines that ALFA adds to the loop are marked.
"""

import argparse

import timm
import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import timm_alfa


def load_split(args, split, transform):
    """Pairs of an image [3, size, size] and its class, and the names of the classes."""
    dataset = load_dataset(args.data, split=split).shuffle(seed=0)  # nosec B615: the user's own choice
    dataset = dataset.select(range(min(args.max_images, len(dataset))))
    classes = dataset.features[args.target_key].names

    def to_tensors(batch):
        images = [transform(image.convert('RGB')) for image in batch[args.input_key]]
        return {'image': images, 'label': batch[args.target_key]}

    return dataset.with_transform(to_tensors), classes


def transforms(size):
    """What turns images into normalized tensors [3, size, size]: with augmentation, and without."""
    resize = v2.Resize((size, size))
    augment = [v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()]
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    return v2.Compose([resize, *augment, *to_tensor]), v2.Compose([resize, *to_tensor])


def create_loaders(args):
    """Batches of images [B, 3, size, size] and classes [B], to train on and to evaluate; the names of the classes."""
    train_transform, val_transform = transforms(args.img_size)
    train, classes = load_split(args, 'train', train_transform)
    val, _ = load_split(args, args.val_split, val_transform)

    def collate(samples):
        return torch.stack([s['image'] for s in samples]), torch.tensor([s['label'] for s in samples])

    train_loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True, collate_fn=collate)
    return train_loader, DataLoader(val, args.batch_size, collate_fn=collate), classes


@torch.no_grad()
def evaluate(model, loader, device):
    """Accuracy, from 0 to 1."""
    model.eval()
    correct = total = 0
    for images, labels in loader:
        predicted = model(images.to(device)).argmax(1)
        correct += (predicted == labels.to(device)).sum().item()
        total += len(labels)
    return correct / total


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'

    # Data and model
    train_loader, val_loader, classes = create_loaders(args)
    model = timm.create_model(args.model, num_classes=len(classes)).to(device)

    # ALFA: the task computes the loss in place of the criterion
    options = {} if args.task == 'standard' else dict(blocks=args.blocks, unit='rms', step_size=args.step_size)
    task = timm_alfa.create_task(args.task, model, torch.nn.CrossEntropyLoss(), **options)

    # ALFA: l_alfa learns magnitudes of its own; other methods have no extra groups
    groups = [{'params': model.parameters()}, *task.extra_param_groups()]
    optimizer = torch.optim.SGD(groups, lr=args.lr, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(train_loader))

    for epoch in range(args.epochs):
        # Train
        model.train()
        losses = []
        for images, labels in train_loader:
            result = task(images.to(device), labels.to(device))  # ALFA
            optimizer.zero_grad()
            result['loss'].backward()
            optimizer.step()
            task.post_step()  # ALFA
            scheduler.step()
            losses.append(result.get('loss_clean', result['loss']).detach())

        # Evaluate: the model is an ordinary one
        accuracy = evaluate(model, val_loader, device)
        print(f'epoch {epoch}  loss {torch.stack(losses).mean():.4f}  accuracy {accuracy:.4f}', flush=True)
    return task


def parse_args(argv, description=__doc__, **defaults):
    """Arguments of this example and of those that share its data; defaults by name replace the ones below."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, help='dataset of the Hub, or a folder')
    parser.add_argument('--input-key', default='image', help='column of the images')
    parser.add_argument('--target-key', default='label', help='column of the classes')
    parser.add_argument('--val-split', default='test')
    parser.add_argument('--max-images', type=int, default=10**9, help='use no more than this many of each split')
    parser.add_argument('--img-size', type=int, default=32)
    parser.add_argument('--model', default='resnet20s', help="any of timm's")
    parser.add_argument('--task', choices=['standard', 'alfa'], default='alfa')
    parser.add_argument('--blocks', default='last', help='features that are perturbed')
    parser.add_argument('--step-size', type=float, default=0.01, help="relative to the feature's root mean square")
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--lr', type=float, default=0.05)
    parser.add_argument('--seed', type=int, default=0)
    parser.set_defaults(**defaults)
    return parser.parse_args(argv)


if __name__ == '__main__':
    main()

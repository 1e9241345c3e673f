"""Datasets of every kind, written from the bytes of their images."""

import io
import tarfile

import pytest

from timm_alfa.data import DataConfig
from timm_alfa.data.datasets.registry import open_split

KINDS = ('folder', 'hfds', 'wds', 'torch')


@pytest.fixture
def datasets_library(tmp_path, monkeypatch):
    """The library `datasets`, offline, quiet, and with a cache of its own."""
    datasets = pytest.importorskip('datasets')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
    datasets.disable_progress_bars()
    return datasets


def write_dataset(kind, root, images):
    """Writes a training split of the classes a and b, in turns, and gives its options.

    Args:
        kind: Of dataset.
        root: A folder to write to, which does not exist yet.
        images: The content of each image's file; with 'torch' all are of one class.
    """
    labels = [at % 2 for at in range(len(images))]
    if kind == 'wds':
        write_shard(
            root / 'set-train-0000.tar',
            [{'png': image, 'cls': b'%d' % label} for image, label in zip(images, labels, strict=True)],
        )
        return DataConfig(dataset='wds', data_dir=str(root), workers=0)
    if kind == 'hfds':
        write_parquet(root, dict(image=[dict(bytes=image, path=None) for image in images], label=labels))
        return DataConfig(dataset=f'hfds/{root}', data_dir=str(root.parent / 'cache'), workers=0)
    folders = [root / 'train' / 'ab'[label] for label in labels]
    if kind == 'torch':
        folders = [write_torch_imagenet(root)] * len(images)
    for at, (folder, image) in enumerate(zip(folders, images, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{at}.png').write_bytes(image)
    return DataConfig(data_dir=str(root), dataset='torch/imagenet' if kind == 'torch' else '', workers=0)


def write_shard(path, samples):
    """Writes a tar file of samples, each a dictionary of contents by extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as archive:
        for at, files in enumerate(samples):
            for extension, content in files.items():
                member = tarfile.TarInfo(f'{at:03}.{extension}')
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_parquet(root, columns, **features):
    """Writes a training split in the Hub's layout: `image`, `label`, and other columns of the given types."""
    import datasets

    types = dict(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=['a', 'b']), **features)
    (root / 'data').mkdir(parents=True)
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(types))
    table.cast_column('image', datasets.Image()).to_parquet(str(root / 'data' / 'train-00000-of-00001.parquet'))
    return root


def write_torch_imagenet(root):
    """Writes torchvision's layout of ImageNet with one class, and gives the folder of its images."""
    import torch

    root.mkdir(parents=True)
    torch.save(({'n01': ('a',)}, []), root / 'meta.bin')
    return root / 'train' / 'n01'


def encoded(image, kind='PNG', **options):
    """Returns the content of an image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def open_train(data):
    """Opens the training split."""
    return open_split(data.dataset.partition('/')[0] or 'folder', data, 'train')


def read_all(data, mode='RGB'):
    """Reads all images of the training split."""
    source = open_train(data)
    return [source.image(index, mode) for index in range(len(source))]

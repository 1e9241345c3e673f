"""A finished run folder, as train.py leaves it, without the training."""

import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

import timm_alfa.zoo  # noqa: F401  registers the CIFAR networks
from timm_alfa.training.run_dir.folder import RunFolder

RECORD = {
    'status': 'finished',
    'experiment': 'run',
    'task': 'alfa',
    'blocks': ['layer3'],
    'dataset': 'hfds/uoft-cs/cifar10',
    'task_options': {'blocks': 'last', 'steps': 5, 'step_size': 0.5 / 255, 'eps': None, 'weight': 1.0},
    'seed': 0,
    'epochs': 200,
    'epochs_done': 200,
    'batch_size': 128,
    'lr': 0.1,
    'train_images': 45000,
    'val_images': 5000,
    'test_images': 10000,
    'best_epoch': 180,
    'val_top1': 92.1,
    'val_top5': 99.7,
    'val_loss': 0.3,
    'test_top1': 91.75,
    'test_top5': 99.6,
    'test_loss': 0.31,
    'test_split': 'test',
    'robust_top1': None,
    'seconds': 5400.0,
    'seconds_per_epoch': 27.0,
    'images_per_second': 1666.0,
    'params': 269722,
    'mixed_precision': 'bf16',
    'num_processes': 1,
    'device': 'a test',
    'commit': 'c0ffee',
    'versions': {'python': '3.11', 'torch': '2.15', 'timm': '1.0.31', 'timm_alfa': '0.1.0', 'accelerate': '1.15'},
    'command': ['train.py', '--model', 'resnet20s', '--alfa-step-size', '0.5/255'],
    'skipped_updates': 0,
    'skipped_images': 0,
    'checkpoint': 'model_best.safetensors',
}


def write_run(folder: Path, model: str = 'resnet20s', *, num_classes: int = 10, pretrained: bool = False, **record):
    """Write a run of random weights; `record` goes over RECORD. Gives the folder."""
    torch.manual_seed(0)
    net = timm.create_model(model, num_classes=num_classes)
    folder.mkdir(parents=True)
    save_file(net.state_dict(), folder / 'model_best.safetensors')
    save_file(net.state_dict(), folder / 'model_last.safetensors')
    RunFolder(folder).save_config(net, {'tag': 'a1_in1k'}, {}, [f'class{i}' for i in range(num_classes)])
    (folder / 'args.yaml').write_text(yaml.safe_dump({'model': model, 'pretrained': pretrained}))
    (folder / 'summary.csv').write_text('epoch,loss\n0,2.3\n')
    (folder / 'curves.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    if record.get('eta'):
        (folder / 'eta.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    values = {**RECORD, 'model': model, 'num_classes': num_classes, 'run': str(folder), **record}
    (folder / 'result.json').write_text(json.dumps(values))
    return folder


@pytest.fixture
def make_run(tmp_path):
    """A factory of run folders: `make_run(model, **record)`."""
    made = []

    def make(model: str = 'resnet20s', **kwargs) -> Path:
        made.append(write_run(tmp_path / f'run{len(made)}', model, **kwargs))
        return made[-1]

    return make

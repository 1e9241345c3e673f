"""The scripts of examples/ train on data that they are pointed at, and count every update."""

import importlib
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from timm_alfa.errors import AlfaWarning

EXAMPLES = Path(__file__).resolve().parents[2] / 'examples'
TASKS = pytest.mark.parametrize('name', ['standard', 'alfa'])


@pytest.fixture
def example(monkeypatch):
    """Imports an example by its name, as if it were run from its folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in [path.stem for path in EXAMPLES.glob('*.py')]:
        sys.modules.pop(name, None)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """A folder of images per class: bright and dark ones."""
    root = tmp_path_factory.mktemp('photographs')
    for split, count in (('train', 8), ('test', 2)):
        for name, level in (('bright', 200), ('dark', 50)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                save_picture(folder / f'{i}.png', 32, level, seed=i)
    return root


def save_picture(path, size, level, seed=0):
    pixels = np.random.default_rng(seed).normal(level, 20, (size, size, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def run(main, *arguments):
    """The task that an example trained; every warning is an error, such as that of an update that is not counted."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', category=AlfaWarning)
        return main([str(argument) for argument in arguments])


def metrics(capsys, name):
    """A metric of every epoch, as printed."""
    return [float(value) for value in re.findall(rf'\b{name} (\d\.\d+)', capsys.readouterr().out)]


@TASKS
def test_own_loop(example, photographs, capsys, name):
    main = example('own_loop').main
    options = ('--task', name, '--model', 'resnet20s', '--batch-size', 4, '--epochs', 2, '--max-images', 12)
    task = run(main, '--data', photographs, *options)
    assert task.updates == 6
    assert len(metrics(capsys, 'accuracy')) == 2


@TASKS
def test_segmentation(example, tmp_path, capsys, name):
    pytest.importorskip('segmentation_models_pytorch')
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    save_picture(tmp_path / 'images' / 'a.jpg', 128, 100)
    mask = np.zeros((128, 128), np.uint16)
    mask[30:90, 20:110] = 700  # the number of an instance, more than a byte holds
    Image.fromarray(mask).save(tmp_path / 'masks' / 'a.png')

    segmentation = example('segmentation')
    data = ('--images', tmp_path / 'images', '--masks', tmp_path / 'masks')
    sizes = ('--encoder', 'tu-test_resnet', '--crop-size', 32, '--crops', 4, '--batch-size', 2, '--epochs', 2)
    task = run(segmentation.main, *data, *sizes, '--task', name)
    assert task.updates == 4
    assert len(metrics(capsys, 'IoU')) == 2

    (image, held_out), *_ = segmentation.load_pairs(segmentation.parse_args([str(part) for part in data]))[1]
    assert image.shape == (3, 128, 32) and held_out.sum() == 60 * 14
    perfect = OutputOf(held_out[None] - 0.5)
    assert segmentation.evaluate(perfect, [(image, held_out)], 'cpu') == 1


@TASKS
def test_lightning_module(example, photographs, capsys, name):
    pytest.importorskip('lightning')
    main = example('lightning_module').main
    options = ('--task', name, '--model', 'resnet20s', '--batch-size', 4, '--epochs', 2, '--max-images', 12)
    task = run(main, '--data', photographs, *options)
    assert task.updates == 6
    assert len(metrics(capsys, 'accuracy')) == 2


@TASKS
def test_hf_trainer(example, photographs, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    main = example('hf_trainer').main
    task = run(main, '--data', photographs, '--task', name, '--batch-size', 4, '--epochs', 2, '--max-images', 12)
    assert task.updates == 6
    assert len(metrics(capsys, 'accuracy')) == 2


class OutputOf(torch.nn.Module):
    """A model that returns what it was made with."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, *batch):
        return self.output


@TASKS
def test_detection(example, tmp_path, capsys, name):
    pytest.importorskip('torchmetrics')
    pytest.importorskip('pycocotools')
    boxes = [[10, 5, 20, 30], [40, 30, 15, 15]]
    annotations = [
        {'id': i, 'image_id': 1, 'category_id': 1, 'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
        for i, box in enumerate(boxes, 1)
    ]
    images = [{'id': i, 'file_name': f'{i}.png', 'width': 64, 'height': 64} for i in (1, 2)]  # 2 has no box
    for image in images:
        save_picture(tmp_path / image['file_name'], 64, 100)
    coco = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'tree'}]}
    (tmp_path / 'coco.json').write_text(json.dumps(coco))

    detection = example('detection')
    splits = [(f'--{split}', tmp_path / 'coco.json', f'--{split}-images', tmp_path) for split in ('train', 'val')]
    arguments = [argument for split in splits for argument in split]
    task = run(detection.main, *arguments, '--img-size', 64, '--batch-size', 1, '--epochs', 2, '--task', name)
    assert task.updates == 2
    assert len(metrics(capsys, 'mAP50')) == 2

    dataset, num_classes = detection.load_split(tmp_path, tmp_path / 'coco.json')
    assert len(dataset) == 1 and num_classes == 2
    image, target = dataset[0]
    assert target['boxes'].tolist() == [[10, 5, 30, 35], [40, 30, 55, 45]]
    perfect = OutputOf([{**target, 'scores': torch.ones(2)}])
    assert detection.evaluate(perfect, [([image], [target])], 'cpu') == pytest.approx((1, 1))

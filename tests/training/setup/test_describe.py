"""What a run is warned of before it starts."""

from types import SimpleNamespace

import pytest

from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.setup.describe import small_images_hint


def hint(stored, input, *argv):
    config = parse_args(['--data-dir', 'x', *argv])
    data = SimpleNamespace(image_size=(3, stored, stored))
    return small_images_hint(SimpleNamespace(config=config, data=data, input_config={'input_size': (3, input, input)}))


def test_a_large_stem_on_small_images_names_the_variant():
    assert hint(32, 32, '--model', 'resnet34') == (
        '--model resnet34: its stem is for large images: the last stage sees 1x1 of 32 pixels. resnet34_cifar is for '
        'small images: use --model resnet34_cifar.'
    )
    assert 'images of 32 pixels are enlarged to 224, 49 times the work' in hint(32, 224, '--model', 'resnet34')


@pytest.mark.parametrize(
    ('stored', 'argv'),
    [
        (224, ('--model', 'resnet34')),
        (32, ('--model', 'resnet34_cifar')),
        (32, ('--model', 'resnet34', '--pretrained')),
        (32, ('--model', 'resnet34', '--initial-checkpoint', 'x')),
        (32, ('--model', 'convnext_tiny')),
    ],
)
def test_others_are_left_alone(stored, argv):
    assert hint(stored, stored, *argv) == ''

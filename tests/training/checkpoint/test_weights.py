"""Weights in files: what is refused, what fits."""

import argparse
import os
import pickle

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from timm_alfa.errors import CheckpointError
from timm_alfa.training.checkpoint.weights import (
    find_weights,
    load_checkpoint,
    load_weights,
    plain_state,
    read_weights,
    save_weights,
)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('save', [lambda value, path: path.write_bytes(pickle.dumps(value)), torch.save])
def test_pickles_that_carry_code_are_refused(save, tmp_path):
    path = tmp_path / 'model.pth'
    save({'state_dict': {'weight': torch.ones(1)}, 'args': Bomb(str(tmp_path / 'exploded'))}, path)
    with pytest.raises(CheckpointError, match='could run code: refused'):
        read_weights(path)
    assert not (tmp_path / 'exploded').exists()


def test_damaged_missing_and_strange_files_are_one_line(tmp_path):
    for name, content, part in (
        ('a.safetensors', b'half', 'damaged, or not a checkpoint'),
        ('b.pth', b'', 'damaged, or not a checkpoint'),
        ('c.pth', b'text of another kind', 'damaged|could run code'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=part):
            read_weights(tmp_path / name)
    torch.save({'epoch': 3}, tmp_path / 'd.pth')
    with pytest.raises(CheckpointError, match='does not hold model weights'):
        read_weights(tmp_path / 'd.pth')
    with pytest.raises(CheckpointError, match='is not a file'):
        read_weights(tmp_path / 'none.pth')


def test_training_checkpoints_give_their_ema_without_wrappers(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'state_dict': {'module.w': torch.zeros(1)}, 'state_dict_ema': {'module.w': torch.ones(1)}}, path)
    assert read_weights(path) == {'w': torch.ones(1)}


def test_round_trip_of_channels_last_and_tied_weights(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.channels_last)
    model[2].weight = model[1].weight
    save_weights(plain_state(model), tmp_path / 'm.safetensors')
    loaded = load_file(tmp_path / 'm.safetensors')
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())
    assert (tmp_path / 'm.safetensors').stat().st_mode & 0o044  # as readable as any file of the user's


def test_misfits_are_named():
    model = timm.create_model('test_resnet', num_classes=5)
    state = dict(timm.create_model('test_resnet', num_classes=7).state_dict())
    with pytest.raises(CheckpointError, match=r'other shapes: fc.weight \(7, 96\) instead of \(5, 96\)'):
        load_weights(model, state, 'x')
    load_checkpoint(model, state, 'x', adapt=True)
    assert torch.equal(model.conv1[0].weight, state['conv1.0.weight']) and model.fc.weight.shape[0] == 5
    with pytest.raises(CheckpointError, match=r'missing: .* and \d+ more'):
        load_weights(model, {'fc.weight': model.fc.weight}, 'x')
    with pytest.raises(CheckpointError, match='unexpected: aux'):
        load_weights(model, {**model.state_dict(), 'aux': torch.ones(1)}, 'x')


def test_find_weights(tmp_path):
    with pytest.raises(CheckpointError, match='does not exist'):
        find_weights(str(tmp_path / 'no'))
    with pytest.raises(CheckpointError, match=r'does not hold any of model_best.safetensors'):
        find_weights(str(tmp_path))
    for name in ('model_last.safetensors', 'model.safetensors', 'model_best.safetensors'):
        (tmp_path / name).write_bytes(b'')
        assert find_weights(str(tmp_path)).name == name


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'm.safetensors'
    save_weights({'w': torch.ones(2)}, path)
    before = path.read_bytes()
    from timm_alfa.training.checkpoint import weights

    def full(state, file, metadata):
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(weights, 'save_file', full)
    with pytest.raises(CheckpointError, match='No space left on device'):
        save_weights({'w': torch.zeros(2)}, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['m.safetensors']


# files of others


@pytest.fixture
def model():
    return timm.create_model('test_resnet', num_classes=3)


def of_five_classes(prefix='', head=True):
    """The weights of the same architecture, with other values, for five classes or without a classifier."""
    state = timm.create_model('test_resnet', num_classes=5).state_dict()
    return {prefix + name: value + 1 for name, value in state.items() if head or not name.startswith('fc.')}


def loaded(model, content, path, **options):
    """Loads a file with this content into the model."""
    torch.save(content, path)
    load_checkpoint(model, read_weights(path), path, **options)


def test_the_options_in_timms_checkpoints_are_no_obstacle(model, tmp_path):
    state = {name: value + 1 for name, value in model.state_dict().items()}
    options = argparse.Namespace(model='test_resnet', lr=0.1, opt_betas=[0.9, 0.99], model_kwargs={})
    loaded(model, {'epoch': 3, 'arch': 'x', 'state_dict': state, 'args': options}, tmp_path / 'last.pth.tar')
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_namespace_that_holds_code_is_refused(tmp_path):
    torch.save({'state_dict': {}, 'args': argparse.Namespace(x=Bomb(str(tmp_path / 'exploded')))}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='could run code: refused'):
        read_weights(tmp_path / 'x.pth')
    assert not (tmp_path / 'exploded').exists()


@pytest.mark.parametrize('head', [True, False])
@pytest.mark.parametrize('prefix', ['', 'model.', 'module.encoder.'])
@pytest.mark.parametrize('key', [None, 'state_dict', 'teacher'])
def test_weights_are_found_where_they_are_nested(key, prefix, head, model, tmp_path):
    state, own = of_five_classes(prefix, head), {name: value.clone() for name, value in model.state_dict().items()}
    content = {key: state, 'epoch': 2} if key else {**state, 'queue': torch.zeros(2)} if prefix else state
    loaded(model, content, tmp_path / 'x.pth', adapt=True)
    for name, value in model.state_dict().items():
        expected = own[name] if name.startswith('fc.') else state[prefix + name]
        assert torch.equal(value, expected), name
    with pytest.raises(CheckpointError, match='does not fit the model'):
        loaded(model, content, tmp_path / 'x.pth')  # to be scored, a model needs its classifier


def test_several_sets_of_weights_are_named(model, tmp_path):
    with pytest.raises(CheckpointError, match="holds weights under 'student' and 'teacher'"):
        loaded(model, {'student': of_five_classes(), 'teacher': of_five_classes()}, tmp_path / 'x.pth')
    both = {**of_five_classes('q.', head=False), **of_five_classes('k.', head=False)}
    with pytest.raises(CheckpointError, match=r"holds the model's weights under 'q\.' and 'k\.'"):
        loaded(model, {'state_dict': both}, tmp_path / 'x.pth', adapt=True)
    with pytest.raises(CheckpointError, match='does not hold model weights.*Its keys: epoch'):
        loaded(model, {'epoch': 3}, tmp_path / 'x.pth')


def test_position_embeddings_are_resampled_as_timm_does(caplog):
    """To fine-tune at another size of images; the classifier is another one, too."""
    small = timm.create_model('test_vit', num_classes=7, img_size=64)
    large = timm.create_model('test_vit', num_classes=5, img_size=128)
    expected = checkpoint_filter_fn({**small.state_dict()}, large)['pos_embed']
    assert expected.shape != small.pos_embed.shape
    with pytest.raises(CheckpointError, match=r'other shapes: pos_embed'):
        load_checkpoint(large, small.state_dict(), 'x.pth')
    caplog.set_level('INFO', 'timm_alfa')
    load_checkpoint(large, small.state_dict(), 'x.pth', adapt=True)
    assert torch.equal(large.pos_embed, expected)
    assert torch.equal(large.blocks[0].attn.qkv.weight, small.blocks[0].attn.qkv.weight)
    converted = "weights: 'x.pth' is converted by timm's function of the architecture"
    assert caplog.messages[-1] == f'{converted}: resampled pos_embed'

    load_checkpoint(large, {**large.state_dict(), 'mask_token': torch.ones(1)}, 'x.pth', adapt=True)  # as DINOv2's
    assert caplog.messages[-1] == converted


def test_what_no_conversion_helps_is_refused():
    model = timm.create_model('test_vit', num_classes=5)
    state = {**timm.create_model('test_vit', num_classes=5).state_dict(), 'pos_embed': torch.ones(1, 7, 3)}
    with pytest.raises(CheckpointError, match=r'other shapes: pos_embed \(1, 7, 3\)'):
        load_checkpoint(model, state, 'x', adapt=True)

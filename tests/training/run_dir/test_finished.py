"""What is read from a run folder, and every reason why it cannot be published."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from timm_alfa.errors import CheckpointError, HubError
from timm_alfa.publishing.model_checks import check_name, load_model
from timm_alfa.training.run_dir.finished import read_run
from timm_alfa.utils.files import sha256_of


def change(run, **values):
    """result.json with other values; None takes a key out."""
    path = run / 'result.json'
    record = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    return run


def weights(run, **tensors):
    """model_best.safetensors with other tensors; None takes one out."""
    state = {**load_file(run / 'model_best.safetensors'), **tensors}
    save_file({key: value for key, value in state.items() if value is not None}, run / 'model_best.safetensors')
    return run


def test_a_finished_run(make_run):
    run = read_run(make_run())
    assert (run.architecture, run.dataset.key) == ('resnet20s', 'c10')
    assert (run.evaluation.split, run.evaluation.top1, run.evaluation.images) == ('test', 91.75, 10000)
    model = load_model(run)
    assert not model.training
    state = load_file(run.weights)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_without_a_test_split_the_validation_split_counts(make_run):
    found = read_run(change(make_run(), test_top1=None, test_split=None)).evaluation
    assert (found.split, found.top1, found.images) == ('validation', 92.1, 5000)


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        ({'status': 'running'}, r"not finished: .*'running'.*--resume"),
        ({'test_top1': None, 'val_top1': None}, r'was not evaluated'),
        ({'test_top1': math.nan}, r'percentage from 0 to 100'),
        ({'test_top1': 917.5}, r'percentage from 0 to 100'),
        ({'test_top1': '91'}, r'percentage from 0 to 100'),
        ({'task': None, 'model': None}, r'lacks model, task'),
        ({'checkpoint': 'gone.safetensors'}, r'gone.safetensors. is missing'),
    ],
)
def test_a_record_that_cannot_be_published(make_run, values, says):
    with pytest.raises(CheckpointError, match=says) as error:
        read_run(change(make_run(), **values))
    assert '\n' not in str(error.value)


def test_weights_that_were_replaced_after_the_record(make_run):
    run = make_run()
    change(run, checkpoint_sha256=sha256_of(run / 'model_best.safetensors'))
    read_run(run)
    weights(run, **{'fc.bias': torch.ones(10)})
    with pytest.raises(CheckpointError, match=r'not the file that result\.json evaluated.*train\.py --resume'):
        read_run(run)


@pytest.mark.parametrize(
    ('file', 'text', 'says'),
    [
        ('result.json', None, r'not finished: it has no result.json.*--resume'),
        ('result.json', '{"status": ', r'cannot be read'),
        ('result.json', '[]', r'does not hold a mapping'),
        ('config.json', None, r'cannot be read'),
        ('config.json', '{"architecture": "resnet20s"}', r'lacks num_classes, pretrained_cfg'),
        ('args.yaml', 'a: [', r'cannot be read'),
    ],
)
def test_a_missing_or_broken_file(make_run, file, text, says):
    run = make_run()
    (run / file).unlink() if text is None else (run / file).write_text(text)
    with pytest.raises(CheckpointError, match=says):
        read_run(run)


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match='is not a folder'):
        read_run(tmp_path / 'none')


@pytest.mark.parametrize(
    ('tensors', 'says'),
    [
        ({'fc.bias': torch.full((10,), math.nan)}, r'not finite: fc.bias'),
        ({'fc.bias': torch.full((10,), math.inf)}, r'not finite: fc.bias'),
        ({'aux_bn.weight': torch.zeros(3)}, r'unexpected: aux_bn.weight'),
        ({'fc.bias': None}, r'missing: fc.bias'),
        ({'fc.bias': torch.zeros(9)}, r'other shapes: fc.bias'),
        ({f'a{i}': torch.zeros(1) for i in range(5)}, r'unexpected: a0, a1, a2 and 2 more'),
        ({'x': torch.zeros(1), 'fc.bias': None}, r'missing: fc.bias; unexpected: x'),
    ],
)
def test_weights_that_are_not_the_models(make_run, tensors, says):
    with pytest.raises(CheckpointError, match=says):
        load_model(read_run(weights(make_run(), **tensors)))


def test_weights_that_are_no_safetensors(make_run):
    run = make_run()
    (run / 'model_best.safetensors').write_bytes(b'nothing')
    with pytest.raises(CheckpointError, match='cannot be read .SafetensorError.*damaged'):
        load_model(read_run(run))


def test_config_and_record_must_agree(make_run):
    with pytest.raises(CheckpointError, match=r'10 classes, result.json 7'):
        load_model(read_run(change(make_run(), num_classes=7)))
    run = make_run()
    config = json.loads((run / 'config.json').read_text())
    (run / 'config.json').write_text(json.dumps({**config, 'architecture': 'no_such_model'}))
    with pytest.raises(CheckpointError, match='timm cannot build'):
        load_model(read_run(run))


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('resnet50.alfa_in1k', r'trained resnet20s.*dataset was CIFAR-10, not ImageNet-1k'),
        ('resnet20s.l_alfa_c10', r'task was alfa'),
        ('resnet20s.alfa_c100', r'dataset was CIFAR-10, not CIFAR-100'),
        ('resnet56s.mine', r'trained resnet20s'),
    ],
)
def test_a_name_must_say_what_the_run_is(make_run, name, says):
    with pytest.raises(HubError, match=says):
        check_name(read_run(make_run()), name)


@pytest.mark.parametrize(
    ('dataset', 'says'),
    [
        ('digits', r"dataset was scikit-learn's digits, not CIFAR-10"),
        ('mine', r'dataset was mine, 10 classes, not CIFAR-10'),
    ],
)
def test_ten_classes_are_not_yet_cifar10(make_run, dataset, says):
    with pytest.raises(HubError, match=says):
        check_name(read_run(change(make_run(), dataset=dataset)), 'resnet20s.alfa_c10')


def test_a_folder_of_another_name_is_cifar10_if_its_id_says_so(make_run):
    run = read_run(change(make_run(), dataset='mine'))
    with pytest.raises(HubError, match='pass --dataset-id uoft-cs/cifar10'):
        check_name(run, 'resnet20s.alfa_c10')
    check_name(run, 'resnet20s.alfa_c10', 'uoft-cs/cifar10')
    with pytest.raises(HubError, match='dataset was mine, 10 classes'):
        check_name(run, 'resnet20s.alfa_c10', 'uoft-cs/cifar100')


@pytest.mark.parametrize('name', ['resnet20s.alfa_c10', 'resnet20s.mine', 'my-model', 'v1.0'])
def test_other_names_are_free(make_run, name):
    check_name(read_run(make_run()), name)

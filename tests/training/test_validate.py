"""validate.py: whatever names a checkpoint gives the same score."""

import csv
import json
import shutil

import pytest
import timm
from safetensors.torch import save_file

from timm_alfa.errors import AlfaWarning, CheckpointError, ConfigError
from timm_alfa.training.options.validate_args import parse_args
from timm_alfa.training.validate import prepare, validate
from timm_alfa.utils.files import sha256_of


def score(*argv):
    config = parse_args(list(argv))
    return validate(config, prepare(config))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    from helpers.training_runs import Runs

    runs = Runs(tmp_path_factory.mktemp('validate'))
    return runs.output / 'run', runs('--task', 'standard', '--epochs', '1', '--train-subset', '48')


@pytest.mark.parametrize('batch', ['128', '7'])
@pytest.mark.parametrize('form', ['{}', '{}/model_best.safetensors', 'local-dir:{}'])
def test_every_name_of_a_checkpoint(form, batch, trained):
    folder, result = trained
    found = score('--checkpoint', form.format(folder), '-b', batch)
    assert found['count'] == 360 and found['correct'] == round(3.6 * result['val_top1'])
    assert found['checkpoint_sha256'] == sha256_of(folder / 'model_best.safetensors')
    assert found['split'] == 'test'  # what was read: the digits have no other split to validate on
    for key in ('top1', 'top5', 'loss'):
        assert found[key] == pytest.approx(result[f'val_{key}'], rel=1e-5)


def test_a_crop_that_the_loader_does_not_make_is_reported(trained):
    folder, result = trained
    with pytest.warns(AlfaWarning, match='--crop-pct 0.5 has no effect with the memory loader.*--loader timm'):
        found = score('--checkpoint', str(folder), '--crop-pct', '0.5')
    assert found['loss'] == pytest.approx(result['val_loss'])
    cropped = score('--checkpoint', str(folder), '--crop-pct', '0.5', '--loader', 'timm')
    assert cropped['loss'] != pytest.approx(result['val_loss'], rel=1e-3)


def test_a_bare_file_with_its_model(trained, tmp_path):
    folder, result = trained
    (tmp_path / 'w.safetensors').write_bytes((folder / 'model_best.safetensors').read_bytes())
    with pytest.raises(CheckpointError, match=r'no config.json next to .*pass --model'):
        score('--checkpoint', str(tmp_path / 'w.safetensors'))
    found = score('--checkpoint', str(tmp_path / 'w.safetensors'), '--model', 'test_resnet', '--img-size', '32')
    assert found['top1'] == pytest.approx(result['val_top1'])
    with pytest.raises(CheckpointError, match='does not fit the model'):
        score('--checkpoint', str(tmp_path / 'w.safetensors'), '--model', 'test_vit')


def test_a_model_that_is_named_does_not_hide_the_runs_config(trained, tmp_path):
    """Its input size, normalization and arguments; a model of another name is refused."""
    folder, result = trained
    config = json.loads((folder / 'config.json').read_text())
    assert score('--checkpoint', str(folder), '--model', 'test_resnet')['loss'] == pytest.approx(result['val_loss'])
    for checkpoint in (folder, f'local-dir:{folder}'):
        with pytest.raises(ConfigError, match=r"--model is 'test_vit', but .* holds test_resnet.*Leave --model out"):
            score('--checkpoint', str(checkpoint), '--model', 'test_vit')
    shutil.copy(folder / 'model_best.safetensors', tmp_path)
    (tmp_path / 'config.json').write_text(
        json.dumps({**config, 'pretrained_cfg': {**config['pretrained_cfg'], 'mean': [0.9] * 3, 'std': [0.1] * 3}})
    )
    assert score('--checkpoint', str(tmp_path), '--model', 'test_resnet')['loss'] > 1.01 * result['val_loss']
    (tmp_path / 'config.json').write_text('{"model_type": "resnet"}')  # another program's
    named = ('--checkpoint', str(tmp_path), '--model', 'test_resnet', '--img-size', '32')
    assert score(*named)['top1'] == pytest.approx(result['val_top1'])
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(CheckpointError, match='cannot be read.*Fix or remove it'):
        score(*named)


def test_the_image_size_reaches_a_model_that_is_built_for_it(tmp_path):
    save_file(timm.create_model('test_vit', num_classes=10, img_size=32).state_dict(), tmp_path / 'w.safetensors')
    named = ('--checkpoint', str(tmp_path / 'w.safetensors'), '--model', 'test_vit')
    with pytest.raises(CheckpointError, match='Use the .*--img-size'):
        score(*named)
    assert score(*named, '--img-size', '32')['count'] == 360


def test_a_run_is_scored_on_its_own_data_unless_others_are_named(tmp_path):
    (tmp_path / 'args.yaml').write_text(
        'dataset: hfds/somewhere\ninput_key: img\nval_split: test\nno_option_here: 1\nbatch_size: 7\n'
    )
    for checkpoint in (str(tmp_path), f'local-dir:{tmp_path}', str(tmp_path / 'model_best.safetensors')):
        config = parse_args(['--checkpoint', checkpoint])
        assert (config.data.dataset, config.data.input_key, config.split.split) == ('hfds/somewhere', 'img', 'test')
        assert config.data.batch_size == 128
    assert parse_args(['--checkpoint', str(tmp_path), '--split', 'train']).split.split == 'train'
    config = parse_args(['--checkpoint', str(tmp_path), '--dataset', 'digits'])
    assert (config.data.dataset, config.data.input_key, config.split.split) == ('digits', None, 'validation')


def test_a_run_is_scored_by_the_loader_that_it_had(tmp_path):
    """Another one makes other crops; 'auto' was decided by augmentation, of which a score knows nothing."""
    from helpers.training_runs import Runs

    for name, flags in (('explicit', ('--loader', 'timm')), ('auto', ('--aa', 'rand-m3'))):
        runs = Runs(tmp_path)
        result = runs('--task', 'standard', '--epochs', '1', '--crop-pct', '0.7', *flags, experiment=name)
        found = score('--checkpoint', str(tmp_path / name))
        assert found['loss'] == pytest.approx(result['val_loss'], rel=1e-5), name


def test_a_split_that_lacks_a_class_is_numbered_as_the_run_was(tmp_path):
    (tmp_path / 'args.yaml').write_text(
        f'data_dir: {tmp_path}\ntrain_split: small\nval_split: val\nloader: auto\nenvironment: {{loader: timm}}\n'
    )
    config = parse_args(['--checkpoint', str(tmp_path)])
    assert (config.data.train_split, config.split.split, config.data.loader) == ('small', 'val', 'timm')


@pytest.mark.parametrize(
    ('argv', 'part'),
    [
        ([], 'no model is named'),
        (['--checkpoint', 'x', '--model', 'resnet81', '--split-', 'y'], "unknown option '--split-'"),
        (['--checkpoint', 'x', '--model', 'resnet81'], "unknown model 'resnet81'"),
        (['--checkpoint', 'x', '--pretrained'], 'cannot be combined'),
        (['--model', 'resnet20s.alfa_c10', '--pretrained'], 'does not say which data to use: add --dataset'),
    ],
)
def test_errors(argv, part):
    with pytest.raises(ConfigError, match=part):
        parse_args(argv)


def test_missing_checkpoints_and_splits(trained):
    with pytest.raises(CheckpointError, match='does not exist'):
        score('--checkpoint', '/no/such')
    with pytest.raises(ValueError, match="unknown split --split 'tset'"):
        score('--checkpoint', str(trained[0]), '--split', 'tset')


def test_tables_pictures_and_predictions_of_a_split(trained, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    folder, _ = trained
    outputs = ('--per-class', str(tmp_path / 'classes'), '--predictions', str(tmp_path / 'p.csv'))
    exported = []
    monkeypatch.setattr('timm_alfa.training.validate.write_onnx', lambda *args: exported.append(args))
    found = score('--checkpoint', str(folder), *outputs, '--export-onnx', str(tmp_path / 'm.onnx'))
    ((file, _, size),) = exported
    assert (file, size) == (str(tmp_path / 'm.onnx'), (3, 32, 32))
    with open(tmp_path / 'p.csv') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found['count'] == 360
    assert sum(row['label'] == row['prediction'] for row in rows) == found['correct']
    with open(tmp_path / 'classes' / 'per_class.csv') as file:
        classes = list(csv.DictReader(file))
    assert sum(int(row['correct']) for row in classes) == found['correct']
    assert sum(int(row['images']) for row in classes) == 360


def test_an_attack_on_some_of_the_images(trained):
    folder, _ = trained
    argv = ('--checkpoint', str(folder), '--robust', '--attack-steps', '1')
    found = score(*argv, '--max-images', '40', '-b', '16')
    assert (found['count'], found['robust_count']) == (360, 40)
    assert found['robust_correct'] == score(*argv, '--max-images', '40', '-b', '16')['robust_correct']
    assert score(*argv)['robust_count'] == 360
    with pytest.raises(ConfigError, match='--max-images has no effect without --robust'):
        parse_args(['--checkpoint', str(folder), '--max-images', '40'])

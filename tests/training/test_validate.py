"""validate.py: whatever names a checkpoint gives the same score."""
import pytest

from timm_alfa.errors import CheckpointError, ConfigError
from timm_alfa.training.validate import parse_args, run, validate


def score(*argv):
    return validate(config := parse_args(list(argv)), *run(config))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    from training_runs import Runs
    runs = Runs(tmp_path_factory.mktemp('validate'))
    return runs.output / 'run', runs('--task', 'standard', '--epochs', '1', '--train-subset', '48')


@pytest.mark.parametrize('batch', ['128', '7'])
@pytest.mark.parametrize('form', ['{}', '{}/model_best.safetensors', 'local-dir:{}'])
def test_every_name_of_a_checkpoint(form, batch, trained):
    folder, result = trained
    found = score('--checkpoint', form.format(folder), '-b', batch)
    assert found['count'] == 360 and found['correct'] == round(3.6 * result['val_top1'])
    for key in ('top1', 'top5', 'loss'):
        assert found[key] == pytest.approx(result[f'val_{key}'], rel=1e-5)


def test_a_bare_file_with_its_model(trained, tmp_path):
    folder, result = trained
    (tmp_path / 'w.safetensors').write_bytes((folder / 'model_best.safetensors').read_bytes())
    with pytest.raises(CheckpointError, match=r'no config.json beside .*give --model'):
        score('--checkpoint', str(tmp_path / 'w.safetensors'))
    found = score('--checkpoint', str(tmp_path / 'w.safetensors'), '--model', 'test_resnet', '--img-size', '32')
    assert found['top1'] == pytest.approx(result['val_top1'])
    with pytest.raises(CheckpointError, match='does not fit the model'):
        score('--checkpoint', str(tmp_path / 'w.safetensors'), '--model', 'test_vit')


@pytest.mark.parametrize(('argv', 'part'), [
    ([], 'nothing to score'),
    (['--checkpoint', 'x', '--model', 'resnet81', '--split-', 'y'], "unknown option '--split-'"),
    (['--checkpoint', 'x', '--model', 'resnet81'], "unknown model 'resnet81'"),
    (['--checkpoint', 'x', '--pretrained'], 'exclude each other'),
])
def test_faults(argv, part):
    with pytest.raises(ConfigError, match=part):
        parse_args(argv)


def test_missing_checkpoints_and_splits(trained):
    with pytest.raises(CheckpointError, match='does not exist'):
        score('--checkpoint', '/no/such')
    with pytest.raises(ValueError, match="unknown split --split 'tset'"):
        score('--checkpoint', str(trained[0]), '--split', 'tset')

"""What comes before a run is built."""

import json
import warnings
from types import SimpleNamespace

import pytest

from timm_alfa.data.loaders import create
from timm_alfa.errors import AlfaWarning, ConfigError, DataError
from timm_alfa.training.checkpoint.train_state import TrainState
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.preflight.dry_run import dry_run
from timm_alfa.training.run_dir.folder import RunFolder
from timm_alfa.training.setup import prepare
from timm_alfa.training.start import begin_folder


@pytest.mark.parametrize(
    ('first', 'flags', 'order'),
    [
        (True, ('--dataset-download',), ['read', 'wait']),
        (False, ('--dataset-download',), ['wait', 'read']),
        (False, (), ['read']),
    ],
)
@pytest.mark.parametrize('fails', [False, True])
def test_one_process_of_a_machine_downloads_before_the_others(first, flags, order, fails, monkeypatch):
    """And none waits for one that has failed."""
    events = []

    def inspect_data(*args, **kwargs):
        events.append('read')
        if fails:
            raise DataError('no network')
        return 'info'

    monkeypatch.setattr(prepare, 'inspect_data', inspect_data)
    accelerator = SimpleNamespace(is_local_main_process=first, wait_for_everyone=lambda: events.append('wait'))
    config = parse_args(['--dataset', 'torch/cifar10', '--data-dir', '/d', *flags])
    if fails:
        with pytest.raises(DataError):
            prepare.open_data(config, accelerator)
    else:
        assert prepare.open_data(config, accelerator) == 'info'
    assert events == order


def test_a_method_that_begins_after_the_run_is_reported(runs):
    with pytest.warns(AlfaWarning, match='--alfa-start: 12 is never reached in 12 updates: nothing is perturbed'):
        runs.prepare('--task', 'alfa', '--alfa-start', '12')
    with warnings.catch_warnings():
        warnings.simplefilter('error', AlfaWarning)
        runs.prepare('--task', 'alfa', '--alfa-start', '11')
        runs.prepare('--task', 'standard')


def test_a_warm_up_of_most_updates_is_reported(runs):
    with pytest.warns(
        AlfaWarning, match='7 of 12 updates are warm-up.*use a smaller -b, more --epochs, or --warmup-ep'
    ):
        runs.prepare('--task', 'standard', '--warmup-updates', '7')
    with pytest.warns(AlfaWarning, match='12 of 12 updates are warm-up'):
        runs.prepare('--task', 'standard', '--warmup-epochs', '2')
    with warnings.catch_warnings():
        warnings.simplefilter('error', AlfaWarning)
        runs.prepare('--task', 'standard', '--warmup-updates', '6')
        runs.prepare('--task', 'standard', '--warmup-epochs', '1')


def test_an_ema_of_the_initial_weights_is_reported(runs):
    with pytest.warns(AlfaWarning, match='after 12 updates with a decay of 0.9998, 100% of the EMA is still the init'):
        runs.prepare('--task', 'standard', '--model-ema')
    with warnings.catch_warnings():
        warnings.simplefilter('error', AlfaWarning)
        runs.prepare('--task', 'standard', '--model-ema', '--model-ema-decay', '0.9')
        runs.prepare('--task', 'standard', '--model-ema', '--model-ema-warmup')


@pytest.mark.parametrize(('loader', 'crop_pct'), [('auto', 1.0), ('memory', 1.0), ('timm', 0.95)])
def test_the_crop_is_the_one_that_the_loader_makes(loader, crop_pct, runs):
    """timm reads it from config.json: it has to score the pictures that the run did."""
    run = runs.prepare('--task', 'standard', '--loader', loader)
    assert run.model.default_cfg['crop_pct'] == 0.95 and run.input_config['crop_pct'] == crop_pct
    begin_folder(run, RunFolder(runs.output / 'run'), TrainState())
    assert json.loads((runs.output / 'run' / 'config.json').read_text())['pretrained_cfg']['crop_pct'] == crop_pct


def test_a_crop_that_the_loader_does_not_make_is_reported(runs):
    with pytest.warns(AlfaWarning, match='--crop-pct 0.5 has no effect with the memory loader.*--loader timm'):
        assert runs.prepare('--task', 'standard', '--crop-pct', '0.5').input_config['crop_pct'] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter('error', AlfaWarning)
        runs.prepare('--task', 'standard', '--crop-pct', '1')
        run = runs.prepare('--task', 'standard', '--crop-pct', '0.5', '--loader', 'timm')
        assert run.input_config['crop_pct'] == 0.5


def test_fp16_on_a_cpu_is_refused(runs, monkeypatch):
    """accelerate computes in float32 there, and calls it fp16."""
    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'fp16')
    with pytest.raises(ConfigError, match='fp16 needs a GPU: on a CPU, use --mixed_precision bf16'):
        runs.prepare('--task', 'standard')


def test_a_dry_run_decodes_no_images_and_names_the_folder(runs, monkeypatch, capsys):
    def decode(*args, **options):
        raise AssertionError('all images were decoded')

    monkeypatch.setattr(create, 'ImageCache', decode)
    run = runs.prepare('--task', 'standard', '--dry-run', '--loader', 'memory')
    dry_run(run, runs.output / 'run')
    shown = capsys.readouterr().out.splitlines()
    assert f'run: {runs.output / "run"}' in shown
    assert json.loads(shown[-1])['run'] == str(runs.output / 'run')
    assert run.data.loader == 'memory'

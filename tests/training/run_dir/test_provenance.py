"""What a run leaves behind: the record, tables, plots, and a folder that timm loads."""

import csv
import json

import pytest
import timm
import torch
import yaml
from PIL import Image

from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.training.preflight.features import feature_shapes
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.plots import draw_plots
from timm_alfa.utils.console import Table
from timm_alfa.utils.redact import redact

KEYS = {
    'status',
    'experiment',
    'model',
    'task',
    'task_options',
    'blocks',
    'dataset',
    'num_classes',
    'seed',
    'epochs',
    'epochs_done',
    'batch_size',
    'lr',
    'train_images',
    'val_images',
    'test_images',
    'labels_sha256',
    'best_epoch',
    'val_top1',
    'val_top5',
    'val_loss',
    'val_correct',
    'val_split',
    'test_top1',
    'test_top5',
    'test_loss',
    'test_correct',
    'test_split',
    'unused_top1',
    'unused_top5',
    'unused_loss',
    'unused_correct',
    'unused_images',
    'robust_top1',
    'eta',
    'seconds',
    'seconds_per_epoch',
    'images_per_second',
    'params',
    'mixed_precision',
    'num_processes',
    'runs_together',
    'cuda_graph',
    'channels_last',
    'device',
    'versions',
    'commit',
    'command',
    'continued',
    'test_reads',
    'skipped_updates',
    'skipped_images',
    'checkpoint',
    'checkpoint_sha256',
    'run',
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """One run with its own validation split, L-ALFA, and an EMA."""
    from helpers.training_runs import Runs

    runs = Runs(tmp_path_factory.mktemp('record'))
    result = runs(
        '--task',
        'l_alfa',
        '--alfa-blocks',
        'all',
        '--alfa-mode',
        'separate',
        '--val-fraction',
        '0.5',
        '--train-subset',
        '64',
        '--model-ema',
        '--model-ema-decay',
        '0.5',
        '--checkpoint-every',
        '2',
    )
    return runs, result


def test_record(finished):
    runs, result = finished
    folder = runs.output / 'run'
    assert set(result) == KEYS and result['status'] == 'finished'
    assert json.loads((folder / 'result.json').read_text()) == result
    assert result['blocks'] == ['layer1', 'layer2', 'layer3', 'layer4'] and len(result['eta']) == 4
    assert result['task_options']['blocks'] == 'all' and result['task_options']['gamma'] == 1.0
    assert result['val_split'] == '0.5 of train'
    assert result['test_split'] == 'test' and result['test_images'] == 360 and 0 <= result['test_top1'] <= 100
    assert result['train_images'] == 64 and result['epochs_done'] == 2 and result['batch_size'] == 16
    assert sum(result['eta']) == pytest.approx(1, abs=1e-5)


def test_what_the_checkpoint_is_chosen_on_is_said_once(runs, caplog):
    with caplog.at_level('INFO', 'timm_alfa'):
        runs.prepare('--task', 'standard')
    lines = [line for line in caplog.messages if line.startswith('data: ')]
    assert '360 to choose the best checkpoint on (test), none to test it on at the end' in '\n'.join(lines)
    (note,) = [line for line in lines if '--val-fraction' in line]
    assert note.startswith("data: the best checkpoint is chosen on the split 'test'")


def test_test_split_is_scored_by_the_best_weights_on_disk(finished):
    runs, result = finished
    from timm_alfa.data import DataConfig, create_eval_loader

    model = timm.create_model(f'local-dir:{runs.output / "run"}', pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    loader = create_eval_loader(DataConfig(), model_config=config, split='test')
    with torch.no_grad():
        right = sum((model.eval()(input).argmax(-1) == target).sum().item() for input, target in loader)
    assert 100 * right / 360 == pytest.approx(result['test_top1'])


def test_timm_loads_the_folder_as_what_it_is(finished):
    runs, _ = finished
    model = timm.create_model(f'local-dir:{runs.output / "run"}', pretrained=True)
    cfg = model.pretrained_cfg
    assert model.num_classes == 10 and cfg['num_classes'] == 10
    assert cfg['tag'] == 'l_alfa_digits' and tuple(cfg['input_size']) == (3, 32, 32)
    assert list(cfg['label_names']) == [str(digit) for digit in range(10)]
    assert not {'license', 'paper_ids', 'origin_url', 'notes'} & {k for k, v in cfg.items() if v}
    best = runs.weights('run', 'model_best.safetensors')
    assert all(torch.equal(value, best[key]) for key, value in model.state_dict().items())


STEP_SIZE = EpochPlot(None, 'step size', ('step_size',), ('layer3',), log=True)


def test_summary_has_one_row_per_epoch(finished):
    runs, result = finished
    with open(runs.output / 'run' / 'summary.csv') as file:
        rows = list(csv.DictReader(file))
    assert [row['epoch'] for row in rows] == ['1', '2']
    wanted = {
        'lr',
        'train_loss',
        'train_loss_clean',
        'train_loss_adv',
        'delta_norm',
        'delta_ratio',
        'loss_rise',
        'train_top1',
        'val_loss',
        'val_top1',
        'val_top5',
        'val_top1_not_averaged',
        'eta_0',
        'eta_3',
        'images_per_second',
        'seconds',
    }
    assert wanted <= set(rows[0]) and all(row[key] for row in rows for key in wanted)
    assert float(rows[result['best_epoch'] - 1]['val_top1']) == pytest.approx(result['val_top1'])
    for row in rows:  # equation 5: sum over the blocks, plus the l1 norm of eta (1 or more: eta sums to 1 after a step)
        assert float(row['train_loss']) > float(row['train_loss_clean']) + 3 * float(row['train_loss_adv'])


def test_plots_are_images(finished):
    runs, _ = finished
    for name in ('curves.png', 'eta.png'):
        with Image.open(runs.output / 'run' / name) as image:
            assert image.width > 800 and len(image.convert('L').getcolors(1 << 16)) > 10


def test_plots_of_one_epoch_and_without_perturbation(tmp_path):
    row = {'epoch': 1, 'lr': 0.1, 'train_loss': 1.0, 'val_loss': 2.0, 'val_top1': 50.0, 'train_top1': 40.0}
    draw_plots(tmp_path, [row], 1)
    assert (tmp_path / 'curves.png').stat().st_size > 1000 and not (tmp_path / 'eta.png').exists()


def test_plots_of_runs_with_a_step_size_and_of_those_before_there_was_a_rise(tmp_path):
    row = {'epoch': 1, 'lr': 0.1, 'train_loss': 1.0, 'val_loss': 2.0, 'val_top1': 50.0, 'train_top1': 40.0}
    row |= {'train_loss_clean': 1.0, 'train_loss_adv': 1.1, 'delta_norm': 0.2}
    widths = []
    for more, plots in (({}, ()), ({'loss_rise': 0.1, 'delta_ratio': 0.02, 'step_size': 1e-3}, (STEP_SIZE,))):
        draw_plots(tmp_path, [row | more, row | more | {'epoch': 2}], 1, plots=plots)
        with Image.open(tmp_path / 'curves.png') as image:
            widths.append(image.width)
    assert widths[1] == pytest.approx(widths[0] * 4 / 3, rel=0.01)
    assert [file.name for file in tmp_path.iterdir()] == ['curves.png']


def test_args_hold_every_option_and_the_environment(finished):
    runs, _ = finished
    content = yaml.safe_load((runs.output / 'run' / 'args.yaml').read_text())
    assert content['alfa_blocks'] == 'all' and content['epochs'] == 2 and content['lr'] == 0.03
    assert {'versions', 'commit', 'device', 'num_processes', 'command'} <= set(content['environment'])
    assert not {'resume', 'resume_anyway', 'dry_run'} & set(content), 'they are of one start, and another has its own'


def test_no_secret_gets_into_files(monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_abcdefghijklmnopqrstuvwxyz')
    monkeypatch.setenv('WANDB_API_KEY', '0123456789abcdef0123')
    shown = json.dumps(
        redact(
            {
                'data_dir': 'https://me:pass@host/x?token=abc&size=3',
                'note': 'key 0123456789abcdef0123',
                'model': 'hf_zyxwvutsrqponmlkjihgf',
                'api_key': 'plain',
                'list': ['hf_abcdefghijklmnopqrstuvwxyz'],
                'lr': 0.1,
            }
        )
    )
    for secret in ('pass', 'abc&', '0123456789abcdef0123', 'hf_', 'plain'):
        assert secret not in shown, secret
    assert 'size=3' in shown and '0.1' in shown
    monkeypatch.setattr('sys.argv', ['/x/train.py', '--token', 'plain', '--lr', '1', 'http://u:p@h/'])
    assert provenance.command() == ['train.py', '--token', '***', '--lr', '1', 'http://***@h/']
    assert provenance.command(['--token', 'x', '--lr', '2']) == ['train.py', '--token', '***', '--lr', '2']


def test_feature_shapes():
    model = timm.create_model('test_resnet', num_classes=5)
    assert feature_shapes(model, ['layer4', 'fc'], (3, 32, 32)) == {'layer4': [96, 1, 1], 'fc': [5]}
    assert not any(module._forward_hooks for module in model.modules()) and model.training


def table_lines(caplog, *rows):
    """What a table of these rows logs."""
    with caplog.at_level('INFO', 'timm_alfa'):
        table = Table()
        for at, row in enumerate(rows, 1):
            table.row({'epoch': at, 'lr': 0.1, 'val_top1': 3.0, 'seconds': 4000.0, **row}, False)
    return caplog.messages


def test_table_lines_up(caplog):
    lines = table_lines(caplog, {'train_loss': 2.0}, {'epoch': 200, 'train_loss': 400.0})
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1 and '1:06:40' in lines[1]


def test_a_column_that_comes_up_later_is_shown_under_a_new_header(caplog):
    """As with --alfa-start: the first epochs have no adversarial loss."""
    lines = table_lines(caplog, {}, {'train_loss_adv': 0.4321}, {})
    headers = [line for line in lines if 'epoch' in line]
    assert [lines.index(line) for line in headers] == [0, 2] and len({len(line) for line in lines[2:]}) == 1
    assert 'adv loss' not in headers[0] and 'adv loss' in headers[1] and '0.4321' in lines[3]

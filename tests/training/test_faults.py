"""What goes wrong in the middle of a run, and what is left then."""
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from timm.layers import EvoNorm2dB0
from torch import nn

from timm_alfa.errors import AlfaWarning, CheckpointError, ConfigError
from timm_alfa.training import loop
from timm_alfa.training.guard import RunningStatistics, StopFlag
from timm_alfa.training.loop import Trainer, TrainingError
from timm_alfa.training.states import state_folders


@pytest.fixture
def poison(monkeypatch):
    """Makes the images of some updates NaN."""
    def arrange(*batches, value=float('nan')):
        original = Trainer.indexed

        def indexed(self, loader):
            for at, (input, target, indices) in enumerate(original(self, loader)):
                yield (input * value if at in batches else input), target, indices

        monkeypatch.setattr(Trainer, 'indexed', indexed)
    return arrange


@pytest.mark.parametrize('task', ['standard', 'alfa', 'l_alfa'])
def test_an_update_that_is_not_finite_leaves_no_trace(task, runs, poison, caplog):
    """Weights, statistics and averages are those of a run that never saw the batch."""
    options = ('--task', task, '--epochs', '1', '--no-aug', '--model-ema', '--sched', 'none',
               *(('--alfa-blocks', 'all') if task == 'l_alfa' else ()))
    poison(5)
    record = runs(*options, experiment='poisoned')
    assert record['skipped_updates'] == 1
    short = runs.prepare(*options, experiment='short')
    short.data.train.__class__.__len__, length = lambda self: 5, short.data.train.__class__.__len__
    try:
        from timm_alfa.training.train import train
        train(short)
    finally:
        short.data.train.__class__.__len__ = length
    first, second = runs.weights('poisoned'), runs.weights('short')
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(value.isfinite().all() for value in first.values())


def test_the_images_are_named(runs, poison, capsys):
    import logging
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger('timm_alfa')
    logger.addHandler(handler)
    try:
        poison(2, value=float('inf'))
        runs('--task', 'standard', '--epochs', '1')
    finally:
        logger.removeHandler(handler)
    line = next(line for line in lines if 'not finite' in line)
    assert 'update 3 (epoch 1)' in line and len(line.split('images: ')[1].split(', ')) == 16


def test_patience_ends_the_run_and_the_last_state_stays(runs, poison):
    poison(3, 4, 5)
    with pytest.raises(TrainingError, match='3 updates in a row, up to update 6 in epoch 1.*Lower --lr'):
        runs('--task', 'standard', '--nan-patience', '3', '--checkpoint-every', '2')
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000002-update-4']


def test_a_finite_loss_resets_the_patience(runs, poison):
    poison(1, 2, 4, 5)
    assert runs('--task', 'standard', '--nan-patience', '3', '--epochs', '1')['skipped_updates'] == 4


def test_agc_leaves_the_classifier_alone(runs):
    run = runs.prepare('--task', 'standard', '--clip-grad', '0.01', '--clip-mode', 'agc')
    clipped = {id(p) for p in loop.clipped_parameters(run.model, 'agc')}
    assert [name for name, p in run.model.named_parameters() if id(p) not in clipped] == ['fc.weight', 'fc.bias']
    assert len(loop.clipped_parameters(run.model, 'norm')) == len(clipped) + 2


def test_accumulation_that_accelerate_is_told_of_divides_no_loss(runs, monkeypatch):
    plain = runs('--task', 'standard', '--epochs', '1', experiment='plain')
    monkeypatch.setenv('ACCELERATE_GRADIENT_ACCUMULATION_STEPS', '4')
    with pytest.warns(AlfaWarning, match='give train.py --grad-accum-steps 4'):
        told = runs('--task', 'standard', '--epochs', '1', experiment='told')
    assert told['val_loss'] == plain['val_loss']


def test_the_rate_shown_is_that_before_layer_decay(runs):
    runs('--task', 'standard', '--epochs', '1', '--layer-decay', '0.5', '--sched', 'constant')
    assert [float(row['lr']) for row in runs.rows('run')] == pytest.approx([0.03])


def test_a_folder_that_vanishes_is_reported(runs, monkeypatch):
    import shutil
    original = Trainer.finish_epoch

    def vanish(self):
        shutil.rmtree(self.folder.path)
        original(self)

    monkeypatch.setattr(Trainer, 'finish_epoch', vanish)
    with pytest.raises(CheckpointError, match=r'cannot write .*--resume auto'):
        runs('--task', 'standard')


def test_a_full_disk_keeps_the_last_state_and_the_best_weights(runs, monkeypatch):
    """The disk fills up in the second epoch."""
    import safetensors.torch

    from timm_alfa.training import checkpoint
    original = checkpoint.save_file
    count = []

    def save_file(tensors, path, **kwargs):
        count.append(path)
        if len(count) > 2:
            path.write_bytes(b'half')
            raise safetensors.SafetensorError('I/O error: No space left on device (os error 28)')
        original(tensors, path, **kwargs)

    monkeypatch.setattr(checkpoint, 'save_file', save_file)
    with pytest.raises(CheckpointError, match='No space left on device'):
        runs('--task', 'standard')
    last = runs.output / 'run' / 'last'
    assert [each.name for each in last.iterdir()] == ['000001-update-6'] and len(state_folders(last)) == 1
    monkeypatch.setattr(checkpoint, 'save_file', original)
    assert runs('--task', 'standard', '--resume', 'auto')['epochs_done'] == 2


def test_no_write_permission_is_known_before_training(runs, monkeypatch):
    target = runs.output / 'file'
    target.write_text('')
    with pytest.raises(ConfigError, match='cannot write in .*Give another --output'):
        runs('--task', 'standard', '--output', str(target))


def test_an_existing_run_is_not_overwritten(runs):
    runs('--task', 'standard', '--epochs', '1')
    with pytest.raises(ConfigError, match='already holds a run'):
        runs('--task', 'standard', '--epochs', '1')


def test_input_a_model_cannot_take_is_known_before_training(runs):
    with pytest.raises(ConfigError, match='trial step'):
        runs('--task', 'standard', '--model', 'inception_v4', '--img-size', '8')
    assert not (runs.output / 'run').exists()


def test_signals_set_a_flag_and_a_second_interrupt_stops(monkeypatch):
    with StopFlag() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        os.kill(os.getpid(), signal.SIGINT)  # handed on by a launcher: the same wish
        stop.at -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_ends_after_the_update_with_a_state(runs, monkeypatch):
    original = Trainer.update

    def update(self, window):
        if self.state.updates == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, window)

    monkeypatch.setattr(Trainer, 'update', update)
    record = runs('--task', 'alfa')
    assert record['status'] == 'stopped' and record['updates'] == 4
    monkeypatch.setattr(Trainer, 'update', original)
    runs('--task', 'alfa', '--resume', 'auto')
    runs('--task', 'alfa', experiment='whole')
    assert runs.rows('run') == runs.rows('whole')


def test_a_signal_breaks_off_the_evaluation(runs, monkeypatch, caplog):
    """Stopped in the second epoch's evaluation: the state is that before it, and says how to launch what goes on."""
    options = ('--task', 'alfa', '--model-ema', '-vb', '64', '--epochs', '3')
    original, seen = loop.evaluate, []

    def evaluate(model, loader, *args):
        def batches():
            for batch in loader:
                seen.append(batch)
                if len(seen) == 14:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch
        return original(model, batches(), *args)

    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'bf16')
    monkeypatch.setattr(loop, 'evaluate', evaluate)
    ended = []
    monkeypatch.setattr(Accelerator, 'end_training', lambda self: ended.append(self))
    with caplog.at_level('INFO', 'timm_alfa'):
        record = runs(*options)
    assert record['status'] == 'stopped' and (record['epochs_done'], record['updates']) == (1, 12) and len(ended) == 1
    assert len(seen) <= 15  # twelve in the first epoch, half of them without the average; 24 had it not been broken off
    assert f"accelerate launch --mixed_precision bf16 train.py --resume {runs.output / 'run'}" in caplog.text
    monkeypatch.setattr(loop, 'evaluate', original)
    assert runs(*options, '--resume', 'auto')['epochs_done'] == 3
    runs(*options, experiment='whole')
    assert runs.rows('run') == runs.rows('whole')


def test_a_signal_between_epochs_ends_there(runs, monkeypatch):
    """After the last epoch it comes in time to stop the test score, which a run that goes on makes anew."""
    options, original = ('--task', 'standard', '--val-fraction', '0.5'), Trainer.write_epoch

    def write_epoch(self, *args):
        original(self, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, 'write_epoch', write_epoch)
    for updates, epochs in ((6, 1), (12, 2)):
        record = runs(*options, '--resume', 'auto')
        assert (record['status'], record['updates'], record['epochs_done']) == ('stopped', updates, epochs)
    monkeypatch.setattr(Trainer, 'write_epoch', original)
    whole = runs(*options, experiment='whole')
    assert runs(*options, '--resume', 'auto')['test_top1'] == whole['test_top1'] is not None


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, EvoNorm2dB0])
def test_running_statistics_come_back(norm):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm(4))
    statistics = RunningStatistics(model)
    statistics.remember()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(torch.full((2, 3, 4, 4), float('nan')))
    statistics.restore()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())

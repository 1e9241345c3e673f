"""What goes wrong in the middle of a run, and what is left then."""

import os
import signal

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from timm.layers import EvoNorm2dB0
from torch import nn

from timm_alfa.errors import AlfaWarning, BlockError, CheckpointError, ConfigError
from timm_alfa.replay.norms import RunningStatistics
from timm_alfa.tasks.base import MethodTask
from timm_alfa.training import trainer
from timm_alfa.training.checkpoint.store import state_folders
from timm_alfa.training.train import train
from timm_alfa.training.trainer import Trainer, TrainingError
from timm_alfa.training.update.device_step import DeviceStep
from timm_alfa.training.update.step import TrainStep


@pytest.fixture
def poison(monkeypatch):
    """Makes the images of some updates NaN."""

    def arrange(*batches, value=float('nan')):
        original = Trainer.batches

        def poisoned(self, loader):
            for at, batch in enumerate(original(self, loader)):
                yield batch._replace(input=batch.input * value) if at in batches else batch

        monkeypatch.setattr(Trainer, 'batches', poisoned)

    return arrange


@pytest.mark.parametrize('task', ['standard', 'alfa', 'l_alfa'])
def test_an_update_that_is_not_finite_leaves_no_trace(task, runs, poison, caplog):
    """Weights, statistics and the EMA are those of a run that never saw the batch."""
    options = (
        '--task',
        task,
        '--epochs',
        '1',
        '--no-aug',
        '--model-ema',
        '--sched',
        'none',
        *(('--alfa-blocks', 'all') if task == 'l_alfa' else ()),
    )
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
    with pytest.raises(TrainingError, match='3 updates in a row, up to update 6 in epoch 1.*Lower --lr .it is 0.03.'):
        runs('--task', 'standard', '--nan-patience', '3', '--checkpoint-every', '2')
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000001-update-2']


@pytest.mark.parametrize('graph', [(), ('--cuda-graph',)])
def test_a_skipped_update_counts_for_a_method_that_acts_in_every_second_one(graph, runs, poison, monkeypatch):
    """As it counts for the schedule, whoever decides that it is skipped: the host or the device."""
    perturbs, acted = MethodTask.perturbs, []
    options = ('--task', 'alfa', '--epochs', '1', '--no-aug', '--alfa-every', '2', *graph)

    def noted(self):
        acts = perturbs(self)
        if self.model.training and not acted[self.updates :]:
            acted.append(acts)
        return acts

    monkeypatch.setattr(MethodTask, 'perturbs', noted)
    if graph:
        original = DeviceStep.whole
        at = iter(range(100))
        nan = float('nan')
        monkeypatch.setattr(
            DeviceStep,
            'whole',
            lambda self, *parts: (
                original(self, *parts)
                if next(at) != 1
                else self.update(
                    *[x * nan if x.is_floating_point() else x for x in self.run.data.train.assemble(*parts)]
                )
            ),
        )
    else:
        poison(1)
    run = runs.prepare(*options)
    acted.clear()
    record = train(run)
    assert record['skipped_updates'] == 1 and run.task.updates == 6
    assert acted == [True, False] * 3


def test_a_state_that_a_bad_update_put_off_follows_the_next_good_one(runs, poison):
    poison(3)
    saved, save = [], Trainer.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, 'save', lambda self: (saved.append(self.state.updates), save(self)))
        runs('--task', 'standard', '--epochs', '1', '--checkpoint-every', '2')
    assert saved[:2] == [2, 5]


def resumed(runs, *argv):
    """The run gone on with after other options, and whether all of its files' weights are finite."""
    record = runs('--task', 'standard', *argv, '--resume', 'auto', '--resume-anyway')
    names = ('model_last.safetensors', 'model_best.safetensors')
    return record, all(value.isfinite().all() for name in names for value in runs.weights('run', name).values())


def test_weights_that_are_not_finite_replace_nothing(runs, monkeypatch):
    """A step of a gradient that is not finite, after a loss that was: states and files stay those before."""
    original = TrainStep.apply_gradients

    def apply_gradients(self, update):
        if update == 8:
            next(self.run.model.parameters()).grad[0] = float('inf')
        original(self, update)

    monkeypatch.setattr(TrainStep, 'apply_gradients', apply_gradients)
    with pytest.raises(TrainingError, match=r"after update 9 in epoch 2 .*not finite.*last state, '.*update-8'"):
        runs('--task', 'standard', '--checkpoint-every', '1')
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000009-update-8']
    assert all(value.isfinite().all() for value in runs.weights('run').values())
    monkeypatch.setattr(TrainStep, 'apply_gradients', original)
    record, finite = resumed(runs, '--lr', '0.01')
    assert finite and record['epochs_done'] == 2 and record['skipped_updates'] == 0


def test_a_rate_that_is_far_too_high_leaves_finite_files(runs):
    """Running statistics overflow first; the epoch's end, and a state in each update, follow."""
    with pytest.raises(TrainingError, match='Lower --lr .*resumes from the last state'):
        runs('--model', 'resnet20s', '--task', 'standard', '--lr', '1e12', '--checkpoint-every', '1')
    written = [load_file(file) for file in runs.output.rglob('*.safetensors')]
    assert written and all(value.isfinite().all() for tensors in written for value in tensors.values())


@pytest.mark.parametrize('at', [5, 4])
def test_weights_are_not_finite_at_the_end_of_an_epoch(at, runs, monkeypatch):
    """Of the epoch's last update, or of one before it, so that its losses were no longer finite either."""
    original = TrainStep.apply_gradients

    def apply_gradients(self, update):
        original(self, update)
        if update == 6 + at:
            next(self.run.model.parameters()).data[0] = float('nan')

    monkeypatch.setattr(TrainStep, 'apply_gradients', apply_gradients)
    written = []
    write_epoch = Trainer.write_epoch
    monkeypatch.setattr(Trainer, 'write_epoch', lambda self, *args: (written.append(args), write_epoch(self, *args)))
    with pytest.raises(TrainingError, match=r"update 12 in epoch 2 .*last state, '.*update-6'"):
        runs('--task', 'standard')
    assert len(written) == 1
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000001-update-6']


def test_a_signal_saves_no_state_that_is_not_finite(runs, monkeypatch):
    original = TrainStep.apply_gradients

    def apply_gradients(self, update):
        original(self, update)
        if update == 3:
            next(self.run.model.parameters()).data[0] = float('nan')
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainStep, 'apply_gradients', apply_gradients)
    with pytest.raises(TrainingError, match=r"last state, '.*update-2'"):
        runs('--task', 'standard', '--checkpoint-every', '2')
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000001-update-2']


def test_a_run_without_a_state_says_that_it_starts_again(runs, poison):
    poison(0, 1)
    with pytest.raises(TrainingError, match='starts again: there is no state yet'):
        runs('--task', 'standard', '--nan-patience', '2')
    assert resumed(runs)[0]['epochs_done'] == 2


def test_an_epoch_that_ends_on_a_bad_batch_counts(runs, poison):
    """Its weights are sound, as their evaluation shows: the state and the best weights are written."""
    poison(5)
    record = runs('--task', 'standard', '--epochs', '1')
    assert (record['skipped_updates'], record['best_epoch']) == (1, 1)
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000001-update-6']


def test_an_epoch_without_a_finite_loss_to_evaluate_is_not_kept(runs, poison, monkeypatch):
    """The second epoch ends on a bad batch and its evaluation has no finite loss, whatever accuracy it claims."""
    original = trainer.evaluate

    def evaluate(*args):
        metrics = original(*args)
        return metrics if not poisoned.bad_in_a_row else {**metrics, 'loss': float('nan'), 'top1': 100.0}

    monkeypatch.setattr(trainer, 'evaluate', evaluate)
    update = Trainer.update

    def watched(self, window):
        nonlocal poisoned
        poisoned = self.state
        if self.state.updates == 11:
            window = [batch._replace(input=batch.input * float('nan')) for batch in window]
        return update(self, window)

    poisoned = None
    monkeypatch.setattr(Trainer, 'update', watched)
    with pytest.raises(TrainingError, match=r"epoch 2 ended without a finite loss.*last state, '.*update-6'"):
        runs('--task', 'standard', '--epochs', '2')
    assert [each.name for each in state_folders(runs.output / 'run' / 'last')] == ['000001-update-6']
    assert len(runs.rows('run')) == 1


def test_a_finite_loss_resets_the_patience(runs, poison):
    poison(1, 2, 4, 5)
    assert runs('--task', 'standard', '--nan-patience', '3', '--epochs', '1')['skipped_updates'] == 4


def test_accumulation_that_accelerate_knows_of_divides_no_loss(runs, monkeypatch):
    plain = runs('--task', 'standard', '--epochs', '1', experiment='plain')
    monkeypatch.setenv('ACCELERATE_GRADIENT_ACCUMULATION_STEPS', '4')
    with pytest.warns(AlfaWarning, match='pass --grad-accum-steps 4 to train.py'):
        explicit = runs('--task', 'standard', '--epochs', '1', experiment='explicit')
    assert explicit['val_loss'] == plain['val_loss']


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

    from timm_alfa.training.checkpoint import save_load

    original = save_load.save_file
    count = []

    def save_file(tensors, path, **kwargs):
        count.append(path)
        if len(count) > 2:
            path.write_bytes(b'half')
            raise safetensors.SafetensorError('I/O error: No space left on device (os error 28)')
        original(tensors, path, **kwargs)

    monkeypatch.setattr(save_load, 'save_file', save_file)
    with pytest.raises(CheckpointError, match='No space left on device'):
        runs('--task', 'standard')
    last = runs.output / 'run' / 'last'
    assert [each.name for each in last.iterdir()] == ['000001-update-6'] and len(state_folders(last)) == 1
    monkeypatch.setattr(save_load, 'save_file', original)
    assert runs('--task', 'standard', '--resume', 'auto')['epochs_done'] == 2


def test_no_write_permission_is_known_before_training(runs, monkeypatch):
    target = runs.output / 'file'
    target.write_text('')
    with pytest.raises(ConfigError, match='cannot write in .*Use another --output'):
        runs('--task', 'standard', '--output', str(target))


def test_an_existing_run_is_not_overwritten(runs):
    runs('--task', 'standard', '--epochs', '1')
    with pytest.raises(ConfigError, match='already holds a run'):
        runs('--task', 'standard', '--epochs', '1')


def test_input_a_model_cannot_take_is_known_before_training(runs):
    with pytest.raises(ConfigError, match='trial step'):
        runs('--task', 'standard', '--model', 'inception_v4', '--img-size', '8')
    assert not (runs.output / 'run').exists()


def test_a_batch_that_a_model_cannot_take_is_known_before_training(runs):
    """Batch norm of one value per channel: also where the only batch of a process is smaller than requested."""
    small = ('--task', 'standard', '--model', 'resnet18', '--img-size', '32')
    for argv in (('-b', '1'), ('-b', '16', '--train-subset', '1')):
        with pytest.raises(ConfigError, match='batch of size 1 .*Expected more than 1 value.*another --batch-size'):
            runs(*small, *argv)
    assert not (runs.output / 'run').exists()


def test_the_trial_with_the_real_batch_draws_nothing(runs, monkeypatch):
    import timm_alfa.training.setup.prepare as setup

    original, states = setup.try_step, []

    def try_step(*args, images=2, **options):
        original(*args, images=images, **options)
        if images == 2:
            states.append(torch.get_rng_state())

    monkeypatch.setattr(setup, 'try_step', try_step)
    monkeypatch.setattr(setup, 'check_graph', lambda *args: states.append(torch.get_rng_state()))
    runs.prepare('--task', 'standard', '--cuda-graph')
    assert torch.equal(*states)


def test_a_run_that_never_trained_does_not_stand_in_the_way(runs, monkeypatch):
    def fail(self, *args):
        raise RuntimeError('out of memory')

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, '__call__', fail)
        with pytest.raises(RuntimeError, match='out of memory'):
            runs('--task', 'standard', '--epochs', '1')
    assert runs('--task', 'standard', '--epochs', '1', '-b', '8')['batch_size'] == 8


def test_a_batch_larger_than_the_data_is_reported(runs):
    with pytest.warns(AlfaWarning, match='a batch of 1000 takes all 96 training images'):
        runs.prepare('--task', 'standard', '-b', '1000')


def test_a_method_is_tried_even_if_it_acts_in_few_steps(runs):
    with pytest.raises(BlockError, match=r"layer 'global_pool' returns \[2, \d+\] for 2 images"):
        runs('--task', 'moex', '--moex-layer', 'global_pool', '--moex-prob', '0.001')
    assert not (runs.output / 'run').exists()
    assert runs.prepare('--task', 'moex', '--moex-prob', '0.001').task.prob == 0.001


def test_a_signal_ends_after_the_update_with_a_state(runs, monkeypatch):
    original = Trainer.update

    def update(self, window):
        if self.state.updates == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, window)

    monkeypatch.setattr(Trainer, 'update', update)
    record = runs('--task', 'alfa')
    assert record['status'] == 'stopped' and record['updates'] == 4
    monkeypatch.setattr(Trainer, 'update', original)
    runs('--task', 'alfa', '--resume', 'auto')
    runs('--task', 'alfa', experiment='whole')
    assert runs.rows('run') == runs.rows('whole')


def test_a_signal_breaks_off_the_evaluation(runs, monkeypatch, caplog):
    """Stopped in the second epoch's evaluation: the state is that before it, and says how to launch the resumed run."""
    options = ('--task', 'standard', '--train-subset', '32', '--model-ema', '-vb', '64')
    original, seen = trainer.evaluate, []

    def evaluate(model, loader, *args):
        class Interrupted:
            last_indices = property(lambda self: loader.last_indices)

            def __iter__(self):
                for batch in loader:
                    seen.append(batch)
                    if len(seen) == 14:
                        os.kill(os.getpid(), signal.SIGTERM)
                    yield batch

        return original(model, Interrupted(), *args)

    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'bf16')
    monkeypatch.setattr(trainer, 'evaluate', evaluate)
    ended = []
    monkeypatch.setattr(Accelerator, 'end_training', lambda self: ended.append(self))
    with caplog.at_level('INFO', 'timm_alfa'):
        record = runs(*options)
    assert record['status'] == 'stopped' and (record['epochs_done'], record['updates']) == (1, 4) and len(ended) == 1
    assert len(seen) <= 15  # twelve in the first epoch, half of them without the EMA; 24 had it not been broken off
    assert f'accelerate launch --mixed_precision bf16 train.py --resume {runs.output / "run"}' in caplog.text
    monkeypatch.setattr(trainer, 'evaluate', original)
    assert runs(*options, '--resume', 'auto')['epochs_done'] == 2
    runs(*options, experiment='whole')
    assert runs.rows('run') == runs.rows('whole')


def test_a_signal_between_epochs_ends_there(runs, monkeypatch):
    """After the last epoch it comes in time to stop the test score, which the resumed run measures again."""
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

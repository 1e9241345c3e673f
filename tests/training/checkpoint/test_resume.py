"""A resumed run ends as an undisturbed one: weights and summary.csv, bit for bit."""

import json

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from timm_alfa.errors import AlfaWarning, CheckpointError
from timm_alfa.tasks.options.alfa import AlfaConfig
from timm_alfa.training import finish, metrics, trainer
from timm_alfa.training.checkpoint.resume import differing_options
from timm_alfa.training.checkpoint.store import state_folders
from timm_alfa.training.metrics import Totals
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.run_dir import provenance
from timm_alfa.training.run_dir.folder import RunFolder
from timm_alfa.training.train import restore, train
from timm_alfa.training.trainer import Trainer

SETTINGS = {
    'standard': ('--task', 'standard'),
    'alfa_everything': (
        '--task',
        'alfa',
        '--alfa-random-start',
        '--alfa-every',
        '2',
        '--alfa-start',
        '1',
        '--alfa-eps',
        '0.01',
        '--drop',
        '0.3',
        '--mixup',
        '0.4',
        '--cutmix',
        '1',
        '--model-ema',
        '--model-ema-decay',
        '0.9',
        '--warmup-updates',
        '5',
        '--opt',
        'adamw',
        '--lr',
        '0.001',
        '--reprob',
        '0.5',
    ),
    'alfa_gap_accumulated': ('--task', 'alfa', '--alfa-blocks', '2,3', '--alfa-gap', '0.05', '--grad-accum-steps', '4'),
    'l_alfa_accumulated': (
        '--task',
        'l_alfa',
        '--alfa-blocks',
        'all',
        '--grad-accum-steps',
        '4',
        '--clip-grad',
        '1',
        '--sched',
        'multistep',
        '--model-ema',
        '--model-ema-warmup',
        '--smoothing',
        '0.1',
    ),
    'workers': (
        '--task',
        'alfa',
        '--loader',
        'timm',
        '--workers',
        '2',
        '--color-jitter',
        '0.4',
        '--layer-decay',
        '0.8',
        '--freeze',
        '1',
        '--class-weights',
        'auto',
        '--balanced-sampling',
        '--eval-metric',
        'balanced_accuracy',
        '--num-best',
        '2',
        '--patience',
        '1',
    ),
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved after it."""


def killed(*args):
    raise Killed


@pytest.fixture
def kill_after(monkeypatch):
    """Ends the next run right after so many of its updates, before that update's state is saved or not."""

    def arrange(updates, saved=True):
        original = Trainer.after_update

        def after_update(self, flags):
            if saved:
                original(self, flags)
            self.count = getattr(self, 'count', 0) + 1
            if self.count == updates:
                raise Killed
            if not saved:
                original(self, flags)

        monkeypatch.setattr(Trainer, 'after_update', after_update)
        return original

    yield arrange
    monkeypatch.undo()


def forget(runs, key):
    """Takes a key out of a state, as states had none before."""
    state = state_folders(runs.output / 'run' / 'last')[-1]
    content = json.loads((state / 'state.json').read_text())
    del content[key]
    (state / 'state.json').write_text(json.dumps(content))
    marker = json.loads((state / 'COMPLETE').read_text())
    marker['state.json'] = (state / 'state.json').stat().st_size
    (state / 'COMPLETE').write_text(json.dumps(marker))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize('name', SETTINGS)
def test_resume_equals_undisturbed(name, runs, kill_after, monkeypatch):
    """Killed twice, in the first and in the second epoch, between two states."""
    options = (*SETTINGS[name], '--checkpoint-every', '1' if 'accum' in name else '2')
    undisturbed = runs(*options, experiment='whole')
    original = Trainer.after_update
    for updates in (1, 1) if 'accum' in name else (3, 5):
        kill_after(updates, saved='accum' in name)
        with pytest.raises(Killed):
            runs(*options, '--resume', 'auto', experiment='cut')
        monkeypatch.setattr(Trainer, 'after_update', original)
    resumed = runs(*options, '--resume', 'auto', experiment='cut')
    assert runs.rows('whole') == runs.rows('cut')
    for file in ('model_last.safetensors', 'model_best.safetensors'):
        assert same(runs.weights('whole', file), runs.weights('cut', file))
    own = {'seconds', 'seconds_per_epoch', 'images_per_second', 'experiment', 'command', 'run'}
    assert {key for key in undisturbed if undisturbed[key] != resumed[key]} <= own
    assert resumed['seconds'] > 0


@pytest.mark.parametrize('changes', [False, True])
def test_the_commands_that_began_the_run_and_that_changed_it_are_kept(changes, runs, kill_after, monkeypatch):
    kill_after(3, saved=True)
    begun, change = ('--task', 'standard', '--checkpoint-every', '1'), ('--resume-anyway', '--lr', '0.02')
    with pytest.raises(Killed):
        runs(*begun)
    monkeypatch.undo()
    resumed = ('--task', 'standard', '--resume', 'auto', *(change if changes else ()))
    record = runs(*resumed)
    options = yaml.safe_load((runs.output / 'run' / 'args.yaml').read_text())
    assert record['command'] == options['environment']['command']
    assert record['command'][0] == 'train.py' and record['command'][-len(begun) :] == list(begun)
    entries = [(entry['epoch'], entry['command'][-len(resumed) :]) for entry in record['continued']]
    assert entries == ([(0, list(resumed))] if changes else [])
    again = runs('--task', 'standard', '--resume', 'auto', *(['--lr', '0.02'] if changes else []))
    assert again == record, 'it has ended'


def test_a_test_split_that_is_read_again_is_counted(runs):
    options = ('--task', 'standard', '--val-fraction', '0.2')
    assert runs(*options, '--epochs', '1')['test_reads'] == 1
    more = (*options, '--epochs', '2', '--resume', 'auto', '--resume-anyway')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, 'train_epoch', killed)
        with pytest.raises(Killed):
            runs(*more)
    assert runs(*more)['test_reads'] == 2 and runs(*more)['test_reads'] == 2


def test_dropout_matters_to_the_comparison(runs):
    """The comparison above would see another mask: another seed gives other weights."""
    options = ('--task', 'standard', '--drop', '0.5', '--epochs', '1', '--no-aug')
    runs(*options, experiment='a')
    runs(*options, '--seed', '43', experiment='b')
    assert not same(runs.weights('a'), runs.weights('b'))


def test_a_finished_run_gives_its_record_again(runs):
    """As it is, without scoring the test split again; anew where it is missing or of other weights."""
    options = ('--task', 'standard', '--epochs', '1', '--val-fraction', '0.2')
    first, scored = runs(*options), []
    original = finish.score_best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, 'score_best', lambda *args: scored.append(1) or original(*args))
        assert runs(*options, '--resume', 'auto') == first and not scored
        path = runs.output / 'run' / 'result.json'
        path.write_text(json.dumps({**first, 'checkpoint_sha256': 'of others'}))
        again = runs(*options, '--resume', 'auto')
    assert scored == [1] and again['test_top1'] == first['test_top1'] is not None


def test_an_ended_run_is_not_relabeled(runs):
    """Options that nothing was trained with stay out of its files; it may be ended early."""
    options = ('--task', 'standard', '--resume', 'auto', '--resume-anyway')
    runs(*options, '--epochs', '1')
    before = {file.name: file.read_bytes() for file in (runs.output / 'run').iterdir() if file.is_file()}
    with pytest.raises(CheckpointError, match=r'1 epochs are done.*: --lr was 0.03, is 5.0\. Use more --epochs'):
        runs(*options, '--epochs', '1', '--lr', '5')
    assert before == {file.name: file.read_bytes() for file in (runs.output / 'run').iterdir() if file.is_file()}
    assert runs(*options, '--lr', '5', '--epochs', '2')['epochs_done'] == 2
    with pytest.raises(CheckpointError, match=r'2 epochs are done.*: --epochs was 2, is 1\. Use more --epochs'):
        runs(*options, '--lr', '5', '--epochs', '1')


def test_fewer_epochs_end_a_run_early(runs, kill_after, monkeypatch):
    kill_after(7)
    with pytest.raises(Killed):
        runs('--task', 'standard', '--epochs', '3')
    monkeypatch.undo()
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'true')
    record = runs('--task', 'standard', '--epochs', '1', '--resume', 'auto', '--resume-anyway')
    assert (record['epochs'], record['epochs_done']) == (1, 1)
    assert runs('--task', 'standard', '--epochs', '1', '--resume', 'auto', '--resume-anyway') == record


def scripted(monkeypatch, *scores):
    """Validation scores of the epochs to come."""
    waiting, original = list(scores), trainer.evaluate
    monkeypatch.setattr(trainer, 'evaluate', lambda *args: {**original(*args), 'top1': waiting.pop(0)})


def test_best_weights_that_the_state_does_not_know_are_chosen_again(runs, monkeypatch):
    """Killed between the best weights and the state; the epoch done anew is worse than the best one was."""
    options = ('--task', 'standard', '--epochs', '3', '--resume', 'auto')
    scripted(monkeypatch, 50.0, 60.0)
    with monkeypatch.context() as patch:
        save = Trainer.save

        def dies(self):
            if self.state.epoch == 2:
                raise Killed
            save(self)

        patch.setattr(Trainer, 'save', dies)
        with pytest.raises(Killed):
            runs(*options)
    monkeypatch.undo()
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'true')
    scripted(monkeypatch, 40.0, 30.0)
    with monkeypatch.context() as patch:
        write, kept = Trainer.write_epoch, []
        patch.setattr(
            Trainer,
            'write_epoch',
            lambda self, weights, best: (
                kept.append({key: value.clone() for key, value in weights.items()}),
                write(self, weights, best),
            ),
        )
        record = runs(*options, '--resume-anyway', '--lr', '0.01')
    assert (record['best_epoch'], record['val_top1']) == (2, 40.0)
    assert same(kept[0], runs.weights('run', 'model_best.safetensors'))
    (runs.output / 'run' / 'model_best.safetensors').write_bytes(b'of others')
    with pytest.raises(CheckpointError, match=r'does not hold the best weights that this run wrote .of epoch 2.'):
        runs(*options, '--lr', '0.01')


def test_an_ema_starts_with_the_loaded_weights(runs):
    """Not with the random ones of a model that has just been built."""
    runs('--task', 'standard', '--epochs', '1')
    run = runs.prepare('--task', 'standard', '--model-ema', '--resume', 'auto', '--resume-anyway')
    restore(run, RunFolder(runs.output / 'run'), Totals(run.accelerator.device))
    assert same(run.ema.module.state_dict(), run.model.state_dict())
    assert same(run.model.state_dict(), runs.weights('run'))


def test_the_test_split_may_come_and_go(runs):
    options = ('--task', 'standard', '--resume', 'auto', '--resume-anyway')
    runs(*options, '--epochs', '1', '--val-fraction', '0.2')
    assert runs(*options, '--epochs', '2')['test_top1'] is None
    assert runs(*options, '--epochs', '3', '--val-fraction', '0.2')['test_top1'] is not None


def test_other_options_are_refused_and_listed(runs):
    runs('--task', 'standard', '--epochs', '1')
    expected = r'--lr was 0.03, is 0.01; --seed was 42, is 43; --weight-decay was 0.0005, is 0.001.*--resume-anyway'
    other = ('--lr', '0.01', '--weight-decay', '1e-3', '--seed', '43')
    with pytest.raises(CheckpointError, match=expected):
        runs('--task', 'standard', '--epochs', '2', *other, '--resume', 'auto')
    record = runs('--task', 'standard', '--epochs', '2', '--resume', 'auto', '--resume-anyway', '--workers', '1')
    assert record['epochs_done'] == 2


def test_another_loader_is_refused_and_auto_is_what_it_resolves_to(runs):
    """Loaders augment in different ways: memory pads and crops, timm resizes."""
    runs('--task', 'standard', '--epochs', '1')
    with pytest.raises(CheckpointError, match='--loader was memory, is timm'):
        runs('--task', 'standard', '--epochs', '1', '--loader', 'timm', '--resume', 'auto')
    assert runs('--task', 'standard', '--epochs', '1', '--loader', 'memory', '--resume', 'auto')['epochs_done'] == 1


@pytest.mark.parametrize(('before', 'now'), [('memory', 'timm'), ('timm', 'memory')])
def test_a_state_without_its_loader_has_that_of_its_options(before, now, runs):
    runs('--task', 'standard', '--epochs', '1', '--loader', before)
    forget(runs, 'loader')
    with pytest.raises(CheckpointError, match=f'--loader was {before}, is {now}'):
        runs('--task', 'standard', '--epochs', '1', '--loader', now, '--resume', 'auto')
    assert runs('--task', 'standard', '--epochs', '1', '--loader', before, '--resume', 'auto')['epochs_done'] == 1


def test_states_from_before_there_were_units_and_gaps_can_be_resumed():
    before = TrainConfig(task_options=AlfaConfig(), task_prefix='alfa').flat()
    now = dict(before)
    del before['alfa_unit'], before['alfa_gap']
    assert list(differing_options(before, now, True)) == []
    now['alfa_unit'] = 'rms'
    assert list(differing_options(before, now, True)) == ['--alfa-unit was absolute, is rms']


def one_more_column(monkeypatch):
    """What a later version, or a method of the user's, may add to summary.csv."""
    monkeypatch.setitem(metrics.SCALARS, 'delta_max', 'delta_max')
    monkeypatch.setattr(metrics, 'SUMMED', (*metrics.SUMMED, 'delta_max'))


def test_a_new_column_is_no_obstacle_even_in_the_middle_of_an_epoch(runs, kill_after, monkeypatch):
    options = ('--task', 'standard', '--epochs', '1', '--checkpoint-every', '1')
    original = kill_after(1, saved=True)
    with pytest.raises(Killed):
        runs(*options)
    monkeypatch.setattr(Trainer, 'after_update', original)
    one_more_column(monkeypatch)
    resumed = runs(*options, '--resume', 'auto')
    assert resumed['epochs_done'] == 1


def test_sums_of_a_column_that_is_not_known_are_refused_in_the_middle_of_an_epoch(runs, kill_after, monkeypatch):
    options = ('--task', 'standard', '--epochs', '2', '--checkpoint-every', '1')
    with monkeypatch.context() as later:
        one_more_column(later)
        original = kill_after(1, saved=True)
        with pytest.raises(Killed):
            runs(*options)
    monkeypatch.setattr(Trainer, 'after_update', original)
    with pytest.raises(CheckpointError, match=r'middle of an epoch.*other columns of summary.csv.*saved it'):
        runs(*options, '--resume', 'auto')


def test_between_epochs_even_that_is_no_obstacle(runs, monkeypatch):
    with monkeypatch.context() as later:
        one_more_column(later)
        runs('--task', 'standard', '--epochs', '1')
    record = runs('--task', 'standard', '--epochs', '2', '--resume', 'auto', '--resume-anyway')
    assert record['epochs_done'] == 2


def test_another_optimizer_is_refused(runs):
    runs('--task', 'standard', '--epochs', '1')
    with pytest.raises(CheckpointError, match=r'--opt was \w+, is adamw.*--initial-checkpoint RUN/model_last'):
        runs('--task', 'standard', '--epochs', '2', '--opt', 'adamw', '--resume', 'auto', '--resume-anyway')


@pytest.mark.parametrize('sched', ['none', 'cosine'])
def test_a_resumed_optimizer_uses_its_new_options(sched, runs):
    options = ('--task', 'l_alfa', '--alfa-blocks', 'all', '--sched', sched)
    runs(*options, '--epochs', '1')
    other = ('--epochs', '2', '--lr', '0.01', '--weight-decay', '0.001', '--momentum', '0.5', '--alfa-eta-lr', '0.002')
    run = runs.prepare(*options, *other, '--resume', 'auto', '--resume-anyway')
    state = restore(run, RunFolder(runs.output / 'run'), Totals(run.accelerator.device))
    groups, half = run.optimizer.param_groups, 1 if sched == 'none' else 0.5
    assert state.epoch == 1 and any(run.optimizer.state_dict()['state'].values())
    assert [group['lr'] for group in groups] == pytest.approx([0.01 * half, 0.01 * half, 0.002 * half])
    assert [group['weight_decay'] for group in groups] == [0, 0.001, 0]
    assert [group['momentum'] for group in groups] == [0.5, 0.5, 0.9]  # eta has its own


def test_another_precision_is_refused_with_what_to_type(runs, monkeypatch):
    options = ('--task', 'standard', '--epochs', '1')
    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'bf16')
    runs(*options)
    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'no')
    AcceleratorState._reset_state()
    expected = r'precision was bf16, is no \(accelerate launch --mixed_precision bf16 train.py \.\.\.\)'
    with pytest.raises(CheckpointError, match=expected):
        runs(*options, '--resume', 'auto')
    assert runs(*options, '--resume', 'auto', '--resume-anyway', '--epochs', '2')['mixed_precision'] == 'no'


def test_a_state_without_its_precision_is_resumed(runs):
    runs('--task', 'standard', '--epochs', '1')
    forget(runs, 'mixed_precision')
    assert runs('--task', 'standard', '--epochs', '1', '--resume', 'auto')['status'] == 'finished'


def test_the_precision_of_a_recipe_has_to_be_passed(runs, tmp_path):
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text('task: standard\nenvironment: {mixed_precision: bf16}\n')
    with pytest.warns(
        AlfaWarning, match='but this run uses no. To change it: accelerate launch --mixed_precision bf16 train'
    ):
        runs.prepare('--config', str(recipe))


def test_every_commit_that_took_part_is_named(runs, kill_after, monkeypatch):
    """The record names the code as it was when each stretch began, whatever lies on the disk at the end."""
    original = Trainer.after_update
    for commit in ('first', 'first', 'second+'):
        monkeypatch.setattr(provenance, 'commit', lambda commit=commit: commit)
        run = runs.prepare('--task', 'standard', '--checkpoint-every', '1', '--resume', 'auto')
        monkeypatch.setattr(provenance, 'commit', lambda: 'later')
        if commit == 'second+':
            assert train(run)['commit'] == 'first, second+'
        else:
            kill_after(2)
            with pytest.raises(Killed):
                train(run)
            monkeypatch.setattr(Trainer, 'after_update', original)
    environment = yaml.safe_load((runs.output / 'run' / 'args.yaml').read_text())['environment']
    assert environment['commit'] == 'first, second+'


def test_a_resumed_run_has_no_result(runs, kill_after):
    runs('--task', 'standard', '--epochs', '1')
    result = runs.output / 'run' / 'result.json'
    assert result.exists()
    kill_after(1)
    with pytest.raises(Killed):
        runs('--task', 'standard', '--epochs', '2', '--resume', 'auto', '--resume-anyway')
    assert not result.exists()


def test_the_same_images_per_update_are_the_same_run(runs):
    """A batch may be divided otherwise, into micro-batches: the images of an update stay."""
    runs('--task', 'standard', '--epochs', '1')
    record = runs('--task', 'standard', '--epochs', '1', '-b', '8', '--grad-accum-steps', '2', '--resume', 'auto')
    assert record['epochs_done'] == 1


@pytest.mark.parametrize(
    ('before', 'after', 'updates'),
    [
        ((16, 1), (8, 2), 2),
        ((8, 4), (16, 2), 2),
        ((32, 4), (64, 2), 1),  # after all of an epoch whose window is short
    ],
)
def test_another_division_resumes_with_the_next_images(before, after, updates, runs, kill_after, monkeypatch):
    """Stopped within the epoch: every image is trained on once, the ones before the stop by other batches."""
    seen, update, after_update = [], Trainer.update, Trainer.after_update

    def watched(self, window):
        seen.extend(int(index) for _, _, indices in window for index in indices)
        return update(self, window)

    def options(batch, steps):
        return (
            '--task',
            'standard',
            '--epochs',
            '1',
            '--checkpoint-every',
            '1',
            '-b',
            str(batch),
            '--grad-accum-steps',
            str(steps),
        )

    monkeypatch.setattr(Trainer, 'update', watched)
    kill_after(updates)
    with pytest.raises(Killed):
        runs(*options(*before))
    monkeypatch.setattr(Trainer, 'after_update', after_update)
    runs(*options(*after), '--resume', 'auto')
    assert sorted(seen) == sorted(set(seen)) and len(seen) == 96


def test_resume_by_folder_takes_its_options(runs):
    runs('--task', 'standard', '--epochs', '1', '--lr', '0.013')
    from timm_alfa.training.options.train_args import parse_args

    config = parse_args(['--resume', str(runs.output / 'run')])
    assert config.optim.lr == 0.013 and config.task.task == 'standard' and config.data.train_subset == 96
    assert config.run.experiment is None and not config.run.dry_run


def test_a_pickle_that_carries_code_is_refused(runs, tmp_path):
    import os
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'exploded'),)

    runs('--task', 'standard', '--epochs', '1')
    state = state_folders(runs.output / 'run' / 'last')[-1]
    (state / 'optimizer.pt').write_bytes(pickle.dumps(Bomb()))
    marker = json.loads((state / 'COMPLETE').read_text())
    marker['optimizer.pt'] = (state / 'optimizer.pt').stat().st_size
    (state / 'COMPLETE').write_text(json.dumps(marker))
    with pytest.raises(CheckpointError, match='could run code: refused'):
        runs('--task', 'standard', '--epochs', '1', '--resume', 'auto')
    assert not (tmp_path / 'exploded').exists()

"""One, two and more processes: each image once, one folder, one decision, one error."""

import pytest
import torch
from helpers.training_processes import Processes, train_args
from helpers.training_runs import Runs

from timm_alfa.training.checkpoint.store import state_folders


def test_two_processes_are_resumed_exactly(tmp_path):
    """Two processes that are killed and resumed by two train as those that were not interrupted."""
    options = ('--task', 'l_alfa', '--alfa-blocks', 'all', '--model-ema', '--checkpoint-every', '2', '-b', '8')
    whole = Processes(tmp_path, train_args(tmp_path, 'whole', *options), count=2).record()
    assert whole['num_processes'] == 2 and whole['batch_size'] == 16 and whole['train_images'] == 96
    argv = train_args(tmp_path, 'cut', *options, '--resume', 'auto')
    cut = Processes(tmp_path, argv, count=2, hooks=['rank_one_dies'])
    assert cut.wait()[1] == -9 and cut.wait()[0] == 1
    (state,) = state_folders(tmp_path / 'cut' / 'last')
    assert state.name.endswith('update-2')
    Processes(tmp_path, argv, count=2).record()
    runs = Runs(tmp_path)
    assert runs.rows('whole') == runs.rows('cut')
    first, second = runs.weights('whole'), runs.weights('cut')
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_processes_agree_to_stop_in_validation(tmp_path):
    """Three, whose statistics averaged twice are not those averaged once; later sums are DDP's, in another order."""
    options = ('--task', 'standard', '-b', '8', '--model-ema')
    argv = train_args(tmp_path, 'run', *options)
    stopped = Processes(tmp_path, argv, count=3, hooks=['rank_one_is_stopped_in_validation']).record()
    assert (stopped['status'], stopped['epochs_done'], stopped['updates']) == ('stopped', 0, 4)
    Processes(tmp_path, [*argv, '--resume', 'auto'], count=3).record()
    Processes(tmp_path, train_args(tmp_path, 'whole', *options), count=3).record()
    runs = Runs(tmp_path)
    assert runs.rows('run')[0] == runs.rows('whole')[0] and len(runs.rows('run')) == 2


def test_another_number_of_processes_resumes(tmp_path):
    options = ('--task', 'standard', '--checkpoint-every', '2')
    cut = Processes(tmp_path, train_args(tmp_path, 'run', *options, '-b', '8'), count=2, hooks=['rank_one_dies'])
    cut.wait()
    one = Processes(tmp_path, train_args(tmp_path, 'run', *options, '-b', '16', '--resume', 'auto'))
    assert one.record()['epochs_done'] == 2
    assert 'saved by 2 processes, now there are 1' in one.stderr and 'update 2 (epoch 1 of 2)' in one.stderr
    assert len(Runs(tmp_path).rows('run')) == 2


def test_a_process_that_fails_ends_all_with_its_error(tmp_path):
    argv = train_args(tmp_path, 'run', '--task', 'standard', '-b', '8')
    run = Processes(tmp_path, argv, count=2, hooks=['rank_one_fails'])
    assert run.wait(60) == [1, 1]
    assert "process 1: error: cannot read 'x/broken.png': truncated." in run.stderr
    assert 'Traceback' not in run.stderr


def test_processes_agree_on_an_update_that_is_not_finite(tmp_path):
    run = Processes(tmp_path, train_args(tmp_path, 'run', '--task', 'alfa', '-b', '8'), count=2, hooks=['rank_one_nan'])
    assert run.record()['skipped_updates'] == 1
    (line,) = [line for line in run.stderr.splitlines() if 'not finite' in line]
    assert len(line.split('images: ')[1].split(', ')) == 8
    assert all(value.isfinite().all() for value in Runs(tmp_path).weights('run').values())


def test_processes_agree_on_what_is_not_finite(tmp_path):
    argv = train_args(tmp_path, 'run', '--task', 'standard', '-b', '8', '--checkpoint-every', '2')
    run = Processes(tmp_path, argv, count=2, hooks=['rank_one_overflows'])
    assert run.wait(60) == [1, 1]
    (line,) = [line for line in run.stderr.splitlines() if 'error:' in line]
    assert 'after update 4 in epoch 1' in line and "update-2'" in line
    assert [each.name for each in state_folders(tmp_path / 'run' / 'last')] == ['000001-update-2']


def test_misuse_is_reported_once_and_nothing_is_written(tmp_path):
    run = Processes(tmp_path, train_args(tmp_path, 'run', '--task', 'alfa', '--alfa-blocks', 'layer9'), count=2)
    assert run.wait(60) == [2, 2]
    assert run.stderr.count('error:') == 1 and 'layer9' in run.stderr
    assert not (tmp_path / 'run').exists()


def test_synchronized_norms_on_cpus_are_refused_with_the_reason(tmp_path):
    run = Processes(tmp_path, train_args(tmp_path, 'run', '--task', 'standard', '--sync-bn'), count=2)
    assert run.wait(60) == [2, 2]
    assert 'trial step' in run.stderr and 'SyncBatchNorm' in run.stderr and not (tmp_path / 'run').exists()


def test_any_number_of_processes_counts_each_image_once(tmp_path):
    record = Processes(tmp_path, train_args(tmp_path, 'run', '--task', 'standard', '--epochs', '1')).record()
    for count, batch in ((1, '128'), (2, '128'), (3, '50'), (4, '128')):
        found = Processes(
            tmp_path, ['--checkpoint', str(tmp_path / 'run'), '-b', batch], count=count, script='validate'
        ).record()
        assert found['count'] == 360 and found['correct'] == round(record['val_top1'] * 3.6)
        assert found['loss'] == pytest.approx(record['val_loss'], rel=1e-5)

"""A training state from somebody else: it is checked before any of it is used."""

import json
import os
import shutil

import pytest

from timm_alfa.errors import CheckpointError
from timm_alfa.training.checkpoint.store import MARKER, state_folders

OPTIONS = ('--task', 'standard', '--epochs', '1')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run of one epoch."""
    from accelerate.state import AcceleratorState, PartialState
    from helpers.training_runs import Runs

    output = tmp_path_factory.mktemp('finished')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ACCELERATE_USE_CPU', 'true')
        Runs(output)(*OPTIONS)
        AcceleratorState._reset_state()
        PartialState._reset_state()
    return output / 'run'


@pytest.fixture
def state(finished, runs):
    """The state in a copy of that run."""
    shutil.copytree(finished, runs.output / 'run', symlinks=True)
    return state_folders(runs.output / 'run' / 'last')[-1]


def resume(runs, *argv):
    return runs(*OPTIONS, '--resume', 'auto', *argv)


def seal(state):
    """Writes the marker of a state whose files were changed."""
    sizes = {each.name: each.stat().st_size for each in state.iterdir() if each.name != MARKER}
    (state / MARKER).write_text(json.dumps(sizes))


def change(state, change):
    """Changes state.json in place."""
    content = json.loads((state / 'state.json').read_text())
    change(content)
    (state / 'state.json').write_text(json.dumps(content))
    seal(state)


def test_the_copy_resumes(state, runs):
    """What is refused below is refused for what was changed."""
    assert resume(runs)['status'] == 'finished'
    change(state, lambda content: None)
    assert resume(runs, '--resume-anyway', '--epochs', '2')['epochs_done'] == 2


def set_in(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ('path', 'value', 'part'),
    [
        (('progression', 'epoch'), '0', "progression.epoch is '0': expected a count"),
        (('progression', 'epoch'), -1, 'progression.epoch is -1: expected a count'),
        (('progression', 'batch'), 10**30, 'progression.batch is 1000'),
        (('progression', 'updates'), True, 'progression.updates is True'),
        (('progression', '__class__'), 'x', "progression has '__class__', which this version does not know"),
        (('progression', 'rows'), [{'epoch': '=HYPERLINK("http://x")'}], 'progression.rows.epoch is \'=HYPERLINK("'),
        (('progression', 'rows'), [{'=1+1': 1}], "progression.rows has the key '=1+1'"),
        (('progression', 'command'), 'rm -rf /', "progression.command is 'rm -rf /': expected a list"),
        (('progression', 'continued'), [{}], 'progression.continued.epoch is missing'),
        (('progression', 'best'), {'val_top1': 'x'}, "progression.best.val_top1 is 'x': expected a number"),
        (('progression', 'best_sha256'), 7, 'progression.best_sha256 is 7: expected text'),
        (('progression',), [], 'progression is []: expected a mapping'),
        (('num_processes',), 0, 'num_processes is 0'),
        (('num_processes',), 'x', "num_processes is 'x'"),
        (('skipped',), {'info': [1]}, "skipped has the key 'info'"),
        (('skipped',), {'train': ['1']}, "skipped.train is '1': expected a count"),
        (('scaler',), {'scale': 'x'}, "scaler.scale is 'x': expected a number"),
        (('options',), {}, 'options.batch_size is missing'),
        (('options', 'batch_size'), 0, 'options.batch_size is 0'),
        (('options', 'epochs'), None, 'options.epochs is None'),
        (('loader',), {}, 'loader is {}: expected text'),
    ],
)
def test_a_value_of_another_type_is_refused(path, value, part, state, runs):
    change(state, set_in(*path, value=value))
    before = {each.name: each.read_bytes() for each in state.parents[1].iterdir() if each.is_file()}
    with pytest.raises(CheckpointError) as caught:
        resume(runs)
    assert part in str(caught.value) and str(state) in str(caught.value)
    after = {each.name: each.read_bytes() for each in state.parents[1].iterdir() if each.is_file()}
    assert after == before, 'and nothing was written'


def test_what_is_missing_is_refused(state, runs):
    change(state, lambda content: content.pop('progression'))
    with pytest.raises(CheckpointError, match='progression is missing'):
        resume(runs)


def test_another_kind_of_content_is_refused(state, runs):
    (state / 'state.json').write_text('[]')
    seal(state)
    with pytest.raises(CheckpointError, match='state.json is invalid: it is not a mapping'):
        resume(runs)


@pytest.mark.parametrize('text', ['[' * 100_000, '{"options": ' + '9' * 5000 + '}'])
def test_a_state_that_cannot_be_read_is_refused(text, state, runs):
    (state / 'state.json').write_text(text)
    seal(state)
    with pytest.raises(CheckpointError, match='is damaged'):
        resume(runs)


@pytest.mark.parametrize('name', ['weights.safetensors', 'optimizer.pt', 'process-0.safetensors', 'state.json'])
@pytest.mark.parametrize('kind', ['pipe', 'link'])
def test_only_regular_files_are_read(name, kind, state, runs, tmp_path):
    content = (state / name).read_bytes()
    (state / name).unlink()
    if kind == 'pipe':
        os.mkfifo(state / name)
    else:
        (tmp_path / 'mine').write_bytes(content)
        (state / name).symlink_to(tmp_path / 'mine')
    seal(state)
    assert state_folders(state.parent) == []
    with pytest.raises(CheckpointError, match='is damaged'):
        resume(runs)


def test_a_marker_names_files_of_its_folder_only(state, tmp_path):
    (tmp_path / 'mine').write_text('secret')
    sizes = json.loads((state / MARKER).read_text())
    (state / MARKER).write_text(json.dumps({**sizes, '../../../mine': 6}))
    assert state_folders(state.parent) == []


@pytest.mark.parametrize(
    'result',
    [
        {'test_reads': 'x', 'test_top1': 1.0},
        {'continued': [{}]},
        {'continued': 7},
        {'continued': [{'epoch': 'x'}]},
        '[' * 100_000,
    ],
)
def test_a_record_that_train_py_did_not_write_is_not_used(result, state, runs):
    file = state.parents[1] / 'result.json'
    record = json.loads(file.read_text())
    file.write_text(result if isinstance(result, str) else json.dumps({**record, **result}))
    assert resume(runs)['test_reads'] == record['test_reads']


def test_a_pipe_in_place_of_the_best_weights_is_not_waited_for(state, runs):
    best = state.parents[1] / 'model_best.safetensors'
    best.unlink()
    os.mkfifo(best)
    with pytest.raises(CheckpointError, match='does not hold the best weights'):
        resume(runs)

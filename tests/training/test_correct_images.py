"""Which images the best checkpoint classified correctly: one bit each, exact and in the split's own order."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from helpers.training_processes import Processes, train_args

from timm_alfa.data import DataConfig, create_eval_loader, inspect_data
from timm_alfa.errors import ConfigError
from timm_alfa.training import trainer
from timm_alfa.training.checkpoint.store import state_folders, write_marker
from timm_alfa.training.correct_images import CorrectImages
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.trainer import Trainer
from timm_alfa.utils.bits import PackedBits

SPLITS = ('--task', 'standard', '--val-fraction', '0.1', '-vb', '50')
UNUSED = (*SPLITS, '--score-unused')
BITS = ('test_correct', 'val_correct', 'unused_correct')
# What may differ between two runs that compute the same.
INCIDENTAL = {'experiment', 'run', 'command', 'seconds', 'seconds_per_epoch', 'images_per_second'}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run that scores unused images."""
    from helpers.training_runs import Runs

    runs = Runs(tmp_path_factory.mktemp('unused'))
    return runs, runs(*UNUSED)


def answers(folder, split, loader='memory'):
    """Whether each image of a split is classified correctly, by a plain loop over single images."""
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    data = DataConfig(batch_size=1, loader=loader, workers=0)
    batches = create_eval_loader(data, model_config=config, split=split)
    with torch.no_grad():
        return np.array([bool(model(input).argmax(-1) == target) for input, target in batches])


def bits(entry):
    return PackedBits(**entry).unpack()


def test_bits_are_those_of_a_plain_loop(finished):
    runs, record = finished
    info = inspect_data(DataConfig(val_fraction=0.1, train_subset=96, score_unused=True), seed=42)
    test, train = answers(runs.output / 'run', 'test'), answers(runs.output / 'run', 'train')
    assert np.array_equal(bits(record['test_correct']), test)
    assert np.array_equal(bits(record['val_correct']), train[info.val.indices.numpy()])
    assert np.array_equal(bits(record['unused_correct']), train[info.unused.indices.numpy()])
    assert 0 < test.mean() < 1, 'a plain loop that is always right would show nothing'


def test_scores_are_those_of_the_bits(finished):
    _, record = finished
    assert record['unused_images'] == 1437 - 144 - 96
    for part in ('test', 'val', 'unused'):
        packed = record[f'{part}_correct']
        assert packed['images'] == record[f'{part}_images']
        assert 100 * packed['correct'] / packed['images'] == pytest.approx(record[f'{part}_top1'])
    assert record['unused_loss'] > 0 and record['unused_top5'] >= record['unused_top1']


@pytest.mark.parametrize('options', [(), ('--model-ema', '--model-ema-decay', '0.5'), ('--loader', 'timm')])
def test_scoring_unused_images_changes_nothing_else(runs, options):
    plain = runs(*SPLITS, *options, experiment='plain')
    more = runs(*UNUSED, *options, experiment='more')
    assert more['unused_top1'] is not None and plain['unused_top1'] is plain['unused_correct'] is None
    differing = {key for key in plain if plain[key] != more[key]}
    assert differing <= INCIDENTAL | {key for key in plain if key.startswith('unused_')}
    assert runs.rows('plain') == runs.rows('more')
    assert all(torch.equal(value, runs.weights('more')[key]) for key, value in runs.weights('plain').items())


def test_another_batch_size_gives_the_same_bits(finished, runs):
    _, record = finished
    again = runs(*UNUSED, '-vb', '7')
    assert {key: again[key] for key in BITS} == {key: record[key] for key in BITS}


def test_validation_bits_are_those_of_the_best_epoch(runs, monkeypatch):
    """The first epoch scores best: its bits are kept, also through a resume."""
    original, seen = trainer.evaluate, []

    def evaluate(*args):
        metrics = original(*args)
        seen.append(metrics['correct_images'])
        return {**metrics, 'top1': 90.0 - len(seen)}

    monkeypatch.setattr(trainer, 'evaluate', evaluate)
    runs(*SPLITS, '--epochs', '2')
    record = runs(*SPLITS, '--epochs', '3', '--resume', 'auto', '--resume-anyway')
    assert record['best_epoch'] == 1 and len(seen) == 3
    assert record['val_correct'] == asdict(seen[0]) != asdict(seen[2])


def test_a_resumed_run_has_the_same_bits(finished, runs):
    """Killed in the second epoch, after the first one has set the best weights."""
    _, record = finished
    original = Trainer.update

    def update(self, window):
        if self.state.updates == 8:
            raise KeyboardInterrupt
        return original(self, window)

    options = (*UNUSED, '--resume', 'auto', '--checkpoint-every', '3')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, 'update', update)
        with pytest.raises(KeyboardInterrupt):
            runs(*options)
    resumed = runs(*options)
    assert {key: resumed[key] for key in BITS} == {key: record[key] for key in BITS}


def test_two_processes_count_each_image_once(tmp_path):
    """Their weights differ from those of one process: a plain loop over the weights on disk is the reference."""
    record = Processes(tmp_path, train_args(tmp_path, 'run', *UNUSED, '-b', '8'), count=2).record()
    assert record['num_processes'] == 2
    info = inspect_data(DataConfig(val_fraction=0.1, train_subset=96, score_unused=True), seed=42)
    train = answers(tmp_path / 'run', 'train')
    assert np.array_equal(bits(record['test_correct']), answers(tmp_path / 'run', 'test'))
    assert np.array_equal(bits(record['val_correct']), train[info.val.indices.numpy()])
    assert np.array_equal(bits(record['unused_correct']), train[info.unused.indices.numpy()])


def test_states_from_before_bits_were_kept_can_be_resumed(runs):
    runs(*SPLITS, '--epochs', '2')
    (state,) = state_folders(runs.output / 'run' / 'last')
    content = json.loads((state / 'state.json').read_text())
    del content['progression']['best_correct'], content['options']['score_unused']
    (state / 'state.json').write_text(json.dumps(content))
    (state / 'COMPLETE').unlink()
    write_marker(state)
    (runs.output / 'run' / 'result.json').unlink()
    record = runs(*SPLITS, '--epochs', '2', '--resume', 'auto')
    assert record['val_correct'] is None and record['val_top1'] is not None
    assert record['test_correct']['images'] == 360


def test_unused_images_can_be_scored_after_the_end(runs):
    first = runs(*SPLITS)
    more = runs(*UNUSED, '--resume', 'auto')
    assert more['unused_images'] == 1197 and more['test_correct'] == first['test_correct']
    assert (first['test_reads'], more['test_reads']) == (1, 2)
    assert runs(*UNUSED, '--resume', 'auto') == more, 'it has ended'


def test_unused_images_are_refused_where_there_are_none():
    with pytest.raises(ConfigError, match='--score-unused without --train-subset'):
        parse_args(['--dataset', 'digits', '--score-unused'])


class Alone:
    """An accelerator of one process."""

    device = torch.device('cpu')
    reduce = staticmethod(lambda tensor, how: tensor)


def test_order_of_the_loader_does_not_matter():
    output, target = torch.eye(6)[[0, 1, 2, 0, 0, 5]], torch.tensor([0, 1, 2, 3, 4, 5])
    indices = torch.tensor([3, 5, 8, 9, 20, 21])
    found = CorrectImages(indices)
    for batch in ([5, 0], [3, 1, 4]):  # the image at place 2 is never read: it counts as wrong
        found.add(indices[batch], output[batch], target[batch])
    assert found.pack(Alone()).unpack().tolist() == [True, True, False, False, False, True]


def test_an_image_that_is_read_twice_is_an_error():
    found = CorrectImages(torch.arange(4))
    found.add(torch.tensor([1, 2]), torch.eye(2), torch.tensor([0, 1]))
    found.add(torch.tensor([2]), torch.eye(2)[:1], torch.tensor([0]))
    with pytest.raises(RuntimeError, match='1 images were evaluated more than once'):
        found.pack(Alone())


def test_nothing_read_is_nothing_correct():
    assert CorrectImages(torch.arange(3)).pack(Accelerator(cpu=True)).correct == 0

"""Runs that choose their best checkpoint by another metric, keep several, and end early."""

import pytest
import torch

from timm_alfa.training.trainer import Trainer


def test_the_best_epochs_by_another_metric_are_kept(runs, monkeypatch):
    """Weights in best/ are those at the end of their epochs."""
    written = {}
    original = Trainer.write_epoch

    def write_epoch(self, weights, best):
        written[self.state.epoch] = {key: value.clone() for key, value in weights.items()}
        original(self, weights, best)

    monkeypatch.setattr(Trainer, 'write_epoch', write_epoch)
    record = runs('--task', 'standard', '--epochs', '4', '--eval-metric', 'macro_f1', '--num-best', '2')
    scores = {int(row['epoch']): float(row['val_macro_f1']) for row in runs.rows('run')}
    ranked = sorted(scores, key=lambda epoch: (-scores[epoch], epoch))
    assert (record['best_epoch'], record['val_macro_f1']) == (ranked[0], pytest.approx(scores[ranked[0]], rel=1e-6))

    names = {path.name for path in (runs.output / 'run/best').iterdir()}
    assert names == {f'epoch_{epoch}.safetensors' for epoch in ranked[:2]}
    for epoch in ranked[:2]:
        kept = runs.weights('run', f'best/epoch_{epoch}.safetensors')
        assert all(torch.equal(value, written[epoch][key]) for key, value in kept.items())


def test_a_run_without_progress_ends_early_and_stays_ended(runs, caplog):
    argv = ('--task', 'standard', '--lr', '1e-30', '--freeze-bn', '--epochs', '9', '--patience', '1')
    with caplog.at_level('INFO', 'timm_alfa'):
        record = runs(*argv)
    assert (record['epochs_done'], record['best_epoch'], record['epochs']) == (2, 1, 9)
    assert 'early end after epoch 2 of 9: no better top-1 in 1 epochs' in caplog.messages
    assert runs(*argv, '--resume', 'auto') == record

"""Numbers while a run trains: means over the latest updates, in log lines and, for real, in trackers."""

import re
import sqlite3

import pytest
import torch

from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.training.live import LiveMetrics, live_text
from timm_alfa.training.metrics import Totals
from timm_alfa.training.setup.trackers import tracked


def test_means_are_over_the_updates_since_the_reading_before():
    """Weighted by images; an epoch that ends in between starts anew."""
    totals = Totals(torch.device('cpu'))

    def add(count, clean, adversarial):
        result = dict(output=torch.eye(10)[:count], loss=torch.tensor(clean + adversarial))
        result.update(loss_clean=torch.tensor(clean), loss_adv=torch.tensor(adversarial))
        totals.add(result, torch.zeros(count, dtype=torch.long))

    add(4, 100.0, 100.0)
    live = LiveMetrics(totals)  # as of a run that resumes within an epoch
    add(4, 1.0, 3.0)
    add(2, 4.0, 9.0)
    assert live.read() == pytest.approx({'train/loss_clean': 2.0, 'train/loss_adv': 5.0, 'train/loss': 7.0})
    assert live.read() == {}
    totals.reset()
    live.restart()
    add(3, 2.0, 6.0)
    values = live.read()
    assert values['train/loss'] == pytest.approx(8.0)
    assert live_text(values, 0.0123) == 'loss 2.0000, adv loss 6.0000, lr 1.2e-02'
    assert live_text({'train/loss': 3.0, 'train/memory_gb': 1.23}, 1.0) == 'loss 3.0000, lr 1.0e+00, 1.2 GB'
    assert live_text({}, 1.0) == 'lr 1.0e+00'


def test_names_in_trackers():
    row = dict(epoch=3, lr=0.1, train_loss=2.0, val_top1=50.0, delta_norm=1.0, delta_ratio=0.1, eta_0=0.4, eta_1=0.6)
    row.update(step_size=0.2, seconds=9.0, eval_seconds=1.0, train_top1=None)
    plots = [
        EpochPlot('eta.png', 'eta', ('eta_0', 'eta_1'), ('layer1', 'layer2.0')),
        EpochPlot(None, 'step size', ('step_size',), ('layer3',)),
    ]
    assert tracked(row, plots) == {
        'epoch': 3,
        'train/lr': 0.1,
        'train/loss': 2.0,
        'val/top1': 50.0,
        'train/delta_ratio': 0.1,
        'eta/layer1': 0.4,
        'eta/layer2.0': 0.6,
        'train/step_size': 0.2,
        'train/seconds': 9.0,
        'val/seconds': 1.0,
    }


@pytest.mark.sweep
def test_all_trackers_for_real(runs, plots, monkeypatch, caplog):
    """12 updates with numbers after every fourth; log lines hold them, too."""
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('TRACKIO_DIR', str(runs.output / 'trackio'))  # read when it is imported
    for name in ('tensorboard', 'trackio', 'wandb'):
        pytest.importorskip(name)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with caplog.at_level('INFO', 'timm_alfa'):
        runs(
            *('--task', 'l_alfa', '--alfa-blocks', '2,3', '--log-interval', '4'),
            *('--log-with', 'tensorboard', 'trackio', 'wandb'),
        )
    lines = [line for line in caplog.messages if ', update ' in line]
    assert len(lines) == 3
    assert re.match(r'epoch 1/2, update 4/6: loss \d\.\d{4}, adv loss \d\.\d{4}, lr \S+, ', lines[0])

    folder = runs.output / 'run'
    found = EventAccumulator(str(folder / 'timm_alfa')).Reload()
    scalars = set(found.Tags()['scalars'])
    assert {'train/loss_clean', 'train/loss_adv', 'val/top1', 'val/loss', 'eta/layer2', 'eta/layer3'} <= scalars
    assert {event.step for event in found.Scalars('train/loss_clean')} == {4, 6, 8, 12}
    assert [event.step for event in found.Scalars('val/top1')] == [6, 12]
    assert found.Tags()['images'] == ['curves']

    (binary,) = (folder / 'wandb').glob('offline-run-*/run-*.wandb')
    content = binary.read_bytes()
    assert b'val/top1' in content and b'eta/layer2' in content

    (database,) = (runs.output / 'trackio').glob('*.db')
    with sqlite3.connect(database) as connection:
        logged = ' '.join(str(row) for row in connection.execute('select metrics from metrics'))
    assert 'val/top1' in logged and 'train/loss_adv' in logged

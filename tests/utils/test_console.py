"""The table of epochs, and what a terminal and a pipe are shown."""

import json
from types import SimpleNamespace

import torch

from timm_alfa.data import DataConfig
from timm_alfa.data.datasets.base import Subset
from timm_alfa.data.datasets.registry import open_split
from timm_alfa.data.loaders import image_cache
from timm_alfa.training.train import print_record
from timm_alfa.utils.console import Table

FULL = dict(
    epoch=100,
    lr=1.2e-3,
    train_loss=9.0,
    train_loss_clean=1.2345,
    train_loss_adv=11.4321,
    loss_rise=0.5,
    delta_ratio=0.1234,
    train_top1=100.0,
    val_loss=12.3456,
    val_top1=100.0,
    val_top5=100.0,
    images_per_second=123456.7,
    seconds=35999.0,
)


def lines_of(caplog, row):
    with caplog.at_level('INFO', 'timm_alfa'):
        Table().row(row, best=True)
    return caplog.messages


def test_the_widest_row_fits_80_columns_and_shows_the_clean_loss(caplog):
    header, row = lines_of(caplog, FULL)
    assert len(row) <= 80 and len(header) == len(row) - len(' *')
    assert ' '.join(row.split()) == '100 1.2e-03 1.2345 11.4321 0.1234 100.00 12.3456 100.00 123k 9:59:59 *'


def test_the_loss_of_a_method_without_a_perturbed_one_is_its_loss(caplog):
    """But not that of a method with a perturbed loss alone."""
    header, row = lines_of(caplog, dict(epoch=1, train_loss=2.5))
    assert (header.split(), row.split()) == (['epoch', 'loss'], ['1', '2.5000', '*'])
    caplog.clear()
    header, _ = lines_of(caplog, dict(epoch=1, train_loss=2.5, train_loss_adv=2.5))
    assert header.split() == ['epoch', 'adv', 'loss']


def test_a_record_is_for_programs(capsys, monkeypatch):
    run = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True))
    print_record(run, {'a': 1})
    assert json.loads(capsys.readouterr().out) == {'a': 1}
    monkeypatch.setattr('sys.stdout.isatty', lambda: True)
    print_record(run, {'a': 1})
    assert capsys.readouterr().out == ''


def test_decoding_shows_no_bar_on_a_pipe(capfd, monkeypatch):
    monkeypatch.setattr(image_cache, 'SHOW_PROGRESS_ABOVE', 1)
    source = open_split('digits', DataConfig(dataset='digits'), 'train')
    subset = Subset(source, torch.arange(40))
    image_cache.ImageCache(source, subset.indices, (1, 8, 8), 'bicubic', progress=True)
    assert capfd.readouterr().err == ''

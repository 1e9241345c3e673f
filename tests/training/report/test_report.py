"""Tables and files of predictions, against plain counting."""

import csv

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from timm_alfa.data.datasets.base import Source
from timm_alfa.errors import ConfigError
from timm_alfa.training.report.folder import FILES, check_report_folder, write_report
from timm_alfa.training.report.mistakes import confident_mistakes
from timm_alfa.training.report.output_file import TABLES, check_output_file
from timm_alfa.training.report.per_class import confusion_matrix, per_class
from timm_alfa.training.report.predictions import (
    Collector,
    Predictions,
    class_names,
    write_predictions,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 1, 0, 1, 0, 0])
PROBABILITIES = np.array([0.9, 0.6, 0.5, 0.7, 0.8, 0.95], dtype=np.float32)
FOUND = Predictions(np.arange(6), LABELS, PREDICTED, PROBABILITIES)
NAMES = ['cat', 'dog, small', '$owl_', '3']


class Squares(Source):
    """Images of one color."""

    def open(self, index):
        return Image.new('RGB', (20, 30), (40 * index, 0, 0))


SOURCE = Squares('test', LABELS, NAMES[:3])


def test_per_class_counts():
    rows = per_class(confusion_matrix(FOUND, 4), NAMES)
    for index, row in enumerate(rows):
        own, called = index == LABELS, index == PREDICTED
        assert (row['images'], row['predicted'], row['correct']) == (own.sum(), called.sum(), (own & called).sum())
        assert row['accuracy'] == pytest.approx(100 * (own == called).mean())
        assert row['recall'] == (pytest.approx(100 * called[own].mean()) if own.any() else None)
        assert row['precision'] == (pytest.approx(100 * own[called].mean()) if called.any() else None)
    assert rows[0]['f1'] == pytest.approx(2 / (1 / rows[0]['precision'] + 1 / rows[0]['recall']))
    assert rows[3]['f1'] is None


def test_the_most_confident_mistakes_come_first():
    assert confident_mistakes(FOUND).tolist() == [5, 4, 1]
    assert confident_mistakes(FOUND, most=1).tolist() == [5]


def test_a_collector_puts_batches_in_the_order_of_the_source():
    collector = Collector()
    output = torch.tensor([[0.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    collector.add(torch.tensor([4, 1]), output[:2], torch.tensor([1, 1]))
    collector.add(torch.tensor([0]), output[2:], torch.tensor([0]))
    found = collector.gather(Accelerator(cpu=True))
    assert found.indices.tolist() == [0, 1, 4]
    assert (found.labels.tolist(), found.predicted.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert found.probabilities == pytest.approx([0.5, 1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-2))])


@pytest.mark.parametrize('ending', ['csv', 'parquet'])
def test_a_file_of_predictions(tmp_path, ending):
    file = tmp_path / f'p.{ending}'
    check_output_file('--predictions', file, TABLES)
    write_predictions(file, FOUND, SOURCE, class_names(SOURCE, 4))
    if ending == 'csv':
        rows = list(csv.DictReader(file.open()))
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(file).to_pylist()
    assert list(rows[0]) == ['image', 'label', 'prediction', 'probability']
    assert [row['image'] for row in rows] == list('012345')
    assert (rows[1]['label'], rows[1]['prediction']) == ('cat', 'dog, small')
    assert [float(row['probability']) for row in rows] == pytest.approx(PROBABILITIES.tolist())


def test_what_cannot_be_written_is_refused_before(tmp_path):
    with pytest.raises(ConfigError, match=r'must end in \.csv or \.parquet'):
        check_output_file('--predictions', tmp_path / 'p.txt', TABLES)
    with pytest.raises(ConfigError, match='create it first'):
        check_output_file('--predictions', tmp_path / 'no' / 'p.csv', TABLES)
    (tmp_path / 'mine').write_text('x')
    with pytest.raises(ConfigError, match="holds other files, such as 'mine'"):
        check_report_folder(tmp_path)


def test_a_report_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / 'report'
    check_report_folder(folder)
    write_report(folder, FOUND, SOURCE, NAMES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    table = list(csv.reader((folder / 'confusion.csv').open()))
    assert table[0] == ['label / prediction', *NAMES]
    assert [list(map(int, row[1:])) for row in table[1:]] == confusion_matrix(FOUND, 4).tolist()
    assert all((folder / name).read_bytes().startswith(b'\x89PNG') for name in ('confusion.png', 'mistakes.png'))

    check_report_folder(folder)
    write_report(folder, FOUND._replace(predicted=LABELS), SOURCE, NAMES)
    assert not (folder / 'mistakes.png').exists()  # there are none

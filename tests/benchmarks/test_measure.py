"""How benchmarks measure: turns, ratios, peaks of memory, and tables."""

import json
import sys

import pytest
import torch


@pytest.fixture(scope='module')
def measure(load_script):
    return load_script('measure')


def test_functions_take_turns_and_every_other_round_is_reversed(measure):
    calls = []
    times = measure.interleave([lambda: calls.append('a'), lambda: calls.append('b')], pairs=3)
    assert ''.join(calls) == 'ab' + 'ab' + 'ba' + 'ab'  # the first pair warms up
    assert [len(one) for one in times] == [3, 3]


def test_ratio_is_taken_per_round_and_ignores_a_slow_one(measure):
    # the second round was slow for both; the ratio of medians would be 11/10, that of the rounds is 1.1 in each
    assert measure.ratio([11.0, 110.0, 11.0], [10.0, 100.0, 10.0]) == pytest.approx(1.1)
    assert measure.ratio([2.0, 2.0, 90.0], [1.0, 1.0, 1.0]) == 2.0
    with pytest.raises(ValueError):
        measure.ratio([1.0], [1.0, 2.0])


@pytest.mark.skipif(torch.cuda.is_available(), reason='counts bytes on the CPU')
def test_peak_is_what_is_allocated_at_once(measure):
    def one_after_the_other():
        for _ in range(3):
            torch.ones(1 << 18)

    def at_once():
        return [torch.ones(1 << 18) for _ in range(3)]

    assert measure.peak_bytes(one_after_the_other) == pytest.approx(1 << 20, rel=0.01)
    assert measure.peak_bytes(at_once) == pytest.approx(3 << 20, rel=0.01)


def test_page_names_the_machine_and_no_paths(measure, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['/somewhere/step_cost.py', '--dataset', 'hfds//data/cifar10', '--pairs', '11'])
    path = measure.write(tmp_path, 'cost', 'Cost', {'Steps': [dict(task='alfa', ratio=1.0491, note=None)], 'None': []})
    text = path.read_text()
    assert 'Made by `python benchmarks/step_cost.py --dataset hfds/PATH --pairs 11`.' in text
    assert '| alfa | 1.049 |  |' in text
    assert 'None' not in text
    assert f'torch {torch.__version__}' in text and 'commit' in text
    assert json.loads((tmp_path / 'cost.json').read_text())['Steps'] == [dict(task='alfa', ratio=1.0491, note=None)]


def test_committed_measurements_can_be_drawn(load_script, tmp_path):
    script = load_script('step_cost')
    sections = json.loads((script.measure.RESULTS / 'step_cost.json').read_text())
    script.plot(sections, tmp_path / 'cost.png')
    assert (tmp_path / 'cost.png').read_bytes().startswith(b'\x89PNG')

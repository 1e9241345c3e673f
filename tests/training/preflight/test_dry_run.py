"""--dry-run: each option once, the features, and what a step costs."""

import json

import pytest
import timm
import torch
import yaml

import timm_alfa
from timm_alfa.replay.flops import count_flops
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.preflight.dry_run import dry_run, options_text
from timm_alfa.training.preflight.estimate import estimate, kept_for_backward, state_tensors, weight_bytes
from timm_alfa.training.preflight.features import features_text, summary


def test_each_option_once_and_the_changed_ones_first(tmp_path):
    config = parse_args(['--lr', '0.3', '--task', 'l_alfa', '--alfa-gamma', '2', '--dataset', 'digits', '-b', '8'])
    text = options_text(config)
    keys = [line.partition(':')[0] for line in text.splitlines() if line[0].isalpha()]
    assert len(keys) == len(set(keys)) and set(keys) == set(config.flat())
    changed = yaml.safe_load(text.partition('# defaults')[0])
    assert {'lr': 0.3, 'task': 'l_alfa', 'alfa_gamma': 2.0, 'batch_size': 8}.items() <= changed.items()
    assert 'momentum' not in changed and 'alfa_blocks' not in changed

    # and --config takes it
    file = tmp_path / 'shown.yaml'
    file.write_text(text)
    assert parse_args(['--config', str(file)]).flat() == config.flat()


def test_features_are_in_the_order_of_the_forward_pass():
    rows = summary(timm.create_model('test_resnet', num_classes=4), ['layer2.0'], (3, 32, 32))
    assert [row.name for row in rows] == ['layer1', 'layer2.0', 'layer2', 'layer3', 'layer4']
    assert [row.perturbed for row in rows] == [False, True, False, False, False]
    assert rows[-1].shape == [96, 1, 1] and rows[-1].after < 0.01 < rows[0].after < 1
    assert features_text(rows).splitlines()[2].split()[0::3] == ['layer2.0', 'perturbed']


def test_the_cost_is_that_of_whole_steps():
    model = timm.create_model('test_resnet', num_classes=4)
    standard = timm_alfa.create_task('standard', model).train()
    task = timm_alfa.create_task('alfa', model, every=2, start=9).train()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    batch = torch.randn(4, 3, 32, 32), torch.arange(4)
    found = estimate(task, batch, 100, optimizer)

    def whole(task):
        with task.trial():
            task(*batch)['loss'].backward()

    expected = count_flops(lambda: whole(task)) / count_flops(lambda: whole(standard))
    assert found.perturbed_cost == pytest.approx(expected, rel=1e-6) and expected > 1
    assert found.relative_cost == pytest.approx((1 + expected) / 2, rel=1e-6)
    assert task.updates == 0
    assert found.memory == found.state_bytes + found.activation_bytes
    larger = estimate(task, batch, 200, optimizer)
    assert larger.state_bytes == found.state_bytes and 1.9 < larger.activation_bytes / found.activation_bytes <= 2


def test_what_is_kept_for_a_backward_pass():
    """The product keeps what the weight is multiplied by, sigmoid its output; the weight is there anyway."""
    weight = torch.nn.Parameter(torch.ones(10))
    x = torch.ones(10)
    with kept_for_backward([weight]) as kept:
        loss = (weight * x).sigmoid().sum()
        assert kept.now == 2 * 40
        loss.backward()
        del loss
        assert (kept.now, kept.most) == (0, 80)


@pytest.mark.parametrize(
    ('optimizer', 'count'),
    [
        (lambda p: torch.optim.SGD(p, lr=1), 0),
        (lambda p: torch.optim.SGD(p, lr=1, momentum=0.9), 1),
        (lambda p: torch.optim.AdamW(p, lr=1), 2),
    ],
)
def test_the_state_of_an_optimizer_is_counted(optimizer, count):
    layer = torch.nn.Linear(5, 5)
    made = optimizer(layer.parameters())
    assert state_tensors(made) == count
    assert weight_bytes(layer, made) == 30 * 4 * (2 + count)


def test_the_record_has_no_options(runs, capsys):
    dry_run(runs.prepare('--task', 'l_alfa', '--alfa-blocks', '2,4', '--dry-run'), runs.output / 'new')
    out = capsys.readouterr().out
    record = json.loads(out.splitlines()[-1])
    assert record['blocks'] == {'layer2': [48, 4, 4], 'layer4': [96, 1, 1]} and 'options' not in record
    assert record['relative_cost'] > 1 and record['memory_bytes'] > 4 * record['params']
    assert out.count('momentum: ') == 1 and not list(runs.output.iterdir())

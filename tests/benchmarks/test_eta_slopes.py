"""The slopes that eta descends on are those of the loss."""

import pytest
import timm
import torch

import timm_alfa
from timm_alfa.errors import ConfigError


@pytest.fixture(scope='module')
def script(load_script):
    return load_script('eta_slopes')


@pytest.mark.parametrize('mode', ['joint', 'separate'])
def test_slopes_are_those_of_the_loss(script, mode):
    torch.manual_seed(0)
    model = timm.create_model('resnet20s', num_classes=10).double()
    input, target = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    search = dict(blocks='1,2,3', steps=2, step_size=0.01, mode=mode)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found, count = script.slopes(model, [(input, target), (input, target), (None, None)], 2, [0.2, 0.3, 0.5], **search)
    assert count == 8

    def loss(eta):
        task = timm_alfa.create_task('l_alfa', model, gamma=0, **search)
        task.eta.data = torch.tensor(eta, dtype=torch.float64)
        return task(input, target)['loss'].item()

    for at, slope in enumerate(found.values()):
        up, down = [0.2, 0.3, 0.5], [0.2, 0.3, 0.5]
        up[at] += 1e-4
        down[at] -= 1e-4
        assert slope == pytest.approx((loss(up) - loss(down)) / 2e-4, rel=1e-4)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_options_of_the_search_are_read_from_a_record(script):
    options = dict(alfa_blocks='units:9', alfa_steps=3, alfa_step_size='1/255', alfa_mode='joint', alfa_eta_lr=0.01)
    assert script.search_of(dict(options=options, history=dict(eta=[[1, 0], [0.5, 0.5]]))) == (
        dict(blocks='units:9', steps=3, step_size='1/255', mode='joint'),
        [0.5, 0.5],
    )
    with pytest.raises(ConfigError, match='the record is of small, which has no eta'):
        script.search_of(dict(options=options, recipe='small', history={}))

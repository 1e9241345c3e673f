"""A model is found inside of its wrappers, and is not taken for one."""

import pytest
import torch
import torch.nn as nn
from helpers.settings import tiny
from timm.utils import ModelEmaV3
from timm.utils.model import unwrap_model

from timm_alfa import create_task
from timm_alfa.utils.unwrap import unwrap


class Scaled(nn.Module):
    """A model whose child has the name that wrappers give to what they wrap."""

    def __init__(self):
        super().__init__()
        self.module, _, _ = tiny(dtype=torch.float32)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.module(x) * self.scale


def test_wrappers_are_looked_through():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    compiled = torch.compile(model, backend='eager')
    for wrapped in (model, compiled, nn.DataParallel(model), nn.DataParallel(compiled)):
        assert unwrap(wrapped) is model
    ema = ModelEmaV3(model)
    assert unwrap(ema) is ema.module
    assert unwrap(None) is None
    scaled = Scaled()
    assert unwrap(scaled) is scaled


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('alfa', dict(blocks='module.layer3', steps=1, step_size=0)),
        ('l_alfa', dict(blocks='module.layer3')),
        ('standard', {}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings('ignore:step_size=0')
def test_a_child_called_module_is_not_the_model(name, config):
    model = Scaled()
    task = create_task(name, model, **config)
    assert task.model is task.get_eval_model() is model
    task.setup_ema(decay=0.5)
    result = task(torch.randn(4, 3, 16, 16), torch.arange(4))
    if name == 'alfa':
        torch.testing.assert_close(result['loss_adv'], result['loss_clean'])
    result['loss'].backward()
    with torch.no_grad():
        model.scale.sub_(1)
    task.update_ema()
    ema = task.get_checkpoint_state(ema=True, unwrap_fn=unwrap_model)['state_dict_ema']  # as timm's saver does
    assert list(ema) == list(model.state_dict())
    assert float(ema['scale']) == 2.5
    state = {key: value.clone() for key, value in task.get_checkpoint_state()['state_dict'].items()}
    with torch.no_grad():
        model.scale.zero_()
    task.load_checkpoint_state(state)
    assert float(model.scale.detach()) == 2

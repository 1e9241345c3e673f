"""What comes before a run is built."""
from types import SimpleNamespace

import pytest

from timm_alfa.errors import DataError
from timm_alfa.training import setup
from timm_alfa.training.arguments import parse_args


@pytest.mark.parametrize(('first', 'flags', 'order'), [
    (True, ('--dataset-download',), ['read', 'wait']), (False, ('--dataset-download',), ['wait', 'read']),
    (False, (), ['read'])])
@pytest.mark.parametrize('fails', [False, True])
def test_one_process_of_a_machine_downloads_before_the_others(first, flags, order, fails, monkeypatch):
    """And none waits for one that has failed."""
    events = []

    def inspect_data(*args, **kwargs):
        events.append('read')
        if fails:
            raise DataError('no network')
        return 'info'

    monkeypatch.setattr(setup, 'inspect_data', inspect_data)
    accelerator = SimpleNamespace(is_local_main_process=first, wait_for_everyone=lambda: events.append('wait'))
    config = parse_args(['--dataset', 'torch/cifar10', '--data-dir', '/d', *flags])
    if fails:
        with pytest.raises(DataError):
            setup.open_data(config, accelerator)
    else:
        assert setup.open_data(config, accelerator) == 'info'
    assert events == order

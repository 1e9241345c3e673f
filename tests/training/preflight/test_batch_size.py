"""--batch-size auto."""

import pytest
import torch
import yaml

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.options.validate_args import parse_args as parse_validate_args
from timm_alfa.training.preflight import batch_size


@pytest.fixture
def memory(monkeypatch):
    """Lets a trial fail, as torch does without memory, above a number of images."""
    original, limit = batch_size.random_batch, [10**9]

    def limited(images, *args):
        if images > limit[0]:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
        return original(images, *args)

    monkeypatch.setattr(batch_size, 'random_batch', limited)
    monkeypatch.setattr('accelerate.utils.memory.clear_device_cache', lambda **_: None)  # collects garbage each time
    return limit


def test_a_run_with_auto_is_the_run_with_that_size(runs, memory):
    memory[0] = 20
    runs('--task', 'alfa', '-b', 'auto', '--epochs', '1', experiment='auto')
    options = yaml.safe_load((runs.output / 'auto' / 'args.yaml').read_text())
    assert options['batch_size'] == 19  # accelerate takes a tenth off until it fits: ..., 22, 19
    runs('--task', 'alfa', '-b', '19', '--epochs', '1', experiment='given')
    expected, found = runs.weights('given'), runs.weights('auto')
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_default_if_memory_allows(runs, memory):
    run = runs.prepare('--task', 'standard', '-b', 'auto')
    assert run.config.data.batch_size == 128
    assert all(p.grad is None for p in run.task.parameters())


def test_not_a_single_image(runs, memory):
    memory[0] = 0
    with pytest.raises(ConfigError, match='--batch-size auto: memory does not suffice for one image'):
        runs.prepare('--task', 'standard', '-b', 'auto')


def test_auto_is_a_word_of_training_alone(tmp_path):
    for value in ('0', 'automatic'):
        with pytest.raises(ConfigError, match='--batch-size is'):
            parse_args(['-b', value])
    with pytest.raises(ConfigError, match='a whole number or auto'):
        parse_args(['-b', 'many'])
    with pytest.raises(ConfigError, match='--batch-size auto is for training'):
        parse_validate_args(['--checkpoint', str(tmp_path), '-b', 'auto'])

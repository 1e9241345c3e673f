"""A config.json that is no config of timm's ends in our error, not in a traceback."""

import pytest


@pytest.mark.parametrize(
    'text',
    [
        '[' * 100_000,
        '[]',
        '{"architecture": "resnet20s", "pretrained_cfg": 7}',
        '{"architecture": ["resnet20s"], "pretrained_cfg": {}}',
        '{"architecture": "resnet20s", "num_classes": 10, "pretrained_cfg": {}, "model_args": [1]}',
        '{"architecture": "resnet20s", "pretrained_cfg": {}, "model_args": {"in_chans": {"a": 1}}}',
    ],
)
@pytest.mark.parametrize('script', ['train.py', 'validate.py'])
def test_a_config_of_another_kind(text, script, make_run, refused):
    run = make_run()
    (run / 'config.json').write_text(text)
    argv = ['--checkpoint', run] if script == 'validate.py' else ['--model', f'local-dir:{run}', '--dry-run']
    message = refused(script, *argv, '--dataset', 'digits')
    assert str(run) in message and '\n' not in message

"""The commands that users are shown."""

import pytest

from timm_alfa.utils.launcher import launch_command


@pytest.mark.parametrize(
    ('precision', 'explicit', 'flag'),
    [
        (None, False, ''),
        ('no', False, ''),
        ('no', True, ' --mixed_precision no'),
        (None, True, ''),
        ('bf16', False, ' --mixed_precision bf16'),
        ('bf16', True, ' --mixed_precision bf16'),
    ],
)
def test_precision_is_the_launchers(precision, explicit, flag):
    command = launch_command('train.py', '--seed', 3, mixed_precision=precision, explicit=explicit)
    assert command == f'accelerate launch{flag} train.py --seed 3'


def test_words_survive_a_shell():
    assert launch_command('train.py', '--resume', 'a run') == "accelerate launch train.py --resume 'a run'"

"""Commands that users are shown: how to launch a script again."""

import shlex
from typing import Optional

PRECISIONS = ('no', 'fp8', 'fp16', 'bf16')  # accelerate's words


def launch_command(*words: object, mixed_precision: Optional[str] = None, explicit: bool = False) -> str:
    """A command line of accelerate, quoted for a shell.

    Args:
        words: The script and its arguments.
        mixed_precision: The precision that the launcher sets, if any.
        explicit: Name the precision even if it is 'no', which may not be what is configured for accelerate.
    """
    precision = []
    if mixed_precision is not None and (explicit or mixed_precision != 'no'):
        precision = ['--mixed_precision', str(mixed_precision)]
    return shlex.join(['accelerate', 'launch', *precision, *map(str, words)])

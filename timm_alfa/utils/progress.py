"""How far a loop over batches is: a bar on a terminal, a line every half minute elsewhere."""

import sys
import time
from typing import Any, Iterator

from tqdm import tqdm

from timm_alfa.utils.console import logger
from timm_alfa.utils.text import duration

SECONDS = 30.0  # between lines


def progress(loader: Any, what: str, active: bool = True) -> Iterator[Any]:
    """Yields the batches of a loader, and shows how many there have been.

    Args:
        loader: Has a length.
        what: A word for the loop.
        active: Whether this process shows anything.
    """
    if not active:
        yield from loader
    elif sys.stderr.isatty():
        yield from tqdm(loader, desc=what, unit=' batches', file=sys.stderr, leave=False, dynamic_ncols=True)
    else:
        yield from _with_lines(loader, what)


def _with_lines(loader: Any, what: str) -> Iterator[Any]:
    began = shown = time.perf_counter()
    for done, batch in enumerate(loader):
        now = time.perf_counter()
        if done and now - shown >= SECONDS:
            shown = now
            left = (now - began) / done * (len(loader) - done)
            logger.info('%s: batch %d of %d, %s left', what, done, len(loader), duration(left))
        yield batch

"""What a run says: log lines and a progress bar to stderr, from the main process alone."""

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from timm_alfa.utils.distributed import is_main_process
from timm_alfa.utils.text import duration, printable, short_number

logger = logging.getLogger('timm_alfa')


class _Formatter(logging.Formatter):
    """The message alone, with control characters escaped: names of files, classes and runs may come from others."""

    def format(self, record: logging.LogRecord) -> str:
        return '\n'.join(map(printable, record.getMessage().split('\n')))


class _TqdmHandler(logging.Handler):
    """Log lines above the bar, not through it."""

    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stderr)
        sys.stderr.flush()


def setup_logging() -> None:
    """Sends our log and all warnings to stderr, one line each; other processes than the first stay silent."""
    handler = _TqdmHandler()
    handler.setFormatter(_Formatter())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)

    import warnings

    def show(message, category, filename, lineno, file=None, line=None):
        logger.warning('warning: %s', message)

    warnings.showwarning = show
    # DDP's rank-local buffers are what we want, and have no other spelling yet
    warnings.filterwarnings('ignore', message='.*broadcast_buffers.*')


COLUMNS = (
    # title, row's key, format
    ('epoch', 'epoch', '5d'),
    ('lr', 'lr', '9.2e'),
    ('loss', 'train_loss', '8.4f'),
    ('adv loss', 'train_loss_adv', '8.4f'),
    ('|delta|', 'delta_norm', '8.4f'),
    ('train top1', 'train_top1', '10.2f'),
    ('val loss', 'val_loss', '8.4f'),
    ('val top1', 'val_top1', '8.2f'),
    ('images/s', 'images_per_second', '8.0f'),
    ('time', 'seconds', ''),
)


class Table:
    """The table of epochs, a row at a time; a column is there from the first row on that has it."""

    def __init__(self):
        self.columns: list[tuple] = []

    def row(self, row: dict[str, Any], best: bool) -> None:
        """Logs one epoch; `best` marks the best so far."""
        columns = [column for column in COLUMNS if column in self.columns or row.get(column[1]) is not None]
        if columns != self.columns:
            self.columns = columns
            logger.info('  '.join(title.rjust(self._width(spec, title)) for title, _, spec in self.columns))
        logger.info(
            '  '.join(self._cell(row.get(key), spec, title) for title, key, spec in self.columns)
            + ('  *' if best else '')
        )

    @staticmethod
    def _width(spec: str, title: str) -> int:
        return max(len(title), int(spec.split('.')[0].rstrip('d') or 7) if spec else 7)

    def _cell(self, value: Any, spec: str, title: str) -> str:
        if value is None:
            text = '-'
        elif not spec:
            text = duration(value)
        else:
            text = format(value, spec)
        return text.rjust(self._width(spec, title))


class Progress:
    """A bar over all images of the run on a terminal, else a log line every so many updates.

    Args:
        total: Images of the whole run.
        done: Images already seen, in a resumed run.
        log_interval: Updates between lines.
        active: Whether this process speaks at all.
    """

    def __init__(self, total: int, done: int, log_interval: int, active: bool):
        self.total, self.done, self.start, self.began = total, done, done, time.perf_counter()
        self.log_interval, self.active, self.updates = log_interval, active, 0
        self.bar = None
        if active and sys.stderr.isatty():
            self.bar = tqdm(
                total=total,
                initial=done,
                unit=' images',
                unit_scale=True,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
                smoothing=0.05,
            )

    def epoch(self, epoch: int, epochs: int) -> None:
        """Names the epoch (from 1) that begins."""
        self.label = f'epoch {epoch}/{epochs}'
        if self.bar is not None:
            self.bar.set_description(self.label)

    def update(self, images: int, position: str) -> None:
        """Counts an update; `position` says where in the epoch it is."""
        self.done += images
        self.updates += 1
        if self.bar is not None:
            self.bar.update(images)
        elif self.active and self.updates % self.log_interval == 0:
            rate = (self.done - self.start) / (time.perf_counter() - self.began)
            left = (self.total - self.done) / rate if rate else 0
            logger.info(
                '%s, update %s: %s images/s, %s left', self.label, position, short_number(round(rate)), duration(left)
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

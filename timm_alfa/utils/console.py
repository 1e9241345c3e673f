"""Log lines, the table of epochs and a progress bar, on stderr, from the main process only."""

import logging
import sys
import time
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Iterator, NamedTuple, Optional

from tqdm import tqdm

from timm_alfa.utils.distributed import is_main_process
from timm_alfa.utils.text import duration, printable, short_number

logger = logging.getLogger('timm_alfa')


# Of the run whose turn it is, where several share a process.
_RUN_NAME: ContextVar[str] = ContextVar('run name', default='')


@contextmanager
def named_lines(name: str) -> Iterator[None]:
    """While inside, log lines begin with the name of a run, and there is no progress bar."""
    token = _RUN_NAME.set(name)
    try:
        yield
    finally:
        _RUN_NAME.reset(token)


class _Formatter(logging.Formatter):
    """The message alone, with control characters escaped: names of files, classes and runs may come from others."""

    def format(self, record: logging.LogRecord) -> str:
        text, name = record.getMessage(), _RUN_NAME.get()
        if name:
            text = '\n'.join(f'{name}: {line}' for line in text.split('\n'))
        return printable(text, keep='\n')


class _TqdmHandler(logging.Handler):
    """Writes log lines above the progress bar, not through it."""

    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stderr)
        sys.stderr.flush()


def setup_logging() -> None:
    """Sends our log and all warnings to stderr, one line each; processes other than the first log errors only."""
    handler = _TqdmHandler()
    handler.setFormatter(_Formatter())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)

    def show(message, category, filename, lineno, file=None, line=None):
        logger.warning('warning: %s', message)

    warnings.showwarning = show
    # DDP without broadcast buffers is what we want, and there is no other way to request it yet
    warnings.filterwarnings('ignore', message='.*broadcast_buffers.*')


COUNT = 'k'  # a format: 27.3k


class Column(NamedTuple):
    """A column of the table of epochs.

    Attributes:
        key: Of an epoch's row.
        width: In characters.
        format: Of a value; None for a time, `COUNT` for a large number.
    """

    title: str
    key: str
    width: int
    format: Optional[str]

    def cell(self, value: Any) -> str:
        """A value, or '-' for none, as wide as the column."""
        if value is None:
            text = '-'
        elif self.format is None:
            text = duration(value)
        elif self.format == COUNT:
            text = short_number(round(value))
        else:
            text = format(value, self.format)
        return text.rjust(self.width)


COLUMNS = (
    Column('epoch', 'epoch', 5, 'd'),
    Column('lr', 'lr', 7, '.1e'),
    Column('loss', 'train_loss_clean', 8, '.4f'),
    Column('adv loss', 'train_loss_adv', 8, '.4f'),
    Column('|d|/|f|', 'delta_ratio', 7, '.4f'),
    Column('top1', 'train_top1', 6, '.2f'),
    Column('val loss', 'val_loss', 8, '.4f'),
    Column('val top1', 'val_top1', 8, '.2f'),
    Column('img/s', 'images_per_second', 5, COUNT),
    Column('time', 'seconds', 7, None),
)  # 78 characters with one between columns; a mark of the best epoch makes 80


class Table:
    """The table of epochs, row by row; a column is shown from the first row on that has a value for it."""

    def __init__(self):
        self.columns: list[Column] = []

    def row(self, row: dict[str, Any], best: bool) -> None:
        """Logs one epoch; `best` marks the best so far.

        The loss is the clean one, which compares with that of validation: the whole loss of methods that have no other.
        """
        if 'train_loss_adv' not in row:
            row = {'train_loss_clean': row.get('train_loss'), **row}
        columns = [column for column in COLUMNS if column in self.columns or row.get(column.key) is not None]
        if columns != self.columns:
            self.columns = columns
            logger.info(' '.join(column.title.rjust(column.width) for column in columns))
        cells = [column.cell(row.get(column.key)) for column in columns]
        if best:
            cells.append('*')
        logger.info(' '.join(cells))


class Progress:
    """A bar over all images of the run on a terminal, otherwise a log line every so many updates.

    Args:
        total: Images of the whole run.
        done: Images that a resumed run has already seen.
        log_interval: Updates between lines.
        active: Whether this process shows anything.
    """

    def __init__(self, total: int, done: int, log_interval: int, active: bool):
        self.total, self.done, self.start, self.began = total, done, done, time.perf_counter()
        self.log_interval, self.active, self.updates = log_interval, active, 0
        self.label, self.bar = '', None
        if active and sys.stderr.isatty() and not _RUN_NAME.get():
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
        """Starts an epoch, counted from 1."""
        self.label = f'epoch {epoch}/{epochs}'
        if self.bar is not None:
            self.bar.set_description(self.label)

    def is_due(self) -> bool:
        """Whether the next update is one of those that numbers are read after."""
        return self.active and (self.updates + 1) % self.log_interval == 0

    def update(self, images: int, position: str, numbers: str = '') -> None:
        """Counts an update.

        Args:
            position: Says where in the epoch it is.
            numbers: Of the latest updates, if they were read.
        """
        self.done += images
        self.updates += 1
        if self.bar is not None:
            self.bar.update(images)
            if numbers:
                self.bar.set_postfix_str(numbers, refresh=False)
        elif self.active and self.updates % self.log_interval == 0:
            rate = (self.done - self.start) / (time.perf_counter() - self.began)
            left = (self.total - self.done) / rate if rate else 0
            logger.info(
                '%s, update %s: %s%s images/s, %s left',
                self.label,
                position,
                f'{numbers}, ' if numbers else '',
                short_number(round(rate)),
                duration(left),
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

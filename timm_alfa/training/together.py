"""Several runs in one process, in turns of one update: on a GPU each has its own stream, so that they overlap."""

from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Callable, Iterator, Optional, Sequence, Union

from timm_alfa.errors import AlfaError, ConfigError
from timm_alfa.training.exit import unexpected_error
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.run import Run
from timm_alfa.training.setup.prepare import prepare
from timm_alfa.training.stop import StopFlag
from timm_alfa.training.train import turns
from timm_alfa.training.update.graphs import on_stream
from timm_alfa.utils.console import logger, named_lines

Result = Union[dict[str, Any], Exception]


def prepare_together(configs: Sequence[TrainConfig]) -> list[Run]:
    """Builds several runs, which share decoded images where their data are the same.

    Raises:
        AlfaError: Some options cannot be satisfied.
        ConfigError: Two runs have one name, or there are several processes.
    """
    names = [config.run.experiment for config in configs]
    if None in names or len(set(names)) < len(names):
        raise ConfigError(f'runs in one process need names that differ, not {names}: pass --experiment to each.')
    caches: dict = {}
    runs = []
    for config in configs:
        with named_lines(config.run.experiment or ''):
            runs.append(replace(prepare(config, caches), together=len(configs)))
    if runs and runs[0].accelerator.num_processes > 1:
        raise ConfigError('several runs in one process do not support several processes: start one.')
    return runs


def train_together(runs: Sequence[Run], ended: Optional[Callable[[Run, Result], None]] = None) -> list[Result]:
    """Trains several runs to their ends, in turns. An error ends its run, and the others continue.

    After a signal each run saves its state and stops.

    Args:
        runs: From `prepare_together`.
        ended: Called with each run that has ended, and what is returned for it.

    Returns:
        For each run its record, as `train` returns it, or the error that ended it.
    """
    results: dict[int, Result] = {}
    with StopFlag() as stop, closing({at: turns(run, stop) for at, run in enumerate(runs)}) as active:
        while active:
            for at in list(active):
                result = take_turn(runs[at], active[at])
                if result is None:
                    continue
                results[at] = result
                del active[at]
                if ended is not None:
                    report(ended, runs[at], result)
    return [results[at] for at in range(len(runs))]


def report(ended: Callable[[Run, Result], None], run: Run, result: Result) -> None:
    """Calls `ended`; an error in it, such as a full disk, must not end the runs that still train."""
    try:
        ended(run, result)
    except Exception as error:
        for line in describe_error(error):
            logger.error('%s', line)


def take_turn(run: Run, generator: Iterator[None]) -> Optional[Result]:
    """Lets a run make an update; what ended it, if anything did."""
    with on_stream(run.stream), named_lines(run.config.run.experiment or ''):
        try:
            next(generator)
        except StopIteration as end:
            return end.value
        except Exception as error:  # whatever it is, it is about this run alone
            for line in describe_error(error):
                logger.error('%s', line)
            return error
    return None


def describe_error(error: Exception) -> list[str]:
    """What a log says of an error: its own lines if it is ours, otherwise the traceback."""
    if isinstance(error, AlfaError):
        return [f'error: {line}' for line in str(error).splitlines()]
    return unexpected_error(error, processes=1)


@contextmanager
def closing(generators: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """Closes on leaving what is left of some generators: their locks are released."""
    try:
        yield generators
    finally:
        for generator in generators.values():
            generator.close()

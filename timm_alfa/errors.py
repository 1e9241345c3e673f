"""Every error and warning of our own.

A message says what was given, what is valid and what to type, in one line. All errors are `ValueError`s, so that
code written against timm catches them too.
"""

import sys
import warnings
from difflib import get_close_matches
from typing import Any, Iterable, Sequence

from timm_alfa.utils.text import printable

_LIBRARIES = ('timm_alfa', 'timm', 'torch', 'accelerate')  # between a user's line and the place that warns


class AlfaError(ValueError):
    """Base of the errors that a user can fix.

    Its message is safe to print: control characters in it, which a file's name or a server's answer may hold, are
    escaped.

    Attributes:
        shared: Whether every process raises this error, so that it is printed once.
        exit_code: What a script exits with.
    """

    shared: bool = False
    exit_code: int = 1

    def __init__(self, message: str = ''):
        super().__init__(printable(message, keep='\n'))


class ConfigError(AlfaError):
    """One or more options are wrong.

    Args:
        errors: All of them, one line per error, so that a user can fix a config at once and not option by option.
    """

    def __init__(self, errors: Iterable[str]):
        self.errors = tuple([errors] if isinstance(errors, str) else errors)
        super().__init__('\n'.join(self.errors))


class BlockError(AlfaError):
    """A block spec names nothing, or a feature cannot be perturbed."""


class DataError(AlfaError):
    """A dataset, split, folder or image cannot be used."""


class CheckpointError(AlfaError):
    """A checkpoint or run folder cannot be read, trusted or matched to the model."""


class HubError(AlfaError):
    """Publishing to or loading from the Hub failed."""


class AlfaWarning(UserWarning):
    """Something that was requested has no effect."""


def warn(message: str) -> None:
    """Issues an `AlfaWarning` for the line of the user's code that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get('__name__', '').partition('.')[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(message, keep='\n'), AlfaWarning, stacklevel=level)


def did_you_mean(given: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint that follows a sentence, ' Did you mean ...?', with the nearest known name; empty if none is near.

    Args:
        cutoff: How similar names must be, from 0 to 1.
    """
    near = get_close_matches(str(given), list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{near[0]}'?" if near else ''


def one_of(what: str, given, known: Sequence[str]) -> str:
    """The line for an unknown name: what was given, the nearest known one, and all of them."""
    return f"unknown {what} '{given}'.{did_you_mean(given, known)} Known: {', '.join(known)}."


def nearest(what: str, given: str, known: Sequence[str], where: str) -> str:
    """The line for an unknown name where there may be too many known ones to list.

    Args:
        where: Where to find all of them, a sentence without its period.
    """
    if len(known) <= 12:
        return one_of(what, given, known)
    near = get_close_matches(given, known, n=3)
    hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
    return f"unknown {what} '{given}'.{hint} {where}."


def first_line(error: BaseException) -> str:
    """The first line of an error's text without its period, or its type if it has no text."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip('.') if text else type(error).__name__

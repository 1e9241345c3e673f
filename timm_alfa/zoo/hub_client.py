"""Requests to the Hub: what is retried, for how long, which answers are refused, and errors in words for a user."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from timm_alfa.errors import HubError
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import printable

TRANSIENT = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0)
LOGIN = 'log in with `hf auth login`, or set HF_TOKEN'
LONGEST = 1000  # characters of a server's answer that a message repeats

# Headers from which the client makes file names in its cache.
_PATH_HEADERS = ('etag', 'x-linked-etag', 'x-repo-commit')

_BY_STATUS = {
    401: f'the token is missing or no longer valid: {LOGIN}',
    403: f'the token does not have permission to do this to {{where}}: {LOGIN}, with a token that can write',
    409: 'somebody else is changing it: try again',
    412: 'somebody else changed it in the meantime: try again',
    429: 'the Hub asks for fewer requests: try again in a few minutes',
}


class TooSlow(Exception):
    """A request took longer than its time limit."""


def retry(call: Callable[[], Any], waits: Sequence[float] = WAITS, done: Callable[[], Any] = lambda: None) -> Any:
    """Call a function, and again after each of `waits` (seconds) if it failed for a reason that may pass.

    Args:
        call: The request.
        waits: Before each further attempt.
        done: Called after a failure: a result other than None is returned (a request may have had its effect although
            its answer was lost).

    Raises:
        Exception: What the last attempt raised.
    """
    for wait in (*waits, None):
        try:
            return call()
        except Exception as error:
            if (result := done()) is not None:
                return result
            if wait is None or not is_transient(error):
                raise
            time.sleep(wait)


def call_with_timeout(seconds: float, call: Callable[[], Any]) -> Any:
    """Call a function in a thread and wait for its result for a limited time.

    The client limits the time between two pieces of an answer, but not their number: a server that sends one byte
    every few seconds would keep it waiting for ever. The thread cannot be stopped; it ends with the process.

    Raises:
        TooSlow: The time is over.
        BaseException: What the function raised.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome['result'] = call()
        except BaseException as error:
            outcome['error'] = error

    thread = threading.Thread(target=run, name='download', daemon=True)
    thread.start()
    thread.join(seconds)
    if 'error' in outcome:
        raise outcome['error']
    if 'result' not in outcome:
        raise TooSlow
    return outcome['result']


@contextmanager
def refusing_paths() -> Iterator[None]:
    """Refuse answers of the Hub that would lead its client out of its cache.

    The client takes an etag or a commit from the headers as a file's name. One such as '../../../.bashrc' would make
    it write there.
    """
    from huggingface_hub.utils import get_session

    hooks = get_session().event_hooks['response']
    hooks.append(_check_headers)
    try:
        yield
    finally:
        hooks.remove(_check_headers)


def _check_headers(response: Any) -> None:
    if response.request.method != 'HEAD':  # only of these does the client use them; others come from any host
        return
    for name in _PATH_HEADERS:
        value = response.headers.get(name, '').removeprefix('W/').strip('"')
        if re.search(r'[/\\\0]|^\.|^[A-Za-z]:', value):
            raise HubError(
                f"the server sent '{printable(value[:LONGEST])}' as its {name}, which is not a file name: do not trust "
                'this server'
            )


def root_cause(error: BaseException) -> BaseException:
    """What the client wrapped: a broken upload in a RuntimeError, a failed request in `LocalEntryNotFoundError`."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while type(error) in (RuntimeError, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def status_of(error: BaseException) -> Optional[int]:
    """The HTTP status behind an error, or None."""
    return getattr(getattr(root_cause(error), 'response', None), 'status_code', None)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: a busy server, a cut connection, an answer that is not JSON."""
    from huggingface_hub.errors import HfHubHTTPError

    if status := status_of(error):
        return status in TRANSIENT
    # The HTTP library under the client has changed its name twice; its base class is a base of the client's own error.
    http_error = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == 'HTTPError')
    return isinstance(root_cause(error), (http_error, json.JSONDecodeError))


def explain(error: BaseException, where: str) -> str:
    """One line: what the error means, what to do, and what the client said, without secrets or control characters.

    Args:
        error: Anything that the client raised.
        where: What was talked to, such as a repo id.
    """
    cause = root_cause(error)
    if isinstance(cause, HubError):
        return str(cause)
    text = _by_kind(cause, where) or _by_status(status_of(error), where)
    if not text and is_transient(error):
        text = 'the Hub cannot be reached or is out of order: try again later'
    return f'{text or "the Hub refused it"} ({type(cause).__name__}: {_client_message(cause)})'


def _by_status(status: Optional[int], where: str) -> str:
    """What a status of the server means; empty if there is no more to say than the client does."""
    return _BY_STATUS[status].format(where=where) if status in _BY_STATUS else ''


def _by_kind(cause: BaseException, where: str) -> Optional[str]:
    """What the client's own errors mean."""
    from huggingface_hub import errors

    meanings = (
        (errors.GatedRepoError, f'{where} is gated: ask for access on its page, then {LOGIN}'),
        (
            errors.RepositoryNotFoundError,
            f'{where} does not exist or is private: check its name (and TIMM_ALFA_HUB_ORG), then {LOGIN}',
        ),
        (errors.RevisionNotFoundError, f'{where} has no such revision'),
        (
            errors.LocalEntryNotFoundError,
            'it is not in the cache and the Hub cannot be reached: connect, or unset HF_HUB_OFFLINE',
        ),
        (errors.OfflineModeIsEnabled, 'HF_HUB_OFFLINE is set and it is not in the cache: unset it'),
        (errors.EntryNotFoundError, f'{where} has no such file'),
    )
    return next((text for kind, text in meanings if isinstance(cause, kind)), None)


def _client_message(cause: BaseException) -> str:
    """The client's first line, which names the status, or all lines of its ValueErrors, which list errors."""
    lines = [line.strip().rstrip('.') for line in str(cause).splitlines() if line.strip()]
    text = '; '.join(lines if isinstance(cause, ValueError) else lines[:1])
    return printable(redact(text))[:LONGEST]

"""What the Hub's client raises, in words for a user, and what is worth trying again."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

TRANSIENT = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0)
LOGIN = 'log in with `hf auth login`, or set HF_TOKEN'


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
    """Whether the same request may succeed in a moment: a busy server, a cut connection, an answer that is no JSON."""
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library under the client has changed its name twice; its base class is a base of the client's own error.
    http_error = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == 'HTTPError')
    cause, status = root_cause(error), status_of(error)
    return status in TRANSIENT if status else isinstance(cause, (http_error, json.JSONDecodeError))


def persist(call: Callable[[], Any], waits: Sequence[float] = WAITS, done: Callable[[], Any] = lambda: None) -> Any:
    """`call()`, again after each of `waits` (seconds) where it failed for a reason that may pass.

    Args:
        call: The request.
        waits: Before each further attempt.
        done: Asked after a failure: what it gives, if not None, is the result (a request may have had its effect
            although its answer was lost).

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


def explain(error: BaseException, where: str) -> str:
    """One line: what the error means, what to do, and the client's own first line.

    Args:
        error: Anything that the client raised.
        where: What was talked to, such as a repo id.
    """
    from huggingface_hub import errors

    cause = root_cause(error)
    status = status_of(error)
    kinds = (
        (errors.GatedRepoError, f'{where} is gated: ask for access on its page, then {LOGIN}'),
        (
            errors.RepositoryNotFoundError,
            f'{where} does not exist, or is private: check its name (and TIMM_ALFA_HUB_ORG), then {LOGIN}',
        ),
        (errors.RevisionNotFoundError, f'{where} has no such revision'),
        (
            errors.LocalEntryNotFoundError,
            'it is not in the cache and the Hub cannot be reached: connect, or unset HF_HUB_OFFLINE',
        ),
        (errors.OfflineModeIsEnabled, 'HF_HUB_OFFLINE is set, and nothing of it is in the cache: unset it'),
        (errors.EntryNotFoundError, f'{where} has no such file'),
    )
    codes = {
        401: f'the token is missing or no longer valid: {LOGIN}',
        403: f'the token may not do this to {where}: {LOGIN}, with a token that can write',
        409: 'somebody else is changing it: run again',
        412: 'somebody else changed it in the meantime: run again',
        429: 'the Hub asks for fewer requests: run again in some minutes',
    }
    text = next((text for kind, text in kinds if isinstance(cause, kind)), None) or codes.get(status)
    if text is None:
        later = 'the Hub cannot be reached or is out of order: run again later'
        text = later if is_transient(error) else 'it was refused'
    lines = [line.strip().rstrip('.') for line in str(cause).splitlines() if line.strip()]
    # The client's first line says which status; what follows is for its own developers. Its ValueErrors list faults.
    said = '; '.join(lines if isinstance(cause, ValueError) else lines[:1])
    return f'{text} ({type(cause).__name__}: {said})'

"""What stands in for the calls of a module in a replay.

`in_turn`, `Once` and `composed` are what `redirected` takes: they make a new call of a module from its original one.
`with_states` is such a call.
"""

from typing import Any, Callable, Optional, Sequence

from timm_alfa.utils import rng

Change = Callable[[Any], Any]


def in_turn(values: list) -> Callable:
    """Answers a module's calls with one value after the other, and computes any further call."""
    rest = iter(values)

    def redirect(original: Callable) -> Callable:
        def answer(*args, **kwargs):
            for value in rest:
                return value
            return original(*args, **kwargs)

        return answer

    return redirect


class Once:
    """Changes a later feature once: after the outermost call of its module and of what gives its output."""

    def __init__(self, change: Change):
        self.change, self.running = change, 0

    def __call__(self, original: Callable) -> Callable:
        def call(*args, **kwargs):
            self.running += 1
            try:
                value = original(*args, **kwargs)
            finally:
                self.running -= 1
            return value if self.running else self.change(value)

        return call


def composed(makes: Sequence[Callable]) -> Callable:
    """Several of them as one, the last outermost."""

    def redirect(original: Callable) -> Callable:
        for make in makes:
            original = make(original)
        return original

    return redirect


def with_states(feature: Any, states: Optional[rng.States]) -> Callable:
    """Answers the call of a feature's module and sets the generators to where the recorded pass had them."""

    def answer(*args, **kwargs):
        if states is not None:
            rng.restore(states)
        return feature

    return answer

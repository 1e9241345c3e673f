"""What a recorded pass keeps, and who keeps it: stand-ins for modules that note what they return."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence

import torch

from timm_alfa.errors import BlockError
from timm_alfa.utils import pytree, rng


@dataclass
class Taken:
    """One feature of a recorded pass.

    Args:
        value: The output of its module, in the model's graph: a tensor, or a tuple, list or dict of them.
        moment: How many calls of watched modules had finished by then.
        states: States of the random generators by then; None if nothing random comes after it.
    """

    value: Any
    moment: int
    states: Optional[rng.States]


@dataclass(frozen=True)
class Call:
    """A finished call of a watched module: when, its output or a placeholder, and the watched calls around it."""

    moment: int
    value: Any
    around: frozenset[str]


@dataclass
class Record:
    """What a recorded pass leaves for its replays.

    Args:
        input: What the model was given.
        output: What it returned.
        taken: Features by index into the replay's names.
        answers: Finished calls by name of the watched module.
        overwritten: Modules whose outputs the model wrote into, if the pass was there to learn.
    """

    input: Any
    output: Any
    taken: dict[int, Taken]
    answers: dict[str, list[Call]]
    overwritten: frozenset[str]

    @property
    def features(self) -> list:
        """The features in the order of the replay's names."""
        return [self.taken[i].value for i in sorted(self.taken)]


@dataclass(frozen=True)
class Traits:
    """What the pass that learns taught.

    Args:
        overwritten: Modules whose outputs the model writes into.
        live: For each feature, whether the model's output also depends on outputs that bypass it.
        certain: Whether that holds for later passes; nothing is learned from an output that is not finite.
    """

    overwritten: frozenset[str]
    live: tuple[bool, ...]
    certain: bool = True


class Recorder:
    """Stands in for the watched modules while a pass is recorded."""

    def __init__(self, names: Sequence[str], owners: dict[str, str], kept: list[set[str]], traits: Optional[Traits]):
        self.names, self.owners, self.kept, self.traits = tuple(names), owners, kept, traits
        self.taken: dict[int, Taken] = {}
        self.answers: dict[str, list[Call]] = {}
        self.running: list[str] = []
        self.calls = dict.fromkeys(names, 0)
        self.clock = 0
        self.given: list[tuple[str, Any, list[int]]] = []

    def of(self, name: str) -> Callable:
        return lambda original: lambda *args, **kwargs: self._called(name, original, args, kwargs)

    def _called(self, name: str, original: Callable, args: tuple, kwargs: dict) -> Any:
        self.running.append(name)
        value = original(*args, **kwargs)
        self.running.pop()
        value = self._finished(name, value)
        while (name := self.owners.get(name)) is not None and name not in self.running:
            value = self._finished(name, value)
        return value

    def _finished(self, name: str, value: Any) -> Any:
        self.clock += 1
        if name in self.calls:
            value = self._feature(name, value)
        keeps = name in self.calls or any(name in names and names.isdisjoint(self.running) for names in self.kept)
        self.answers.setdefault(name, []).append(
            Call(self.clock, value if keeps else pytree.placeholder(value), frozenset(self.running))
        )
        if self.traits is not None and not (keeps and name in self.traits.overwritten):
            return value
        given = pytree.cloned(value)
        if self.traits is None:
            self.given.append((name, given, pytree.versions(given)))
        return given

    def _feature(self, name: str, value: Any) -> Any:
        self.calls[name] += 1
        if torch.is_grad_enabled():
            value = pytree.map_floats(_differentiable, value)
        self.taken[self.names.index(name)] = Taken(value, self.clock, rng.states(pytree.device_of(value)))
        return value

    def overwritten(self) -> frozenset[str]:
        return frozenset(name for name, given, before in self.given if pytree.versions(given) != before)

    def check(self) -> None:
        for name, calls in self.calls.items():
            if calls != 1:
                raise BlockError(
                    f"'{name}' is called {calls} times in a forward pass, so its feature is not defined: "
                    'name a module that is called once.'
                )
            if not pytree.floats(self.taken[self.names.index(name)].value):
                raise BlockError(f"'{name}' gives no floating-point tensor, so there is nothing to perturb.")


def _differentiable(x: torch.Tensor) -> torch.Tensor:
    """The same numbers at a place of their own in the graph.

    The module may return its input, and what bypasses the module is no part of the gradient at its output. Or all that
    comes before is frozen, and there is no graph yet.
    """
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()

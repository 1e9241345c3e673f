"""What a recorded pass keeps, and the stand-ins for modules that keep it."""

from dataclasses import dataclass
from typing import Any, Callable, Iterable, Optional

import torch

from timm_alfa.errors import BlockError
from timm_alfa.replay.module_tree import FeatureTree, ancestors
from timm_alfa.replay.norms import RunningNorms
from timm_alfa.replay.redirect import Redirect
from timm_alfa.utils import pytree, rng


@dataclass
class Feature:
    """One feature of a recorded pass.

    Attributes:
        value: The output of its module, in the model's graph: a tensor, or a tuple, list or dict of tensors.
        moment: How many calls of watched modules had finished by then.
        rng_states: States of the random generators at that moment; None if nothing random follows.
    """

    value: Any
    moment: int
    rng_states: Optional[rng.States]


@dataclass(frozen=True)
class ModuleCall:
    """A finished call of a watched module.

    Attributes:
        moment: How many calls of watched modules had finished by then, this one included.
        output: What it returned, or a placeholder of the same shape.
        inside: Names of the watched modules that were running then.
        rng_states: States of the random generators at that moment, where replays need them.
    """

    moment: int
    output: Any
    inside: frozenset[str]
    rng_states: Optional[rng.States] = None


@dataclass(frozen=True)
class BypassInfo:
    """How the output of a model depends on what comes before its features.

    Attributes:
        overwritten: Modules whose outputs the model writes into.
        bypassed: For each feature, whether the output also depends on earlier outputs other than through the feature.
        certain: Whether later passes can rely on it: nothing is learned from an output that is not finite.
        draws: Whether random numbers are drawn before a feature, between calls of watched modules: replays run that
            code again.
    """

    overwritten: frozenset[str]
    bypassed: tuple[bool, ...]
    certain: bool = True
    draws: bool = False


@dataclass(frozen=True)
class ForwardRecord:
    """What a recorded pass leaves for its replays.

    Attributes:
        batch: What the model was called on.
        output: What the call returned.
        captured: The features, by index into the replay's names.
        calls: Finished calls, by name of the watched module.
        info: What was known of the model; where nothing was (None), every output is kept.
        overwritten: Modules whose outputs the model wrote into, if nothing was known before.
        norms: The model's layers with running statistics.
        draws: Whether it drew random numbers between calls of watched modules, if nothing was known before.
        start_states: States of the random generators at its beginning, where replays need them.
        loss_states: States of the random generators before the loss of the output; None if it draws nothing.
    """

    batch: tuple
    output: Any
    captured: dict[int, Feature]
    calls: dict[str, list[ModuleCall]]
    info: Optional[BypassInfo]
    overwritten: frozenset[str]
    norms: RunningNorms
    draws: bool = False
    start_states: Optional[rng.States] = None
    loss_states: Optional[rng.States] = None

    @property
    def features(self) -> list:
        """The features in the order of the replay's names."""
        return [self.captured[index].value for index in sorted(self.captured)]

    def first(self, indices: Optional[Iterable[int]] = None) -> int:
        """The index of the feature that was computed first, of some or of all."""
        return min(self.captured if indices is None else indices, key=self.moment)

    @property
    def known(self) -> BypassInfo:
        """What was known of the model.

        Raises:
            RuntimeError: Nothing was.
        """
        if self.info is None:
            raise RuntimeError('this pass was recorded to learn about the model, not for replays.')
        return self.info

    def moment(self, index: int) -> int:
        """When a feature was computed."""
        return self.captured[index].moment


class Recorder:
    """Stands in for the watched modules during a recorded pass.

    Args:
        tree: The features and the watched modules.
        info: What is known of the model; None: every output is kept, and what the model writes into is found.
        device: Of the batch.

    Attributes:
        draws: Whether random numbers were drawn before a feature, between calls of watched modules.
        start_states: States of the random generators at the beginning, where replays need them.
    """

    def __init__(self, tree: FeatureTree, info: Optional[BypassInfo], device: torch.device):
        self.tree, self.info, self.device = tree, info, device
        self.draws = info is not None and info.draws
        self.start_states = self._states()
        self._latest_states = self.start_states
        self._has_drawn = False
        self._around = set().union(*map(ancestors, tree.names))
        self.captured: dict[int, Feature] = {}
        self.calls: dict[str, list[ModuleCall]] = {}

        bypassed = info.bypassed if info is not None else (True,) * len(tree.names)
        # by feature that is bypassed: the modules whose outputs its replays need
        self._needed = [{name, *tree.siblings[i]} for i, name in enumerate(tree.names) if bypassed[i]]
        self._feature_calls = dict.fromkeys(tree.names, 0)
        self._running: list[str] = []
        self._moment = 0
        self._copies: list[tuple[str, Any, list[int]]] = []

    def stand_in(self, name: str) -> Redirect:
        """Calls a watched module, and notes what it returns."""

        def redirect(original: Callable) -> Callable:
            def call(*args, **kwargs):
                return self._call(name, original, args, kwargs)

            return call

        return redirect

    def _call(self, name: str, original: Callable, args: tuple, kwargs: dict) -> Any:
        self._find_draws()
        self._running.append(name)
        output = original(*args, **kwargs)
        self._find_draws()
        self._running.pop()
        output = self._note(name, output)

        # what the last child of a Sequential returns is the Sequential's output, if that is not called as a whole
        owner = self.tree.owners.get(name)
        while owner is not None and owner not in self._running:
            output = self._note(owner, output)
            owner = self.tree.owners.get(owner)
        return output

    def _states(self) -> Optional[rng.States]:
        """The states of the random generators, as long as they matter."""
        return rng.states(self.device) if self.info is None or self.info.draws else None

    def _find_draws(self) -> None:
        """Finds out whether something is drawn where a replay runs the model's code again: around the features."""
        if self.info is not None:
            return
        states = self._states()
        if not self._running or self._running[-1] in self._around:
            self._has_drawn = self._has_drawn or not rng.same(self._latest_states, states)
        self._latest_states = states

    def _note(self, name: str, output: Any) -> Any:
        """Notes an output, and returns what the model gets to see of it."""
        self._moment += 1
        if name in self._feature_calls:
            output = self._capture(name, output)

        kept = name in self._feature_calls or self._is_needed(name)
        if not kept:
            keep_data = self.info is not None and self.info.certain
            noted = pytree.placeholder(output, shared=True, keep_data=keep_data)
        call = ModuleCall(self._moment, output if kept else noted, frozenset(self._running), self._states())
        self.calls.setdefault(name, []).append(call)

        if self.info is None:
            return self._watched_copy(name, output)
        return pytree.cloned(output) if kept and name in self.info.overwritten else output

    def _is_needed(self, name: str) -> bool:
        """Whether a replay returns this output: that of a call which is not part of another such call."""
        return any(name in needed and needed.isdisjoint(self._running) for needed in self._needed)

    def _capture(self, name: str, output: Any) -> Any:
        self._feature_calls[name] += 1
        self.draws = self.draws or self._has_drawn  # what is drawn after the last feature follows from its states
        if torch.is_grad_enabled():
            output = pytree.map_floats(_differentiable, output)
        states = rng.states(pytree.device_of(output))
        self.captured[self.tree.names.index(name)] = Feature(output, self._moment, states)
        return output

    def _is_trained(self, name: str) -> bool:
        return next(self.tree.watched[name].parameters(), None) is not None

    def _watched_copy(self, name: str, output: Any) -> Any:
        """A copy for the model, of which it shows later whether the model wrote into it."""
        copy = pytree.cloned(output)
        self._copies.append((name, copy, pytree.versions(copy)))
        return copy

    def overwritten(self) -> frozenset[str]:
        """The modules whose outputs the model wrote into, as far as copies were watched."""
        return frozenset(name for name, copy, before in self._copies if pytree.versions(copy) != before)

    def check(self) -> None:
        """Checks that every feature is defined.

        Raises:
            BlockError: A module was not called exactly once, or returned no floating-point tensor.
        """
        if not self.calls:
            raise BlockError(
                'no module around the features is called: a call has to run the model itself, model(...), once.'
            )
        for index, name in enumerate(self.tree.names):
            calls = self._feature_calls[name]
            if calls != 1:
                raise BlockError(
                    f"'{name}' is called {calls} times in a forward pass, so its feature is not defined: "
                    f'name a module before it that is called once{self._once_before(name)}.'
                )
            values = pytree.floats(self.captured[index].value)
            if not values:
                raise BlockError(f"'{name}' returns no floating-point tensor, so there is nothing to perturb.")
            if any(value.dim() == 0 for value in values):
                raise BlockError(
                    f"'{name}' returns a number, such as a loss, and not only features: name a module before it"
                    f'{self._once_before(name)}.'
                )

    def _once_before(self, name: str) -> str:
        """A hint, ', such as ...': the last module that was called once, before a feature was there."""
        calls = self.calls.get(name)
        if not calls:
            return ''
        once = {other: found[0] for other, found in self.calls.items() if len(found) == 1}
        before = [
            other
            for other, call in once.items()
            if call.moment < calls[0].moment and other not in self.tree.owners and self._is_trained(other)
        ]
        # what is shared by several levels gets them from another part of the model, if there is one before
        elsewhere = [other for other in before if other.partition('.')[0] != name.partition('.')[0]]
        last = max(elsewhere or before, key=lambda other: once[other].moment, default=None)
        return f", such as '{last}'" if last is not None else ''


def _differentiable(x: torch.Tensor) -> torch.Tensor:
    """The same numbers at a separate place in the graph.

    The module may return its input, and what bypasses the module is not part of the gradient at its output. Or all
    that comes before is frozen, and there is no graph yet.
    """
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()

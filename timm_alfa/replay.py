"""Run a model once, then only what comes after one of its features.

It works for any module tree, without surgery. During a replay the modules that ran before the feature (the siblings of
its module and of that module's ancestors) return what the record has of them instead of computing it, and the
feature's module returns the changed feature. Everything after it runs as usual. Below, a module that returns a
recorded value "answers".

What a record has to hold is learned in the first pass. A replay with NaN in place of every earlier output shows
whether the model's output depends on them other than through the feature. In most networks it does not, and from then
on placeholders without memory answer. Where it does (a feature inside of a residual branch, parallel branches) the
outputs are kept, and cloned if the model writes into them in place.

A Sequential may be called as a whole or child by child; timm's models do the latter when they checkpoint activations.
So the output of its last child counts as its own, and its children can answer too.

Compiled, a recorded pass enters the model at its first feature, too, if nothing bypasses that one: what comes before it
is one compiled function.
"""
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa import generators, norms, trees
from timm_alfa.errors import BlockError
from timm_alfa.front import Front
from timm_alfa.redirect import is_checkpointed, redirected, without_checkpointing
from timm_alfa.sharded import is_sharded

Change = Callable[[Any], Any]


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
    states: Optional[generators.States]


@dataclass
class Record:
    """What a recorded pass leaves for its replays.

    Args:
        input: What the model was given.
        output: What it returned.
        taken: Features by index into the replay's names.
        answers: Finished calls by name of the watched module.
    """
    input: Any
    output: Any
    taken: dict[int, Taken]
    answers: dict[str, list['_Call']]

    @property
    def features(self) -> list:
        """The features in the order of the replay's names."""
        return [self.taken[i].value for i in sorted(self.taken)]


@dataclass(frozen=True)
class _Call:
    """A finished call of a watched module: when, its output or a placeholder, and the watched calls around it."""
    moment: int
    value: Any
    around: frozenset[str]


@dataclass(frozen=True)
class _Traits:
    """What the first pass taught.

    Args:
        overwritten: Modules whose outputs the model writes into.
        live: For each feature, whether the model's output also depends on outputs that bypass it.
    """
    overwritten: frozenset[str]
    live: tuple[bool, ...]


class Replay:
    """Exact replays of a model from the outputs of some of its modules.

    Args:
        model: Any module; between calls nothing of this object is left on it.
        names: Module names, as `resolve_blocks` gives them.

    Raises:
        BlockError: A name is no module of the model.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        modules = dict(model.named_modules())
        missing = [name for name in names if name not in modules or not name]
        if missing or not names:
            raise BlockError(f"{type(model).__name__} has no module '{', '.join(missing)}': give names as "
                             "resolve_blocks(model, 'all') lists them.")
        self.model = model
        self.names = tuple(names)
        above = [_ancestors(name) for name in names]
        self._modules = modules
        counted = [module for module in modules.values() if norms.batch_norms(module)]
        self._uncheckpointed = [{modules[name] for name in path}.union(counted) for path in above]
        self._siblings = [_siblings(modules, path, name) for path, name in zip(above, names, strict=True)]
        watched = set(names).union(*self._siblings)
        watched.update(child for name in (*watched,) for child in _lasts(modules, name))
        self._owners = {lasts[0]: name for name in watched if (lasts := _lasts(modules, name))}
        self._watched = {name: module for name, module in modules.items() if name in watched}
        self._traits: Optional[_Traits] = None
        self._compiler: Optional[Callable] = None
        self._front: Optional[Front] = None
        self._earlier: dict[tuple, dict[str, list]] = {}

    def compile(self, compiler: Callable) -> None:
        """Lets recorded passes compute all that comes before the first feature as one function, where that is exact.

        Args:
            compiler: Compiles a function, as `torch.compile` does.
        """
        self._compiler = compiler

    def record(self, input: Any, call: Optional[Callable] = None) -> Record:
        """Runs the model and keeps what replays need.

        Args:
            input: A batch, as the model takes it.
            call: What to call in place of the model: its DistributedDataParallel wrapper, for one.

        Raises:
            BlockError: A feature's module was not called exactly once, or returned no floating-point tensor.
        """
        if self._compiler is None or is_checkpointed(self.model) or is_sharded(self.model.parameters()):
            return self._recorded(input, call)
        kind = _kind(input)
        if kind in self._earlier:
            return self._recorded(input, call, self._earlier[kind])
        before = generators.states(trees.device_of(input))
        with torch.compiler.set_stance('force_eager'):  # compiled parts before the feature would not be used again
            record = self._recorded(input, call)
            self._look_ahead(record, kind, before)
        return record

    def _recorded(self, input: Any, call: Optional[Callable], earlier: Optional[dict[str, list]] = None) -> Record:
        """A recorded pass; the front computes the first feature if it is known what `earlier` modules answer then."""
        recorder = _Recorder(self.names, self._owners, self._kept(), self._traits)
        makes: dict[str, list[Callable]] = {}
        around = {}
        if earlier is not None:
            ahead = _Ahead(self._front)
            makes = self._answering(earlier.items(), self._front.name, ahead.feature)
            around = {self.model: ahead.whole}
        targets = {module: _composed([*makes.get(name, ()), recorder.of(name)])
                   for name, module in self._watched.items()}
        with redirected({**targets, **around}, root=self.model):
            output = (call or self.model)(input)
        recorder.check()
        record = Record(input, output, recorder.taken, recorder.answers)
        end = generators.states(trees.device_of(output))
        for taken in record.taken.values():
            taken.states = None if generators.same(taken.states, end) else taken.states
        if self._traits is None:
            self._traits = self._learn(record, recorder.overwritten())
        return record

    def run(self, record: Record, changes: Mapping[int, Change], attached: bool = False) -> Any:
        """Runs what comes after the earliest of some features.

        Args:
            record: Of this step, from `record`.
            changes: By index into `names`, a function that takes a feature and returns the one to continue with. For
                the earliest feature it gets the recorded value, for later ones the value that the replay computes.
            attached: Whether gradients flow into the part before the feature.

        Returns:
            The model's output.
        """
        start = min(changes, key=lambda i: record.taken[i].moment)
        taken = record.taken[start]
        feature = changes[start](taken.value if attached else trees.detached(taken.value))
        makes = self._answering(
            self._answers(record, start, attached), self.names[start], lambda _: _answer(feature, taken.states))
        for index in sorted(set(changes) - {start}, key=lambda i: record.taken[i].moment):
            self._go_on_with(changes[index], self.names[index], makes)
        with ExitStack() as stack:
            stack.enter_context(without_checkpointing(self._uncheckpointed[start]))
            if taken.states is not None:
                stack.enter_context(generators.kept(trees.device_of(taken.value)))
            stack.enter_context(redirected(
                {self._watched[name]: _composed(those) for name, those in makes.items()}, root=self.model))
            return self.model(record.input)

    def is_overwritten(self, index: int) -> bool:
        """Whether the model writes into this feature in place; known after the first record."""
        return self.names[index] in self._traits.overwritten

    def stands_alone(self, index: int) -> bool:
        """Whether the output depends on the model's input through this feature alone. Call `record` first."""
        return not self._traits.live[index]

    @property
    def watched(self) -> set[nn.Module]:
        """The modules that may answer in a replay."""
        return set(self._watched.values())

    def parts(self) -> list[nn.Module]:
        """The modules that are worth compiling one by one: no feature lies inside, and there are layers to fuse.

        A classifier, or a pool before it, would be slower: entering compiled code costs more than it saves there.
        """
        around = set().union(*(_ancestors(name) for name in self.names))
        names = {name for name in self._watched if name not in around}
        return [self._watched[name] for name in self._watched if name in names and not names & _ancestors(name)
                and any(next(child.parameters(), None) is not None for child in self._watched[name].children())]

    def _answering(self, earlier: Iterable[tuple[str, list]], name: str, answer: Callable) -> dict[str, list[Callable]]:
        """What stands in for the modules before a feature, and for its own."""
        own = (name, *_lasts(self._modules, name))
        return {**{sibling: [_from(values)] for sibling, values in earlier}, **{module: [answer] for module in own}}

    def _go_on_with(self, change: Change, name: str, makes: dict[str, list[Callable]]) -> None:
        """Changes a later feature, whether its module is called as a whole or child by child."""
        then = _Then(change)
        makes.setdefault(name, []).append(then.whole)
        for last in _lasts(self._modules, name):
            makes.setdefault(last, []).append(then.last)

    def _kept(self) -> list[set[str]]:
        """For each live feature, the modules whose outputs its replays need."""
        live = self._traits.live if self._traits else (True,) * len(self.names)
        return [{*self._siblings[i], name} for i, name in enumerate(self.names) if live[i]]

    def _answers(self, record: Record, start: int, attached: bool):
        """Yields (name, values): what each sibling that finished before a feature answers in its replay."""
        answering = {*self._siblings[start], self.names[start]}
        for name in self._siblings[start]:
            values = [call.value for call in record.answers.get(name, ())
                      if call.moment < record.taken[start].moment and not call.around & answering]
            if not self._traits.live[start]:
                values = [trees.placeholder(value) for value in values]
            elif not attached:
                values = [trees.detached(value) for value in values]
            if name in self._traits.overwritten and self._traits.live[start]:
                values = [trees.cloned(value) for value in values]
            if values:
                yield name, values

    def _learn(self, record: Record, overwritten: frozenset[str]) -> _Traits:
        self._traits = _Traits(overwritten, (False,) * len(self.names))
        try:
            live = tuple(not self._is_all(record, i) for i in range(len(self.names)))
        finally:
            self._traits = None
        return _Traits(overwritten, live)

    def _look_ahead(self, record: Record, kind: tuple, before: Optional[generators.States]) -> None:
        """Keeps what the next passes of this kind need to begin with the front; without one, there is no other try."""
        start = min(record.taken, key=lambda i: record.taken[i].moment)
        self._front = self._front or self._find_front(record, start, before)
        if self._front is None:
            self._compiler = None
        else:
            self._earlier[kind] = dict(self._answers(record, start, attached=False))

    def _find_front(self, record: Record, start: int, before: Optional[generators.States]) -> Optional[Front]:
        """The function that computes a feature, tried out: its module is called as a whole or child by child."""
        if not self.stands_alone(start):
            return None
        name = self.names[start]
        fronts = (Front(self.model, self._modules[module], name, self._compiler)
                  for module in (name, *_lasts(self._modules, name)))
        return next((front for front in fronts if self._leads_to(front, record, start, before)), None)

    def _leads_to(self, front: Front, record: Record, start: int, before: Optional[generators.States]) -> bool:
        try:
            with torch.no_grad(), norms.still(self.model), generators.kept(trees.device_of(record.output)):
                generators.restore(before or {})
                return trees.close(front(record.input, eager=True), record.taken[start].value)
        except Exception:  # of hooks that do not expect the pass to end, say: compiled parts are safe
            return False

    def _is_all(self, record: Record, index: int) -> bool:
        """Whether the output is what it was although all outputs before the feature are NaN: nothing bypasses it.

        That it is finite would not be enough: a mask made by comparing with NaN is a mask.
        """
        try:
            with torch.no_grad(), norms.still(self.model), generators.kept(trees.device_of(record.output)):
                return trees.close(self.run(record, {index: trees.cloned}), record.output)
        except Exception:  # whatever the model needs of a placeholder beyond its shape: real outputs are safe
            return False


class _Recorder:
    """Stands in for the watched modules while a pass is recorded."""

    def __init__(self, names: Sequence[str], owners: dict[str, str], kept: list[set[str]], traits: Optional[_Traits]):
        self.names, self.owners, self.kept, self.traits = tuple(names), owners, kept, traits
        self.taken: dict[int, Taken] = {}
        self.answers: dict[str, list[_Call]] = {}
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
            _Call(self.clock, value if keeps else trees.placeholder(value), frozenset(self.running)))
        if self.traits is not None and not (keeps and name in self.traits.overwritten):
            return value
        given = trees.cloned(value)
        if self.traits is None:
            self.given.append((name, given, trees.versions(given)))
        return given

    def _feature(self, name: str, value: Any) -> Any:
        self.calls[name] += 1
        if torch.is_grad_enabled() and not any(x.requires_grad for x in trees.floats(value)):
            value = trees.map_floats(lambda x: x.detach().requires_grad_(), value)  # all before it is frozen
        self.taken[self.names.index(name)] = Taken(value, self.clock, generators.states(trees.device_of(value)))
        return value

    def overwritten(self) -> frozenset[str]:
        return frozenset(name for name, given, before in self.given if trees.versions(given) != before)

    def check(self) -> None:
        for name, calls in self.calls.items():
            if calls != 1:
                raise BlockError(f"'{name}' is called {calls} times in a forward pass, so its feature is not defined: "
                                 'name a module that is called once.')
            if not trees.floats(self.taken[self.names.index(name)].value):
                raise BlockError(f"'{name}' gives no floating-point tensor, so there is nothing to perturb.")


def _from(values: list) -> Callable:
    """Answers a module's calls with one value after the other, and computes any further call."""
    rest = iter(values)

    def redirect(original: Callable) -> Callable:
        def answer(*args, **kwargs):
            for value in rest:
                return value
            return original(*args, **kwargs)
        return answer
    return redirect


class _Ahead:
    """Computes a feature before the model is called, whose module then answers with it."""

    def __init__(self, front: Front):
        self.front, self.value = front, None

    def whole(self, original: Callable) -> Callable:
        def call(input):
            self.value = self.front(input)
            return original(input)
        return call

    def feature(self, original: Callable) -> Callable:
        return lambda *args, **kwargs: self.value


class _Then:
    """Changes a later feature once: after its module if that is called as a whole, else after its last child."""

    def __init__(self, change: Change):
        self.change, self.within = change, False

    def whole(self, original: Callable) -> Callable:
        def call(*args, **kwargs):
            self.within = True
            try:
                value = original(*args, **kwargs)
            finally:
                self.within = False
            return self.change(value)
        return call

    def last(self, original: Callable) -> Callable:
        def call(*args, **kwargs):
            value = original(*args, **kwargs)
            return value if self.within else self.change(value)
        return call


def _composed(makes: Sequence[Callable]) -> Callable:
    def redirect(original: Callable) -> Callable:
        for make in makes:
            original = make(original)
        return original
    return redirect


def _answer(feature: Any, states: Optional[generators.States]) -> Callable:
    """Answers the call of a feature's module and sets the generators to where the recorded pass had them."""
    def answer(*args, **kwargs):
        if states is not None:
            generators.restore(states)
        return feature
    return answer


def _kind(input: Any) -> tuple:
    """What the shapes and types of outputs depend on."""
    return (torch.is_autocast_enabled(trees.device_of(input).type),
            *((x.shape, x.dtype) for x in trees.tensors(input)))


def _ancestors(name: str) -> set[str]:
    parts = name.split('.')
    return {'.'.join(parts[:n]) for n in range(len(parts))}


def _is_sequence(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward and len(module) > 0


def _lasts(modules: Mapping[str, nn.Module], name: str) -> list[str]:
    """A Sequential's last child, that child's last child if it is a Sequential too, and so on."""
    found = []
    while _is_sequence(modules[name]):
        name = f'{name}.{list(modules[name]._modules)[-1]}'
        if name not in modules:  # shared with another place in the model, and listed under that name
            break
        found.append(name)
    return found


def _siblings(modules: Mapping[str, nn.Module], ancestors: set[str], name: str) -> set[str]:
    """Names of the siblings of a module and of its ancestors, and of the children of lists and Sequentials there."""
    lasts = {name, *_lasts(modules, name)}
    found, waiting = set(), [*ancestors, *(child for child in lasts if _is_sequence(modules[child]))]
    while waiting:
        parent = waiting.pop()
        below = {f'{parent}.{child}'.lstrip('.') for child, _ in modules[parent].named_children()}
        below = {child for child in below if child in modules and child not in ancestors | lasts}
        bare = {child for child in below if type(modules[child]).forward is nn.Module.forward}
        found |= below - bare  # bare lists are never called
        waiting += bare | {child for child in below if _is_sequence(modules[child])}
    return found

"""Run a model once, then only what comes after one of its features.

It works for any module tree, without surgery. During a replay the modules that ran before the feature (the siblings of
its module and of that module's ancestors) return what the record has of them instead of computing it, and the
feature's module returns the changed feature. Everything after it runs as usual. Below, a module that returns a
recorded value "answers".

What a record has to hold is learned before the first one, without gradients and from two images, so that it takes no
memory to speak of. A replay with NaN in place of every earlier output shows whether the model's output depends on them
other than through the feature. In most networks it does not, and placeholders without memory answer. Where it does (a
feature inside of a residual branch, parallel branches) the outputs are kept, and cloned if the model writes into them
in place.

A Sequential may be called as a whole or child by child; timm's models do the latter when they checkpoint activations.
So the output of its last child counts as its own, and its children can answer too.

Compiled, a recorded pass enters the model at its first feature, too, if nothing bypasses that one: what comes before it
is one compiled function.
"""

from contextlib import ExitStack
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa.errors import BlockError, warn
from timm_alfa.replay import norms
from timm_alfa.replay.answers import Change, Once, composed, in_turn, with_states
from timm_alfa.replay.module_tree import ancestors, lasts, siblings
from timm_alfa.replay.prefix import Ahead, Front, is_hooked
from timm_alfa.replay.recorder import Record, Recorder, Traits
from timm_alfa.replay.redirect import is_checkpointed, redirected, without_checkpointing
from timm_alfa.utils import pytree, rng
from timm_alfa.utils.fsdp import is_sharded

_WRITTEN = 'single memory location'  # torch's words for a write into a placeholder: that one is needed, nothing failed


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
            raise BlockError(
                f"{type(model).__name__} has no module '{', '.join(missing)}': give names as "
                "resolve_blocks(model, 'all') lists them."
            )
        self.model = model
        self.names = tuple(names)
        above = [ancestors(name) for name in names]
        self._modules = modules
        counted = [module for module in modules.values() if norms.batch_norms(module)]
        self._uncheckpointed = [{modules[name] for name in path}.union(counted) for path in above]
        self._siblings = [siblings(modules, path, name) for path, name in zip(above, names, strict=True)]
        watched = set(names).union(*self._siblings)
        watched.update(child for name in (*watched,) for child in lasts(modules, name))
        self._owners = {below[0]: name for name in watched if (below := lasts(modules, name))}
        self._watched = {name: module for name, module in modules.items() if name in watched}
        self._traits: Optional[Traits] = None
        self._compiler: Optional[Callable] = None
        self._front: Optional[Front] = None
        self._earlier: dict[tuple, dict[str, list]] = {}

    def compile(self, compiler: Callable) -> None:
        """Lets recorded passes compute all that comes before the first feature as one function, where that is exact.

        Args:
            compiler: Compiles a function, as `torch.compile` does.
        """
        self._compiler, self._front, self._earlier = compiler, None, {}

    def record(self, input: Any, call: Optional[Callable] = None) -> Record:
        """Runs the model and keeps what replays need.

        Args:
            input: A batch, as the model takes it.
            call: What to call in place of the model: its DistributedDataParallel wrapper, for one.

        Raises:
            BlockError: A feature's module was not called exactly once, or returned no floating-point tensor.
        """
        if self._traits is None or not self._traits.certain:
            self._traits = self._learn(input, call)
        if self._compiler is None or not self._traits.certain or not self._is_plain():
            return self._recorded(input, call)
        kind = _kind(input)
        if kind in self._earlier:
            return self._recorded(input, call, self._earlier[kind])
        if self._front is not None:
            record = self._recorded(input, call)
            self._look_ahead(record, kind)
            return record
        before = rng.states(pytree.device_of(input))
        # parts before the feature are not used again once there is a front: not worth compiling for one pass
        with torch.compiler.set_stance('force_eager'):
            record = self._recorded(input, call)
            self._front = self._find_front(record, before)
        self._look_ahead(record, kind)
        return record

    def _is_plain(self) -> bool:
        """Whether a pass may begin with its first feature: nothing of the model minds the order of calls."""
        return not (is_checkpointed(self.model) or is_hooked(self.model) or is_sharded(self.model.parameters()))

    def _recorded(self, input: Any, call: Optional[Callable], earlier: Optional[dict[str, list]] = None) -> Record:
        """A recorded pass; the front computes the first feature if it is known what `earlier` modules answer then."""
        recorder = Recorder(self.names, self._owners, self._kept(), self._traits)
        makes: dict[str, list[Callable]] = {}
        around = {}
        if earlier is not None:
            ahead = Ahead(self._front)
            makes = self._answering(earlier.items(), self._front.name, ahead.feature)
            around = {self.model: ahead.whole}
        targets = {
            module: composed([*makes.get(name, ()), recorder.of(name)]) for name, module in self._watched.items()
        }
        with redirected({**targets, **around}, root=self.model):
            output = (call or self.model)(input)
        recorder.check()
        record = Record(input, output, recorder.taken, recorder.answers, recorder.overwritten())
        end = rng.states(pytree.device_of(output))
        for taken in record.taken.values():
            taken.states = None if rng.same(taken.states, end) else taken.states
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
        feature = changes[start](taken.value if attached else pytree.detached(taken.value))
        makes = self._answering(
            self._answers(record, start, attached), self.names[start], lambda _: with_states(feature, taken.states)
        )
        for index in sorted(set(changes) - {start}, key=lambda i: record.taken[i].moment):
            self._go_on_with(changes[index], self.names[index], makes)
        with ExitStack() as stack:
            stack.enter_context(without_checkpointing(set().union(*(self._uncheckpointed[i] for i in changes))))
            if taken.states is not None:
                stack.enter_context(rng.preserve_rng(pytree.device_of(taken.value)))
            stack.enter_context(
                redirected({self._watched[name]: composed(those) for name, those in makes.items()}, root=self.model)
            )
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
        around = set().union(*(ancestors(name) for name in self.names))
        names = {name for name in self._watched if name not in around}
        return [
            self._watched[name]
            for name in self._watched
            if name in names
            and not names & ancestors(name)
            and any(next(child.parameters(), None) is not None for child in self._watched[name].children())
        ]

    def _answering(self, earlier: Iterable[tuple[str, list]], name: str, answer: Callable) -> dict[str, list[Callable]]:
        """What stands in for the modules before a feature, and for its own."""
        own = (name, *lasts(self._modules, name))
        return {**{sibling: [in_turn(values)] for sibling, values in earlier}, **{module: [answer] for module in own}}

    def _go_on_with(self, change: Change, name: str, makes: dict[str, list[Callable]]) -> None:
        """Changes a later feature, whether its module is called as a whole or child by child."""
        once = Once(change)
        for module in (name, *lasts(self._modules, name)):
            makes.setdefault(module, []).append(once)

    def _kept(self) -> list[set[str]]:
        """For each live feature, the modules whose outputs its replays need."""
        live = self._traits.live if self._traits else (True,) * len(self.names)
        return [{*self._siblings[i], name} for i, name in enumerate(self.names) if live[i]]

    def _answers(self, record: Record, start: int, attached: bool):
        """Yields (name, values): what each sibling that finished before a feature answers in its replay."""
        answering = {*self._siblings[start], self.names[start]}
        for name in self._siblings[start]:
            values = [
                call.value
                for call in record.answers.get(name, ())
                if call.moment < record.taken[start].moment and not call.around & answering
            ]
            if not self._traits.live[start]:
                values = [pytree.placeholder(value) for value in values]
            elif not attached:
                values = [pytree.detached(value) for value in values]
            if name in self._traits.overwritten and self._traits.live[start]:
                values = [pytree.cloned(value) for value in values]
            if values:
                yield name, values

    def _learn(self, input: Any, call: Optional[Callable]) -> Traits:
        """What passes of its own teach, which leave nothing behind: of two images, or all if the model needs them.

        They run uncompiled: compiled code would be made for this size of batch, too. Autocast must not keep weights
        from them, which have no graph.
        """
        few = input[:2] if type(input) is torch.Tensor and len(input) > 2 else input
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(norms.freeze_running_stats(self.model))
            stack.enter_context(rng.preserve_rng(pytree.device_of(input)))
            stack.enter_context(torch.compiler.set_stance('force_eager'))
            stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
            torch.set_autocast_cache_enabled(False)
            try:
                return self._lesson(few, call)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # whatever a model makes of so few
                if few is input:
                    raise
                return self._lesson(input, call)

    def _lesson(self, input: Any, call: Optional[Callable]) -> Traits:
        self._traits = None
        record = self._recorded(input, call)
        count = len(self.names)
        self._traits = Traits(record.overwritten, (False,) * count)
        try:
            live = tuple(not self._is_all(record, i) for i in range(count))
        finally:
            self._traits = None
        # each of several processes must make as many passes as the others, so none of them learns again
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return Traits(record.overwritten, live, certain=several or pytree.is_finite(record.output))

    def _look_ahead(self, record: Record, kind: tuple) -> None:
        """Keeps what the next passes of this kind need to begin with the front; without one, there is no other try."""
        if self._front is None:
            name = self.names[_first(record)]
            warn(f"compiled in parts: what comes before '{name}' cannot be one function of the input.")
            self._compiler = None
        else:
            self._earlier[kind] = dict(self._answers(record, _first(record), attached=False))

    def _find_front(self, record: Record, before: Optional[rng.States]) -> Optional[Front]:
        """The function that computes the first feature, tried out: its module is called whole or child by child."""
        start = _first(record)
        earlier = dict(self._answers(record, start, attached=False)) if self.stands_alone(start) else None
        # indices, say, are one batch's own
        if earlier is None or len(pytree.tensors(earlier)) > len(pytree.floats(earlier)):
            return None
        name = self.names[start]
        fronts = (
            Front(self.model, self._modules[module], name, self._compiler)
            for module in (name, *lasts(self._modules, name))
        )
        return next((front for front in fronts if self._leads_to(front, record, start, before)), None)

    def _leads_to(self, front: Front, record: Record, start: int, before: Optional[rng.States]) -> bool:
        try:
            with (
                torch.no_grad(),
                norms.freeze_running_stats(self.model),
                rng.preserve_rng(pytree.device_of(record.output)),
            ):
                rng.restore(before or {})
                return pytree.close(front(record.input), record.taken[start].value)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a model makes of a pass that ends early: compiled parts are safe
            return False

    def _is_all(self, record: Record, index: int) -> bool:
        """Whether the output is what it was although all outputs before the feature are NaN: nothing bypasses it.

        That it is finite would not be enough: a mask made by comparing with NaN is a mask.
        """
        try:
            return pytree.close(self.run(record, {index: pytree.cloned}), record.output)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the model needs of a placeholder beyond its shape: real outputs are safe
            if _WRITTEN not in str(error):
                warn(
                    f"what comes before '{self.names[index]}' is kept in memory: the model does not run on "
                    f'placeholders for it ({type(error).__name__}: {error}).'
                )
            return False


def _first(record: Record) -> int:
    """The index of the feature that was computed first."""
    return min(record.taken, key=lambda i: record.taken[i].moment)


def _kind(input: Any) -> tuple:
    """What the shapes, types and places of outputs depend on."""
    device = pytree.device_of(input)
    return (device, torch.is_autocast_enabled(device.type), *((x.shape, x.dtype) for x in pytree.tensors(input)))

"""Runs a model once, then only what comes after one of its features.

It works for any module tree, without surgery. During a replay the modules that ran before the feature (the siblings of
its module and of that module's ancestors) return what the record has of them instead of computing it, and the
feature's module returns the changed feature. Everything after it runs as usual.

What a record has to hold is learned before the first one (bypass.py): usually nothing but the feature.

A Sequential may be called as a whole or child by child; timm's models do the latter when they checkpoint activations.
So the output of its last child counts as its own, and its children are replaced too.

Compiled, a recorded pass also enters the model at its first feature, if nothing bypasses that one: what comes before
it is one compiled function (prefix.py).
"""

from contextlib import ExitStack
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence

import torch
import torch.nn as nn

from timm_alfa.errors import warn
from timm_alfa.replay.bypass import learn_bypass
from timm_alfa.replay.module_tree import FeatureTree, ancestors
from timm_alfa.replay.norms import RunningNorms, batch_norms
from timm_alfa.replay.prefix import Prefix, PrefixCache, is_hooked, leads_to_feature
from timm_alfa.replay.recorder import BypassInfo, ForwardRecord, Recorder
from timm_alfa.replay.redirect import (
    Cached,
    Change,
    Redirect,
    apply_once,
    chain,
    is_checkpointed,
    redirected,
    return_cached,
    return_with_rng,
    without_checkpointing,
)
from timm_alfa.utils import pytree, rng
from timm_alfa.utils.fsdp import is_sharded

Outputs = dict[str, list[Cached]]  # what the calls of a module return one after the other, by the module's name


class Entry(NamedTuple):
    """How a recorded pass of one kind of batch enters a model at its first feature."""

    prefix: Prefix  # computes the feature
    outputs: Outputs  # what the modules before it return


def call_model(model: Callable, *batch) -> Any:
    """Calls a model on all of a batch."""
    return model(*batch)


class Replay:
    """Exact replays of a model from the outputs of some of its modules.

    Args:
        model: Any module; between calls nothing of this object is left on it.
        names: Module names, as `resolve_blocks` returns them.
        call: How the model is called: `call(model, *batch)`.

    Raises:
        BlockError: A name is not a module of the model.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], call: Callable = call_model):
        self.model, self.call = model, call
        self._tree = FeatureTree(model, names)
        self._info: Optional[BypassInfo] = None
        self._uncheckpointed = self._around_features()
        # of compiled models
        self._compiler: Optional[Callable] = None
        self._prefix: Optional[Prefix] = None
        self._entries: dict[tuple, Entry] = {}

    def _around_features(self) -> list[set[nn.Module]]:
        """For each feature, the modules that must not run again in a backward pass: its ancestors, and what has norms.

        By then nothing is redirected, and running statistics would move.
        """
        modules = self._tree.modules
        with_norms = [module for module in modules.values() if batch_norms(module)]
        return [{modules[above] for above in ancestors(name)}.union(with_norms) for name in self.names]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modules that give the features."""
        return self._tree.names

    @property
    def watched(self) -> set[nn.Module]:
        """The modules that may return a recorded value in a replay."""
        return set(self._tree.watched.values())

    @property
    def is_certain(self) -> bool:
        """Whether all is known of the model that a record needs: the next one reads nothing from the device."""
        return self._info is not None and self._info.certain

    def is_overwritten(self, index: int) -> bool:
        """Whether the model writes into this feature in place; known after the first record."""
        return self.names[index] in self._known.overwritten

    def stands_alone(self, index: int) -> bool:
        """Whether the output depends on the batch through this feature alone; known after the first record."""
        return not self._known.bypassed[index]

    @property
    def _known(self) -> BypassInfo:
        if self._info is None:
            raise RuntimeError('nothing is known of the model before the first record.')
        return self._info

    # Recording

    def record(self, *batch, through: Optional[Callable] = None) -> ForwardRecord:
        """Runs the model and keeps what replays need.

        Args:
            batch: What the model is called on.
            through: What is called in place of the model, such as its DistributedDataParallel wrapper.

        Raises:
            BlockError: A feature's module was not called exactly once, or returned no floating-point tensor.
        """
        if not self.is_certain:
            self._info = None
            self._info = learn_bypass(self, batch, through)
        if self._compiler is not None and self.is_certain and self._may_start_at_feature():
            return self._record_compiled(self._compiler, batch, through)
        return self.run_recorded(batch, through, self._info)

    def run_recorded(
        self,
        batch: tuple,
        through: Optional[Callable],
        info: Optional[BypassInfo],
        entry: Optional[Entry] = None,
    ) -> ForwardRecord:
        """One recorded pass.

        Args:
            batch, through: See `record`.
            info: What is known of the model.
            entry: How the pass enters the model at its first feature; None: it is a plain one.
        """
        # who stands in for what
        recorder = Recorder(self._tree, info, pytree.device_of(batch))
        redirects: dict[str, list[Redirect]] = {}
        targets: dict[nn.Module, Redirect] = {}
        if entry is not None:
            cache = PrefixCache(entry.prefix)
            redirects = self._enter_at(entry.prefix.name, entry.outputs, cache.read)
            targets[self.model] = cache.fill
        for name, module in self._tree.watched.items():
            targets[module] = chain([*redirects.get(name, ()), recorder.stand_in(name)])

        # the pass
        norms = RunningNorms(self.model)
        with redirected(targets, root=self.model):
            output = self.call(through or self.model, *batch)
        recorder.check()

        # a feature after which nothing random is drawn needs no states
        end = rng.states(pytree.device_of(output))
        for feature in recorder.captured.values():
            if rng.same(feature.rng_states, end):
                feature.rng_states = None
        return ForwardRecord(
            batch,
            output,
            recorder.captured,
            recorder.calls,
            info,
            recorder.overwritten(),
            norms,
            draws=recorder.draws,
            start_states=recorder.start_states,
        )

    # Replaying

    def run(self, record: ForwardRecord, changes: Mapping[int, Change], attached: bool = False) -> Any:
        """Runs what comes after the earliest of some features.

        Args:
            record: Of this step, from `record`.
            changes: By index into `names`, a function that takes a feature and returns the one to continue with. For
                the earliest feature it is applied to the recorded value, for later ones to what the replay computes.
            attached: Whether gradients flow into the part before the feature.

        Returns:
            What the call of the model returns.
        """
        # the earliest feature is where the model is entered
        start = record.first(changes)
        feature = record.captured[start]
        value = changes[start](feature.value if attached else pytree.detached(feature.value))
        outputs = self._outputs_before(record, start, attached)
        redirects = self._enter_at(self.names[start], outputs, return_with_rng(value, feature.rng_states))

        # later ones are changed when they are computed
        for index in sorted(set(changes) - {start}, key=record.moment):
            change_once = apply_once(changes[index])
            for outlet in self._tree.outlets(self.names[index]):
                redirects.setdefault(outlet, []).append(change_once)

        # the pass
        targets = {self._tree.watched[name]: chain(those) for name, those in redirects.items()}
        uncheckpointed = set().union(*(self._uncheckpointed[index] for index in changes))
        with ExitStack() as stack:
            stack.enter_context(without_checkpointing(uncheckpointed))
            if feature.rng_states is not None or record.known.draws:
                stack.enter_context(rng.preserve_rng(pytree.device_of(feature.value)))
            if record.known.draws and record.start_states is not None:
                rng.restore(record.start_states)
            stack.enter_context(redirected(targets, root=self.model))
            return self.call(self.model, *record.batch)

    def _enter_at(self, name: str, outputs: Outputs, feature: Redirect) -> dict[str, list[Redirect]]:
        """What stands in for the modules before a feature, and for the module of the feature itself."""
        redirects = {sibling: [return_cached(values)] for sibling, values in outputs.items()}
        return redirects | {outlet: [feature] for outlet in self._tree.outlets(name)}

    def _outputs_before(self, record: ForwardRecord, start: int, attached: bool) -> Outputs:
        """What each sibling that finished before a feature returns in its replay."""
        info = record.known
        bypassed = info.bypassed[start]
        replaced = {*self._tree.siblings[start], self.names[start]}
        outputs = {}
        for name in self._tree.siblings[start]:
            calls = [
                call
                for call in record.calls.get(name, ())
                if call.moment < record.moment(start) and not call.inside & replaced
            ]
            values = [call.output for call in calls]
            if not bypassed:
                values = [pytree.placeholder(value, shared=info.certain, keep_data=info.certain) for value in values]
            elif not attached:
                values = [pytree.detached(value) for value in values]
            if bypassed and name in info.overwritten:
                values = [pytree.cloned(value) for value in values]
            if values:
                states = [call.rng_states for call in calls]
                outputs[name] = [Cached(*each) for each in zip(values, states, strict=True)]
        return outputs

    # Compiled models

    def compile(self, compiler: Callable) -> None:
        """Lets recorded passes compute all that comes before the first feature as one function, where that is exact.

        Args:
            compiler: Compiles a function, as `torch.compile` does.
        """
        self._compiler, self._prefix, self._entries = compiler, None, {}

    def parts(self) -> list[nn.Module]:
        """The modules that are worth compiling one by one: no feature lies inside, and there are layers to fuse.

        A classifier, or a pool before it, would be slower: entering compiled code costs more than it saves there.
        """
        around_features = set().union(*map(ancestors, self.names))
        names = {name for name in self._tree.watched if name not in around_features}
        outermost = [name for name in self._tree.watched if name in names and not names & ancestors(name)]
        modules = [self._tree.watched[name] for name in outermost]
        return [
            module
            for module in modules
            if any(next(child.parameters(), None) is not None for child in module.children())
        ]

    def _may_start_at_feature(self) -> bool:
        """Whether a pass may begin with its first feature: nothing of the model depends on the order of calls."""
        return not (
            is_checkpointed(self.model.modules()) or is_hooked(self.model) or is_sharded(self.model.parameters())
        )

    def _record_compiled(self, compiler: Callable, batch: tuple, through: Optional[Callable]) -> ForwardRecord:
        """A recorded pass that begins with the prefix, once there is one that fits this kind of batch."""
        kind = _kind(batch)
        if kind in self._entries:
            return self.run_recorded(batch, through, self._info, self._entries[kind])
        if self._prefix is not None:
            record = self.run_recorded(batch, through, self._info)
        else:
            record = self._record_and_find_prefix(compiler, batch, through)
        if self._prefix is not None:
            outputs = self._outputs_before(record, record.first(), attached=False)
            self._entries[kind] = Entry(self._prefix, outputs)
        return record

    def _record_and_find_prefix(self, compiler: Callable, batch: tuple, through: Optional[Callable]) -> ForwardRecord:
        """A recorded pass after which there is a prefix, or is known to be none: there is no second try."""
        states = rng.states(pytree.device_of(batch))
        # parts before the feature are not used again once there is a prefix: not worth compiling for one pass
        with torch.compiler.set_stance('force_eager'):
            record = self.run_recorded(batch, through, self._info)
            self._prefix = self._find_prefix(compiler, record, states)
        if self._prefix is None:
            name = self.names[record.first()]
            warn(f"compiled in parts: what comes before '{name}' cannot be one function of the input.")
            self._compiler = None
        return record

    def _find_prefix(self, compiler: Callable, record: ForwardRecord, states: Optional[rng.States]) -> Optional[Prefix]:
        """The function that computes the first feature, tried out: its module is called whole or child by child."""
        start = record.first()
        if not self.stands_alone(start):
            return None
        outputs = self._outputs_before(record, start, attached=False)
        if len(pytree.tensors(outputs)) > len(pytree.floats(outputs)) or not pytree.is_nan(outputs):
            return None  # indices or boxes, for example, belong to one batch
        name = self.names[start]
        for outlet in self._tree.outlets(name):
            prefix = Prefix(self.model, self._tree.modules[outlet], name, compiler)
            if leads_to_feature(prefix, self.call, record, states):
                return prefix
        return None


def _kind(batch: tuple) -> tuple:
    """What the shapes, dtypes and devices of outputs depend on."""
    device = pytree.device_of(batch)
    shapes = [(x.shape, x.dtype) for x in pytree.tensors(batch)]
    return (device, torch.is_autocast_enabled(device.type), *shapes)

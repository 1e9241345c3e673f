"""What all methods share: a plain timm model, parameters in addition to it, an objective, a count of updates."""

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Literal, Optional, overload

import torch
import torch.nn as nn
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model

from timm_alfa.errors import CheckpointError, ConfigError, warn
from timm_alfa.perturb.loss_scale import LossScale
from timm_alfa.tasks.epoch_plot import EpochPlot
from timm_alfa.tasks.extras import ModelWithExtras
from timm_alfa.tasks.loop_check import LoopCheck
from timm_alfa.tasks.objective import Objective, classifier_objective, general_objective, objective_of_call
from timm_alfa.utils.fsdp import distribute_like, keep_unsharded
from timm_alfa.utils.unwrap import unwrap

_VARIANTS = 8  # of a compiled part: with or without gradients, with or without tracking, from a leaf or not


class MethodTask(ClassificationTask):
    """A training task with a method's options, state and count of optimizer updates.

    Without `call` and `loss` it is timm's classification task.

    Args:
        model: Any classifier; with `call` or `loss`, any model.
        criterion: Loss of logits and targets; None: timm's default.
        config: The method's options.
        extras: Parameters and modules that the method trains in addition to the model, by name.
        call: How the model is called, as for `create_task`.
        loss: The loss of its output, as for `create_task`; it takes the place of the criterion.
        kwargs: For `timm.task.ClassificationTask`.

    Attributes:
        blocks: Names of the features that the method perturbs, if it perturbs features.
        only_classifiers: Why the method takes neither `call` nor `loss`, as a clause; empty if it takes both.
        total_updates: How many updates the training makes, for what follows a schedule; None until a loop says so.
    """

    blocks: tuple[str, ...] = ()
    only_classifiers: str = ''
    total_updates: Optional[int] = None

    def __init__(
        self,
        model: nn.Module,
        criterion=None,
        *,
        config: Any,
        extras: Optional[dict] = None,
        call: Optional[Callable] = None,
        loss: Optional[Callable] = None,
        **kwargs,
    ):
        has_criterion = criterion is not None or bool(kwargs.get('criterion_kwargs'))
        if unwrap(model) is not model:
            warn(
                'the model is wrapped (compiled or distributed); the task trains the module inside: call '
                'task.compile() and task.prepare_distributed() instead.'
            )
            model = unwrap(model)
        trained = ModelWithExtras(model, **extras) if extras else model
        super().__init__(trained, criterion if loss is None else loss, **kwargs)
        self._call = call
        # what `self.criterion` is: of 'batch' (`loss`), of 'logits', or not used, because the loss is in the 'output'
        self._loss_kind = 'batch' if loss is not None else 'logits' if has_criterion or call is None else 'output'
        self.config = config
        for line in config.no_effect():
            warn(line)
        self.loss_scale: Optional[LossScale] = None  # of methods that search
        self.updates = 0
        self._stepped = True
        self._counted_early = False
        self.loop_check = LoopCheck()

    @property
    def model(self) -> nn.Module:
        """The plain model."""
        module = unwrap(self.trainable_module)
        return module.model if isinstance(module, ModelWithExtras) else module

    @property
    def extras(self) -> Optional[ModelWithExtras]:
        """The model with the method's own parameters; None for a method without any."""
        module = unwrap(self.trainable_module)
        return module if isinstance(module, ModelWithExtras) else None

    def get_extra(self, name: str) -> Any:
        """One of the parameters and modules that the method trains in addition to the model."""
        return getattr(self.extras, name)

    @property
    def objective(self) -> Objective:
        """How the model is called, and the loss of its output: by default that of a classifier and `criterion`."""
        if self._loss_kind == 'batch':
            return general_objective(self._call, self.criterion)
        if self._call is not None:
            return objective_of_call(self._call, self.criterion if self._loss_kind == 'logits' else None)
        return classifier_objective(self.criterion)

    @property
    def is_classifier(self) -> bool:
        """Whether batches are images and classes: the model needs neither `call` nor `loss`."""
        return self._call is None and self._loss_kind == 'logits'

    def forward(self, *batch, **named) -> dict[str, torch.Tensor]:
        """Computes the loss of one training step.

        Args:
            batch: Images [B, C, H, W], normalized, and their classes [B] or soft targets [B, num_classes]. With `call`
                or `loss`, whatever these take.
            named: The same by name, for a classifier: input, target.

        Returns:
            'loss' to call backward on, 'output' (clean logits [B, num_classes], unless the method says otherwise, or
            what `call` returned), and detached parts such as 'loss_clean' and 'loss_adv'.
        """
        batch = self.objective.bind(batch, named)
        if torch.is_grad_enabled() and self.model.training:
            self.loop_check.begin_step(self.model)
        self._stepped = self._counted_early = False
        if not self.perturbs():
            return self.clean(*batch)
        with keep_unsharded((self, self.trainable_module, self.model)):
            return self.perturbed(*batch)

    def clean(self, *batch) -> dict[str, torch.Tensor]:
        """The result of a step in which the method does not act: what `forward` returns."""
        output = self.objective.call(self.trainable_module, *batch)
        loss = self.objective.loss(output, *batch)
        total = loss + self.extras.zero_loss() if self.extras else loss
        return {'loss': total, 'output': output, 'loss_clean': loss.detach()}

    def perturbed(self, *batch) -> dict[str, torch.Tensor]:
        """The result of a step in which the method acts: what `forward` returns."""
        raise NotImplementedError

    def perturbs(self) -> bool:
        """Whether the method acts in this step: in training mode, from update `start` on, in every `every`-th one."""
        since, every = self.updates - getattr(self.config, 'start', 0), getattr(self.config, 'every', 1)
        return self.model.training and torch.is_grad_enabled() and since >= 0 and since % every == 0

    def post_step(self) -> None:
        """Call this after each optimizer step: it counts the update, and enforces the method's constraints."""
        self.loop_check.end_step(self.model, self.own_parameters())
        self.count_update()
        self.constrain()
        self.loop_check.constrained(self.own_parameters())

    def count_update(self) -> None:
        """Counts an update: the part of `post_step` that is the host's."""
        self._stepped = True
        if not self._counted_early:
            self.updates += 1
        self._counted_early = False

    def constrain(self) -> None:
        """Enforces the constraints on the method's own parameters, if there are any: tensor operations only."""

    def forget_step(self) -> None:
        """Call this in place of `post_step` for an update that is left out: the method forgets what it noted of it."""

    def why_no_graph(self) -> str:
        """Why a step cannot be a CUDA graph, as a clause; empty where it can."""
        return ''

    def is_settled(self) -> bool:
        """Whether the next step reads nothing from the device: the first ones may, to learn what the model is like."""
        return True

    def update_ema(self, step: Optional[int] = None) -> None:
        """Updates the EMA of the weights, if there is one.

        timm's loop calls this after each optimizer step and does not know `post_step`, so it is called from here. A
        loop that calls both, in either order, counts each step once.
        """
        if not self._stepped:
            self.post_step()
            self._counted_early = True
        if self.has_ema():
            self.trainable_module_ema.update(unwrap(self.get_trainable_module()), step=step)

    def prepare_distributed(self, device_ids: Optional[list] = None, **ddp_kwargs) -> 'MethodTask':
        """Wraps what is trained in DistributedDataParallel; arguments as for `timm.task.ClassificationTask`.

        With `find_unused_parameters` it would count the method's own parameters as unused, because a call of the model
        does not use them, and fail when a step does: then each output depends on them, by a factor of zero.
        """
        if self.extras is not None:
            self.extras.touch_extras = ddp_kwargs.get('find_unused_parameters', False)
        super().prepare_distributed(device_ids, **ddp_kwargs)
        return self

    def own_parameters(self) -> list[nn.Parameter]:
        """The method's own parameters."""
        return list(self.extras.extra_parameters()) if self.extras is not None else []

    def extra_param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups of the method's own parameters."""
        params = self.own_parameters()
        return [{'params': params, 'weight_decay': 0.0}] if params else []

    def clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """The parameters whose gradients a loop clips: the model's, and those of extra modules (auxiliary norms).

        Bare parameters of a method, such as learned magnitudes, are not weights and have a separate learning rate.

        Args:
            exclude_head: Leave out the classifier, as adaptive gradient clipping does in its paper and in timm.
        """
        modules = self.extras.children() if self.extras is not None else [self.model]
        parameters = [p for module in modules for p in module.parameters()]
        if not exclude_head:
            return parameters
        model: Any = self.model  # with the methods of timm's models, if it is one of them
        head = model.get_classifier() if hasattr(model, 'get_classifier') else []
        heads = head if isinstance(head, (tuple, list)) else [head]  # some models have two
        excluded = {id(p) for each in heads if isinstance(each, nn.Module) for p in each.parameters()}
        return [p for p in parameters if id(p) not in excluded]

    def create_evaluator(self, **kwargs):
        """timm's evaluator of classifiers.

        Raises:
            ConfigError: The task has `call` or `loss`, so outputs are not known to be logits.
        """
        if not self.is_classifier:
            raise ConfigError(
                'a task with call or loss has no evaluator, which counts correct classes: evaluate '
                'task.get_eval_model() with the metric of your task.'
            )
        return super().create_evaluator(**kwargs)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """While inside, the next call in training mode perturbs; on leaving, every counter is as it was on entering.

        For trying one step before training. Running statistics are the caller's to restore.
        """
        counters = self.updates, self._stepped, self._counted_early
        scale = self.loss_scale.state_dict() if self.loss_scale is not None else None
        buffers = [] if self.extras is None else list(self.extras.buffers(recurse=False))
        values = [buffer.clone() for buffer in buffers]
        self.updates = getattr(self.config, 'start', 0)
        try:
            yield
        finally:
            self.updates, self._stepped, self._counted_early = counters
            if self.loss_scale is not None and scale is not None:
                self.loss_scale.load_state_dict(scale)
            for buffer, value in zip(buffers, values, strict=True):
                buffer.copy_(value)

    def strength_warning(self, rise: float) -> str:
        """What is wrong with an epoch in which the perturbed loss exceeded the clean one by this share; or nothing."""
        return ''

    def expected_cost(self, input: torch.Tensor) -> Optional[float]:
        """How many times as much a step costs as a standard one, in floating-point operations; None: unknown.

        Args:
            input: Images; two are enough.
        """
        return None

    def describe_loss(self) -> str:
        """What is minimized, as a clause; empty if it is the loss of the criterion."""
        return ''

    def epoch_metrics(self) -> dict[str, float]:
        """The method's own columns of an epoch's row. Every process calls it: what it reads may be sharded."""
        return {}

    def epoch_plots(self) -> list[EpochPlot]:
        """Plots of the columns of `epoch_metrics`."""
        return []

    def result_entries(self) -> dict[str, Any]:
        """The method's own entries of a run's record, as JSON holds them. Every process calls it."""
        return {}

    @overload
    def get_eval_model(self, module: Optional[nn.Module] = None, ema: Literal[False] = False) -> nn.Module: ...

    @overload
    def get_eval_model(self, module: Optional[nn.Module] = None, ema: bool = False) -> Optional[nn.Module]: ...

    def get_eval_model(self, module: Optional[nn.Module] = None, ema: bool = False) -> Optional[nn.Module]:
        """The plain model, or its EMA: what is evaluated and saved has timm's keys."""
        found = super().get_eval_model(module, ema)
        inner = unwrap(found)
        return inner.model if isinstance(inner, ModelWithExtras) else found

    def get_checkpoint_state(self, ema: bool = False, unwrap_fn: Callable = unwrap) -> dict[str, Any]:
        """Weights and method state. timm's saver passes its `unwrap_model`, which `unwrap` replaces."""
        return super().get_checkpoint_state(ema, unwrap if unwrap_fn is unwrap_model else unwrap_fn)

    def load_checkpoint_state(self, state_dict, task_state=None, ema: bool = False, strict: bool = True) -> None:
        """Restores what `get_checkpoint_state` returned.

        Raises:
            CheckpointError: There are no EMA weights to load into.
        """
        model = unwrap(self.get_eval_model(ema=ema))
        if model is None:
            raise CheckpointError('there are no EMA weights to load into: call setup_ema() first.')
        model.load_state_dict(state_dict, strict=strict)
        self.load_task_state(task_state, strict=strict, ema=ema)

    def get_task_state(self, module: Optional[nn.Module] = None, ema: bool = False) -> dict[str, Any]:
        """Updates so far, the scale of the search's loss, and the method's parameters (as 'own')."""
        state: dict[str, Any] = {'updates': self.updates}
        if self.loss_scale is not None:
            state['loss_scale'] = self.loss_scale.state_dict()
        trained = unwrap(module if module is not None else self.get_trainable_module(ema=ema))
        if isinstance(trained, ModelWithExtras):
            state['own'] = trained.extras_state_dict()
        return state

    def load_task_state(self, state, strict: bool = True, module=None, ema: bool = False) -> None:
        """Restores what `get_task_state` returned; None changes nothing."""
        if state is None:
            return
        self.updates = int(state['updates'])
        if self.loss_scale is not None and 'loss_scale' in state:
            self.loss_scale.load_state_dict(state['loss_scale'])
        trained = unwrap(module if module is not None else self.get_trainable_module(ema=ema))
        if isinstance(trained, ModelWithExtras):
            now = trained.state_dict()
            model = {name: value for name, value in now.items() if name.startswith('model.')}
            saved = {name: distribute_like(value, now.get(name, value)) for name, value in state.get('own', {}).items()}
            trained.load_state_dict({**model, **saved}, strict=strict)

    def compile(  # type: ignore[override]  # as timm's tasks
        self, backend: str = 'inductor', mode: Optional[str] = None, **compile_kwargs: Any
    ) -> nn.Module:
        """Compiles the model part by part, in place, so that replays can still start between the parts.

        Parts often share code, and each part is compiled again for passes without gradients, without tracking of
        statistics, and from a leaf. So torch's limit on recompilations is raised, for the whole process.

        Donated buffers are turned off: with them a backward pass may overwrite what its part saved, which a search
        reads before the training step does. They are off for every method, because inductor's cache on disk does not
        distinguish the two.
        """
        parts = self.parts()
        torch._functorch.config.donated_buffer = False
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _VARIANTS * (len(parts) + 1))
        for module in parts:
            module.compile(backend=backend, mode=mode, **compile_kwargs)
        return self.model

    def parts(self) -> list[nn.Module]:
        """The modules that `compile` compiles one by one; the whole model unless the method enters it."""
        return [self.model]

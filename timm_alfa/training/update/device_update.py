"""An update as one function that never reads from the device, so that it can be a CUDA graph.

Whether the loss is finite is decided on the device. An update whose loss is not finite leaves no trace: a fused
optimizer leaves weights and momentum alone (`found_inf`, which `torch.amp.GradScaler` uses), and what else an update
changes is put back by `torch.where`. The host looks at `bad` later.
"""

from contextlib import contextmanager
from typing import Iterator, Optional, Sequence

import torch
from timm.utils import dispatch_clip_grad

from timm_alfa.replay.norms import running_buffers
from timm_alfa.tasks.base import MethodTask
from timm_alfa.training.metrics import Totals
from timm_alfa.training.run import Run


class DeviceUpdate:
    """Forward, backward, step, constraints and sums of one update.

    The host writes learning rates before it (`rates.write`) and counts the update after it (`task.count_update`).

    Args:
        run: All that was built, with an optimizer that `graph_error` accepts.
        totals: Adds up what the task reports.

    Attributes:
        bad: Whether the loss of the latest update was not finite; a scalar on the device.
        rates: The learning rates on the device.
    """

    def __init__(self, run: Run, totals: Totals):
        self.run, self.totals = run, totals
        self.optimizer = run.optimizer.optimizer
        start_momentum(self.optimizer)
        self.rates = DeviceRates(self.optimizer, run.accelerator.device)
        self.bad = torch.zeros((), dtype=torch.bool, device=run.accelerator.device)
        self.changed = by_dtype(changed_besides_weights(run.task))
        self.clipped = run.task.clip_parameters(exclude_head=run.config.optim.clip_mode == 'agc')
        run.task.loop_check.expects_post_step = False  # the host counts updates later

    def __call__(self, input: torch.Tensor, target: torch.Tensor) -> None:
        """Makes one update.

        Args:
            input: [B, C, H, W].
            target: Class indices [B], or soft targets [B, num_classes].
        """
        # both passes
        before = [flat(tensors) for tensors in self.changed]
        with self.run.accelerator.autocast():
            result = self.run.wrapped(input, target)
        self.bad.copy_(~result['loss'].detach().isfinite())
        result['loss'].backward()

        # the step, and what follows it
        self.step()
        self.run.task.constrain()
        for tensors, values in zip(self.changed, before, strict=True):
            put_back(tensors, values, self.bad)

        # sums: a factor of zero would not do, since NaN times 0 is NaN
        sums = self.totals.sums.clone()
        self.totals.add(result, target)
        self.totals.sums.copy_(torch.where(self.bad, sums, self.totals.sums))

    def step(self) -> None:
        """Clips gradients and steps, unless the loss is not finite."""
        options = self.run.config.optim
        if options.clip_grad is not None:
            dispatch_clip_grad(self.clipped, options.clip_grad, options.clip_mode)
        self.optimizer.found_inf = self.bad.float()
        try:
            with self.rates.in_groups():
                self.optimizer.step()
        finally:
            del self.optimizer.found_inf
        self.optimizer.zero_grad()


class DeviceRates:
    """The learning rates of an optimizer's groups as scalars on the device, which a graph reads anew in every replay.

    Outside of `in_groups` the groups hold numbers, as schedules and saved states expect.

    Args:
        optimizer: A fused one; others read a tensor rate in every step.
        device: Where its parameters are.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device):
        self.groups = optimizer.param_groups
        self.scalars = [torch.zeros((), device=device) for _ in self.groups]
        self.written: list[Optional[float]] = [None] * len(self.groups)

    def write(self) -> None:
        """Writes the rates that have changed."""
        for at, group in enumerate(self.groups):
            if group['lr'] != self.written[at]:
                self.scalars[at].fill_(group['lr'])
                self.written[at] = group['lr']

    @contextmanager
    def in_groups(self) -> Iterator[None]:
        """While inside, the groups hold the scalars, and permit a capture where they have such a flag."""
        hidden = []
        capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        for group, scalar in zip(self.groups, self.scalars, strict=True):
            on_device = {'lr': scalar, **({'capturable': True} if capturing and 'capturable' in group else {})}
            hidden.append({key: group[key] for key in on_device})
            group.update(on_device)
        try:
            yield
        finally:
            for group, values in zip(self.groups, hidden, strict=True):
                group.update(values)


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives an SGD that has not stepped yet momentum of zero: its first step is the same, and may be a skipped one."""
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group['params'] if group['momentum'] else ():
            state = optimizer.state[parameter]
            if state.get('momentum_buffer') is None:
                state['momentum_buffer'] = torch.zeros_like(parameter)


def changed_besides_weights(task: MethodTask) -> list[torch.Tensor]:
    """What an update changes and an optimizer does not undo: running statistics, and what a method holds itself.

    A method's bare parameters (eta) are projected after each step, so they change in a skipped one, too.
    """
    bare = [] if task.extras is None else [*task.extras.parameters(recurse=False), *task.extras.buffers(recurse=False)]
    return [tensor.detach() for tensor in (*running_buffers(task), *bare)]


def by_dtype(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """One list per dtype: mixed ones are copied tensor by tensor on a GPU."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


@torch.no_grad()
def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """A copy of all tensors, one after the other."""
    return torch.cat([tensor.flatten() for tensor in tensors])


@torch.no_grad()
def put_back(tensors: list[torch.Tensor], before: torch.Tensor, bad: torch.Tensor) -> None:
    """Gives tensors the values that `flat` copied, if `bad`; a tensor on the device decides."""
    kept = torch.where(bad, before, flat(tensors)).split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [values.view_as(tensor) for values, tensor in zip(kept, tensors, strict=True)])

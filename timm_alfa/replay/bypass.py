"""Finds out how a model's output depends on what comes before its features.

A replay with NaN in place of every earlier output shows whether the model's output depends on them other than through
the feature. In most networks it does not, and placeholders without memory are enough. Where it does (a feature inside
a residual branch, parallel branches) the outputs are kept, and cloned if the model writes into them in place.
"""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Callable, Optional

import torch

from timm_alfa.errors import warn
from timm_alfa.replay.norms import freeze_running_stats
from timm_alfa.replay.recorder import BypassInfo, ForwardRecord
from timm_alfa.utils import pytree, rng

_WRITTEN = 'single memory location'  # torch's words for a write into a placeholder: that one is needed, nothing failed


def learn_bypass(replay, batch: tuple, through: Optional[Callable]) -> BypassInfo:
    """Learns from passes that leave nothing behind: of two images, or of all if the model needs them.

    They run without gradients, so they take no memory to speak of, and uncompiled: compiled code would be made for
    this size of batch, too. Autocast must not keep weights from them, which have no graph.

    Args:
        replay: Runs the passes.
        batch: What the model is called on.
        through: See `Replay.record`.
    """
    few = tuple(map(_first_two, batch))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(freeze_running_stats(replay.model))
        stack.enter_context(rng.preserve_rng(pytree.device_of(batch)))
        stack.enter_context(torch.compiler.set_stance('force_eager'))
        stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        torch.set_autocast_cache_enabled(False)
        try:
            return _learn_from(replay, few, through)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a model may raise anything on so few images
            if all(a is b for a, b in zip(few, batch, strict=True)):
                raise
            return _learn_from(replay, batch, through)


def _first_two(value: Any) -> Any:
    is_batched = type(value) is torch.Tensor and value.dim() > 0
    return value[:2] if is_batched and len(value) > 2 else value


def _learn_from(replay, batch: tuple, through: Optional[Callable]) -> BypassInfo:
    record = replay.run_recorded(batch, through, info=None)
    nothing_bypasses = BypassInfo(
        record.overwritten, (False,) * len(record.captured), certain=False, draws=record.draws
    )
    trial = replace(record, info=nothing_bypasses)
    bypassed = tuple(not _is_all(replay, trial, index) for index in range(len(record.captured)))
    # each of several processes must make as many passes as the others, so none of them learns again
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return BypassInfo(record.overwritten, bypassed, several or pytree.is_finite(record.output), record.draws)


def _is_all(replay, trial: ForwardRecord, index: int) -> bool:
    """Whether the output is the same although all outputs before the feature are NaN: nothing bypasses it.

    A finite output would not be proof enough: a mask made by comparing with NaN is a valid mask. Neither would be one
    in which no tensor is found.
    """
    try:
        output = replay.run(trial, {index: pytree.cloned})
        return bool(pytree.floats(trial.output)) and pytree.close(output, trial.output)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model may need more of an output than its shape: real outputs are safe
        if _WRITTEN not in str(error):
            warn(
                f"what comes before '{replay.names[index]}' is kept in memory: the model does not run on "
                f'placeholders for it ({type(error).__name__}: {error}).'
            )
        return False

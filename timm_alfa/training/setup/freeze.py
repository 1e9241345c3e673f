"""Parts of a model that are not trained: everything up to a stage, or everything but the classifier."""

from typing import Any, Collection, Mapping, Sequence, cast

from timm.models._manipulate import group_with_matcher
from timm.utils.model import freeze
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.errors import BlockError, ConfigError
from timm_alfa.training.options.config import ModelConfig


def freeze_parts(model: nn.Module, options: ModelConfig) -> None:
    """Freezes what --freeze or --linear-probe names: parameters, and the statistics of batch norms. In place.

    Raises:
        ConfigError: It names nothing, or leaves nothing to train, or the model does not say what comes first.
    """
    if options.linear_probe:
        freeze_tensors(model, all_but_classifier(model, options.model))
    elif options.freeze is not None:
        freeze_tensors(model, up_to(model, options.freeze, options.model))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f'--freeze {options.freeze} leaves nothing to train: name an earlier stage.')


def freeze_tensors(model: nn.Module, names: Collection[str]) -> None:
    """Freezes parameters by name, and the batch norms whose statistics are named, as timm does.

    Args:
        names: Of parameters and buffers.
    """
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    norms = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and f'{name}.running_mean' in names
    ]
    if norms:
        freeze(model, norms)
    for name in norms:
        freeze_batch_norm_1d(model.get_submodule(name))


class FrozenBatchNorm1d(nn.BatchNorm1d):
    """A batch norm that normalizes with its running statistics and keeps them, also in training."""

    def train(self, mode: bool = True) -> 'FrozenBatchNorm1d':
        return super().train(False)


def freeze_batch_norm_1d(model: nn.Module) -> None:
    """Freezes the batch norms of vectors, which timm's functions leave as they are. In place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = FrozenBatchNorm1d
            module.requires_grad_(False).eval()


def all_but_classifier(model: nn.Module, name: str) -> set[str]:
    """Names of all parameters and buffers outside the classifier, which may have a batch norm; some models have two.

    Raises:
        ConfigError: The model has none.
    """
    head = cast(Any, model).get_classifier()
    heads = [each for each in (head if isinstance(head, (tuple, list)) else [head]) if isinstance(each, nn.Module)]
    trained = {id(tensor) for each in heads for tensor in (*each.parameters(), *each.buffers())}
    if not trained:
        raise ConfigError(f"--linear-probe: model '{name}' has no classifier to train. Use --freeze.")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {key for key, tensor in tensors if id(tensor) not in trained}


def up_to(model: nn.Module, spec: str, name: str) -> set[str]:
    """Names of the parameters and buffers up to the last block that a spec means, by timm's grouping of layers.

    Raises:
        ConfigError: The spec names nothing, or the model has no such grouping.
    """
    try:
        blocks = resolve_blocks(model, spec)
    except BlockError as error:
        raise ConfigError(f'--freeze: {error}') from error
    try:
        matcher = cast(Any, model).group_matcher(coarse=False)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--freeze: model '{name}' does not say which layers come first. Use --linear-probe."
        ) from error

    tensors = [*model.named_parameters(), *model.named_buffers()]
    layers = group_with_matcher(iter(tensors), matcher, reverse=True)
    own = [layers[key] for key, _ in tensors if key.startswith(tuple(f'{block}.' for block in blocks))]
    last = max(own or _layers_before(model, blocks, layers), default=None)
    if last is None:
        raise ConfigError(f'--freeze {spec}: nothing up to {", ".join(blocks)} has weights. Name a later stage.')
    return {key for key, _ in tensors if layers[key] <= last}


def _layers_before(model: nn.Module, blocks: Sequence[str], layers: Mapping[str, int]) -> list[int]:
    """The layers of the modules before blocks without weights, such as the pools that end the stages of VGG."""
    order = {name: at for at, (name, _) in enumerate(model.named_modules())}
    end = max(order[block] for block in blocks)
    return [depth for key, depth in layers.items() if order[key.rpartition('.')[0]] < end]

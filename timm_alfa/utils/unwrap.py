"""The model inside the wrappers that models come in."""

from typing import Optional, TypeVar

import torch.nn as nn
from timm.utils import ModelEmaV2, ModelEmaV3

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, ModelEmaV2, ModelEmaV3)
_Model = TypeVar('_Model', nn.Module, Optional[nn.Module])  # None only for None


def unwrap(model: _Model) -> _Model:
    """The module inside DistributedDataParallel, torch.compile and timm's EMA; any other module as it is.

    timm's `unwrap_model` takes whatever has an attribute `module` for a wrapper, even a model with a child of that
    name.
    """
    while True:
        inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, '_orig_mod', None)
        if inner is None:
            return model
        model = inner

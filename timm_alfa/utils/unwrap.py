"""The model inside the wrappers that models come in."""

from typing import Optional

import torch.nn as nn
from timm.utils import ModelEmaV2, ModelEmaV3

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, ModelEmaV2, ModelEmaV3)


def unwrap(model: Optional[nn.Module]) -> Optional[nn.Module]:
    """The module inside DistributedDataParallel, torch.compile and timm's EMA; any other module as it is.

    timm's `unwrap_model` takes whatever has an attribute `module` for a wrapper, even a model with a child of that
    name.
    """
    while isinstance(model, _WRAPPERS) or hasattr(model, '_orig_mod'):
        model = model.module if isinstance(model, _WRAPPERS) else model._orig_mod
    return model

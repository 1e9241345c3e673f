"""The only place that touches timm's private registry: it has no public way to add tags to its own architectures.

https://github.com/huggingface/pytorch-image-models/issues/1751 endorses registration on import.
"""

import re
import warnings
from collections.abc import Collection, Mapping

import timm
from timm.models import PretrainedCfg, _registry

from timm_alfa.errors import AlfaWarning

TIMM_RANGE = ((1, 0, 31), (1, 1))  # tested: from the first, below the second
_PRIVATE = ('_model_pretrained_cfgs', '_model_with_tags', '_model_has_pretrained')


def timm_is_known() -> bool:
    """Whether the installed timm has the registry that `add_tags` was written for."""
    version = tuple(int(part) for part in re.findall(r'\d+', timm.__version__)[:3])
    in_range = TIMM_RANGE[0] <= version < TIMM_RANGE[1]
    return in_range and all(hasattr(_registry, name) for name in _PRIVATE)


def add_tags(cfgs: Mapping[str, PretrainedCfg], published: Collection[str]) -> bool:
    """Add names to timm's registry, or replace those that are there already.

    The architectures' own entry points, defaults and tags are not touched: rows are added to three tables.

    Args:
        cfgs: By `architecture.tag`; each architecture is registered with timm.
        published: The names that `timm.list_pretrained` shows.

    Returns:
        Whether they were added. With another version of timm there is a warning and no tags: importing never fails,
        and `hf-hub:` names need no tags.
    """
    if not timm_is_known():
        low, high = ('.'.join(map(str, version)) for version in TIMM_RANGE)
        warnings.warn(
            f"timm {timm.__version__} is outside >={low},<{high}: the names of timm_alfa's weights are not "
            "registered; load them as 'hf-hub:ORG/NAME'.",
            AlfaWarning,
            stacklevel=3,
        )
        return False
    for name, cfg in cfgs.items():
        _registry._model_pretrained_cfgs[name] = cfg
        with_tags = _registry._model_with_tags[name.partition('.')[0]]
        if name not in with_tags:
            with_tags.append(name)
        if name in published:
            _registry._model_has_pretrained.add(name)
        else:
            _registry._model_has_pretrained.discard(name)
    return True

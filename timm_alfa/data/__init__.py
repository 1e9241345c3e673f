"""Data: what to read, in which order, and how it becomes batches."""

from typing import TYPE_CHECKING

from timm_alfa.data.checks import no_effect, pair_errors
from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.utils.lazy import lazy_names

if TYPE_CHECKING:
    from timm_alfa.data.factory import Data, create_data, create_eval_loader, create_image_loader
    from timm_alfa.data.inspect import DataInfo, inspect_data
    from timm_alfa.data.loaders.base import Loader
    from timm_alfa.data.loaders.worker_errors import worker_error

__all__ = [
    'AugConfig',
    'Data',
    'DataConfig',
    'DataInfo',
    'Loader',
    'create_data',
    'create_eval_loader',
    'create_image_loader',
    'inspect_data',
    'no_effect',
    'pair_errors',
    'worker_error',
]

# What imports torch: the options above do not.
__getattr__ = lazy_names(
    __name__,
    {
        'Data': 'timm_alfa.data.factory',
        'DataInfo': 'timm_alfa.data.inspect',
        'Loader': 'timm_alfa.data.loaders.base',
        'create_data': 'timm_alfa.data.factory',
        'create_eval_loader': 'timm_alfa.data.factory',
        'create_image_loader': 'timm_alfa.data.factory',
        'inspect_data': 'timm_alfa.data.inspect',
        'worker_error': 'timm_alfa.data.loaders.worker_errors',
    },
)

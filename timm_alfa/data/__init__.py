"""Data: what to read, in which order, and how it becomes batches."""

from timm_alfa.data.checks import no_effect, pair_errors
from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.factory import Data, create_data, create_eval_loader
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
    'inspect_data',
    'no_effect',
    'pair_errors',
    'worker_error',
]

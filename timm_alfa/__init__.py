"""Adversarial training in feature space for any timm model. Importing registers models, tags and tasks.

Names are registered with timm as soon as both packages are imported, in whichever order. Until timm is needed, nothing
of it is imported, so that the commands answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from timm_alfa.utils.lazy import after_import, lazy_names
from timm_alfa.version import __version__ as __version__

if TYPE_CHECKING:
    from timm_alfa.blocks.spec import resolve_blocks
    from timm_alfa.probing.probe import probe
    from timm_alfa.tasks.registry import create_task, list_tasks
    from timm_alfa.zoo import list_pretrained

__all__ = ['create_task', 'list_pretrained', 'list_tasks', 'probe', 'resolve_blocks']

_SUBPACKAGES = ('blocks', 'data', 'errors', 'models', 'options', 'perturb', 'probing', 'replay', 'tasks', 'zoo')
_PLACES = {
    'create_task': 'timm_alfa.tasks',
    'list_pretrained': 'timm_alfa.zoo',
    'list_tasks': 'timm_alfa.tasks',
    'probe': 'timm_alfa.probing.probe',
    'resolve_blocks': 'timm_alfa.blocks.spec',
    **{name: f'timm_alfa.{name}' for name in _SUBPACKAGES},
}
__getattr__ = lazy_names(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


after_import('timm', lambda: import_module('timm_alfa.zoo'))

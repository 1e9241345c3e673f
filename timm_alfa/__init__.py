"""Adversarial training in feature space for any timm model. Importing registers models, tags and tasks."""

from timm_alfa import models as models
from timm_alfa import zoo as zoo
from timm_alfa.blocks.spec import resolve_blocks
from timm_alfa.probing.probe import probe
from timm_alfa.tasks import create_task, list_tasks
from timm_alfa.version import __version__ as __version__
from timm_alfa.zoo import list_pretrained

__all__ = ['create_task', 'list_pretrained', 'list_tasks', 'probe', 'resolve_blocks']

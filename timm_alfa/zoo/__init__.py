"""Load published weights by name. Importing this package registers the names with timm."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Optional, Union

import timm
from timm.models import PretrainedCfg

import timm_alfa.models.resnet_cifar  # noqa: F401  registers the CIFAR networks that tags name
from timm_alfa.errors import HubError
from timm_alfa.zoo.download import PublishedWeights, fetch
from timm_alfa.zoo.listing import Pretrained, describe
from timm_alfa.zoo.manifest import MANIFEST, Row, load_manifest, save_manifest
from timm_alfa.zoo.tags import DATASETS, TAGS, pretrained_cfg
from timm_alfa.zoo.timm_registry import add_tags

__all__ = ['DATASETS', 'TAGS', 'Row', 'fetch', 'list_published', 'load_manifest', 'register_tags', 'save_manifest']

_registered: dict[str, Optional[Row]] = {}


def register_tags(manifest: Union[str, Path] = MANIFEST, org: Optional[str] = None) -> tuple[str, ...]:
    """Register names with timm: those of `TAGS`, and the others in the manifest.

    Args:
        manifest: The list of what is published.
        org: Load all names from this organization; by default from TIMM_ALFA_HUB_ORG, read at each load, or else from
            where the manifest says.

    Returns:
        The names.

    Raises:
        HubError: The manifest cannot be read, or names an architecture that timm does not know.
    """
    rows = load_manifest(manifest)
    if unknown := sorted(name for name in rows if not timm.is_model(name) or '.' not in name):
        raise HubError(
            f'{manifest} has the names {", ".join(unknown)}: a name is ARCHITECTURE.TAG, with an architecture of '
            'timm.list_models().'
        )
    # names registered before stay, though they may no longer have weights
    names = tuple(dict.fromkeys((*_registered, *TAGS, *rows)))
    root = Path(manifest).parent
    add_tags({name: _cfg(name, rows.get(name), org, root) for name in names}, published=rows)
    _registered.clear()
    _registered.update({name: rows.get(name) for name in names})
    return names


def _cfg(name: str, row: Optional[Row], org: Optional[str], root: Path) -> PretrainedCfg:
    overrides = row.pretrained_cfg if row else {}
    return pretrained_cfg(name, **overrides, source='local-dir', file=PublishedWeights(name, row, org, root))


def list_published() -> list[str]:
    """The names that have weights."""
    return sorted(name for name, row in _registered.items() if row is not None)


def list_pretrained(filter: str = '', pretrained: bool = False) -> dict[str, Pretrained]:
    """The names of this project that `timm.create_model` takes, and what is known of each.

    Args:
        filter: A pattern with wildcards, such as 'resnet20s*', for names with or without their tag.
        pretrained: Leave out names without weights.

    Returns:
        By name, sorted.
    """
    found = {name: describe(name, row) for name, row in _registered.items() if row is not None or not pretrained}
    names = [name for name in found if not filter or fnmatch(name, filter) or fnmatch(name.partition('.')[0], filter)]
    return {name: found[name] for name in sorted(names)}


register_tags()

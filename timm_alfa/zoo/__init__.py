"""Published weights by name. Importing this package registers the names with timm."""

from pathlib import Path
from typing import Optional, Union

import timm

import timm_alfa.models  # noqa: F401  registers the CIFAR networks, which the tags name
from timm_alfa.errors import HubError
from timm_alfa.zoo.download import PublishedWeights, fetch
from timm_alfa.zoo.manifest import MANIFEST, Row, load_manifest, save_manifest
from timm_alfa.zoo.tags import DATASETS, TAGS, pretrained_cfg
from timm_alfa.zoo.timm_registry import add_tags

__all__ = ['DATASETS', 'TAGS', 'Row', 'fetch', 'list_published', 'load_manifest', 'register_tags', 'save_manifest']

_registered: dict[str, Optional[Row]] = {}


def register_tags(manifest: Union[str, Path] = MANIFEST, org: Optional[str] = None) -> tuple[str, ...]:
    """Register the names with timm: those of `TAGS`, and others that the manifest has.

    Args:
        manifest: What is published.
        org: Load all names from this organisation; by default from TIMM_ALFA_HUB_ORG, read at each load, or as
            the manifest says.

    Returns:
        The names.

    Raises:
        HubError: The manifest cannot be read, or names an architecture that timm does not know.
    """
    rows = load_manifest(manifest)
    strange = sorted(name for name in rows if not timm.is_model(name) or '.' not in name)
    if strange:
        raise HubError(
            f'{manifest} names {", ".join(strange)}: give ARCHITECTURE.TAG, with an architecture of timm.list_models().'
        )
    names = tuple(dict.fromkeys((*_registered, *TAGS, *rows)))
    cfgs = {
        name: pretrained_cfg(
            name,
            **(rows[name].pretrained_cfg if name in rows else {}),
            source='local-dir',
            file=PublishedWeights(name, rows.get(name), org, Path(manifest).parent),
        )
        for name in names
    }
    add_tags(cfgs, published=rows)
    _registered.clear()
    _registered.update({name: rows.get(name) for name in names})
    return names


def list_published() -> list[str]:
    """The names that have weights."""
    return sorted(name for name, row in _registered.items() if row is not None)


register_tags()

"""What is known of a name that can be created: architecture, dataset, accuracy and size of its weights."""

from typing import NamedTuple, Optional

from timm_alfa.zoo.manifest import Row
from timm_alfa.zoo.tags import TAGS


class Pretrained(NamedTuple):
    """A name, `architecture.tag`, and its weights.

    Attributes:
        architecture: As `timm.create_model` takes it.
        tag: The method and the dataset.
        dataset: What the weights are for; None if the tag does not say it.
        weights: Where they are, 'package' or 'hub'; None if there are none yet.
        top1: Percent, on `split`.
        split: The split that `top1` was measured on.
        size: Of the weights, in bytes.
    """

    architecture: str
    tag: str
    dataset: Optional[str] = None
    weights: Optional[str] = None
    top1: Optional[float] = None
    split: Optional[str] = None
    size: Optional[int] = None


def describe(name: str, row: Optional[Row]) -> Pretrained:
    """What is known of a name.

    Args:
        row: Of the manifest; None if nothing is published under this name.
    """
    architecture, _, tag = name.partition('.')
    dataset = TAGS[name].dataset.title if name in TAGS else None
    if row is None:
        return Pretrained(architecture, tag, dataset)
    where = 'package' if row.file else 'hub'
    return Pretrained(architecture, tag, dataset, where, row.top1, row.split, row.size)

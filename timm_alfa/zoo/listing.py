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
        robust_top1: Percent under validate.py's PGD attack, on `split`.
        recipe: What they were trained by, as `--config` takes it.
        seed: Of their training.
        epochs: Of their training.
        commit: This project's commit that trained them.
    """

    architecture: str
    tag: str
    dataset: Optional[str] = None
    weights: Optional[str] = None
    top1: Optional[float] = None
    split: Optional[str] = None
    size: Optional[int] = None
    robust_top1: Optional[float] = None
    recipe: Optional[str] = None
    seed: Optional[int] = None
    epochs: Optional[int] = None
    commit: Optional[str] = None


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
    training = (row.robust_top1, row.recipe, row.seed, row.epochs, row.commit)
    return Pretrained(architecture, tag, dataset, where, row.top1, row.split, row.size, *training)

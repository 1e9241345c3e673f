"""The names this project gives to weights, `architecture.method_dataset`, as rows."""

import dataclasses
import itertools
from typing import Any, Optional

import timm
from timm.models import PretrainedCfg

# What a tag takes from its architecture: everything that says how weights and images fit it, nothing of their source.
_STRUCTURE = (
    'input_size',
    'fixed_input_size',
    'pool_size',
    'first_conv',
    'classifier',
    'mean',
    'std',
    'interpolation',
    'crop_pct',
)
_CIFAR100_NORM = {'mean': (0.5071, 0.4865, 0.4409), 'std': (0.2673, 0.2564, 0.2762)}


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that tags and cards know.

    Args:
        key: The end of a tag.
        title: For people.
        hub_id: Its page on the Hub; None where it has none.
        num_classes: Of its labels.
        aliases: Last parts of what `--dataset` calls it.
        flags: How to train on it.
        cfg: What a tag's pretrained_cfg has of it.
        license: The terms of weights trained on it: fields of the card's metadata.
    """

    key: str
    title: str
    hub_id: Optional[str]
    num_classes: int
    aliases: tuple[str, ...]
    flags: str
    cfg: dict[str, Any] = dataclasses.field(default_factory=dict)
    license: dict[str, str] = dataclasses.field(default_factory=lambda: {'license': 'apache-2.0'})


# timm says of its own weights: assume that ImageNet's terms (non-commercial research) apply to them.
_IMAGENET_TERMS = {
    'license': 'other',
    'license_name': 'imagenet-terms-of-access',
    'license_link': 'https://www.image-net.org/download.php',
}
DATASETS = {
    row.key: row
    for row in (
        DataSet(
            'in1k',
            'ImageNet-1k',
            'ILSVRC/imagenet-1k',
            1000,
            ('imagenet-1k', 'imagenet', 'imagenet1k', 'ilsvrc2012'),
            '--data-dir /data/imagenet',
            {'crop_pct': 0.875, 'interpolation': 'bicubic'},
            _IMAGENET_TERMS,
        ),
        DataSet('c10', 'CIFAR-10', 'uoft-cs/cifar10', 10, ('cifar10',), '--dataset hfds/uoft-cs/cifar10'),
        DataSet(
            'c100',
            'CIFAR-100',
            'uoft-cs/cifar100',
            100,
            ('cifar100',),
            '--dataset hfds/uoft-cs/cifar100',
            _CIFAR100_NORM,
        ),
        DataSet('digits', "scikit-learn's digits", None, 10, ('digits',), '--dataset digits'),
    )
}

_GRID = (
    (('resnet18', 'resnet50', 'resnet101', 'resnet152', 'efficientnet_b0'), ('alfa',), ('in1k',)),
    (('resnet50',), ('l_alfa',), ('in1k',)),
    (('resnet20s', 'resnet56s'), ('alfa', 'l_alfa'), ('c10', 'c100')),
    (('resnet18_cifar', 'resnet50_cifar', 'resnet101_cifar'), ('alfa',), ('c10',)),
)


@dataclasses.dataclass(frozen=True)
class Tag:
    """One name: `model.method_dataset`."""

    model: str
    method: str
    dataset: DataSet

    @property
    def name(self) -> str:
        return f'{self.model}.{self.method}_{self.dataset.key}'


TAGS = {
    tag.name: tag
    for tag in (Tag(model, method, DATASETS[key]) for row in _GRID for model, method, key in itertools.product(*row))
}


def find_dataset(name: Optional[str], num_classes: Optional[int]) -> Optional[DataSet]:
    """The row of what `--dataset` (or an image folder's name) calls a data set, or None.

    The number of classes must agree: a folder called 'cifar10' may hold anything.
    """
    last = (name or '').rstrip('/').rsplit('/', 1)[-1].lower().replace('_', '-')
    rows = (row for row in DATASETS.values() if last in row.aliases and num_classes == row.num_classes)
    return next(rows, None)


def dataset_by_id(hub_id: Optional[str], num_classes: Optional[int]) -> Optional[DataSet]:
    """The row of a data set's id on the Hub, or None."""
    return next(
        (row for row in DATASETS.values() if hub_id and (row.hub_id, row.num_classes) == (hub_id, num_classes)), None
    )


def pretrained_cfg(name: str, **overrides) -> PretrainedCfg:
    """timm's record of a name: its architecture's structure, its data set's classes, and `overrides`.

    Raises:
        RuntimeError: timm has no such architecture, in timm's words.
    """
    model, _, tag = name.partition('.')
    base = timm.get_pretrained_cfg(model, allow_unregistered=False)
    fields = {key: getattr(base, key) for key in _STRUCTURE}
    if name in TAGS:
        fields.update(TAGS[name].dataset.cfg, num_classes=TAGS[name].dataset.num_classes)
    fields.update({key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()})
    return PretrainedCfg(**{**fields, 'architecture': model, 'tag': tag})

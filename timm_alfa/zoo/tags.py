"""The names of published weights, `architecture.method_dataset`, and the datasets that they name."""

import dataclasses
import itertools
from typing import Any, Optional

import timm
from timm.models import PretrainedCfg

# What a tag takes from its architecture: how weights and images fit it, and nothing about where weights come from.
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
    """A dataset that tags and cards know.

    Attributes:
        key: The end of a tag.
        title: Its name in text.
        hub_id: Its id on the Hub; None if it has none.
        num_classes: The number of its labels.
        aliases: Last parts of the values of `--dataset` that mean it.
        flags: How to train on it.
        cfg: What it contributes to a tag's pretrained_cfg.
        license: The license of weights trained on it: fields of the card's metadata.
        images: Of its training split and of the split that it is scored on.
    """

    key: str
    title: str
    hub_id: Optional[str]
    num_classes: int
    aliases: tuple[str, ...]
    flags: str
    cfg: dict[str, Any] = dataclasses.field(default_factory=dict)
    license: dict[str, str] = dataclasses.field(default_factory=lambda: {'license': 'apache-2.0'})
    images: tuple[int, int] = (0, 0)


# timm's advice about its own weights: assume that ImageNet's terms (non-commercial research) apply to them.
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
            images=(1_281_167, 50_000),
        ),
        DataSet(
            'c10',
            'CIFAR-10',
            'uoft-cs/cifar10',
            10,
            ('cifar10',),
            '--dataset hfds/uoft-cs/cifar10',
            images=(50_000, 10_000),
        ),
        DataSet(
            'c100',
            'CIFAR-100',
            'uoft-cs/cifar100',
            100,
            ('cifar100',),
            '--dataset hfds/uoft-cs/cifar100',
            _CIFAR100_NORM,
            images=(50_000, 10_000),
        ),
        DataSet('digits', "scikit-learn's digits", None, 10, ('digits',), '--dataset digits', images=(1437, 360)),
    )
}

_GRID = (
    (('resnet18', 'resnet50', 'resnet101', 'resnet152', 'efficientnet_b0'), ('alfa',), ('in1k',)),
    (('resnet50',), ('l_alfa',), ('in1k',)),
    (('resnet20s', 'resnet56s'), ('standard', 'alfa', 'l_alfa'), ('c10', 'c100')),
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


def _tags() -> dict[str, Tag]:
    tags = {}
    for models, methods, keys in _GRID:
        for model, method, key in itertools.product(models, methods, keys):
            tag = Tag(model, method, DATASETS[key])
            tags[tag.name] = tag
    return tags


TAGS = _tags()


def find_dataset(name: Optional[str], num_classes: Optional[int]) -> Optional[DataSet]:
    """The row that a value of `--dataset` or the name of an image folder means, or None.

    The number of classes must agree: a folder called 'cifar10' may hold anything.
    """
    last = (name or '').rstrip('/').rsplit('/', 1)[-1].lower().replace('_', '-')
    for row in DATASETS.values():
        if last in row.aliases and num_classes == row.num_classes:
            return row
    return None


def dataset_by_id(hub_id: Optional[str], num_classes: Optional[int]) -> Optional[DataSet]:
    """The row of a dataset's id on the Hub, or None."""
    for row in DATASETS.values():
        if hub_id and (row.hub_id, row.num_classes) == (hub_id, num_classes):
            return row
    return None


def pretrained_cfg(name: str, **overrides) -> PretrainedCfg:
    """timm's record of a name: its architecture's structure, its dataset's classes, and `overrides`.

    Raises:
        RuntimeError: timm has no such architecture.
    """
    model, _, tag = name.partition('.')
    base = timm.get_pretrained_cfg(model, allow_unregistered=False)
    fields = {key: getattr(base, key) for key in _STRUCTURE}
    if name in TAGS:
        fields.update(TAGS[name].dataset.cfg, num_classes=TAGS[name].dataset.num_classes)
    for key, value in overrides.items():
        fields[key] = tuple(value) if isinstance(value, list) else value
    return PretrainedCfg(**{**fields, 'architecture': model, 'tag': tag})

"""The CIFAR networks. Importing this package registers them with timm."""

import timm  # noqa: F401  first: names are registered once timm is there, before any of these modules is begun

from timm_alfa.models.resnet_cifar import (
    SmallStemResNet,
    resnet18_cifar,
    resnet20s,
    resnet34_cifar,
    resnet50_cifar,
    resnet56s,
    resnet101_cifar,
    resnet152_cifar,
)
from timm_alfa.models.three_stage import ThreeStageResNet, ZeroPadShortcut

__all__ = [
    'SmallStemResNet',
    'ThreeStageResNet',
    'ZeroPadShortcut',
    'resnet18_cifar',
    'resnet20s',
    'resnet34_cifar',
    'resnet50_cifar',
    'resnet56s',
    'resnet101_cifar',
    'resnet152_cifar',
]

"""ResNets for 32x32 images, registered with timm.

`resnet20s`, `resnet56s`: the three-stage networks of He et al. 2015 (arXiv:1512.03385), section 4.2.
`resnet18_cifar` to `resnet152_cifar`: timm's own ResNet with a 3x3 stride-1 stem and no max-pool.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from timm.layers import get_device_dtype
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from timm_alfa.errors import ConfigError
from timm_alfa.models.three_stage import ThreeStageResNet, make_blocks_stride

__all__ = ['SmallStemResNet']  # register_model adds the entry points

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


class SmallStemResNet(ResNet):
    """timm's ResNet for small images: a 3x3 stride-1 convolution in place of its 7x7 stem, and no max-pool.

    (N, in_chans, H, W) to logits (N, num_classes); the stages divide the size by 1, 2, 4 and 8.

    Args:
        block: timm's BasicBlock or Bottleneck.
        layers: Units in each of the four stages.
        num_classes: 0 for no classifier.
        output_stride: 2, 4 or 8; below 8, later stages dilate instead of striding.
        **kwargs: Arguments of timm's ResNet, except those of its stem.

    Raises:
        ConfigError: An argument of timm's stem, which this one replaces, or another output stride.
    """

    if TYPE_CHECKING:  # timm's ResNet has several types of both; TorchScript would read these annotations
        conv1: Any
        maxpool: Any
        feature_info: list[dict[str, Any]]

    def __init__(self, block: Any, layers: Sequence[int], num_classes: int = 10, output_stride: int = 8, **kwargs):
        stem = sorted({'stem_type', 'stem_width', 'replace_stem_pool'} & kwargs.keys())
        if stem:
            raise ConfigError(f"{', '.join(stem)}: this network's stem is fixed; leave it out, or take timm's resnet.")
        stride = make_blocks_stride(output_stride, (2, 4, 8))
        super().__init__(block, tuple(layers), num_classes=num_classes, output_stride=stride, **kwargs)
        width = self.conv1.out_channels
        self.conv1 = nn.Conv2d(self.in_chans, width, 3, padding=1, bias=False, **get_device_dtype(self))
        nn.init.kaiming_normal_(self.conv1.weight, mode='fan_out', nonlinearity='relu')  # as ResNet.init_weights
        self.maxpool = nn.Identity()
        self.feature_info[0]['reduction'] = 1
        for row in self.feature_info[1:]:
            row['reduction'] //= 4


def _cfg(pool_size: int) -> dict[str, Any]:
    return {
        'url': '',
        'num_classes': 10,
        'input_size': (3, 32, 32),
        'pool_size': (pool_size, pool_size),
        'crop_pct': 1.0,
        'interpolation': 'bicubic',
        'mean': CIFAR10_MEAN,
        'std': CIFAR10_STD,
        'first_conv': 'conv1',
        'classifier': 'fc',
        'license': 'apache-2.0',
        'paper_name': 'Deep Residual Learning for Image Recognition',
        'paper_ids': 'arXiv:1512.03385',
    }


default_cfgs = generate_default_cfgs(
    {
        'resnet20s': _cfg(8),
        'resnet56s': _cfg(8),
        'resnet18_cifar': _cfg(4),
        'resnet34_cifar': _cfg(4),
        'resnet50_cifar': _cfg(4),
        'resnet101_cifar': _cfg(4),
        'resnet152_cifar': _cfg(4),
    }
)


def _three_stage(variant: str, pretrained: bool, kwargs: dict, **model_args) -> ThreeStageResNet:
    features = {'out_indices': (0, 1, 2, 3), **(kwargs.pop('feature_cfg', None) or {})}  # timm's default is five
    return build_model_with_cfg(ThreeStageResNet, variant, pretrained, feature_cfg=features, **{**model_args, **kwargs})


def _small_stem(variant: str, pretrained: bool, kwargs: dict, **model_args) -> SmallStemResNet:
    return build_model_with_cfg(SmallStemResNet, variant, pretrained, **{**model_args, **kwargs})


@register_model
def resnet20s(pretrained: bool = False, **kwargs) -> ThreeStageResNet:
    """ResNet-20 of He et al. 2015 for CIFAR: 3 units per stage, 0.27M parameters."""
    return _three_stage('resnet20s', pretrained, kwargs, layers=(3, 3, 3))


@register_model
def resnet56s(pretrained: bool = False, **kwargs) -> ThreeStageResNet:
    """ResNet-56 of He et al. 2015 for CIFAR: 9 units per stage, 0.85M parameters."""
    return _three_stage('resnet56s', pretrained, kwargs, layers=(9, 9, 9))


@register_model
def resnet18_cifar(pretrained: bool = False, **kwargs) -> SmallStemResNet:
    """timm's ResNet-18 with a 3x3 stem and no max-pool, 11.2M parameters."""
    return _small_stem('resnet18_cifar', pretrained, kwargs, block=BasicBlock, layers=(2, 2, 2, 2))


@register_model
def resnet34_cifar(pretrained: bool = False, **kwargs) -> SmallStemResNet:
    """timm's ResNet-34 with a 3x3 stem and no max-pool, 21.3M parameters."""
    return _small_stem('resnet34_cifar', pretrained, kwargs, block=BasicBlock, layers=(3, 4, 6, 3))


@register_model
def resnet50_cifar(pretrained: bool = False, **kwargs) -> SmallStemResNet:
    """timm's ResNet-50 with a 3x3 stem and no max-pool, 23.5M parameters."""
    return _small_stem('resnet50_cifar', pretrained, kwargs, block=Bottleneck, layers=(3, 4, 6, 3))


@register_model
def resnet101_cifar(pretrained: bool = False, **kwargs) -> SmallStemResNet:
    """timm's ResNet-101 with a 3x3 stem and no max-pool, 42.5M parameters."""
    return _small_stem('resnet101_cifar', pretrained, kwargs, block=Bottleneck, layers=(3, 4, 23, 3))


@register_model
def resnet152_cifar(pretrained: bool = False, **kwargs) -> SmallStemResNet:
    """timm's ResNet-152 with a 3x3 stem and no max-pool, 58.2M parameters."""
    return _small_stem('resnet152_cifar', pretrained, kwargs, block=Bottleneck, layers=(3, 8, 36, 3))

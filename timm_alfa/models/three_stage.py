"""He et al.'s CIFAR networks, from timm's blocks: three stages, shortcuts without parameters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

import torch
import torch.nn.functional as F
from timm.layers import create_classifier, get_act_layer, get_norm_layer
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from timm.models.resnet import BasicBlock, ResNet, make_blocks
from torch import nn

from timm_alfa.errors import ConfigError

_STAGES = ('layer1', 'layer2', 'layer3')


def make_blocks_stride(output_stride: int, valid: Sequence[int]) -> int:
    """`output_stride` in the units of timm's `make_blocks`, which assumes that the stem divides the size by 4.

    Raises:
        ConfigError: `output_stride` is not one of `valid`.
    """
    if output_stride not in valid:
        known = ', '.join(map(str, valid))
        raise ConfigError(f'output_stride is {output_stride}: use one of {known} (the stem keeps the image size).')
    return 4 * output_stride


class ZeroPadShortcut(nn.Module):
    """Option A of He et al.: a shortcut without parameters. Every `stride`-th pixel, channels padded with zeros.

    (N, in_chs, H, W) to (N, out_chs, ceil(H / stride), ceil(W / stride)). The zeros go half before and half after the
    channels, as in the re-implementations that published weights come from.

    Args:
        in_chs: Channels of the input.
        out_chs: Channels of the output, no fewer than `in_chs`.
        stride: Step between the pixels that are kept.

    Raises:
        ConfigError: `out_chs` is smaller than `in_chs`.
    """

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1):
        super().__init__()
        extra = out_chs - in_chs
        if extra < 0:
            raise ConfigError(f'a zero-padded shortcut from {in_chs} to {out_chs} channels: use {in_chs} or more.')
        self.stride = stride
        self.pad = [0, 0, 0, 0, extra // 2, extra - extra // 2]  # a list: TorchScript's F.pad takes no tuple

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.pad)

    def extra_repr(self) -> str:
        return f'stride={self.stride}, pad_channels=({self.pad[4]}, {self.pad[5]})'


class ZeroPadBasicBlock(BasicBlock):
    """timm's BasicBlock; where timm would project the shortcut by a convolution, it pads with zeros."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Optional[nn.Module] = None, **kwargs):
        if downsample is not None:
            downsample = ZeroPadShortcut(inplanes, planes, stride)
        super().__init__(inplanes, planes, stride, downsample, **kwargs)


class ThreeStageResNet(ResNet):
    """He et al.'s CIFAR ResNet of 6n + 2 layers: 3x3 stem, three stages of n units, widths 16-32-64.

    (N, in_chans, H, W) to logits (N, num_classes); the stages divide the size by 1, 2 and 4. Modules are named as in
    timm's ResNet, without `maxpool` and `layer4`.

    Args:
        layers: Units in each of the three stages.
        in_chans: Channels of the image.
        num_classes: 0 for no classifier.
        global_pool: As in timm; '' for none.
        channels: Widths of the three stages; the stem has the first.
        output_stride: 1, 2 or 4; below 4, later stages dilate instead of striding.
        act_layer: Class or timm's name.
        norm_layer: Class or timm's name.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last unit; it grows linearly from 0 at the first.
        drop_block_rate: DropBlock in the last stage.
        zero_init_last: Start each unit as its shortcut. Off, as in He et al.; timm's ResNet has it on.
        block_args: Further arguments of timm's BasicBlock.

    Raises:
        ConfigError: Another output stride.
    """

    if TYPE_CHECKING:  # TorchScript would read these annotations
        conv1: Any  # timm's ResNet has a Sequential or a convolution here
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module

    def __init__(
        self,
        layers: Sequence[int],
        in_chans: int = 3,
        num_classes: int = 10,
        global_pool: str = 'avg',
        channels: Sequence[int] = (16, 32, 64),
        output_stride: int = 4,
        act_layer: Any = nn.ReLU,
        norm_layer: Any = nn.BatchNorm2d,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        drop_block_rate: float = 0.0,
        zero_init_last: bool = False,
        block_args: Optional[dict] = None,
        device: Any = None,
        dtype: Any = None,
    ):
        nn.Module.__init__(self)  # not ResNet's: its stem is 64 wide and its stages are four
        dd = {'device': device, 'dtype': dtype}
        act_layer, norm_layer = get_act_layer(act_layer), get_norm_layer(norm_layer)
        self.in_chans, self.num_classes = in_chans, num_classes
        self.drop_rate, self.grad_checkpointing = drop_rate, False

        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False, **dd)
        self.bn1 = norm_layer(channels[0], **dd)
        self.act1 = act_layer(inplace=True)
        stages, info = make_blocks(
            (ZeroPadBasicBlock,) * 3,
            tuple(channels),
            tuple(layers),
            channels[0],
            output_stride=make_blocks_stride(output_stride, (1, 2, 4)),
            act_layer=act_layer,
            norm_layer=norm_layer,
            drop_path_rate=drop_path_rate,
            drop_block_rate=drop_block_rate,
            **(block_args or {}),
            **dd,
        )
        for name, stage in stages:
            self.add_module(name, stage)
        self.feature_info = [{'num_chs': channels[0], 'reduction': 1, 'module': 'act1'}]
        self.feature_info += [{**row, 'reduction': row['reduction'] // 4} for row in info]

        self.num_features = channels[-1]
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool, **dd)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.init_weights(zero_init_last=zero_init_last)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last stage's output, (N, 64, H / 4, W / 4)."""
        x = self.act1(self.bn1(self.conv1(x)))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq([self.layer1, self.layer2, self.layer3], x, flatten=True)
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: Optional[Union[int, list[int]]] = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ):
        """Features of the stem (index 0) and the stages (1 to 3), as timm's ResNet returns them.

        Args:
            x: Images.
            indices: The last n features if an int, all if None, those if a list.
            norm: No effect: these features have no final norm. timm passes it to every model.
            stop_early: Run no stage after the last requested feature.
            output_fmt: Only 'NCHW'.
            intermediates_only: Leave out the final feature.

        Returns:
            The final feature and the list of intermediates, or the list alone.

        Raises:
            ConfigError: Another output format.
        """
        if output_fmt != 'NCHW':
            raise ConfigError(f"output_fmt is '{output_fmt}': use 'NCHW', the only one of a convolutional network.")
        take, last = feature_take_indices(len(self.feature_info), indices)
        x = self.act1(self.bn1(self.conv1(x)))
        features = [x]
        for name in _STAGES[:last] if stop_early else _STAGES:
            stage = getattr(self, name)
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            features.append(x)
        taken = [feature for index, feature in enumerate(features) if index in take]
        return taken if intermediates_only else (x, taken)

    def prune_intermediate_layers(
        self,
        indices: Union[int, list[int]] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Empties the stages after the last requested feature, and drops the head that no longer fits.

        Args:
            indices: As in `forward_intermediates`.
            prune_norm: No effect: these features have no final norm. timm passes it to every model.
            prune_head: Drop the head even if all stages stay.

        Returns:
            The indices that stay, counted from the stem.
        """
        take, last = feature_take_indices(len(self.feature_info), indices)
        for name in _STAGES[last:]:
            setattr(self, name, nn.Sequential())
        self.num_features = self.feature_info[last]['num_chs']
        if prune_head or last < len(_STAGES):
            self.reset_classifier(0, '')
        return take

"""EfficientNet-Lite without its classifier, as a PyTorch network and as an ONNX model.

EfficientNet (Tan & Le, 2019, https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and with ReLU6. Names and
shapes of the weights are those of the PyTorch files that were converted from TensorFlow's.
"""

import math

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from hangtag.training.engine.networks import WHITE
from hangtag.training.engine.onnx_writer import GraphWriter

__all__ = ["DEVIATION", "MEAN", "SIDES", "EfficientNetLite", "PaddedConv", "lite_model"]

MEAN, DEVIATION = 127.0, 128.0
"""What the network subtracts from pixels from 0 to 255, and then divides them by."""

SIDES = {0: 224, 1: 240, 2: 260}
"""The size of the images that each variant was trained on, in pixels."""

_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of the number of channels and of blocks
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, size of the kernel, stride of the first block, expansion, channels."""

_STEM, _HEAD = 32, 1280


class EfficientNetLite(nn.Module):
    """Takes float32 pixels (N, 3, H, W) from 0 to 1, returns feature maps (N, 1280, H / 32, W / 32).

    Args:
        variant: a key of `SIDES`.
    """

    def __init__(self, variant: int) -> None:
        super().__init__()
        width, depth = _SCALES[variant]
        self._conv_stem, self._bn0 = PaddedConv(3, _STEM, 3, 2), _norm(_STEM)
        blocks, inputs = [], _STEM
        for place, (count, kernel, stride, expansion, channels) in enumerate(_STAGES):
            outputs = _rounded(channels * width)
            repeats = count if place in (0, len(_STAGES) - 1) else math.ceil(count * depth)
            for number in range(repeats):
                blocks.append(LiteBlock(inputs, outputs, kernel, 1 if number else stride, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = PaddedConv(inputs, _HEAD, 1), _norm(_HEAD)

    def forward(self, x: Tensor) -> Tensor:
        x = (x * WHITE - MEAN) / DEVIATION
        x = relu6(self._bn0(self._conv_stem(x)))
        x = self._blocks(x)
        return relu6(self._bn1(self._conv_head(x)))


class PaddedConv(nn.Conv2d):
    """A convolution without bias that pads kernel - stride rows and columns, the odd one last.

    For even sizes this is TensorFlow's padding "same". For odd ones it is not, but known images are classified better:
    the cross-entropy of 21 photos at 240 pixels (variant 1) is 0.40 instead of 0.72, at 260 (variant 2) 0.34
    instead of 0.58.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.before = (kernel - stride) // 2
        self.after = kernel - stride - self.before

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(pad(x, (self.before, self.after) * 2))
        return result


class LiteBlock(nn.Module):
    """Expansion, depthwise convolution and projection, with a residual connection where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = PaddedConv(inputs, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = PaddedConv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = PaddedConv(inner, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        inner = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = relu6(self._bn1(self._depthwise_conv(inner)))
        y: Tensor = self._bn2(self._project_conv(inner))
        return x + y if self.residual else y


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8."""
    return int(channels + 4) // 8 * 8


def lite_model(network: EfficientNetLite, side: int) -> onnx.ModelProto:
    """The network in evaluation mode: "pixels" (N, 3, side, side) -> "embedding" (N, 1280), "maps" (N, 1280, h, w).

    Batch normalisation is folded into the convolutions.
    """
    writer = GraphWriter()
    low, high = (writer.constant(torch.tensor(value)) for value in (0.0, 6.0))

    def conv(x: str, conv: PaddedConv, norm: nn.BatchNorm2d, name: str) -> str:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = (conv.weight.double() * scale[:, None, None, None]).float()
        bias = (norm.bias.double() - norm.running_mean.double() * scale).float()
        pads = [conv.before] * 2 + [conv.after] * 2
        names = writer.constant(weight, f"{name}.weight"), writer.constant(bias, f"{name}.bias")
        return writer.add("Conv", x, *names, pads=pads, strides=conv.stride, group=conv.groups)

    x = writer.add("Mul", "pixels", writer.constant(torch.tensor(WHITE / DEVIATION)))
    x = writer.add("Sub", x, writer.constant(torch.tensor(MEAN / DEVIATION)))
    x = writer.add("Clip", conv(x, network._conv_stem, network._bn0, "stem"), low, high)
    for number, block in enumerate(network._blocks):
        assert isinstance(block, LiteBlock)
        y, name = x, f"block{number}"
        if block.expands:
            y = writer.add("Clip", conv(y, block._expand_conv, block._bn0, f"{name}.expand"), low, high)
        y = writer.add("Clip", conv(y, block._depthwise_conv, block._bn1, f"{name}.depthwise"), low, high)
        y = conv(y, block._project_conv, block._bn2, f"{name}.project")
        x = writer.add("Add", x, y) if block.residual else y
    writer.add("Clip", conv(x, network._conv_head, network._bn1, "head"), low, high, output="maps")
    writer.add("Flatten", writer.add("GlobalAveragePool", "maps"), output="embedding")
    last = side // 32
    shapes = {"embedding": f"{_HEAD}", "maps": f"{_HEAD}, {last}, {last}"}
    return writer.model(f"3, {side}, {side}", shapes)

"""The network architectures, smallest first.

Every network takes float32 pixels (N, C, H, W) from 0 to 1 and returns logits (N, K). Scaling and softmax are done
elsewhere.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from hangtag.errors import ModelError
from hangtag.pictures import ImageSpec
from hangtag.training.engine.guard import custom_code

__all__ = [
    "NETWORKS",
    "WHITE",
    "Block",
    "FlipTTA",
    "GlobalMax",
    "Layer",
    "Standardise",
    "Summary",
    "channels_first",
    "channels_last",
    "device_of",
    "is_builtin",
    "layers",
    "parameter_count",
    "scale_invariant_weights",
]

WHITE = 255
"""The largest value of a uint8 pixel; networks see pixels divided by it."""

_MIN_SIDE = 4  # pixels; one stride and one pooling leave 1
_FULL_SIZE = 56 * 56  # pixels; larger images are halved: a fifth of the time, no worse; docs/log.md
_MIN_HALVED = 32  # pixels of the shorter side


@dataclass(frozen=True)
class Layer:
    """One row of the layer table; `shape` omits the batch dimension."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def mlp(spec: ImageSpec, classes: int) -> nn.Module:
    """The lesson's network: Flatten > Dense 128 ReLU > Dense 10; 101,770 parameters for 28x28 grey images."""
    inputs = spec.channels * spec.height * spec.width
    parts = {"flatten": nn.Flatten(), "hidden": _dense(inputs, 128), "relu": nn.ReLU(), "logits": _dense(128, classes)}
    return nn.Sequential(OrderedDict(parts))


def cnn(
    spec: ImageSpec,
    classes: int,
    widths: tuple[int, int, int] = (16, 32, 64),
    residual: tuple[int, int, int] = (1, 1, 2),
) -> nn.Module:
    """A small residual network of three stages, each at half the resolution of the one before.

    The first block runs at full size, because a strided stem loses details of 28x28 images. For 28x28 grey images and
    ten classes, the defaults give 113,226 parameters and 12.6 million multiply-adds per image. Images of more than
    56x56 pixels are halved by strided convolutions first, until they are not larger, and a fourth stage of twice the
    channels follows the third.

    Args:
        widths: channels of each stage.
        residual: residual blocks of each stage.

    Raises:
        ModelError: the images are smaller than 4x4 pixels.
    """
    if min(spec.height, spec.width) < _MIN_SIDE:
        raise ModelError(
            f"convolutional networks need images of at least {_MIN_SIDE}x{_MIN_SIDE} pixels, got {spec}",
            "use the network 'mlp', or larger images",
        )
    full, half, last = widths
    halvings = _halvings(spec)
    first = Block(spec.channels, full, norm=False)
    if halvings:
        first = Block(spec.channels, full, kernel=4, stride=2, norm=False)
    blocks = [
        first,
        *(Block(full, full, kernel=4, stride=2) for _ in range(1, halvings)),
        *_residual(full, residual[0]),
    ]
    blocks += [Block(full, half, kernel=4, stride=2), *_residual(half, residual[1])]
    blocks += [Block(half, last, pool=True), *_residual(last, residual[2])]
    if halvings:
        blocks += [Block(last, 2 * last, pool=True), *_residual(2 * last, 1)]
        last = 2 * last
    parts = OrderedDict[str, nn.Module](standardise=Standardise())
    parts |= {f"block{number}": block for number, block in enumerate(blocks, start=1)}
    parts |= {"pool": GlobalMax(), "flatten": nn.Flatten(), "logits": nn.Linear(last, classes)}
    return nn.Sequential(parts)


def _halvings(spec: ImageSpec) -> int:
    """How often images are halved until they have at most `_FULL_SIZE` pixels; a strip keeps some width."""
    height, width, halvings = spec.height, spec.width, 0
    while height * width > _FULL_SIZE and min(height, width) >= _MIN_HALVED:
        height, width, halvings = height // 2, width // 2, halvings + 1
    return halvings


def _residual(channels: int, count: int) -> list["Block"]:
    return [Block(channels, channels, residual=True) for _ in range(count)]


def device_of(network: nn.Module) -> torch.device:
    """The device of the network's weights; the CPU if it has no weights."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def channels_first(images: Tensor) -> Tensor:
    """Images (N, H, W) or (N, H, W, 3) as a view (N, C, H, W)."""
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)


def channels_last(network: nn.Module) -> None:
    """Store convolution weights in channels-last layout, in place; it is faster on most processors.

    `Module.to(memory_format=...)` refuses modules with five-dimensional weights.
    """
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def scale_invariant_weights(network: nn.Module) -> list[nn.Parameter]:
    """Weights of our convolutions except the first: normalisation follows them, so their scale has no effect."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    return [weight for block in blocks[1:] for weight in block.conv.parameters()]


def is_builtin(network: nn.Module) -> bool:
    """Whether this is one of our convolutional networks: blocks, pool, flatten and logits, in this order."""
    return isinstance(network, nn.Sequential) and isinstance(getattr(network, "pool", None), GlobalMax)


class FlipTTA(nn.Module):
    """Test-time augmentation: the mean of the logits of an image and its mirror image, at twice the cost."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.network(x) + self.network(x.flip(3))) / 2
        return mean


class GlobalMax(nn.Module):
    """Global max pooling, with a fixed window because adaptive pooling costs 4 ms per step on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, (x.shape[2], x.shape[3]))


class Standardise(nn.Module):
    """Scales pixels to about zero mean and unit deviation: Fashion-MNIST's statistics, close enough for photographs."""

    MEAN, DEVIATION = 0.286, 0.353

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.MEAN) / self.DEVIATION


class Block(nn.Module):
    """Convolution, optional 2x2 pooling, optional batch normalisation, ReLU, optional residual connection.

    Pooling comes before normalisation and activation, which then process a quarter of the elements: on a CPU they
    cost as much as the convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pool: bool = False,
        residual: bool = False, norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - stride + 1) // 2, bias=not norm)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        # Momentum 0.4 lets running statistics keep up with a training of a few epochs.
        self.norm = nn.BatchNorm2d(outputs, momentum=0.4) if norm else nn.Identity()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm(self.pool(self.conv(x))))
        return x + y if self.residual else y


NETWORKS: dict[str, Callable[[ImageSpec, int], nn.Module]] = {
    "mlp": mlp,
    "cnn-small": partial(cnn, widths=(8, 16, 32)),  # 3.2 million multiply-adds per image
    "cnn": cnn,
    "cnn-large": partial(cnn, widths=(32, 64, 128), residual=(2, 2, 2)),  # 64 million
    "cnn-wide": partial(cnn, widths=(64, 128, 256), residual=(2, 2, 3)),  # 286 million; for a GPU
}


def layers(network: nn.Module, spec: ImageSpec) -> list[Layer]:
    """The layer table, in execution order, without identity layers.

    Raises:
        ModelError: the network does not accept images of this spec.
    """
    if (of_keras := getattr(network, "keras_layers", None)) is not None:
        return [Layer(*row) for row in of_keras()]
    rows: list[Layer] = []
    hooks = [
        module.register_forward_hook(_recorder(name or type(network).__name__, rows))
        for name, module in network.named_modules()
        if not list(module.children()) and not isinstance(module, nn.Identity)
    ]
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode(), custom_code(f"the network does not accept images of {spec}"):
            network(torch.zeros(1, spec.channels, spec.height, spec.width, device=device_of(network)))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return rows


@dataclass(frozen=True)
class Summary:
    """A network, layer by layer; as text, a table.

    Attributes:
        network: its name.
        layers: in execution order.
        parameters: number of weights.
    """

    network: str
    layers: tuple[Layer, ...]
    parameters: int

    def __repr__(self) -> str:
        rows = [("layer", "kind", "output", "parameters")]
        rows += [(row.name, row.kind, " x ".join(map(str, row.shape)), f"{row.parameters:,}") for row in self.layers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, f"{self.network}: {self.parameters:,} parameters"])


def parameter_count(network: nn.Module) -> int:
    """How many weights the network has; Keras's random seeds are whole numbers and do not count."""
    frozen = sum(int(getattr(module, "frozen_parameters", 0)) for module in network.modules())
    return frozen + sum(parameter.numel() for parameter in network.parameters() if parameter.is_floating_point())


def _dense(inputs: int, outputs: int) -> nn.Linear:
    """Glorot-uniform weights and zero biases (Glorot & Bengio, 2010), like the lesson's framework."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _recorder(name: str, rows: list[Layer]) -> Callable[[nn.Module, object, object], None]:
    def record(module: nn.Module, _: object, output: object) -> None:
        rows.append(Layer(name, type(module).__name__, _shape_of(output), parameter_count(module)))

    return record


def _shape_of(output: object) -> tuple[int, ...]:
    """Shape of a layer's (first) output without the batch dimension; an LSTM has several outputs."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

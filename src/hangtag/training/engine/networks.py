"""The networks, smallest first, and `build(name, spec, classes)`.

Every network takes float32 (N, C, H, W) from 0 to 1 and returns logits (N, K). Scaling, softmax and training are
not theirs.
"""

import copy
import importlib
import importlib.machinery
import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torch.nn.parameter import is_lazy

from hangtag.errors import ModelError, UnknownName
from hangtag.mapped import MappedRows
from hangtag.pictures import Images, ImageSpec
from hangtag.training.engine.guard import TAKES_AND_RETURNS, custom_code, enough_memory

__all__ = [
    "NETWORKS",
    "WHITE",
    "FlipTTA",
    "Layer",
    "build_network",
    "channels_last",
    "check_answer",
    "custom_network",
    "device_of",
    "images_at_once",
    "is_builtin",
    "layers",
    "parameter_count",
    "predict_logits",
    "scale_invariant_weights",
    "to_pixels",
]


WHITE = 255
"""The largest value of a uint8 pixel: networks see pixels divided by it."""


_PIXELS_AT_ONCE = 100_000  # 127 images of 28x28; more at a time are not faster
_LEAST_SIDE = 4  # of what one stride and one pooling leave something
_MADE_BY = "a function takes (hangtag.ImageSpec, number of classes) and returns a torch.nn.Module"


@dataclass(frozen=True)
class Layer:
    """One row of the layer table; the batch dimension of `shape` is left out."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def mlp(spec: ImageSpec, classes: int) -> nn.Module:
    """The lesson's network: Flatten > Dense 128 ReLU > Dense 10; for 28x28 grey, 101,770 parameters."""
    inputs = spec.channels * spec.height * spec.width
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden=_dense(inputs, 128),
            relu=nn.ReLU(),
            logits=_dense(128, classes),
        )
    )


def cnn(spec: ImageSpec, classes: int) -> nn.Module:
    """A small residual network that looks at full size first: details of 28x28 pixels are lost by a strided stem.

    For 28x28 grey and ten classes 113,226 parameters and 12.6 million multiply-adds an image.

    Raises:
        ModelError: images of less than 4x4 pixels.
    """
    return _convolutions(spec, classes, (16, 32, 64), (1, 1, 2))


def cnn_small(spec: ImageSpec, classes: int) -> nn.Module:
    """`cnn` with half of its channels: 3.2 million multiply-adds an image."""
    return _convolutions(spec, classes, (8, 16, 32), (1, 1, 2))


def cnn_large(spec: ImageSpec, classes: int) -> nn.Module:
    """`cnn` with twice its channels and two blocks more: 64 million multiply-adds an image."""
    return _convolutions(spec, classes, (32, 64, 128), (2, 2, 2))


def cnn_wide(spec: ImageSpec, classes: int) -> nn.Module:
    """For a GPU: 286 million multiply-adds an image."""
    return _convolutions(spec, classes, (64, 128, 256), (2, 2, 3))


def _convolutions(
    spec: ImageSpec, classes: int, widths: tuple[int, int, int], residual: tuple[int, int, int]
) -> nn.Module:
    """Three sizes, each half of the one before, with so many channels and residual blocks; global maximum, linear."""
    if min(spec.height, spec.width) < _LEAST_SIDE:
        raise ModelError(f"images of {spec} are too small for 'cnn'", "use the network 'mlp', or larger images")
    full, half, quarter = widths
    blocks = [_Block(spec.channels, full, norm=False), *_residual(full, residual[0])]
    blocks += [_Block(full, half, kernel=4, stride=2), *_residual(half, residual[1])]
    blocks += [_Block(half, quarter, pool=True), *_residual(quarter, residual[2])]
    parts = OrderedDict[str, nn.Module](standardise=_Standardise())
    parts |= {f"block{number}": block for number, block in enumerate(blocks, start=1)}
    parts |= {"pool": _GlobalMax(), "flatten": nn.Flatten(), "logits": nn.Linear(quarter, classes)}
    return nn.Sequential(parts)


def _residual(channels: int, count: int) -> list["_Block"]:
    return [_Block(channels, channels, residual=True) for _ in range(count)]


def device_of(network: nn.Module) -> torch.device:
    """Where its weights are; the CPU, if it has none."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def channels_last(network: nn.Module) -> None:
    """Lay weights of convolutions out with their channels last, in place, which processors are quicker with.

    PyTorch's own way for a whole module refuses weights of five dimensions.
    """
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def scale_invariant_weights(network: nn.Module) -> list[nn.Parameter]:
    """Weights of our convolutions, all but the first: normalisation follows, so that their length means nothing."""
    blocks = [module for module in network.modules() if isinstance(module, _Block)]
    return [weight for block in blocks[1:] for weight in block.conv.parameters()]


def is_builtin(network: nn.Module) -> bool:
    """Whether it is one of our networks of convolutions: blocks, pool, flatten, logits, in this order."""
    return isinstance(network, nn.Sequential) and isinstance(getattr(network, "pool", None), _GlobalMax)


class FlipTTA(nn.Module):
    """Answers with the mean of a network's logits for a picture and for its mirror image, at twice the cost."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.network(x) + self.network(x.flip(3))) / 2
        return mean


class _GlobalMax(nn.Module):
    """The largest value of each channel; as a window that fits: adaptive pooling costs 4 ms a step on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, (x.shape[2], x.shape[3]))


class _Standardise(nn.Module):
    """Pixels to about zero mean and unit deviation: Fashion-MNIST's own numbers, near enough for photographs."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.286) / 0.353


class _Block(nn.Module):
    """Convolution, maybe 2x2 pooling, batch normalisation unless pixels come in, ReLU, maybe added to the input.

    Pooling stands before norm and activation, so that these touch a quarter of the elements: on a CPU they cost as
    much as the convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        pool: bool = False,
        residual: bool = False,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - stride + 1) // 2, bias=not norm)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        # Momentum 0.4: running statistics that keep up with a training of a few epochs.
        self.norm = nn.BatchNorm2d(outputs, momentum=0.4) if norm else nn.Identity()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm(self.pool(self.conv(x))))
        return x + y if self.residual else y


NETWORKS: dict[str, Callable[[ImageSpec, int], nn.Module]] = {
    "mlp": mlp,
    "cnn-small": cnn_small,
    "cnn": cnn,
    "cnn-large": cnn_large,
    "cnn-wide": cnn_wide,
}


def build_network(name: str, spec: ImageSpec, classes: int, seed: int) -> nn.Module:
    """A named network with weights drawn from `seed`, leaving PyTorch's own random state as it was.

    Args:
        name: of one of `NETWORKS`, or "module:function" of your own, found from the folder you work in: a function of
            (ImageSpec, number of classes), or a ready `torch.nn.Module`.
        spec: of the images.
        classes: how many logits.
        seed: decides the weights.

    Raises:
        UnknownName: no such network.
        ModelError: your own cannot be imported or made, or does not answer as it must.

    >>> parameter_count(build_network("mlp", ImageSpec(28, 28), 10, seed=0))
    101770
    """
    if name not in NETWORKS and ":" not in name:
        raise UnknownName.among("network", name, NETWORKS, ", or your own as module:function")
    with _seeded(seed):
        if name in NETWORKS:
            return NETWORKS[name](spec, classes)
        found = _imported(name)  # a module may make its network while it is imported
    return custom_network(found, spec, classes, seed, name)


def custom_network(
    given: nn.Module | Callable[[ImageSpec, int], nn.Module], spec: ImageSpec, classes: int, seed: int, name: str = ""
) -> nn.Module:
    """A network that somebody else wrote: a copy of a ready one, or what a function makes, its weights by `seed`.

    Lazy layers have their weights afterwards. PyTorch's own random state is left as it was.

    Args:
        name: what to call it in an error; None takes that of the function or class.

    Raises:
        ModelError: it cannot be made, or does not answer as it must.
    """
    name = name or getattr(given, "__name__", type(given).__name__)
    with _seeded(seed):
        with (
            enough_memory(f"while the network '{name}' was made", "make a smaller one"),
            custom_code(f"the network '{name}' cannot be made", _MADE_BY),
        ):
            network: Any = _copied(given) if isinstance(given, nn.Module) else given(spec, classes)
        if not isinstance(network, nn.Module):
            raise ModelError(f"'{name}' made a {type(network).__name__}", _MADE_BY)
        check_answer(network, spec, classes)
        _check_steady(network, spec, name)
    strange = [key for key, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(
            f"the network '{name}' keeps '{strange[0]}', which is no tensor: no checkpoint could hold it",
            "keep it in a buffer: register_buffer",
        )
    return network


def check_answer(network: nn.Module, spec: ImageSpec, classes: int) -> None:
    """Raises ModelError unless the network takes such images and answers one logit per class.

    Lazy layers draw their weights here, by PyTorch's random state.
    """
    # Not inference mode: weights that come into being there could never be trained.
    with torch.no_grad(), enough_memory(f"with two images of {spec}", "use smaller images, or a smaller network"):
        answered = _predict_logits(network, np.zeros((2, *spec.shape), np.uint8), 2).shape[1]
    if answered != classes:
        raise ModelError(
            f"the network answers {answered} logits but the data has {classes} classes",
            f"its last layer must have {classes} outputs",
        )


@torch.no_grad()
def _check_steady(network: nn.Module, spec: ImageSpec, name: str) -> None:
    """Raises ModelError where the network, not training, answers the same images differently when it is asked again."""
    images = np.random.default_rng(0).integers(0, 256, (2, *spec.shape), dtype=np.uint8)
    first, second = (_predict_logits(network, images, 2) for _ in range(2))
    if not torch.allclose(first, second, atol=1e-4, equal_nan=True):
        raise ModelError(
            f"the network '{name}' answers the same images differently each time, although it is not training",
            "is there dropout that is never off? use nn.Dropout, or dropout(x, training=self.training)",
        )


def _copied(network: nn.Module) -> nn.Module:
    """A copy; PyTorch does not copy the weights that lazy layers do not have yet."""
    tensors = [*network.parameters(), *network.buffers()]
    lazy = {id(each): _anew(each) for each in tensors if is_lazy(each)}
    return copy.deepcopy(network, lazy)


def _anew(lazy: Any) -> Any:
    return type(lazy)(lazy.requires_grad, lazy.device, lazy.dtype)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _imported(name: str) -> Any:
    """What `module:function` names: a module of the current folder, else an installed one.

    Of the current folder, this module alone comes before what is installed: a `json.py` beside it is never imported
    in place of Python's own.
    """
    module, _, attribute = name.partition(":")
    before = list(sys.path)
    here = str(Path.cwd())
    with custom_code(f"the network '{name}' cannot be made", f"name it as module:function; {_MADE_BY}"):
        try:
            sys.path.append(here)
            _import_from(here, module.partition(".")[0])
            return getattr(importlib.import_module(module), attribute)
        finally:
            sys.path[:] = before


def _import_from(folder: str, name: str) -> None:
    """Import a top-level module from this folder, if it is there and has not been imported yet."""
    spec = None if name in sys.modules else importlib.machinery.PathFinder.find_spec(name, [folder])
    if spec is None or spec.loader is None:
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except BaseException:
        del sys.modules[name]
        raise


def layers(network: nn.Module, spec: ImageSpec) -> list[Layer]:
    """The layer table, in the order in which the layers run; those that do nothing are left out.

    Raises:
        ModelError: the network does not take images of this spec.
    """
    rows: list[Layer] = []
    hooks = []
    for name, module in network.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            hooks.append(module.register_forward_hook(_recorder(name or type(network).__name__, rows)))
    try:
        predict_logits(network, np.zeros((1, *spec.shape), np.uint8))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.inference_mode()
def predict_logits(network: nn.Module, images: Images | MappedRows, batch: int | None = None) -> Tensor:
    """(N, K) float32 on the CPU, the network in evaluation mode; N uint8 images (N, H, W[, C]).

    Args:
        batch: images at a time; None takes as many as memory is spared with.

    Raises:
        ModelError: the network does not take such images, or does not answer one row of logits per image.
        RuntimeError, MemoryError: memory ran out; who calls puts `enough_memory` around it, and knows what to do.
    """
    return _predict_logits(network, images, batch or images_at_once(images))


def _predict_logits(network: nn.Module, images: Images | MappedRows, batch: int) -> Tensor:
    was_training = network.training
    network.eval()
    device = device_of(network)
    rows = []
    try:
        for start in range(0, max(1, len(images)), batch):
            pixels = to_pixels(torch.from_numpy(np.array(images[start : start + batch]))).to(device)
            with custom_code(f"the network does not take pixels of shape {tuple(pixels.shape)}"):
                answer = network(pixels)
            if not isinstance(answer, Tensor) or answer.ndim != 2 or len(answer) != len(pixels):
                shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                raise ModelError(f"the network answered {shape} for {len(pixels)} images", TAKES_AND_RETURNS)
            rows.append(answer.float().cpu())
    finally:
        network.train(was_training)
    return torch.cat(rows)


def images_at_once(images: Images | MappedRows) -> int:
    """How many to judge at a time, so that feature maps at full size stay small."""
    return max(1, _PIXELS_AT_ONCE // int(np.prod(images.shape[1:3])))


def to_pixels(images: Tensor) -> Tensor:
    """uint8 (N, H, W) or (N, H, W, 3) -> float32 (N, C, H, W) from 0 to 1."""
    first = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return torch.div(first, WHITE)


def _dense(inputs: int, outputs: int) -> nn.Linear:
    """Glorot-uniform weights, zero biases (Glorot & Bengio, 2010), as the lesson's framework starts them."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _recorder(name: str, rows: list[Layer]) -> Callable[[nn.Module, object, object], None]:
    def record(module: nn.Module, _: object, output: object) -> None:
        rows.append(Layer(name, type(module).__name__, _shape_of(output), parameter_count(module)))

    return record


def _shape_of(output: object) -> tuple[int, ...]:
    """Of what a layer answers, without the batch; of the first part where it answers several, as an LSTM does."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

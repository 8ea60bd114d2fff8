"""Training steps for dense networks, `Flatten > Dense > ReLU > ... > Dense`, on the CPU, with explicit gradients.

The steps of such small networks spend more time in autograd's bookkeeping than in arithmetic. `CompiledSteps` runs
them in C (dense.c), four to five times faster than autograd. `DenseSteps`, for machines without a C compiler, makes
PyTorch calls and is about twice as fast as autograd. Both minimise the cross-entropy with Adam.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from hangtag.machine import processors
from hangtag.training.engine.native import library
from hangtag.training.engine.networks import WHITE
from hangtag.training.engine.recipes import ADAM_BETA1, Recipe
from hangtag.training.engine.workers import Workers

__all__ = ["CompiledSteps", "DenseSteps", "copy_state", "dense_layers"]

KIND = "dense"
"""Of checkpoints: steps in C and by PyTorch can read each other's."""


class CompiledSteps:
    """Trains a stack of dense layers in C.

    The same seed gives the same weights with any number of threads. Each call copies the weights from the network and
    back, so that the network can be used normally between calls.
    """

    kind = KIND
    torch_threads = 1  # PyTorch's waiting threads would spin on the cores that dense.c needs

    def __init__(self, network: nn.Module, recipe: Recipe, batch_size: int) -> None:
        self.layers = dense_layers(network)
        self.recipe, self.batch_size = recipe, batch_size
        self.cores = recipe.most_cores(processors())
        self.steps_done = 0
        self.means, self.squares = self._zeros(), self._zeros()
        self.weights = self._zeros()

    @classmethod
    def possible(cls) -> bool:
        """Whether dense.c can be compiled on this machine."""
        return _compiled() is not None

    @torch.inference_mode()
    def run(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        whole = len(labels) // self.batch_size
        logits = torch.empty(len(labels), self.layers[-1].out_features)
        images = images.flatten(1).contiguous()
        self._copy_weights(into_network=False)
        for first, batches, size in ((0, whole, self.batch_size), (whole, 1, len(labels) - whole * self.batch_size)):
            if batches and size:
                rows = slice(first * self.batch_size, first * self.batch_size + batches * size)
                some = None if weights is None else weights[rows]
                self._run_equal(images[rows], labels[rows], rates[first : first + batches], size, logits[rows], some)
        self._copy_weights(into_network=True)
        return logits

    def state(self) -> dict[str, Tensor]:
        matrices = self._matrices(self.means), self._matrices(self.squares)
        return _state(self.steps_done, *([torch.cat(parts) for parts in each] for each in matrices))

    def set_state(self, state: dict[str, Tensor]) -> None:
        read = {name: value.clone() for name, value in self.state().items()}
        copy_state(state, read)
        for name, values in (("means", self.means), ("squares", self.squares)):
            for at, parts in enumerate(self._matrices(values)):
                saved = torch.split(read[f"{name}.{at}"], [len(part) for part in parts])
                for part, rows in zip(parts, saved, strict=True):
                    part.copy_(rows)
        self.steps_done = int(state["step"])

    def _matrices(self, stored: list[Tensor]) -> list[list[Tensor]]:
        """Views of each layer's values as matrices (some units, inputs + 1)."""
        layers = zip(stored, self.layers, strict=True)
        return [[part for part, _ in _parts(each, layer, first=not at)] for at, (each, layer) in enumerate(layers)]

    def _run_equal(
        self, images: Tensor, labels: Tensor, rates: list[float], size: int, logits: Tensor, weights: Tensor | None
    ) -> None:
        """Take steps on batches of one size; all arrays are contiguous."""
        compiled = _compiled()
        assert compiled is not None
        layers = (_Layer * len(self.layers))()
        rates_ = torch.tensor(rates, dtype=torch.float32)
        widths = [self.layers[0].in_features, *(layer.out_features for layer in self.layers)]
        values = [torch.zeros(size * (self.cores if not at else 1), _padded(n + 1)) for at, n in enumerate(widths)]
        slopes = [torch.zeros_like(array) for array in values[1:]]
        for array, units in zip(values, widths, strict=True):
            array[:, units] = 1
        for at, layer in enumerate(self.layers):
            layers[at] = _Layer(
                layer.in_features, layer.out_features, values[at].stride(0), values[at + 1].stride(0),
                *(array.data_ptr() for array in (self.weights[at], self.means[at], self.squares[at])),
                values[at].data_ptr(), values[at + 1].data_ptr(), slopes[at].data_ptr(),
            )  # fmt: skip
        pointers = [None if each is None else each.data_ptr() for each in (images, labels, weights, rates_, logits)]
        work = _Work(
            len(layers), self.cores, len(rates), size, self.steps_done, ctypes.addressof(layers), *pointers,
            ADAM_BETA1, self.recipe.adam_beta2, self.recipe.adam_epsilon,
        )  # fmt: skip
        compiled.train_batches(ctypes.byref(work))
        self.steps_done += len(rates)

    def _zeros(self) -> list[Tensor]:
        """One array per layer, in dense.c's layout of the layer's weights."""
        first, *later = self.layers
        shapes = [(first.in_features + 1, _padded(first.out_features))]
        shapes += [(layer.out_features, _padded(layer.in_features + 1)) for layer in later]
        return [torch.zeros(shape) for shape in shapes]

    def _copy_weights(self, into_network: bool) -> None:
        for at, layer in enumerate(self.layers):
            for part, units in _parts(self.weights[at], layer, first=at == 0):
                pairs = [(layer.weight.data[units], part[:, :-1]), (layer.bias.data[units], part[:, -1])]
                for network, copy in pairs:
                    network.copy_(copy) if into_network else copy.copy_(network)


def _parts(stored: Tensor, layer: nn.Linear, first: bool) -> list[tuple[Tensor, slice]]:
    """Views (units, inputs + 1) of a layer's weights in dense.c's layout, and the units of each view."""
    inputs, units = layer.in_features, layer.out_features
    if not first:
        return [(stored[:, : inputs + 1], slice(units))]
    compiled = _compiled()
    assert compiled is not None
    flat, group, parts = stored.view(-1), compiled.group(), []
    for begin in range(0, units, group):
        width = min(group, _padded(units) - begin)
        block = flat[begin * (inputs + 1) :][: width * (inputs + 1)].view(inputs + 1, width)
        parts.append((block.t()[: units - begin], slice(begin, begin + width)))
    return parts


def copy_state(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    """Copy saved tensors into tensors with the same names and shapes, or raise ValueError."""
    if {name: value.shape for name, value in source.items()} != {name: value.shape for name, value in target.items()}:
        raise ValueError("it was saved by other training steps")
    for name, value in source.items():
        target[name].copy_(value)


def _state(steps_done: int, means: list[Tensor], squares: list[Tensor]) -> dict[str, Tensor]:
    """Adam's state, with a matrix (units, inputs + 1) per layer; the same for steps in C and by PyTorch."""
    averages = {"means": means, "squares": squares}
    state = {f"{name}.{at}": value for name, values in averages.items() for at, value in enumerate(values)}
    return {"step": torch.tensor(steps_done), **state}


class _Layer(ctypes.Structure):
    """`layer` of dense.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("inputs", "units")),
        *((name, ctypes.c_int64) for name in ("in_row", "out_row")),
        *((name, ctypes.c_void_p) for name in ("weights", "means", "squares", "in", "out", "slopes")),
    )


class _Work(ctypes.Structure):
    """`work` of dense.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "threads", "batches", "size")),
        ("steps_done", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("layer", "images", "labels", "weights", "rates", "logits")),
        *((name, ctypes.c_float) for name in ("beta1", "beta2", "epsilon")),
    )


@cache
def _compiled() -> ctypes.CDLL | None:
    """The library compiled from dense.c, or None."""
    compiled = library(Path(__file__).with_name("dense.c"))
    if compiled is not None:
        compiled.train_batches.restype = None
    return compiled


def _padded(count: int) -> int:
    """`count`, rounded up to a multiple of this processor's vector length."""
    compiled = _compiled()
    lanes = compiled.lanes() if compiled else 1
    return -(-count // lanes) * lanes


class DenseSteps:
    """Trains a stack of dense layers with PyTorch calls.

    Every example is a column that ends with a 1, so that a layer is one product: `[weights bias] @ inputs`. The weights
    and biases of all layers become views of one vector, so that Adam is one call and the network stays usable.

    Args:
        workers: each of them computes the gradient of its part of a batch; they are added in one call.
    """

    kind = KIND

    def __init__(self, network: nn.Module, recipe: Recipe, batch_size: int, workers: Workers | None = None) -> None:
        layers = dense_layers(network)
        self.recipe, self.batch_size, self.workers = recipe, batch_size, workers
        self.cores = recipe.most_cores(torch.get_num_threads())
        self.sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        length = sum((inputs + 1) * units for inputs, units in zip(self.sizes, self.sizes[1:], strict=False))
        self.values, self.gradient = torch.zeros(length), torch.zeros(length)
        self.steps_done = 0
        self.everything, self.every_gradient = [self.values], [self.gradient]  # lists of one tensor, as Adam expects
        self.means, self.mean_squares = [torch.zeros(length)], [torch.zeros(length)]
        self.weights, self.gradients = self._matrices(self.values), self._matrices(self.gradient)
        self.weights_to_below = [matrix[:, :-1].t() for matrix in self.weights]  # for the backward pass, without biases
        for layer, matrix in zip(layers, self.weights, strict=True):
            matrix[:, :-1].copy_(layer.weight.detach())
            matrix[:, -1].copy_(layer.bias.detach())
            layer.weight.data, layer.bias.data = matrix[:, :-1], matrix[:, -1]
        self.workspaces: dict[tuple[int, int], _Workspace] = {}

    @property
    def torch_threads(self) -> int:
        return self.cores

    def state(self) -> dict[str, Tensor]:
        return _state(self.steps_done, *(self._matrices(each[0]) for each in (self.means, self.mean_squares)))

    def set_state(self, state: dict[str, Tensor]) -> None:
        copy_state(state, self.state())
        self.steps_done = int(state["step"])

    @torch.inference_mode()
    def run(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        whole = len(labels) // self.batch_size * self.batch_size
        sizes = [(0, whole, self.batch_size), (whole, len(labels), len(labels) - whole)]
        logits, remaining = [], iter(rates)
        for start, end, size in sizes:
            if start < end:
                x, y = images[start:end].reshape(-1, size, self.sizes[0]), labels[start:end].view(-1, size)
                some = None if weights is None else weights[start:end].view(-1, size)
                logits.append(self._run_equal(x, y, [next(remaining) for _ in range(len(y))], some))
        return torch.cat(logits)

    def _run_equal(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None) -> Tensor:
        """Take steps on batches of one size: images (batches, size, inputs), labels and weights (batches, size)."""
        batches, size = labels.shape
        if (batches, size) not in self.workspaces:
            self.workspaces[batches, size] = _Workspace.of(self.sizes, batches, size)
        work = self.workspaces[batches, size]
        work.inputs[..., :-1].copy_(images).div_(WHITE)
        shares = torch.full((batches, 1, size), 1 / size) if weights is None else weights.unsqueeze(1) / size
        work.targets.zero_().scatter_(1, labels.unsqueeze(1), -shares)
        numbers = (self.steps_done + torch.arange(1.0, batches + 1)).unbind()
        self.steps_done += batches
        steps = zip(work.inputs.mT.unbind(), work.targets, work.logits, shares, rates, numbers, strict=True)
        for x, target, logits, share, rate, number in steps:
            self._compute_gradients(x, target, logits, share, work)
            if self.workers is not None:
                self.workers.summed(self.gradient.mul_(self.workers.share))
            self._adam(rate, number)
        return work.logits.mT.reshape(-1, self.sizes[-1])

    def _compute_gradients(
        self, examples: Tensor, target: Tensor, logits: Tensor, share: Tensor, work: "_Workspace"
    ) -> None:
        """Forward and backward pass for one batch; `share` (1, size) is each example's share in the loss."""
        inputs, values, slopes = [examples, *work.hidden], work.values, work.slopes
        last = len(self.weights) - 1
        for layer in range(last):
            torch.mm(self.weights[layer], inputs[layer], out=values[layer])
            values[layer].relu_()
        torch.mm(self.weights[last], inputs[last], out=logits)

        # The gradient of the mean cross-entropy with respect to the logits: (softmax - one-hot) * weight / size
        torch.softmax(logits, 0, out=slopes[last])
        torch.addcmul(target, slopes[last], share, out=slopes[last])
        for layer in range(last, -1, -1):
            torch.mm(slopes[layer], inputs[layer].t(), out=self.gradients[layer])
            if layer:
                below = slopes[layer - 1]
                torch.mm(self.weights_to_below[layer], slopes[layer], out=below)
                # Where ReLU gave 0, nothing passes.
                torch.ops.aten.threshold_backward.grad_input(below, values[layer - 1], 0, grad_input=below)

    def _adam(self, rate: float, number: Tensor) -> None:
        """Call what `torch.optim.Adam(fused=True)` calls; its overhead would take as long as the arithmetic."""
        torch._fused_adam_(
            self.everything, self.every_gradient, self.means, self.mean_squares, [], [number],
            amsgrad=False, beta1=ADAM_BETA1, beta2=self.recipe.adam_beta2, lr=rate,
            weight_decay=0.0, eps=self.recipe.adam_epsilon, maximize=False,
        )  # fmt: skip

    def _matrices(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector as each layer's matrix (units, inputs + 1)."""
        matrices: list[Tensor] = []
        start = 0
        for inputs, units in zip(self.sizes, self.sizes[1:], strict=False):
            part = vector[start : (start := start + (inputs + 1) * units)]
            # Column-major storage makes the product for the first layer's gradient faster.
            matrices.append(part.view(units, inputs + 1) if matrices else part.view(inputs + 1, units).t())
        return matrices


@dataclass(frozen=True)
class _Workspace:
    """Arrays that `DenseSteps` reuses for chunks of one shape."""

    inputs: Tensor  # (batches, size, inputs + 1); each row ends with a 1
    targets: Tensor  # (batches, classes, size): minus the weight / size for the true class, else 0
    logits: Tensor  # (batches, classes, size)
    hidden: list[Tensor]  # for each hidden layer (units + 1, size), one column per example; the last row is 1
    values: list[Tensor]  # views of `hidden` without the last row
    slopes: list[Tensor]  # for each layer (units, size): gradients of the loss with respect to its pre-activations

    @classmethod
    def of(cls, sizes: list[int], batches: int, size: int) -> "_Workspace":
        hidden = [torch.ones(units + 1, size) for units in sizes[1:-1]]
        return cls(
            inputs=torch.ones(batches, size, sizes[0] + 1),
            targets=torch.empty(batches, sizes[-1], size),
            logits=torch.empty(batches, sizes[-1], size),
            hidden=hidden,
            values=[layer[:-1] for layer in hidden],
            slopes=[torch.empty(units, size) for units in sizes[1:]],
        )


def dense_layers(network: nn.Module) -> list[nn.Linear]:
    """The dense layers of `Flatten > Dense > ReLU > ... > Dense`, or an empty list for any other network."""
    # Exact types, because a subclass may compute something else; a parametrised layer is one.
    if type(network) is not nn.Sequential or len(network) < 2 or type(network[0]) is not nn.Flatten:
        return []
    if (network[0].start_dim, network[0].end_dim) != (1, -1) or any(map(_hooked, network.modules())):
        return []
    dense, between = list(network)[1::2], list(network)[2::2]
    if len(dense) != len(between) + 1 or not all(type(layer) is nn.ReLU for layer in between):
        return []
    layers = [layer for layer in dense if type(layer) is nn.Linear and layer.bias is not None]
    if len({id(parameter) for layer in layers for parameter in layer.parameters()}) < 2 * len(layers):
        return []  # tied weights
    trainable = all(parameter.requires_grad for parameter in network.parameters())
    return layers if len(layers) == len(dense) and trainable else []


def _hooked(module: nn.Module) -> bool:
    """Whether hooks change what the module computes."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)

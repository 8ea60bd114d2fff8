"""Training steps for the lesson's kind of network, `Flatten > Dense > ReLU > ... > Dense`, on the CPU.

Its steps are so small that autograd's bookkeeping costs more than the arithmetic, so the gradients are written out.
`CompiledSteps` runs them as C (dense.c), four to five times faster than autograd; `DenseSteps` as PyTorch calls, about
twice as fast, where there is no C compiler. Both do cross-entropy from logits and Adam.
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

__all__ = ["CompiledSteps", "DenseSteps", "dense_layers"]


class CompiledSteps:
    """Trains a stack of dense layers by dense.c.

    The same seed gives the same weights with any number of threads. The network is an ordinary one between two calls:
    weights go in and come out with each.
    """

    torch_threads: int | None = 1  # PyTorch's own threads would wait, spinning, where ours want to run

    def __init__(self, network: nn.Module, recipe: Recipe, batch_size: int) -> None:
        self.layers = dense_layers(network)
        self.recipe, self.batch_size = recipe, batch_size
        self.threads = min(recipe.cores or processors(), processors())
        self.taken = 0
        self.means, self.squares = self._zeros(), self._zeros()
        self.weights = self._zeros()

    @classmethod
    def possible(cls) -> bool:
        """Whether dense.c can be compiled here."""
        return _compiled() is not None

    @torch.inference_mode()
    def take(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        assert weights is None, "here all images count alike"
        whole = len(labels) // self.batch_size
        logits = torch.empty(len(labels), self.layers[-1].out_features)
        images = images.flatten(1).contiguous()
        self._copy_weights(into_network=False)
        for first, batches, size in ((0, whole, self.batch_size), (whole, 1, len(labels) - whole * self.batch_size)):
            if batches and size:
                rows = slice(first * self.batch_size, first * self.batch_size + batches * size)
                self._take_equal(images[rows], labels[rows], rates[first : first + batches], size, logits[rows])
        self._copy_weights(into_network=True)
        return logits

    def state(self) -> dict[str, Tensor]:
        averages = {"means": self.means, "squares": self.squares}
        state = {f"{name}.{at}": value for name, values in averages.items() for at, value in enumerate(values)}
        return {"taken": torch.tensor(self.taken), **state}

    def set_state(self, state: dict[str, Tensor]) -> None:
        take_over(self.state(), state)
        self.taken = int(state["taken"])

    def _take_equal(self, images: Tensor, labels: Tensor, rates: list[float], size: int, logits: Tensor) -> None:
        """Batches of one size, all arrays contiguous."""
        compiled = _compiled()
        assert compiled is not None
        layers = (_Layer * len(self.layers))()
        rates_ = torch.tensor(rates, dtype=torch.float32)
        widths = [self.layers[0].in_features, *(layer.out_features for layer in self.layers)]
        values = [torch.zeros(size * (self.threads if not at else 1), _padded(n + 1)) for at, n in enumerate(widths)]
        slopes = [torch.zeros_like(array) for array in values[1:]]
        for array, units in zip(values, widths, strict=True):
            array[:, units] = 1
        for at, layer in enumerate(self.layers):
            layers[at] = _Layer(
                layer.in_features, layer.out_features, values[at].stride(0), values[at + 1].stride(0),
                *(array.data_ptr() for array in (self.weights[at], self.means[at], self.squares[at])),
                values[at].data_ptr(), values[at + 1].data_ptr(), slopes[at].data_ptr(),
            )  # fmt: skip
        pointers = [array.data_ptr() for array in (images, labels, rates_, logits)]
        work = _Work(
            len(layers), self.threads, len(rates), size, self.taken, ctypes.addressof(layers), *pointers,
            ADAM_BETA1, self.recipe.adam_beta2, self.recipe.adam_epsilon,
        )  # fmt: skip
        compiled.take(ctypes.byref(work))
        self.taken += len(rates)

    def _zeros(self) -> list[Tensor]:
        """For each layer an array of its weights' number in dense.c's order."""
        first, *later = self.layers
        shapes = [(first.in_features + 1, _padded(first.out_features))]
        shapes += [(layer.out_features, _padded(layer.in_features + 1)) for layer in later]
        return [torch.zeros(shape) for shape in shapes]

    def _copy_weights(self, into_network: bool) -> None:
        for at, layer in enumerate(self.layers):
            for part, units in _parts(self.weights[at], layer, first=at == 0):
                pairs = [(layer.weight.data[units], part[:, :-1]), (layer.bias.data[units], part[:, -1])]
                for network, ours in pairs:
                    network.copy_(ours) if into_network else ours.copy_(network)


def _parts(stored: Tensor, layer: nn.Linear, first: bool) -> list[tuple[Tensor, slice]]:
    """Views (units, inputs + 1) of a layer's weights as dense.c stores them, and which units each holds."""
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


def take_over(into: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Copy saved tensors into those of the same names and shapes, or raise ValueError."""
    if {name: value.shape for name, value in into.items()} != {name: value.shape for name, value in state.items()}:
        raise ValueError("it is of other training steps, or of a processor of another kind")
    for name, value in state.items():
        into[name].copy_(value)


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
        ("taken", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("layer", "images", "labels", "rates", "logits")),
        *((name, ctypes.c_float) for name in ("beta1", "beta2", "epsilon")),
    )


@cache
def _compiled() -> ctypes.CDLL | None:
    """dense.c, ready to call."""
    found = library(Path(__file__).with_name("dense.c"))
    if found is not None:
        found.take.restype = None
    return found


def _padded(count: int) -> int:
    """Rounded up to whole vectors of this processor."""
    compiled = _compiled()
    lanes = compiled.lanes() if compiled else 1
    return -(-count // lanes) * lanes


class DenseSteps:
    """Trains `Flatten > Dense > ReLU > ... > Dense` on the CPU, its gradients written out.

    Every example is a column with a 1 added at its end, so that a layer is one product: `[weights bias] @ inputs`.
    All layers are parts of one long vector, so that Adam is one call. The network stays usable as it is: its
    weights and biases become views of that vector.
    """

    torch_threads: int | None = None

    def __init__(self, network: nn.Module, recipe: Recipe, batch_size: int) -> None:
        layers = dense_layers(network)
        self.recipe, self.batch_size = recipe, batch_size
        self.sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        length = sum((inputs + 1) * units for inputs, units in zip(self.sizes, self.sizes[1:], strict=False))
        self.values, self.gradient = torch.zeros(length), torch.zeros(length)
        self.taken = 0
        self.everything, self.every_gradient = [self.values], [self.gradient]  # one tensor each, as Adam wants them
        self.means, self.mean_squares = [torch.zeros(length)], [torch.zeros(length)]
        self.weights, self.gradients = self._matrices(self.values), self._matrices(self.gradient)
        self.weights_to_below = [matrix[:, :-1].t() for matrix in self.weights]  # for the way back, without biases
        for layer, matrix in zip(layers, self.weights, strict=True):
            matrix[:, :-1].copy_(layer.weight.detach())
            matrix[:, -1].copy_(layer.bias.detach())
            layer.weight.data, layer.bias.data = matrix[:, :-1], matrix[:, -1]
        self.workspaces: dict[tuple[int, int], _Workspace] = {}

    def state(self) -> dict[str, Tensor]:
        return {"taken": torch.tensor(self.taken), "means": self.means[0], "squares": self.mean_squares[0]}

    def set_state(self, state: dict[str, Tensor]) -> None:
        take_over(self.state(), state)
        self.taken = int(state["taken"])

    @torch.inference_mode()
    def take(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        assert weights is None, "here all images count alike"
        whole = len(labels) // self.batch_size * self.batch_size
        sizes = [(0, whole, self.batch_size), (whole, len(labels), len(labels) - whole)]
        logits, waiting = [], iter(rates)
        for start, end, size in sizes:
            if start < end:
                x, y = images[start:end].reshape(-1, size, self.sizes[0]), labels[start:end].view(-1, size)
                logits.append(self._take_equal(x, y, [next(waiting) for _ in range(len(y))]))
        return torch.cat(logits)

    def _take_equal(self, images: Tensor, labels: Tensor, rates: list[float]) -> Tensor:
        """Batches of one size: images (batches, size, inputs), labels (batches, size)."""
        batches, size = labels.shape
        if (batches, size) not in self.workspaces:
            self.workspaces[batches, size] = _Workspace.of(self.sizes, batches, size)
        work = self.workspaces[batches, size]
        work.inputs[..., :-1].copy_(images).div_(WHITE)
        work.targets.zero_().scatter_(1, labels.unsqueeze(1), -1 / size)
        numbers = (self.taken + torch.arange(1.0, batches + 1)).unbind()
        self.taken += batches
        each = zip(work.inputs.mT.unbind(), work.targets, work.logits, rates, numbers, strict=True)
        for x, target, logits, rate, number in each:
            self._find_gradients(x, target, logits, work)
            self._adam(rate, number)
        return work.logits.mT.reshape(-1, self.sizes[-1])

    def _find_gradients(self, examples: Tensor, target: Tensor, logits: Tensor, work: "_Workspace") -> None:
        """Forward, then backward, for one batch."""
        inputs, values, slopes = [examples, *work.hidden], work.values, work.slopes
        last = len(self.weights) - 1
        for layer in range(last):
            torch.mm(self.weights[layer], inputs[layer], out=values[layer])
            values[layer].relu_()
        torch.mm(self.weights[last], inputs[last], out=logits)

        # The slope of the mean cross-entropy by the logits: (softmax - one-hot) / size
        torch.softmax(logits, 0, out=slopes[last])
        torch.add(target, slopes[last], alpha=1 / logits.shape[1], out=slopes[last])
        for layer in range(last, -1, -1):
            torch.mm(slopes[layer], inputs[layer].t(), out=self.gradients[layer])
            if layer:
                below = slopes[layer - 1]
                torch.mm(self.weights_to_below[layer], slopes[layer], out=below)
                # Where ReLU gave 0, nothing passes.
                torch.ops.aten.threshold_backward.grad_input(below, values[layer - 1], 0, grad_input=below)

    def _adam(self, rate: float, number: Tensor) -> None:
        """What `torch.optim.Adam(fused=True)` calls; by itself, since its wrapping takes as long as the arithmetic."""
        torch._fused_adam_(
            self.everything, self.every_gradient, self.means, self.mean_squares, [], [number],
            amsgrad=False, beta1=ADAM_BETA1, beta2=self.recipe.adam_beta2, lr=rate,
            weight_decay=0.0, eps=self.recipe.adam_epsilon, maximize=False,
        )  # fmt: skip

    def _matrices(self, vector: Tensor) -> list[Tensor]:
        """The parts of a long vector as each layer's matrix (units, inputs + 1)."""
        matrices: list[Tensor] = []
        start = 0
        for inputs, units in zip(self.sizes, self.sizes[1:], strict=False):
            part = vector[start : (start := start + (inputs + 1) * units)]
            # The first layer's is stored by columns: the product for its gradient is then faster.
            matrices.append(part.view(units, inputs + 1) if matrices else part.view(inputs + 1, units).t())
        return matrices


@dataclass(frozen=True)
class _Workspace:
    """The arrays that `DenseSteps` uses again for chunks of one shape."""

    inputs: Tensor  # (batches, size, inputs + 1); the last of each row is always 1
    targets: Tensor  # (batches, classes, size): -1 / size at the right class, else 0
    logits: Tensor  # (batches, classes, size)
    hidden: list[Tensor]  # of each hidden layer (units + 1, size), a column an example; last row 1
    values: list[Tensor]  # views of `hidden` without that last row
    slopes: list[Tensor]  # of each layer (units, size): how the loss changes with the layer's sums

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
    """The dense layers of `Flatten > Dense > ReLU > ... > Dense`, or nothing if the network is something else."""
    # Exactly these kinds: a class of one's own may compute something else, and a parametrised layer is one.
    if type(network) is not nn.Sequential or len(network) < 2 or type(network[0]) is not nn.Flatten:
        return []
    if (network[0].start_dim, network[0].end_dim) != (1, -1) or any(map(_hooked, network.modules())):
        return []
    dense, between = list(network)[1::2], list(network)[2::2]
    if len(dense) != len(between) + 1 or not all(type(layer) is nn.ReLU for layer in between):
        return []
    layers = [layer for layer in dense if type(layer) is nn.Linear and layer.bias is not None]
    if len({id(parameter) for layer in layers for parameter in layer.parameters()}) < 2 * len(layers):
        return []  # some are tied
    trainable = all(parameter.requires_grad for parameter in network.parameters())
    return layers if len(layers) == len(dense) and trainable else []


def _hooked(module: nn.Module) -> bool:
    """Whether more happens in it than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)

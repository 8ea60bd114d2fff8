"""Training steps: a chunk of batches in, the logits each batch had just before its own step out.

`GenericSteps` trains any network by autograd. `DenseSteps` trains a stack of dense layers, the lesson's network,
about twice as fast: its steps are so small that autograd's bookkeeping costs more than the arithmetic, so the
gradients are written out. Both do cross-entropy from logits and Adam; neither knows epochs, data or devices.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.recipes import Recipe

__all__ = ["DenseSteps", "GenericSteps", "Steps", "steps_for"]

_BETA1 = 0.9


class Steps(Protocol):
    """What the training loop needs."""

    def take(self, pixels: Tensor, labels: Tensor, rates: list[float]) -> Tensor:
        """One step per batch.

        Args:
            pixels: (M, C, H, W) float32, whole batches one after the other, the last one maybe smaller.
            labels: (M,) int64.
            rates: learning rate of each step.

        Returns:
            (M, K) logits, each batch's from before its own step.
        """
        ...


def steps_for(network: nn.Module, recipe: Recipe, batch_size: int, device: torch.device) -> Steps:
    """The fastest steps that can train this network by this recipe."""
    plain = not (recipe.weight_decay or recipe.label_smoothing or recipe.bfloat16)
    if plain and device.type == "cpu" and _dense_layers(network):
        return DenseSteps(network, recipe, batch_size)
    return GenericSteps(network, recipe, batch_size, device)


class GenericSteps:
    """Trains any network; weight decay touches weight matrices only.

    Where recipe and hardware agree, products are made in bfloat16; sums and weights are float32 always.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, batch_size: int, device: torch.device) -> None:
        self.network, self.recipe, self.batch_size = network, recipe, batch_size
        self.device_type = device.type
        self.bfloat16 = recipe.bfloat16 and _has_bfloat16(device.type)
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = [{"params": parameters, "weight_decay": 0.0}]
        if recipe.weight_decay:
            matrices = [parameter for parameter in parameters if parameter.ndim > 1]
            vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
            groups = [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.lr_peak, betas=(_BETA1, recipe.beta2), eps=recipe.adam_epsilon, fused=True
        )

    def take(self, pixels: Tensor, labels: Tensor, rates: list[float]) -> Tensor:
        batches = zip(torch.split(pixels, self.batch_size), torch.split(labels, self.batch_size), rates, strict=True)
        return torch.cat([self._step(x, y, rate) for x, y, rate in batches])

    def _step(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Around each forward pass by itself: inside, the weights' bfloat16 copies are made once and kept.
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bfloat16):
            logits: Tensor = self.network(x)
        logits = logits.float()
        loss = cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves some methods untyped
        self.optimizer.step()
        return logits.detach()


class DenseSteps:
    """Trains `Flatten > Dense > ReLU > ... > Dense` on the CPU, its gradients written out.

    Every example is a column with a 1 added at its end, so that a layer is one product: `[weights bias] @ inputs`.
    All layers are parts of one long vector, so that Adam is one call. The network stays usable as it is: its
    weights and biases become views of that vector.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, batch_size: int) -> None:
        layers = _dense_layers(network)
        self.recipe, self.batch_size = recipe, batch_size
        self.sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        length = sum((inputs + 1) * units for inputs, units in zip(self.sizes, self.sizes[1:], strict=False))
        self.values, self.gradient = torch.zeros(length), torch.zeros(length)
        self.taken = 0
        self.everything, self.every_gradient = [self.values], [self.gradient]  # one tensor each, as Adam wants them
        self.means, self.mean_squares = [torch.zeros(length)], [torch.zeros(length)]
        self.weights, self.gradients = self._matrices(self.values), self._matrices(self.gradient)
        for layer, matrix in zip(layers, self.weights, strict=True):
            matrix[:, :-1].copy_(layer.weight.detach())
            matrix[:, -1].copy_(layer.bias.detach())
            layer.weight.data, layer.bias.data = matrix[:, :-1], matrix[:, -1]
        self.workspaces: dict[tuple[int, int], _Workspace] = {}

    @torch.inference_mode()
    def take(self, pixels: Tensor, labels: Tensor, rates: list[float]) -> Tensor:
        whole = len(labels) // self.batch_size * self.batch_size
        sizes = [(0, whole, self.batch_size), (whole, len(labels), len(labels) - whole)]
        logits, waiting = [], iter(rates)
        for start, end, size in sizes:
            if start < end:
                x, y = pixels[start:end].reshape(-1, size, self.sizes[0]), labels[start:end].view(-1, size)
                logits.append(self._take_equal(x, y, [next(waiting) for _ in range(len(y))]))
        return torch.cat(logits)

    def _take_equal(self, pixels: Tensor, labels: Tensor, rates: list[float]) -> Tensor:
        """Batches of one size: pixels (batches, size, inputs), labels (batches, size)."""
        batches, size = labels.shape
        if (batches, size) not in self.workspaces:
            self.workspaces[batches, size] = _Workspace.of(self.sizes, batches, size)
        work = self.workspaces[batches, size]
        work.inputs[..., :-1].copy_(pixels)
        targets = torch.zeros(batches, self.sizes[-1], size).scatter_(1, labels.unsqueeze(1), -1 / size)
        logits = torch.empty(batches, self.sizes[-1], size)
        numbers = (self.taken + torch.arange(1.0, batches + 1)).unbind()
        self.taken += batches
        for x, target, output, rate, number in zip(work.inputs.mT, targets, logits, rates, numbers, strict=True):
            self._find_gradients([x, *work.hidden], target, output, work.slopes)
            self._adam(rate, number)
        return logits.mT.reshape(-1, self.sizes[-1])

    def _find_gradients(self, inputs: list[Tensor], target: Tensor, logits: Tensor, slopes: list[Tensor]) -> None:
        """Forward, then backward; `inputs` holds each layer's: the examples, then each hidden layer's values."""
        last = len(self.weights) - 1
        for layer in range(last):
            values = inputs[layer + 1][:-1]  # all but the row of ones
            torch.mm(self.weights[layer], inputs[layer], out=values)
            values.relu_()
        torch.mm(self.weights[last], inputs[last], out=logits)

        # The slope of the mean cross-entropy by the logits: (softmax - one-hot) / size
        torch.softmax(logits, 0, out=slopes[last])
        torch.add(target, slopes[last], alpha=1 / logits.shape[1], out=slopes[last])
        for layer in range(last, -1, -1):
            torch.mm(slopes[layer], inputs[layer].t(), out=self.gradients[layer])
            if layer:
                below = slopes[layer - 1]
                torch.mm(self.weights[layer][:, :-1].t(), slopes[layer], out=below)
                # Where ReLU gave 0, nothing passes.
                torch.ops.aten.threshold_backward.grad_input(below, inputs[layer][:-1], 0, grad_input=below)

    def _adam(self, rate: float, number: Tensor) -> None:
        """What `torch.optim.Adam(fused=True)` calls; by itself, since its wrapping takes as long as the arithmetic."""
        torch._fused_adam_(
            self.everything, self.every_gradient, self.means, self.mean_squares, [], [number],
            amsgrad=False, beta1=_BETA1, beta2=self.recipe.beta2, lr=rate,
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
    hidden: list[Tensor]  # of each hidden layer (units + 1, size), a column an example; last row 1
    slopes: list[Tensor]  # of each layer (units, size): how the loss changes with the layer's sums

    @classmethod
    def of(cls, sizes: list[int], batches: int, size: int) -> "_Workspace":
        return cls(
            inputs=torch.ones(batches, size, sizes[0] + 1),
            hidden=[torch.ones(units + 1, size) for units in sizes[1:-1]],
            slopes=[torch.empty(units, size) for units in sizes[1:]],
        )


def _dense_layers(network: nn.Module) -> list[nn.Linear]:
    """The dense layers of `Flatten > Dense > ReLU > ... > Dense`, or nothing if the network is something else."""
    if not isinstance(network, nn.Sequential) or len(network) < 2 or not isinstance(network[0], nn.Flatten):
        return []
    dense, between = list(network)[1::2], list(network)[2::2]
    if len(dense) != len(between) + 1 or not all(isinstance(layer, nn.ReLU) for layer in between):
        return []
    layers = [layer for layer in dense if isinstance(layer, nn.Linear) and layer.bias is not None]
    trainable = all(parameter.requires_grad for parameter in network.parameters())
    return layers if len(layers) == len(dense) and trainable else []


def _has_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 products run in hardware; emulated ones are slower than float32."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)

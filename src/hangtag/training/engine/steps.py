"""Training steps for a chunk of batches, by autograd for any network; dense.py has faster ones for dense layers."""

from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.training.engine.adamw import AdamW
from hangtag.training.engine.cuda_graph import GraphReplay, record_cuda_graph
from hangtag.training.engine.custom import Loss
from hangtag.training.engine.dense import CompiledSteps, DenseSteps, copy_state, dense_layers
from hangtag.training.engine.muon import Muon
from hangtag.training.engine.networks import WHITE, is_builtin, scale_invariant_weights
from hangtag.training.engine.recipes import ADAM_BETA1, Recipe
from hangtag.training.engine.whole_batch import as_whole_batch
from hangtag.training.engine.workers import GradientSum, Workers

__all__ = ["GenericSteps", "SharedSteps", "Steps", "has_bfloat16", "steps_for"]


class Steps(Protocol):
    """Takes optimizer steps on one network.

    Attributes:
        kind: of the state; steps of the same kind can resume each other's.
        cores: how many cores the steps may use; may be changed between two calls of `run`.
        torch_threads: how many threads PyTorch may use during the steps.
    """

    cores: int

    @property
    def kind(self) -> str: ...

    @property
    def torch_threads(self) -> int: ...

    def state(self) -> dict[str, Tensor]:
        """The optimizer's state, not copied."""
        ...

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Resume from a `state()` of the same kind of steps for the same network.

        Raises:
            ValueError: the state belongs to other steps or another network.
        """
        ...

    def run(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        """Take one step per batch.

        Args:
            images: (M, C, H, W) uint8, consecutive batches; the last one may be smaller. If `steps_for` was called with
                `floats`, they may be float32 from 0 to 255.
            labels: (M,) int64.
            rates: learning rate of each step.
            weights: (M,) float32 sample weights; None: all equal.

        Returns:
            (M, K) logits of each batch just before its step.
        """
        ...


def steps_for(
    network: nn.Module, recipe: Recipe, batch_size: int, device: torch.device, loss: Loss | None = None,
    floats: bool = False, workers: Workers | None = None,
) -> Steps:  # fmt: skip
    """The fastest steps that support this network and recipe.

    Args:
        loss: a custom loss; None: cross-entropy.
        floats: whether `run` will get float images.
        workers: those among which each batch is divided; None: this process trains alone.
    """
    plain = not (recipe.weight_decay or recipe.label_smoothing or recipe.bfloat16 or loss or floats)
    dense = plain and device.type == "cpu" and bool(dense_layers(network))
    if workers is not None:
        own = len(workers.part(batch_size))
        steps = DenseSteps(network, recipe, own, workers) if dense else None
        return SharedSteps(steps or GenericSteps(network, recipe, own, device, loss, workers), workers, batch_size)
    if dense:
        return (CompiledSteps if CompiledSteps.possible() else DenseSteps)(network, recipe, batch_size)
    return GenericSteps(network, recipe, batch_size, device, loss)


class SharedSteps:
    """Takes the steps of this worker's part of each batch; `run` gets only its images, and all labels and weights.

    Args:
        own: the steps on this worker's images, which add the gradients of all workers.
        workers: those among which each batch is divided.
        batch_size: of all workers together.
    """

    def __init__(self, own: "GenericSteps | DenseSteps", workers: Workers, batch_size: int) -> None:
        self.own, self.workers, self.batch_size = own, workers, batch_size

    @property
    def cores(self) -> int:
        return self.own.cores

    @cores.setter
    def cores(self, count: int) -> None:
        self.own.cores = count

    @property
    def kind(self) -> str:
        return self.own.kind

    @property
    def torch_threads(self) -> int:
        return self.own.torch_threads

    def state(self) -> dict[str, Tensor]:
        return self.own.state()

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.own.set_state(state)

    def run(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        whole, first = [], 0
        for number, rate in enumerate(rates):
            batch = labels[number * self.batch_size :][: self.batch_size]
            part = self.workers.part(len(batch))
            rows = slice(part.start, part.stop, part.step)
            some = None if weights is None else weights[number * self.batch_size :][: self.batch_size][rows]
            self.workers.batch = len(batch)
            logits = self.own.run(images[first : first + len(part)], batch[rows], [rate], some)
            whole.append(torch.zeros(len(batch), logits.shape[1], device=logits.device))
            if not self.workers.idle:
                whole[-1][rows] = logits
            first += len(part)
        return self.workers.summed(torch.cat(whole))


class GenericSteps:
    """Trains any network with AdamW, and scale-invariant weights with Muon if the recipe sets its learning rate.

    Weight decay applies to weight matrices only. Products are in bfloat16 if recipe and hardware support it; sums and
    weights are always float32. On a CUDA GPU, the steps of built-in networks replay a CUDA graph for each batch size;
    a graph would freeze the Python decisions of a custom network or loss.

    Args:
        workers: their gradients are added.
    """

    kind = "generic"

    def __init__(
        self, network: nn.Module, recipe: Recipe, batch_size: int, device: torch.device, loss: Loss | None = None,
        workers: Workers | None = None,
    ) -> None:  # fmt: skip
        self.network, self.recipe, self.batch_size, self.loss = network, recipe, batch_size, loss
        self.workers, self.draws = workers, not is_builtin(network)
        self.cores = recipe.most_cores(torch.get_num_threads())
        self.device_type = device.type
        self.bfloat16 = recipe.bfloat16 and has_bfloat16(device.type)
        muon_weights = scale_invariant_weights(network) if recipe.muon_learning_rate else []
        products = torch.bfloat16 if self.bfloat16 else torch.float32
        self.muon = Muon(muon_weights, recipe.muon_learning_rate, recipe.muon_momentum, products)
        muon_ids = {id(weight) for weight in muon_weights}
        parameters = [each for each in network.parameters() if each.requires_grad and id(each) not in muon_ids]
        matrices, vectors = (
            [each for each in parameters if (each.ndim > 1) == is_matrix] for is_matrix in (True, False)
        )
        self.sum = None if workers is None else GradientSum([*parameters, *muon_weights], workers)
        groups = [(matrices, recipe.weight_decay), (vectors, 0.0)]
        self.optimizer = AdamW(groups, ADAM_BETA1, recipe.adam_beta2, recipe.adam_epsilon)
        self.rate = torch.tensor(recipe.learning_rate, device=device)
        """Learning rate of the next step; a tensor, so that a replayed graph reads the current value."""
        builtin = loss is None and (is_builtin(network) or bool(dense_layers(network)))
        replays = device.type == "cuda" and builtin and workers is None
        self.graph_replay = GraphReplay(record_cuda_graph) if replays else None

    @property
    def torch_threads(self) -> int:
        return self.cores

    def state(self) -> dict[str, Tensor]:
        muon = {f"muon.{name}": value for name, value in self.muon.state().items()}
        return self.optimizer.state() | muon

    def set_state(self, state: dict[str, Tensor]) -> None:
        copy_state(state, self.state())

    def run(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        arrays = (images, labels) if weights is None else (images, labels, weights)
        logits = []
        for *batch, rate in zip(*(torch.split(array, self.batch_size) for array in arrays), rates, strict=True):
            self.rate.fill_(rate)
            logits.append(self.graph_replay(self._step, *batch) if self.graph_replay else self._step(*batch))
        return torch.cat(logits)

    def _step(self, images: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        x = torch.div(images, WHITE)
        whole = nullcontext() if self.workers is None else as_whole_batch(self.workers, self.draws)
        # One autocast per forward pass: it caches the bfloat16 copies of the weights until it ends.
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bfloat16), whole:
            logits: Tensor = self.network(x)
        logits = logits.float()
        loss = self._loss(logits, y, weights) if self.workers is None else self._share(logits, y, weights, self.workers)
        self.network.zero_grad()
        with nullcontext() if self.sum is None else self.sum.adding():
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves some methods untyped
        self.optimizer.step(self.rate)
        self.muon.step(self.rate / self.recipe.learning_rate)
        return logits.detach()

    def _share(self, logits: Tensor, y: Tensor, weights: Tensor | None, workers: Workers) -> Tensor:
        """This worker's share of the loss of the whole batch, from its part of it.

        A custom loss may depend on the images of a batch together, so each worker computes it for all of them; only its
        own logits have a gradient.
        """
        if self.loss is None:
            return self._loss(logits, y, weights) * workers.share
        everything = workers.gathered(logits.detach())
        if not workers.idle:
            everything[workers.rank :: workers.count] = logits
        loss = self._loss(everything, workers.gathered(y), None if weights is None else workers.gathered(weights))
        return loss if not workers.idle else loss + 0 * logits.sum()  # so that every worker adds gradients

    def _loss(self, logits: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        if self.loss is not None:
            losses = self.loss(logits, y)
            return losses.mean() if weights is None else (losses * weights).mean()
        smoothing = self.recipe.label_smoothing
        if weights is None:
            return cross_entropy(logits, y, label_smoothing=smoothing)
        losses = cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
        return (losses * weights).mean()


def has_bfloat16(device_type: str) -> bool:
    """Whether the hardware multiplies in bfloat16; emulated products are slower than float32."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)

"""Training steps: a chunk of batches in, the logits each batch had just before its own step out.

`GenericSteps` trains any network by autograd; dense.py has faster ones for stacks of dense layers. None of them knows
epochs, data or devices.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.training.engine.cuda_graph import Captured, record_cuda_graph
from hangtag.training.engine.dense import CompiledSteps, DenseSteps, dense_layers
from hangtag.training.engine.muon import Muon
from hangtag.training.engine.networks import WHITE, is_builtin, scale_invariant_weights
from hangtag.training.engine.recipes import ADAM_BETA1, Recipe

__all__ = ["GenericSteps", "Steps", "has_bfloat16", "steps_for"]


class Steps(Protocol):
    """What the training loop needs.

    Attributes:
        torch_threads: how many PyTorch should use meanwhile; None is all the recipe allows.
    """

    torch_threads: int | None

    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers, beside the weights; not copied."""
        ...

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state()` of the same kind of steps for the same network.

        Raises:
            ValueError: it is of other steps or another network.
        """
        ...

    def take(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        """One step per batch.

        Args:
            images: (M, C, H, W) uint8, whole batches one after the other, the last one maybe smaller.
            labels: (M,) int64.
            rates: learning rate of each step.
            weights: (M,) float32, how much each image counts; None: all alike. Only for steps made for it.

        Returns:
            (M, K) logits, each batch's from before its own step.
        """
        ...


def steps_for(
    network: nn.Module, recipe: Recipe, batch_size: int, device: torch.device, weighted: bool = False
) -> Steps:
    """The fastest steps that can train this network by this recipe.

    Args:
        weighted: images will not count alike.
    """
    plain = not (recipe.weight_decay or recipe.label_smoothing or recipe.bfloat16 or weighted)
    if plain and device.type == "cpu" and dense_layers(network):
        return (CompiledSteps if CompiledSteps.possible() else DenseSteps)(network, recipe, batch_size)
    return GenericSteps(network, recipe, batch_size, device)


class GenericSteps:
    """Trains any network; weight decay touches weight matrices only.

    AdamW takes the steps; on weights whose length means nothing, Muon does where the recipe has a rate for it.

    Where recipe and hardware agree, products are made in bfloat16; sums and weights are float32 always. On a CUDA GPU
    a step of a network of ours is captured once for each size of batch, and replayed; what another's decides in Python
    a recording would freeze.
    """

    torch_threads: int | None = None

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.network, self.recipe, self.batch_size = network, recipe, batch_size
        self.device_type = device.type
        self.bfloat16 = recipe.bfloat16 and has_bfloat16(device.type)
        turned = scale_invariant_weights(network) if recipe.muon_learning_rate else []
        self.muon = Muon(turned, recipe.muon_learning_rate, recipe.muon_momentum)
        theirs = {id(weight) for weight in turned}
        parameters = [each for each in network.parameters() if each.requires_grad and id(each) not in theirs]
        groups = [{"params": parameters, "weight_decay": 0.0}]
        if recipe.weight_decay:
            matrices = [parameter for parameter in parameters if parameter.ndim > 1]
            vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
            groups = [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ]
        self.rate = torch.tensor(recipe.learning_rate, device=device)
        """Of the step to come; a tensor, so that a captured step reads it anew."""
        on_cuda = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            groups, self.rate, (ADAM_BETA1, recipe.adam_beta2), recipe.adam_epsilon, fused=True, capturable=on_cuda
        )
        known = is_builtin(network) or bool(dense_layers(network))
        self.captured = Captured(record_cuda_graph) if on_cuda and known else None

    def state(self) -> dict[str, Tensor]:
        remembered = self.optimizer.state_dict()["state"]
        state = {f"{index}.{name}": value for index, table in remembered.items() for name, value in table.items()}
        return state | {f"muon.{name}": value for name, value in self.muon.state().items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        tables: dict[int, dict[str, Tensor]] = {}
        self.muon.set_state({key[5:]: value for key, value in state.items() if key.startswith("muon.")})
        for key, value in state.items():
            index, _, name = key.partition(".")
            if index == "muon":
                continue
            like = parameters[int(index)]
            # In the parameter's own memory layout, as the optimizer made it: fused Adam walks both side by side.
            laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            tables.setdefault(int(index), {})[name] = laid_out
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": tables})
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate  # loading made a copy
        if self.captured is not None:
            self.captured.forget()

    def take(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        arrays = (images, labels) if weights is None else (images, labels, weights)
        logits = []
        for *batch, rate in zip(*(torch.split(array, self.batch_size) for array in arrays), rates, strict=True):
            self.rate.fill_(rate)
            logits.append(self.captured(self._take_one, *batch) if self.captured else self._take_one(*batch))
        return torch.cat(logits)

    def _take_one(self, images: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        x = torch.div(images, WHITE)
        # Around each forward pass by itself: inside, the weights' bfloat16 copies are made once and kept.
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bfloat16):
            logits: Tensor = self.network(x)
        logits = logits.float()
        loss = self._loss(logits, y, weights)
        self.network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves some methods untyped
        self.optimizer.step()
        self.muon.step(self.rate / self.recipe.learning_rate)
        return logits.detach()

    def _loss(self, logits: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        smoothing = self.recipe.label_smoothing
        if weights is None:
            return cross_entropy(logits, y, label_smoothing=smoothing)
        each = cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
        return (each * weights).mean()


def has_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 products run in hardware; emulated ones are slower than float32."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)

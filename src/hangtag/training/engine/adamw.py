"""AdamW: Adam with decoupled weight decay, in PyTorch's fused kernel.

`torch.optim.AdamW` takes the same steps, but imports PyTorch's compiler, which takes more than a second.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["AdamW"]


class AdamW:
    """Takes the steps of Loshchilov & Hutter, 2019, on float weights.

    Args:
        groups: weights, and the weight decay of each group.
        beta1, beta2: decay of the first and of the second moment.
        epsilon: added to the denominator.
    """

    def __init__(
        self, groups: Sequence[tuple[Sequence[Tensor], float]], beta1: float, beta2: float, epsilon: float
    ) -> None:
        self.groups, self.beta1, self.beta2, self.epsilon = groups, beta1, beta2, epsilon
        weights = [weight for group, _ in groups for weight in group]
        self.means, self.squares = ([torch.zeros_like(each) for each in weights] for _ in range(2))
        self.steps = [torch.zeros((), dtype=torch.float32, device=each.device) for each in weights]

    @torch.no_grad()
    def step(self, rate: Tensor) -> None:
        """Take a step at this learning rate (a scalar) on all weights that have a gradient."""
        state = zip(self.means, self.squares, self.steps, strict=True)
        for group, decay in self.groups:
            rows = [(weight, weight.grad, *next(state)) for weight in group]
            trained: Any = [row for row in rows if row[1] is not None]
            if trained:
                weights, gradients, means, squares, steps = map(list, zip(*trained, strict=True))
                adamw(
                    weights, gradients, means, squares, [], steps, fused=True, amsgrad=False, beta1=self.beta1,
                    beta2=self.beta2, lr=rate, weight_decay=decay, eps=self.epsilon, maximize=False,
                )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """The moments and the number of steps of each weight, not copied."""
        parts = {"exp_avg": self.means, "exp_avg_sq": self.squares, "step": self.steps}
        return {f"{index}.{name}": value for name, values in parts.items() for index, value in enumerate(values)}

"""Muon: momentum whose update is made orthogonal, for the weights of convolutions.

K. Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks", in the form of airbench94: weights
keep their length, so that the rate alone says by what angle a step turns them. That is only harmless where
normalisation follows, which makes the length of the weights meaningless.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalised"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration: fast, ends with singular values of 0.7 to 1.2
_ROUNDS = 3  # as airbench94; five were no better here and cost more


class Muon:
    """Takes steps on weights (O, ...) with normalisation behind them.

    Args:
        weights: those to train; their gradients are read from them.
        rate: the largest learning rate.
        momentum: decay of the sum of gradients, used as Nesterov does.
    """

    def __init__(self, weights: Sequence[Tensor], rate: float, momentum: float) -> None:
        self.weights, self.rate, self.momentum = weights, rate, momentum
        self.sums = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def step(self, share: Tensor) -> None:
        """One step at `share`, one number, of the largest rate; gradients are given up."""
        for weight, total in zip(self.weights, self.sums, strict=True):
            if weight.grad is None:
                continue
            total.mul_(self.momentum).add_(weight.grad)
            ahead = weight.grad.add(total, alpha=self.momentum)
            turned = orthogonalised(ahead.reshape(len(ahead), -1)).view_as(weight)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            weight.sub_(turned * (self.rate * share))
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        return {str(index): total for index, total in enumerate(self.sums)}

    def set_state(self, state: dict[str, Tensor]) -> None:
        for index, total in enumerate(self.sums):
            total.copy_(state[str(index)])


def orthogonalised(matrix: Tensor) -> Tensor:
    """(R, C) float32, near the closest matrix with orthonormal rows or columns; products are made in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    if tall:
        x = x.T
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).float()

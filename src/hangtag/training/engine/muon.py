"""Muon: momentum with an orthogonalised update, for the weights of convolutions.

K. Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks", as in airbench94: weights keep their
norm, so the learning rate alone determines the angle of a step. This requires that normalisation follows the weights,
so that their norm has no effect.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalised"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; the singular values end between 0.7 and 1.2
_ROUNDS = 3  # as in airbench94; five were no better here and cost more


class Muon:
    """Takes steps on weights (O, ...) that normalisation follows.

    Args:
        weights: the weights to train.
        rate: the largest learning rate.
        momentum: decay of the sum of gradients, with Nesterov's look-ahead.
        dtype: of the products; bfloat16 only where the hardware has it. Emulated, it is up to 70 times slower.
    """

    def __init__(self, weights: Sequence[Tensor], rate: float, momentum: float, dtype: torch.dtype) -> None:
        self.weights, self.rate, self.momentum, self.dtype = weights, rate, momentum, dtype
        self.sums = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def step(self, factor: Tensor) -> None:
        """Take a step at `factor` (a scalar) times the largest rate, and clear the gradients."""
        for weight, total in zip(self.weights, self.sums, strict=True):
            if weight.grad is None:
                continue
            total.mul_(self.momentum).add_(weight.grad)
            ahead = weight.grad.add(total, alpha=self.momentum)
            update = orthogonalised(ahead.reshape(len(ahead), -1), self.dtype).view_as(weight)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            weight.sub_(update * (self.rate * factor))
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """The sum of gradients of each weight, not copied."""
        return {str(index): total for index, total in enumerate(self.sums)}


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """(R, C) float32, approximately the closest matrix with orthonormal rows or columns, computed in `dtype`."""
    a, b, c = _COEFFICIENTS
    x = matrix.to(dtype)
    x = x / (x.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    if tall:
        x = x.T
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).float()

"""Which images an epoch leaves out: most of those the network already answers well.

Those that stay in their place count more, so that over some epochs the mean gradient is still that of all images: Qin
et al., 2024, "InfoBatch: Lossless training speed up by unbiased dynamic data pruning" (ICLR). There a share of the
images below the mean loss is left out; here the easy ones are a fixed share of all, so that the number of steps is
known beforehand. It knows only losses.
"""

import torch
from torch import Tensor

from hangtag.training.engine.recipes import Recipe

__all__ = ["Pruning"]


class Pruning:
    """The losses of all images, each from when it was last trained on, and what follows for an epoch.

    Args:
        images: how many there are.
        recipe: which share of them is easy, which share of those an epoch leaves out, and until when.
    """

    def __init__(self, images: int, recipe: Recipe) -> None:
        easy = round(recipe.prune_fraction * images)
        self._most_left_out = round(recipe.prune_rate * easy)
        self._last = round(recipe.prune_until * recipe.epochs)  # the last epoch that leaves any out
        self._easy_count = easy
        self._weight = easy / (easy - self._most_left_out) if easy > self._most_left_out else 1.0
        self.losses = torch.full((images,), torch.inf)
        self.easy = torch.zeros(images, dtype=torch.bool)

    def left_out(self, epoch: int) -> int:
        """How many images an epoch, from 1, leaves out: none in the first, nor in the last ones if so wished."""
        return self._most_left_out if 1 < epoch <= self._last else 0

    def begin(self, epoch: int) -> None:
        """Before an epoch: the images of the smallest losses are the easy ones; where none is left out, none is."""
        self.easy = torch.zeros_like(self.easy)
        if self.left_out(epoch):
            self.easy[self.losses.argsort(stable=True)[: self._easy_count]] = True

    def kept(self, order: Tensor) -> Tensor:
        """Of all positions in random order, those that this epoch trains on; it leaves out the first easy ones."""
        easy = self.easy[order]
        return order[~easy | (easy.cumsum(0) > self._most_left_out)]

    def weights(self, positions: Tensor) -> Tensor:
        """(M,) float32, how many images each of them stands for in this epoch."""
        return torch.where(self.easy[positions], self._weight, 1.0)

    def note(self, positions: Tensor, losses: Tensor) -> None:
        """The losses (M,) that images had just now."""
        self.losses[positions] = losses

    def state(self) -> dict[str, Tensor]:
        """To go on from in the middle of an epoch."""
        return {"losses": self.losses, "easy": self.easy}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError where it is of other images, KeyError where it is none."""
        if state["losses"].shape != self.losses.shape:
            raise ValueError(f"it knows {len(state['losses']):,} images, here are {len(self.losses):,}")
        self.losses, self.easy = state["losses"].clone(), state["easy"].clone()

"""Which images an epoch trains on, and their weights: balancing uneven classes, and pruning easy images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hangtag.training.engine.recipes import Recipe

__all__ = ["UNEVEN", "Pruning", "balance_note", "balanced_order", "choose_balance", "class_weights"]

UNEVEN = 3.0
"""Classes are uneven if the largest has more than this many times the images of the smallest."""


def choose_balance(recipe: Recipe, counts: NDArray[np.int64]) -> str:
    """Return "off", "weights" or "sampling": the recipe's choice, or, for "auto", "weights" if classes are uneven.

    Args:
        counts: (K,) training images of each class.
    """
    if recipe.balance != "auto":
        return recipe.balance
    present = counts[counts > 0]
    return "weights" if present.max() > UNEVEN * present.min() else "off"


def balance_note(balance: str, counts: NDArray[np.int64], class_names: tuple[str, ...]) -> str:
    """One sentence for the user; empty if nothing is balanced, or the classes are about even."""
    largest, smallest = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    if balance == "off" or counts[largest] <= UNEVEN * counts[smallest]:
        return ""
    effect = {
        "weights": "images are weighted by inverse class frequency",
        "sampling": "each class is sampled equally often",
    }[balance]
    return (
        f"classes are imbalanced ({class_names[largest]} {counts[largest]:,}, {class_names[smallest]} "
        f"{counts[smallest]:,} images): {effect}. To turn this off: --balance off (in Python balance='off')"
    )


def class_weights(counts: NDArray[np.int64]) -> Tensor:
    """(K,) float32, inversely proportional to the counts, with mean 1 over the images; 0 for an empty class."""
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.tensor(weights, dtype=torch.float32)


def balanced_order(labels: Tensor, random: torch.Generator) -> Tensor:
    """(N,) positions for one epoch in random order, with every class equally often.

    Images of small classes repeat, in a new order each time; large classes contribute a different subset each epoch.
    """
    present = torch.bincount(labels).nonzero().flatten()
    members = [(labels == index).nonzero().flatten() for index in present]
    share, rest = divmod(len(labels), len(members))
    extra = torch.randperm(len(members), generator=random)[:rest].tolist()
    drawn = [_draw(positions, share + (index in extra), random) for index, positions in enumerate(members)]
    together = torch.cat(drawn)
    return together[torch.randperm(len(together), generator=random)]


def _draw(positions: Tensor, count: int, random: torch.Generator) -> Tensor:
    """`count` of the positions; none repeats before all were drawn."""
    rounds = -(-count // len(positions))
    orders = [torch.randperm(len(positions), generator=random) for _ in range(rounds)]
    return positions[torch.cat(orders)[:count]] if count else positions[:0]


class Pruning:
    """Leaves most of the easy images, those with the smallest losses, out of an epoch.

    The remaining easy images get a larger weight, so that the expected gradient stays that of all images: Qin et al.,
    2024, "InfoBatch: Lossless training speed up by unbiased dynamic data pruning" (ICLR). InfoBatch prunes images with
    a loss below the mean; here a fixed fraction of the images is easy, so that the number of steps is known in advance.

    Args:
        images: number of training images.
        recipe: sets the fraction of easy images, the fraction of those pruned per epoch, and the last pruned epoch.
    """

    def __init__(self, images: int, recipe: Recipe) -> None:
        self._easy_count = round(recipe.prune_fraction * images)
        self._pruned_count = round(recipe.prune_rate * self._easy_count)
        self._last_epoch = round(recipe.prune_until * recipe.epochs)
        kept = self._easy_count - self._pruned_count
        self._weight = self._easy_count / kept if kept else 1.0
        self.losses = torch.full((images,), torch.inf)
        """(N,) the loss of each image when it was last trained on."""
        self.easy = torch.zeros(images, dtype=torch.bool)

    def pruned(self, epoch: int) -> int:
        """How many images an epoch, counted from 1, leaves out."""
        return self._pruned_count if 1 < epoch <= self._last_epoch else 0

    def begin(self, epoch: int) -> None:
        """Choose the easy images of an epoch."""
        self.easy = torch.zeros_like(self.easy)
        if self.pruned(epoch):
            self.easy[self.losses.argsort(stable=True)[: self._easy_count]] = True

    def select(self, order: Tensor) -> Tensor:
        """Remove the first easy images, as many as are pruned, from all positions in random order."""
        easy = self.easy[order]
        return order[~easy | (easy.cumsum(0) > self._pruned_count)]

    def weights(self, positions: Tensor) -> Tensor:
        """(M,) float32, the weight of each image in this epoch; they add up to the number of all images."""
        return torch.where(self.easy[positions], self._weight, 1.0)

    def record(self, positions: Tensor, losses: Tensor) -> None:
        """Store the current losses (M,) of some images."""
        self.losses[positions] = losses

    def state(self) -> dict[str, Tensor]:
        """The state to resume from in the middle of an epoch."""
        return {"losses": self.losses, "easy": self.easy}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError if the state belongs to another number of images, KeyError if it is incomplete."""
        if state["losses"].shape != self.losses.shape:
            raise ValueError(f"it has {len(state['losses']):,} images, this training has {len(self.losses):,}")
        self.losses, self.easy = state["losses"].clone(), state["easy"].clone()

"""What to do about uneven classes: choose it, say it, and the numbers it needs. It trains nothing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hangtag.training.engine.recipes import Recipe

__all__ = ["UNEVEN", "balance_in_words", "balanced_order", "choose_balance", "class_weights"]

UNEVEN = 3.0
"""Classes are uneven when the largest has more than so many times the images of the smallest."""


def choose_balance(recipe: Recipe, counts: NDArray[np.int64]) -> str:
    """ "off", "weights" or "sampling": what the recipe says, or, where it says "auto", what the classes ask for.

    Args:
        counts: (K,) training images of each class.
    """
    if recipe.balance != "auto":
        return recipe.balance
    present = counts[counts > 0]
    return "weights" if present.max() > UNEVEN * present.min() else "off"


def balance_in_words(chosen: str, counts: NDArray[np.int64], class_names: tuple[str, ...]) -> str:
    """One sentence for the user; empty when nothing is done."""
    if chosen == "off":
        return ""
    largest, smallest = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    does = {
        "weights": "an image counts the more, the rarer its class",
        "sampling": "each class is shown equally often",
    }[chosen]
    return (
        f"classes are uneven ({class_names[largest]} {counts[largest]:,}, {class_names[smallest]} "
        f"{counts[smallest]:,} images): {does}. To turn this off: --balance off"
    )


def class_weights(counts: NDArray[np.int64]) -> Tensor:
    """(K,) float32, inverse to the counts, 1 on average over the images; 0 for a class without any."""
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.tensor(weights, dtype=torch.float32)


def balanced_order(labels: Tensor, random: torch.Generator) -> Tensor:
    """(N,) positions for one epoch, every class as often as any other, in random order.

    A class with too few images is gone through again and again, each time in a new order; one with too many shows
    another part of itself each epoch.
    """
    present = torch.bincount(labels).nonzero().flatten()
    members = [(labels == index).nonzero().flatten() for index in present]
    share, rest = divmod(len(labels), len(members))
    extra = torch.randperm(len(members), generator=random)[:rest].tolist()
    drawn = [_drawn(positions, share + (index in extra), random) for index, positions in enumerate(members)]
    together = torch.cat(drawn)
    return together[torch.randperm(len(together), generator=random)]


def _drawn(positions: Tensor, count: int, random: torch.Generator) -> Tensor:
    """`count` of them, none twice before all came once."""
    rounds = -(-count // len(positions))
    orders = [torch.randperm(len(positions), generator=random) for _ in range(rounds)]
    return positions[torch.cat(orders)[:count]] if count else positions[:0]

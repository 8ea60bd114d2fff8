"""Which images train and which validate: stratified by class, decided by one seed, and never the test images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UsageError

__all__ = ["Split", "stratified"]


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the training and of the validation images, both ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        return {"train": len(self.train), "validation": len(self.validation)}


def stratified(labels: NDArray[np.int64], fraction: float, seed: int) -> Split:
    """Hold out `fraction` of each class for validation; a class keeps at least one image to train on.

    Args:
        labels: (N,) int64.
        fraction: of each class, from 0 up to but not including 1; 0 holds out nothing.
        seed: the same seed and labels give the same split.

    >>> split = stratified(np.array([0] * 10 + [1] * 20), 0.1, seed=0)
    >>> len(split.train), len(split.validation)
    (27, 3)
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"validation fraction {fraction} is out of range", "give at least 0 and less than 1")
    random = np.random.default_rng(seed)
    held_out = []
    for name in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == name))
        count = min(len(members) - 1, max(1, round(len(members) * fraction))) if fraction else 0
        held_out.append(members[:count])
    validation = np.sort(np.concatenate(held_out)).astype(np.int64)
    return Split(np.setdiff1d(np.arange(len(labels)), validation), validation)

"""Two models judged on the same pictures: whether one is better, or chance would show as much.

It says whether these two files differ on such pictures. Whether one way of training is better than another takes
several trainings of each: `hangtag train --seeds`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError, UsageError
from hangtag.evaluation.judge import Judgement
from hangtag.evaluation.metrics import wilson

__all__ = ["Comparison", "compare", "compare_judgements", "name_pair"]

_SIGNIFICANT = 0.05
_Z = 1.959963984540054

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Comparison:
    """How the second of two models differs from the first on N pictures.

    Attributes:
        names: of the two.
        images: N.
        accuracies: of the two, each with its 95 % interval (Wilson): (share, low, high).
        both_right, only_first, only_second, both_wrong: pictures.
        difference: accuracy of the second less that of the first.
        interval: its 95 % interval for pairs (Bonett & Price, 2012).
        p: of as uneven a split of the pictures that only one gets right, were both as good (exact test; McNemar, 1947).
        loss_difference: cross-entropy of the second less that of the first, nats; below 0 the second is better.
        loss_interval: its 95 % interval, from the differences picture by picture.
    """

    names: tuple[str, str]
    images: int
    accuracies: tuple[tuple[float, float, float], tuple[float, float, float]]
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    difference: float
    interval: tuple[float, float]
    p: float
    loss_difference: float
    loss_interval: tuple[float, float]

    @property
    def real(self) -> bool:
        """Whether the difference in accuracy is more than chance in these pictures would show in 95 of 100 cases."""
        return self.p < _SIGNIFICANT

    @property
    def in_words(self) -> str:
        first, second = self.names
        better, worse = (second, first) if self.difference > 0 else (first, second)
        points, low, high = (100 * abs(self.difference), *sorted(100 * bound for bound in self.interval))
        apart = f"{self.only_first:,} pictures only {first} gets right, {self.only_second:,} only {second}"
        span = f"95 % interval of {second} less {first}: {low:+.2f} to {high:+.2f} points"
        if self.real:
            return f"{better} is better than {worse} by {points:.2f} points ({span}; p = {self.p:.2g}): {apart}."
        return f"No difference that chance would not show ({span}; p = {self.p:.2g}): {apart}."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "real": self.real, "in_words": self.in_words}


def compare(names: tuple[str, str], labels: NDArray[np.int64], first: Floats, second: Floats) -> Comparison:
    """Compare what two models answered for the same N >= 1 pictures.

    Args:
        labels: (N,) indices of the true classes.
        first, second: (N, K) probabilities.

    Raises:
        DataError: shapes disagree, or there are no pictures.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or len(first) != len(labels) or not len(labels):
        raise DataError(
            f"answers of shape {first.shape} and {second.shape} for {len(labels):,} labels cannot be compared",
            "judge both models on the same pictures",
        )
    one, two = (rows.argmax(axis=1) == labels for rows in (first, second))
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    count, apart = len(labels), only_first + only_second
    p = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    losses = [_losses(rows, labels) for rows in (first, second)]
    changes = losses[1] - losses[0]
    half = _Z * float(changes.std(ddof=1)) / count**0.5 if count > 1 else float("inf")
    mean = float(changes.mean())
    return Comparison(
        names=names,
        images=count,
        accuracies=(_share(int(one.sum()), count), _share(int(two.sum()), count)),
        both_right=int((one & two).sum()),
        only_first=only_first,
        only_second=only_second,
        both_wrong=int((~one & ~two).sum()),
        difference=(only_second - only_first) / count,
        interval=_paired(only_first, only_second, count),
        p=p,
        loss_difference=mean,
        loss_interval=(mean - half, mean + half),
    )


def compare_judgements(
    names: tuple[str, str], first: Judgement, second: Judgement
) -> tuple[Comparison, NDArray[np.float32]]:
    """Compare two judged runs; also returns the second's probabilities with its classes in the order of the first's.

    Raises:
        UsageError: they know other classes, or were judged on other pictures.
    """
    theirs, ours = second.data.class_names, first.data.class_names
    if set(theirs) != set(ours):
        only = sorted(set(theirs) ^ set(ours))
        raise UsageError(
            f"{names[0]} and {names[1]} know other classes ({', '.join(only[:5])} only one of them)",
            "compare models of the same classes",
        )
    order = [theirs.index(name) for name in ours]
    labels = np.argsort(order)[second.data.labels]
    if not _same_pictures(first, second) or not (labels == first.data.labels).all():
        raise UsageError(
            f"{names[0]} was judged on {len(first.data):,} pictures of {first.data.name}, {names[1]} on "
            f"{len(second.data):,} other ones of {second.data.name}",
            f"name the data to judge both on: hangtag compare {names[0]} {names[1]} DATA",
        )
    rows = second.probabilities[:, order]
    return compare(names, first.data.labels, first.probabilities, rows), rows


def name_pair(first: Path, second: Path) -> tuple[str, str]:
    """Short names that tell two runs apart."""
    return (first.name, second.name) if first.name != second.name else (str(first), str(second))


def _same_pictures(first: Judgement, second: Judgement) -> bool:
    """By content; where models see them at other sizes, by name."""
    if len(first.data) != len(second.data):
        return False
    if first.data.images.shape == second.data.images.shape:
        return bool((first.data.contents == second.data.contents).all())
    return len(first.data.names) > 0 and list(first.data.names) == list(second.data.names)


def _share(hits: int, count: int) -> tuple[float, float, float]:
    return hits / count, *wilson(hits, count)


def _losses(rows: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    of_truth = rows[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.maximum(of_truth, np.finfo(np.float32).tiny))
    return losses


def _paired(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """Bonett & Price, 2012, Statistics in Medicine 31: Wald's interval with one more picture each way."""
    one, two = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    half = _Z * ((one + two - (two - one) ** 2) / (count + 2)) ** 0.5
    return two - one - half, two - one + half

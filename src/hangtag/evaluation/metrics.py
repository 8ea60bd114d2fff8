"""Probabilities and true labels -> `Evaluation`: how good, with intervals, and what the numbers mean in words.

It runs no model and opens no data; it is arithmetic on arrays.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError
from hangtag.model.calibration import check_probabilities, cross_entropy

__all__ = ["ClassResult", "Evaluation", "evaluate", "wilson"]

_Z_95 = 1.959963984540054  # the 97.5 % point of the normal distribution


@dataclass(frozen=True)
class ClassResult:
    """How one class did. A number that is 0/0 (never predicted, or no images) is None."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    recall_interval: tuple[float, float] | None
    f1: float | None
    precision_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evaluation:
    """How good a classifier is on labelled images it was not trained on.

    Attributes:
        images: how many were judged.
        loss: mean cross-entropy in nats; 0 is perfect, ln K is guessing.
        accuracy: share whose most probable class is the true one.
        accuracy_interval: 95 %, Wilson.
        classes: one `ClassResult` per class.
        confusion: K rows (true class) of K counts (predicted class).
        training_accuracy: of the last training epoch, where known.
    """

    images: int
    loss: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    training_accuracy: float | None = None

    @property
    def gap_in_words(self) -> str:
        """The difference to the training accuracy, explained to somebody who never heard of overfitting."""
        if self.training_accuracy is None:
            return "The training accuracy is not known, so the gap to it cannot be judged."
        gap = 100 * (self.training_accuracy - self.accuracy)
        seen = f"It was right on {self.training_accuracy:.1%} of the training images and {self.accuracy:.1%} of these"
        if self.training_accuracy > self.accuracy_interval[1]:
            return (
                f"{seen}: {gap:.1f} points fewer on pictures it had never seen. That gap is overfitting: "
                "part of what it learned holds only for the pictures it learned from."
            )
        return f"{seen}: no sign of overfitting, it does as well on pictures it had never seen as chance lets one tell."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "gap_in_words": self.gap_in_words}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Evaluation":
        fields = {key: item for key, item in value.items() if key != "gap_in_words"}
        fields["accuracy_interval"] = tuple(fields["accuracy_interval"])
        fields["confusion"] = tuple(tuple(row) for row in fields["confusion"])
        fields["classes"] = tuple(
            ClassResult(**{name: _no_list(cell) for name, cell in row.items()}) for row in fields["classes"]
        )
        return cls(**fields)

    def __str__(self) -> str:
        low, high = self.accuracy_interval
        return f"accuracy {self.accuracy:.4f} [{low:.4f}, {high:.4f}], loss {self.loss:.4f}, {self.images:,} images"


def _no_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def evaluate(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    training_accuracy: float | None = None,
) -> Evaluation:
    """Judge predictions.

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: (N,) indices of the true classes.
        class_names: (K,) names.
        training_accuracy: of the last training epoch, for the gap.

    Raises:
        DataError: shapes disagree, there are no images, a label is no class, or probabilities are not from 0 to 1.
    """
    _check(probabilities, labels, class_names)
    predicted = probabilities.argmax(axis=1)
    count = len(class_names)
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    right = int(confusion.trace())
    return Evaluation(
        images=len(labels),
        loss=cross_entropy(probabilities, labels),
        accuracy=right / len(labels),
        accuracy_interval=wilson(right, len(labels)),
        classes=tuple(_class_result(name, confusion, index) for index, name in enumerate(class_names)),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        training_accuracy=training_accuracy,
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval for a proportion (E. B. Wilson, 1927, J. Am. Stat. Assoc. 22:209-212).

    >>> [round(bound, 4) for bound in wilson(8834, 10000)]
    [0.877, 0.8895]
    """
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * (share * (1 - share) / trials + z2 / (4 * trials**2)) ** 0.5
    return (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)


def _check(probabilities: NDArray[Any], labels: NDArray[Any], class_names: tuple[str, ...]) -> None:
    if probabilities.shape != (len(labels), len(class_names)):
        raise DataError(
            f"probabilities of shape {probabilities.shape} do not fit {len(labels):,} labels and "
            f"{len(class_names)} classes",
            "evaluate on data with the classes the model was trained on",
        )
    check_probabilities(probabilities, labels)


def _class_result(name: str, confusion: NDArray[np.int64], index: int) -> ClassResult:
    hits = int(confusion[index, index])
    images, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return ClassResult(
        name=name,
        images=images,
        precision=hits / predicted if predicted else None,
        recall=hits / images if images else None,
        recall_interval=wilson(hits, images) if images else None,
        f1=2 * hits / (images + predicted) if images + predicted else None,
        precision_interval=wilson(hits, predicted) if predicted else None,
    )

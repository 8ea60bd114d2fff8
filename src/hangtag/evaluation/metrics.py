"""Probabilities and true labels -> `Evaluation`: accuracy, loss and per-class numbers, with intervals.

This module does arithmetic on arrays; it runs no model and opens no data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError
from hangtag.model.calibration import check_probabilities, cross_entropies
from hangtag.serializable import Serializable
from hangtag.words import ENOUGH, amount, first_few, rate_with_count

__all__ = [
    "Z_95",
    "ClassResult",
    "Evaluation",
    "Share",
    "Strangers",
    "difference_interval",
    "evaluate",
    "notebook_view",
    "wilson",
]

Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution, for 95% intervals."""


@dataclass(frozen=True)
class Share:
    """A count and its share of a total, with the 95% interval of the share (Wilson); None if the total is 0."""

    count: int
    of: int
    share: float | None
    interval: tuple[float, float] | None

    @classmethod
    def counted(cls, hits: NDArray[np.bool_]) -> "Share":
        count, of = int(hits.sum()), len(hits)
        return cls(count, of, count / of if of else None, wilson(count, of) if of else None)

    def __str__(self) -> str:
        """Such as "24 of 30" or "93.9% of 10,000"."""
        return rate_with_count(self.count, self.of)


def difference_interval(first: Share, second: Share) -> tuple[float, float, float] | None:
    """`second` minus `first` with its 95% interval (Newcombe, 1998, Stat. Med. 17:873-890), if both are known."""
    if first.share is None or second.share is None or first.interval is None or second.interval is None:
        return None
    (low_1, high_1), (low_2, high_2) = first.interval, second.interval
    difference = second.share - first.share
    below = math.hypot(second.share - low_2, high_1 - first.share)
    above = math.hypot(high_2 - second.share, first.share - low_1)
    return difference, difference - below, difference + above


@dataclass(frozen=True)
class Strangers:
    """Images of classes that the model does not know; no answer to them can be right.

    Attributes:
        images: number of images.
        classes: (name, number of images) of each such class.
        unfamiliar: images flagged as OOD; None if the model has no OOD score.
        sure: images with a sure answer; None if the model cannot tell.
    """

    images: int
    classes: tuple[tuple[str, int], ...]
    unfamiliar: Share | None
    sure: Share | None

    def __str__(self) -> str:
        names = first_few([f"{name} ({count:,})" for name, count in self.classes])
        of = f"{amount(self.images, 'image')} of classes that the model does not know: {names}"
        found = [(self.unfamiliar, "called unfamiliar"), (self.sure, "answered as sure")]
        return ", ".join([of, *(f"{share.count:,} {what}" for share, what in found if share is not None)])


@dataclass(frozen=True)
class ClassResult:
    """Results for one class; intervals are 95% (Wilson). A number that is 0/0 (no images or predictions) is None."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    recall_interval: tuple[float, float] | None
    f1: float | None
    precision_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evaluation(Serializable):
    """The performance of a classifier on labelled images it was not trained on.

    Attributes:
        images: number of images.
        loss: mean cross-entropy in nats; 0 is perfect, ln K is guessing.
        accuracy: share of images whose most probable class is the true one.
        accuracy_interval: 95%, Wilson; for images in groups, as if each group were one image; after a cross-validation,
            wider, because its networks were trained on many of the same images (Nadeau & Bengio, 2003).
        classes: (K,) one `ClassResult` per class.
        confusion: K rows (true class) of K counts (predicted class).
        training_accuracy: of the same model on training images without augmentation; None if it is unknown, or if
            these images are other data than the model's.
        strangers: images of classes that the model does not know, which no other number counts; None without any.
        folds: number of folds of the cross-validation in which these images were held out, while the model itself was
            trained on all of them; 0 for images that no network was trained on.
    """

    images: int
    loss: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    training_accuracy: float | None = None
    strangers: Strangers | None = None
    folds: int = 0

    @property
    def guess(self) -> float:
        """The accuracy of always naming the largest class."""
        return max(map(sum, self.confusion)) / self.images

    @property
    def overfits(self) -> bool:
        """Whether the accuracy is above that of guessing, and below that on the training images by more than chance.

        Both accuracies count as measured on this many images, and the interval of their difference is Newcombe's (1998,
        Stat. Med. 17:873-890). With 98 of 100 right, even a training accuracy of 100% may be chance.
        """
        return self.accuracy_interval[0] > self.guess and self._is_below_training

    @property
    def _is_below_training(self) -> bool:
        """Whether the accuracy is below that on the training images by more than chance."""
        if self.training_accuracy is None:
            return False
        lowest = wilson(self.training_accuracy * self.images, self.images)[0]
        chance = math.hypot(self.training_accuracy - lowest, self.accuracy_interval[1] - self.accuracy)
        return self.training_accuracy - self.accuracy > chance

    def __post_init__(self) -> None:
        if {len(self.confusion), *map(len, self.confusion)} != {len(self.classes)}:
            raise ValueError(f"the confusion matrix must have {len(self.classes)} rows and columns")
        counts = [count for row in self.confusion for count in row]
        if not 0 < sum(counts) == self.images or min(counts) < 0:
            raise ValueError(f"the confusion matrix must hold {self.images} images")
        if not all(0 <= share <= 1 for share in (self.accuracy, self.training_accuracy or 0.0)):
            raise ValueError("accuracies must be from 0 to 1")
        if len({row.name for row in self.classes}) < len(self.classes):
            raise ValueError("class names must be distinct")

    @property
    def gap_in_words(self) -> str:
        """The difference from the training accuracy, explained to a reader new to overfitting."""
        if self.training_accuracy is None:
            return "The training accuracy is unknown or belongs to other data, so overfitting cannot be assessed."
        gap = 100 * (self.training_accuracy - self.accuracy)
        here = "on the same images while they were held out" if self.folds else "on these images"
        both = f"Accuracy is {self.training_accuracy:.1%} on the training images and {self.accuracy:.1%} {here}"
        if self.overfits:
            explained = (
                "Expect the lower one for new images; more training images usually raise it."
                if self.folds
                else "Such a gap suggests overfitting: part of what the model learned may hold only for its training "
                "images."
            )
            return f"{both}, {gap:.1f} points lower. {explained}"
        if self.accuracy_interval[0] <= self.guess:
            guess = f"{both}, which is not measurably better than always naming the largest class ({self.guess:.1%})"
            if self._is_below_training:
                return f"{guess}. Check that labels and classes mean the same in both; if they do, the model overfits."
            return f"{guess}."
        comfort = ": no sign of overfitting beyond chance"
        if self.folds:
            comfort = ", a difference within chance" if gap else ""
        elif self.images < ENOUGH:
            comfort = f"; {amount(self.images, 'image')} cannot rule out overfitting"
        return f"{both}{comfort}."

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "gap_in_words": self.gap_in_words}

    def __repr__(self) -> str:
        return f"<Evaluation: {self}>"

    def _repr_html_(self) -> str:
        return notebook_view(self)

    def __str__(self) -> str:
        low, high = self.accuracy_interval
        images = amount(self.images, "image")
        images = f"{self.folds}-fold cross-validated on {images}" if self.folds else images
        return f"accuracy {self.accuracy:.4f} [{low:.4f}, {high:.4f}], loss {self.loss:.4f}, {images}"


def notebook_view(evaluation: Evaluation, notes: Sequence[str] = ()) -> str:
    """The numbers, the confusion matrix and some notes as HTML."""
    from hangtag.html import MOST_CELLS, confusion_cells, heat_map, render

    confusion = np.array(evaluation.confusion)
    is_small = len(confusion) <= MOST_CELLS
    values = {
        "evaluation": evaluation,
        "notes": notes,
        "right": int(confusion.trace()),
        "matrix": confusion_cells(confusion) if is_small else [],
        "heat_map": "" if is_small else heat_map(confusion),
    }
    return render("notebook_evaluation.html", values)


def evaluate(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    training_accuracy: float | None = None,
    strangers: Strangers | None = None,
    folds: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Compare predictions with the true labels.

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: (N,) indices of the true classes.
        class_names: (K,) names.
        training_accuracy: accuracy on the training images, for `Evaluation.gap_in_words`.
        strangers: images that are not among these N, if any.
        folds: as in `Evaluation`.
        groups: (N,) equal for images that belong together: a group is no more evidence than one image. None: no groups.

    Raises:
        DataError: shapes disagree, there are no images, a label is not a class, or values are not probabilities.
    """
    if probabilities.shape != (len(labels), len(class_names)):
        raise DataError(
            f"probabilities of shape {probabilities.shape} do not fit {len(labels):,} labels and "
            f"{len(class_names)} classes",
            "evaluate on data with the classes the model was trained on",
        )
    check_probabilities(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    count = len(class_names)
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    correct = int(confusion.trace())
    return Evaluation(
        images=len(labels),
        loss=float(cross_entropies(probabilities, labels).mean()),
        accuracy=correct / len(labels),
        accuracy_interval=_interval(predicted == labels, groups, folds),
        classes=tuple(
            _class_result(name, index, labels, predicted, groups, folds) for index, name in enumerate(class_names)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
        training_accuracy=training_accuracy,
        strangers=strangers,
        folds=folds,
    )


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """95% score interval for a proportion, 1 or more trials (E. B. Wilson, 1927, J. Am. Stat. Assoc. 22:209-212).

    >>> [round(bound, 4) for bound in wilson(8834, 10000)]
    [0.877, 0.8895]
    """
    share, z2 = successes / trials, Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * (share * (1 - share) / trials + z2 / (4 * trials**2)) ** 0.5
    return (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)


def _interval(hits: NDArray[np.bool_], groups: NDArray[np.int64] | None, folds: int) -> tuple[float, float]:
    """`wilson` for the share of hits, with as many trials as there are groups.

    With K folds, the variance is 1 + K / (K - 1) times as large: Nadeau & Bengio (2003, Machine Learning 52) correct it
    by this factor, and without it intervals contain too few true accuracies (benchmarks/cross_fit.py).
    """
    trials: float = len(hits) if groups is None else len(np.unique(groups))
    if folds > 1:
        trials /= 1 + folds / (folds - 1)
    return wilson(float(hits.mean()) * trials if trials < len(hits) else int(hits.sum()), trials)


def _class_result(
    name: str,
    index: int,
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    folds: int,
) -> ClassResult:
    true, named = labels == index, answers == index
    of_true, of_named = (None, None) if groups is None else (groups[true], groups[named])
    hits, images, predicted = int((true & named).sum()), int(true.sum()), int(named.sum())
    return ClassResult(
        name=name,
        images=images,
        precision=hits / predicted if predicted else None,
        recall=hits / images if images else None,
        recall_interval=_interval(named[true], of_true, folds) if images else None,
        f1=2 * hits / (images + predicted) if images + predicted else None,
        precision_interval=_interval(true[named], of_named, folds) if predicted else None,
    )

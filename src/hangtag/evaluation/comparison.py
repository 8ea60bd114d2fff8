"""Compare two models on the same images: is the difference significant?

The answer is about these two model files. Comparing two ways of training takes several trainings of each: `hangtag
train --seeds`.
"""

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError, UsageError
from hangtag.evaluation.judge import Judgement, Model, evaluate, opened
from hangtag.evaluation.metrics import Z_95, wilson
from hangtag.evaluation.run_folder import find_run
from hangtag.files import user_path
from hangtag.model.calibration import Floats, cross_entropies
from hangtag.serializable import Serializable
from hangtag.significance import sign_test
from hangtag.words import ENOUGH, amount

__all__ = ["Comparison", "compare", "compare_judgements", "compare_probabilities", "name_pair"]

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison(Serializable):
    """How the second of two models differs from the first on N images; all intervals are 95%.

    Attributes:
        names: of the two models.
        images: N.
        accuracies: (share, low, high) of each model (Wilson).
        both_right, only_first, only_second, both_wrong: number of images answered correctly by both models, by one, or
            by neither.
        difference: accuracy of the second minus that of the first.
        interval: of `difference`, for paired samples (Bonett & Price, 2012).
        p: two-sided exact p-value of the null hypothesis that both models are equally accurate (McNemar, 1947).
        loss_difference: cross-entropy of the second minus that of the first, in nats; below 0, the second is better.
        loss_interval: of `loss_difference`, from the differences per image; None for one image.
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
    loss_interval: tuple[float, float] | None

    @property
    def significant(self) -> bool:
        """Whether the difference in accuracy is significant at the 5% level."""
        return self.p < _SIGNIFICANT

    @property
    def in_words(self) -> str:
        """The result in one sentence."""
        first, second = self.names
        better, worse = (second, first) if self.difference > 0 else (first, second)
        low, high = self.interval
        apart = f"only {first} is right on {amount(self.only_first, 'image')}, only {second} on {self.only_second:,}"
        if self.significant:
            bounds = sorted((low, high) if better is second else (-low, -high))
            span = "95% interval {:.2f} to {:.2f}".format(*(100 * bound for bound in bounds))
            by = f"by {100 * abs(self.difference):.2f} points ({span}; p = {self.p:.2g})"
            return f"{better} is more accurate than {worse} {by}: {apart}."
        span = f"95% interval of {second} minus {first}: {100 * low:+.2f} to {100 * high:+.2f} points"
        few = f" Only a large difference would show on {amount(self.images, 'image')}." if self.images < ENOUGH else ""
        return f"No significant difference ({span}; p = {self.p:.2g}): {apart}.{few}"

    def __repr__(self) -> str:
        return f"<Comparison: {self.in_words}>"

    def _repr_html_(self) -> str:
        from hangtag.html import render

        shares = zip(self.names, self.accuracies, strict=True)
        rows = [(name, f"{share:.4f}", f"{low:.4f} to {high:.4f}") for name, (share, low, high) in shares]
        head = ["model", "accuracy", "95% interval"]
        title = f"{' and '.join(self.names)} on {amount(self.images, 'image')}"
        values = {"title": title, "head": head, "rows": rows, "notes": [self.in_words], "words": False}
        return render("notebook_table.html", values)

    def to_json(self) -> dict[str, Any]:
        """The fields, and what is missing among them."""
        notes = ["loss_interval is null: one image does not show how much losses vary"] * (self.loss_interval is None)
        return {**super().to_json(), "significant": self.significant, "in_words": self.in_words, "notes": notes}


def compare(first: Model, second: Model, data: Any = None) -> Comparison:
    """Compare two models on the same images: is the difference significant?

    Args:
        first, second: each a model.onnx, a run or its folder or name, an opened model, or a fitted classifier; their
            classes must be equal.
        data: a `LabelledImages`, or anything that `read` takes; None: the runs' own data, which must be the same.

    Raises:
        RunError, ArtifactError: a model cannot be opened.
        DataError: the data cannot be used.
        UsageError: the models have different classes or were made for different data.
    """
    return compare_judgements(_names(first, second), *(evaluate(model, data) for model in (first, second)))[0]


def _names(first: Model, second: Model) -> tuple[str, str]:
    """Names for any two models: those of their files or folders, or else their fingerprints."""

    def name(model: Model) -> Path:
        if not isinstance(model, (str, PathLike)):
            return Path(f"model {opened(model).fingerprint}")
        return path if (path := user_path(model)).is_file() else find_run(model).path

    names = name(first), name(second)
    return name_pair(*names) if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")


def compare_probabilities(
    names: tuple[str, str], labels: NDArray[np.int64], first: Floats, second: Floats
) -> Comparison:
    """Compare the probabilities of two models for the same N >= 1 images.

    Args:
        names: of the two models.
        labels: (N,) indices of the true classes.
        first, second: (N, K) probabilities.

    Raises:
        DataError: shapes disagree, or there are no images.
    """
    if first.shape != second.shape or len(first) != len(labels) or not len(labels):
        raise DataError(
            f"answers of shape {first.shape} and {second.shape} for {len(labels):,} labels cannot be compared",
            "evaluate both models on the same images",
        )
    one, two = (rows.argmax(axis=1) == labels for rows in (first, second))
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    count, apart = len(labels), only_first + only_second
    changes = cross_entropies(second, labels) - cross_entropies(first, labels)
    mean = float(changes.mean())
    half = Z_95 * float(changes.std(ddof=1)) / count**0.5 if count > 1 else None
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
        p=sign_test(only_first, apart),
        loss_difference=mean,
        loss_interval=None if half is None else (mean - half, mean + half),
    )


def compare_judgements(
    names: tuple[str, str], first: Judgement, second: Judgement
) -> tuple[Comparison, NDArray[np.float32]]:
    """Compare two judged runs; also returns the second's probabilities, their columns in the first's class order.

    Raises:
        UsageError: the models have different classes, or were judged on different images.
    """
    classes = second.data.class_names
    only = sorted(set(classes) ^ set(first.data.class_names))
    if only:
        raise UsageError(
            f"{names[0]} and {names[1]} have different classes; only one of them has {', '.join(only[:5])}",
            "compare models with the same classes",
        )
    order = [classes.index(name) for name in first.data.class_names]
    same = _same_images(first.data, second.data)
    if same is None or not (np.argsort(order)[second.data.labels[same]] == first.data.labels).all():
        raise UsageError(
            f"{names[0]} was evaluated on {len(first.data):,} images of {first.data.name}, {names[1]} on other "
            f"images ({len(second.data):,} of {second.data.name})",
            f"name images that neither was trained on: hangtag compare {names[0]} {names[1]} DATA",
        )
    rows = second.probabilities[same][:, order]
    found = compare_probabilities(names, first.data.labels, first.probabilities, rows)
    evaluations = (each.evaluation for each in (first, second))  # their intervals know groups and cross-validation
    one, two = ((each.accuracy, *each.accuracy_interval) for each in evaluations)
    return replace(found, accuracies=(one, two)), rows


def name_pair(first: Path, second: Path) -> tuple[str, str]:
    """Short names that distinguish two runs."""
    return (first.name, second.name) if first.name != second.name else (str(first), str(second))


def _same_images(first: LabelledImages, second: LabelledImages) -> NDArray[np.int64] | None:
    """(N,) where each of the first images is among the second; None if they are different images.

    Compares by content, or by name if the models take different sizes: images that a cross-validation held out come in
    the order of their content, which the size changes.
    """
    if len(first) != len(second):
        return None
    if first.images.shape == second.images.shape:
        return np.arange(len(first)) if (first.contents == second.contents).all() else None
    places = {name: place for place, name in enumerate(second.names)}
    if len(places) < len(second) or {*first.names} != {*places}:
        return None
    return np.array([places[name] for name in first.names], np.int64)


def _share(hits: int, count: int) -> tuple[float, float, float]:
    return hits / count, *wilson(hits, count)


def _paired(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """Bonett & Price, 2012, Statistics in Medicine 31: Wald's interval with one image added to each count."""
    one, two = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    half = Z_95 * ((one + two - (two - one) ** 2) / (count + 2)) ** 0.5
    return two - one - half, two - one + half

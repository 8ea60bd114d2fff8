"""What a model file promises about its answers, and how a person asks for less or more of it.

Calibrated probabilities, sets of labels with a coverage, a warning about unfamiliar pictures, a verdict "sure". It is
all arithmetic on what the file's graph answers; the graph itself calibrates and scores.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UnknownName, UsageError
from hangtag.model.calibration import Calibrator, log_softmax
from hangtag.model.conformal import LEVELS, METHODS, Conformal, calibrate, check_coverage, needed

__all__ = ["COVERAGE", "FALSE_ALARMS", "RIGHT", "Asking", "Trust", "Verdicts", "fit_trust"]

COVERAGE, FALSE_ALARMS = 0.95, 0.05
RIGHT = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Shares of sure answers that can be asked to be right."""

_RISK = 0.05  # at one probability; over all that are tried, fewer are right than asked for in one training of ten
_METHOD = "threshold"  # the smallest sets on validation images, at every coverage: docs/log.md

Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Asking:
    """How careful answers shall be.

    Attributes:
        coverage: the share of sets that shall hold the true label.
        method: how sets are made, one of `conformal.METHODS`.
        false_alarms: the share of familiar pictures that may be called unfamiliar.
        cost: of a wrong answer, where no answer costs 1. Given, it decides what is sure: an answer whose expected cost
            is less than that of none (Chow, 1970).
        right: the share of sure answers that shall be right, one of `RIGHT`; given, it decides what is sure: answers
            as probable as those of which, by held-out pictures, at least so many are right; nine times in ten that is
            kept. With neither, the set decides: an answer is sure if its set holds one label.
    """

    coverage: float = COVERAGE
    method: str = _METHOD
    false_alarms: float = FALSE_ALARMS
    cost: float | None = None
    right: float | None = None

    def __post_init__(self) -> None:
        check_coverage(self.coverage)
        if self.method not in METHODS:
            raise UnknownName.among("method", self.method, METHODS)
        if not 0 < self.false_alarms < 1:
            raise UsageError(
                f"a share of {self.false_alarms:g} false alarms", "it is above 0 and below 1, such as 0.05"
            )
        if self.cost is not None and not 1 < self.cost < float("inf"):
            raise UsageError(f"a cost of {self.cost:g}", "a wrong answer costs more than none, which costs 1")
        if self.right is not None and self.right not in RIGHT:
            known = ", ".join(f"{share:g}" for share in RIGHT)
            raise UsageError(f"sure answers of which {self.right:g} are right", f"choose one of {known}")
        if self.right is not None and self.cost is not None:
            raise UsageError("a cost and a share of right answers", "give one of the two; each decides what is sure")


@dataclass(frozen=True)
class Trust:
    """What held-out pictures taught about a model's answers.

    Attributes:
        images: held-out pictures of each class, (K,).
        calibrator: the map that calibrates; it is built into the graph.
        conformal: thresholds for sets of labels, one for each method; empty where there are none.
        unfamiliar: whether the graph scores how unfamiliar a picture is.
        least: for each of `RIGHT`, the least probability of an answer to be sure; None where none would do. Empty
            where there were no held-out pictures.
        missing: what cannot be promised and why, in sentences.
    """

    images: tuple[int, ...]
    calibrator: Calibrator
    conformal: tuple[Conformal, ...] = ()
    unfamiliar: bool = False
    least: tuple[float | None, ...] = ()
    missing: tuple[str, ...] = field(default=())

    @classmethod
    def none(cls, classes: int, why: str) -> "Trust":
        """No promises at all."""
        return cls((0,) * classes, Calibrator.none(classes), missing=(why,))

    def by(self, method: str) -> Conformal | None:
        return next((each for each in self.conformal if each.method == method), None)

    def judge(self, probabilities: Rows, unfamiliarity: Rows | None, asking: Asking) -> "Verdicts":
        """What can be promised about N answers."""
        conformal = self.by(asking.method)
        inside = None if conformal is None else conformal.sets(probabilities, asking.coverage)
        strange = None if unfamiliarity is None else unfamiliarity > 1 - asking.false_alarms
        sure = self._sure(probabilities, inside, asking)
        if sure is not None and strange is not None:
            sure = sure & ~strange
        return Verdicts(inside, None if unfamiliarity is None else np.asarray(unfamiliarity), strange, sure)

    def _sure(self, probabilities: Rows, inside: NDArray[np.bool_] | None, asking: Asking) -> NDArray[np.bool_] | None:
        best = probabilities.max(axis=1)
        if asking.cost is not None:
            return np.asarray(best > 1 - 1 / asking.cost)
        if asking.right is not None:
            least = self.least[RIGHT.index(asking.right)] if self.least else None
            return None if not self.least else np.asarray(best >= (2.0 if least is None else least))
        return None if inside is None else np.asarray(inside.sum(axis=1) == 1)

    def shortage(self, asking: Asking) -> str | None:
        """Why a coverage cannot be promised, in words; None where it can."""
        conformal = self.by(asking.method)
        if conformal is None or conformal.threshold(asking.coverage) is not None:
            return None
        least = needed(asking.coverage) if asking.coverage <= LEVELS[-1] else None
        why = f"it takes {least:,} held-out pictures" if least else f"no more than {LEVELS[-1]:.1%} are kept"
        there = f"there were {sum(self.images):,}"
        return f"a coverage of {asking.coverage:g} cannot be promised but by all labels: {why}, {there}"

    def to_json(self) -> dict[str, Any]:
        return {
            "images": list(self.images),
            "calibrator": self.calibrator.to_json(),
            "conformal": [each.to_json() for each in self.conformal],
            "unfamiliar": self.unfamiliar,
            "right": list(RIGHT),
            "least": list(self.least),
            "missing": list(self.missing),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Trust":
        """Raises KeyError, TypeError or ValueError for what is no such table."""
        conformal = tuple(Conformal.from_json(each) for each in value["conformal"])
        images = tuple(int(count) for count in value["images"])
        calibrator = Calibrator.from_json(value["calibrator"])
        least = tuple(None if share is None else float(share) for share in value["least"])
        if tuple(value["right"]) != RIGHT or len(least) not in (0, len(RIGHT)):
            raise ValueError("shares of right answers of another version")
        return cls(images, calibrator, conformal, bool(value["unfamiliar"]), least, tuple(map(str, value["missing"])))


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Of N answers; None is what the model cannot tell.

    Attributes:
        inside: (N, K) whether a label is in the set.
        unfamiliarity: (N,) the share of held-out pictures that are less strange.
        unfamiliar: (N,) whether that is more than false alarms allow.
        sure: (N,).
    """

    inside: NDArray[np.bool_] | None
    unfamiliarity: Rows | None
    unfamiliar: NDArray[np.bool_] | None
    sure: NDArray[np.bool_] | None


def fit_trust(
    logits: Rows, labels: NDArray[np.int64], calibrator: Calibrator, class_names: tuple[str, ...], unfamiliar: bool
) -> Trust:
    """What can be promised, from held-out pictures.

    Args:
        logits: (N, K) of pictures that did not train.
        labels: (N,) their true classes.
        calibrator: fitted to them.
        unfamiliar: whether the graph scores how unfamiliar a picture is.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    probabilities = calibrator(log_softmax(logits))
    conformal = tuple(calibrate(probabilities, labels, method) for method in METHODS)
    missing = []
    if len(labels) < needed(COVERAGE):
        missing.append(
            f"only {len(labels)} pictures were held out: sets with a coverage of {COVERAGE:.0%} need {needed(COVERAGE)}"
        )
    if calibrator.method == "none":
        missing.append("probabilities are as the network gives them: too few pictures were held out, or none is better")
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        missing.append(f"no held-out pictures of {', '.join(absent[:5])}: no promise was tried on these classes")
    least = tuple(_least(probabilities, labels, share) for share in RIGHT)
    return Trust(tuple(int(count) for count in counts), calibrator, conformal, unfamiliar, least, tuple(missing))


def _least(probabilities: Rows, labels: NDArray[np.int64], share: float) -> float | None:
    """The smallest probability such that, of the answers at least as probable, surely this share is right.

    Surely: were fewer right in truth, so few mistakes on the held-out pictures would have a chance of `_RISK` (exact
    binomial test at each probability; Angelopoulos et al., 2021, "Learn then test").
    """
    from scipy.stats import binom

    best = probabilities.max(axis=1)
    order = np.argsort(-best, kind="stable")
    answered = np.arange(1, len(order) + 1)
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])
    enough = np.flatnonzero(binom.cdf(wrong, answered, 1 - share) <= _RISK)
    return float(best[order[enough[-1]]]) if len(enough) else None

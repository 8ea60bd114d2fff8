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

__all__ = [
    "COVERAGE",
    "OOD_FALSE_POSITIVE_RATE",
    "TARGET_ACCURACIES",
    "AnswerPolicy",
    "Guarantees",
    "Verdicts",
    "fit_guarantees",
]

COVERAGE, OOD_FALSE_POSITIVE_RATE = 0.95, 0.05
TARGET_ACCURACIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Shares of sure answers that can be asked to be right."""

_RISK = 0.05  # at one probability; over all that are tried, fewer are right than asked for in one training of ten
_METHOD = "threshold"  # the smallest sets on validation images, at every coverage: docs/log.md

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class AnswerPolicy:
    """How careful answers shall be.

    Attributes:
        coverage: the share of sets that shall hold the true label.
        method: how sets are made, one of `conformal.METHODS`.
        ood_false_positive_rate: the share of familiar pictures that may be called unfamiliar.
        cost: of a wrong answer, where no answer costs 1. Given, it decides what is sure: an answer whose expected cost
            is less than that of none (Chow, 1970).
        target_accuracy: the share of sure answers that shall be right, one of `TARGET_ACCURACIES`; given, it decides
            what is sure: answers
            as probable as those of which, by held-out pictures, at least so many are right; nine times in ten that is
            kept. With neither, the set decides: an answer is sure if its set holds one label.
    """

    coverage: float = COVERAGE
    method: str = _METHOD
    ood_false_positive_rate: float = OOD_FALSE_POSITIVE_RATE
    cost: float | None = None
    target_accuracy: float | None = None

    def __post_init__(self) -> None:
        check_coverage(self.coverage)
        if self.method not in METHODS:
            raise UnknownName.among("method", self.method, METHODS)
        if not 0 < self.ood_false_positive_rate < 1:
            raise UsageError(
                f"a share of {self.ood_false_positive_rate:g} false alarms", "it is above 0 and below 1, such as 0.05"
            )
        if self.cost is not None and not 1 < self.cost < float("inf"):
            raise UsageError(f"a cost of {self.cost:g}", "a wrong answer costs more than none, which costs 1")
        if self.target_accuracy is not None and self.target_accuracy not in TARGET_ACCURACIES:
            known = ", ".join(f"{share:g}" for share in TARGET_ACCURACIES)
            raise UsageError(f"sure answers of which {self.target_accuracy:g} are right", f"choose one of {known}")
        if self.target_accuracy is not None and self.cost is not None:
            raise UsageError("a cost and a share of right answers", "give one of the two; each decides what is sure")


@dataclass(frozen=True)
class Guarantees:
    """What held-out pictures taught about a model's answers.

    Attributes:
        images: held-out pictures of each class, (K,).
        calibrator: the map that calibrates; it is built into the graph.
        conformal: thresholds for sets of labels, one for each method; empty where there are none.
        has_ood_score: whether the graph scores how unfamiliar a picture is.
        confidence_thresholds: for each of `TARGET_ACCURACIES`, the least probability of an answer to be sure; None
            where none would do. Empty
            where there were no held-out pictures.
        limitations: what cannot be promised and why, in sentences.
    """

    images: tuple[int, ...]
    calibrator: Calibrator
    conformal: tuple[Conformal, ...] = ()
    has_ood_score: bool = False
    confidence_thresholds: tuple[float | None, ...] = ()
    limitations: tuple[str, ...] = field(default=())

    @classmethod
    def none(cls, classes: int, why: str) -> "Guarantees":
        """No promises at all."""
        return cls((0,) * classes, Calibrator.none(classes), limitations=(why,))

    def by(self, method: str) -> Conformal | None:
        return next((each for each in self.conformal if each.method == method), None)

    def decide(self, probabilities: Floats, ood_score: Floats | None, policy: AnswerPolicy) -> "Verdicts":
        """What can be promised about N answers."""
        conformal = self.by(policy.method)
        in_set = None if conformal is None else conformal.sets(probabilities, policy.coverage)
        strange = None if ood_score is None else ood_score > 1 - policy.ood_false_positive_rate
        sure = self._sure(probabilities, in_set, policy)
        if sure is not None and strange is not None:
            sure = sure & ~strange
        return Verdicts(in_set, None if ood_score is None else np.asarray(ood_score), strange, sure)

    def _sure(
        self, probabilities: Floats, in_set: NDArray[np.bool_] | None, policy: AnswerPolicy
    ) -> NDArray[np.bool_] | None:
        best = probabilities.max(axis=1)
        if policy.cost is not None:
            return np.asarray(best > 1 - 1 / policy.cost)
        if policy.target_accuracy is not None:
            confidence_thresholds = (
                self.confidence_thresholds[TARGET_ACCURACIES.index(policy.target_accuracy)]
                if self.confidence_thresholds
                else None
            )
            return (
                None
                if not self.confidence_thresholds
                else np.asarray(best >= (2.0 if confidence_thresholds is None else confidence_thresholds))
            )
        return None if in_set is None else np.asarray(in_set.sum(axis=1) == 1)

    def why_not(self, policy: AnswerPolicy) -> str | None:
        """Why a coverage cannot be promised, in words; None where it can."""
        conformal = self.by(policy.method)
        if conformal is None or conformal.threshold(policy.coverage) is not None:
            return None
        confidence_thresholds = needed(policy.coverage) if policy.coverage <= LEVELS[-1] else None
        why = (
            f"it takes {confidence_thresholds:,} held-out pictures"
            if confidence_thresholds
            else f"no more than {LEVELS[-1]:.1%} are kept"
        )
        there = f"there were {sum(self.images):,}"
        return f"a coverage of {policy.coverage:g} cannot be promised but by all labels: {why}, {there}"

    def to_json(self) -> dict[str, Any]:
        return {
            "images": list(self.images),
            "calibrator": self.calibrator.to_json(),
            "conformal": [each.to_json() for each in self.conformal],
            "has_ood_score": self.has_ood_score,
            "target_accuracies": list(TARGET_ACCURACIES),
            "confidence_thresholds": list(self.confidence_thresholds),
            "limitations": list(self.limitations),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Guarantees":
        """Raises KeyError, TypeError or ValueError for what is no such table."""
        conformal = tuple(Conformal.from_json(each) for each in value["conformal"])
        images = tuple(int(count) for count in value["images"])
        calibrator = Calibrator.from_json(value["calibrator"])
        confidence_thresholds = tuple(
            None if share is None else float(share) for share in value["confidence_thresholds"]
        )
        if tuple(value["target_accuracies"]) != TARGET_ACCURACIES or len(confidence_thresholds) not in (
            0,
            len(TARGET_ACCURACIES),
        ):
            raise ValueError("shares of right answers of another version")
        return cls(
            images,
            calibrator,
            conformal,
            bool(value["has_ood_score"]),
            confidence_thresholds,
            tuple(map(str, value["limitations"])),
        )


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Of N answers; None is what the model cannot tell.

    Attributes:
        in_set: (N, K) whether a label is in the set.
        ood_score: (N,) the share of held-out pictures that are less strange.
        unfamiliar: (N,) whether that is more than false alarms allow.
        sure: (N,).
    """

    in_set: NDArray[np.bool_] | None
    ood_score: Floats | None
    is_ood: NDArray[np.bool_] | None
    sure: NDArray[np.bool_] | None


def fit_guarantees(
    logits: Floats, labels: NDArray[np.int64], calibrator: Calibrator, class_names: tuple[str, ...], has_ood_score: bool
) -> Guarantees:
    """What can be promised, from held-out pictures.

    Args:
        logits: (N, K) of pictures that did not train.
        labels: (N,) their true classes.
        calibrator: fitted to them.
        has_ood_score: whether the graph scores how unfamiliar a picture is.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    probabilities = calibrator(log_softmax(logits))
    conformal = tuple(calibrate(probabilities, labels, method) for method in METHODS)
    limitations = []
    if len(labels) < needed(COVERAGE):
        limitations.append(
            f"only {len(labels)} pictures were held out: sets with a coverage of {COVERAGE:.0%} need {needed(COVERAGE)}"
        )
    if calibrator.method == "none":
        limitations.append(
            "probabilities are as the network gives them: too few pictures were held out, or none is better"
        )
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        limitations.append(f"no held-out pictures of {', '.join(absent[:5])}: no promise was tried on these classes")
    confidence_thresholds = tuple(_confidence_threshold(probabilities, labels, share) for share in TARGET_ACCURACIES)
    return Guarantees(
        tuple(int(count) for count in counts),
        calibrator,
        conformal,
        has_ood_score,
        confidence_thresholds,
        tuple(limitations),
    )


def _confidence_threshold(probabilities: Floats, labels: NDArray[np.int64], share: float) -> float | None:
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

"""What a model file guarantees about its answers, and the policy that decides how cautious answers are.

Calibrated probabilities, prediction sets with a coverage, out-of-distribution (OOD) warnings and selective prediction
("sure" or not). The graph calibrates and scores; this module does arithmetic on its outputs.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UnknownName, UsageError
from hangtag.model.calibration import Calibrator, Floats, log_softmax
from hangtag.model.conformal import LEVELS, METHODS, Conformal, calibrate, check_coverage, needed
from hangtag.serializable import Serializable

__all__ = [
    "COVERAGE", "OOD_FALSE_POSITIVE_RATE", "TARGET_ACCURACIES", "AnswerPolicy", "Guarantees", "Verdicts",
    "fit_guarantees",
]  # fmt: skip

COVERAGE, OOD_FALSE_POSITIVE_RATE = 0.95, 0.05
TARGET_ACCURACIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Accuracies that can be requested for sure answers."""

_RISK = 0.05  # for one threshold; over all thresholds tried, one training in ten falls short of the target accuracy
_METHOD = "threshold"  # the smallest sets on validation images, at every coverage: docs/log.md


@dataclass(frozen=True)
class AnswerPolicy:
    """How cautious answers are. With neither `cost` nor `target_accuracy`, an answer is sure if its set has one label.

    Attributes:
        coverage: target share of prediction sets that contain the true label, above 0 and below 1.
        method: how sets are made, one of `conformal.METHODS`.
        ood_false_positive_rate: share of in-distribution images that may be flagged as OOD.
        cost: cost of a wrong answer relative to abstaining, above 1. If given, an answer is sure if its expected cost
            is below that of abstaining (Chow, 1970).
        target_accuracy: accuracy required of sure answers, one of `TARGET_ACCURACIES`. If given, an answer is sure if
            its probability reaches the confidence threshold for it. The target is reached in nine trainings out of ten.

    Raises:
        UsageError: a value is out of range, or both `cost` and `target_accuracy` are given.
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
        rate, cost, target = self.ood_false_positive_rate, self.cost, self.target_accuracy
        if not 0 < rate < 1:
            raise UsageError(
                f"OOD false positive rate must be above 0 and below 1, got {rate:g}", "use a share such as 0.05"
            )
        if cost is not None and not 1 < cost < float("inf"):
            raise UsageError(
                f"cost must be above 1, got {cost:g}", "it is the cost of a wrong answer relative to abstaining"
            )
        if target is not None and target not in TARGET_ACCURACIES:
            known = ", ".join(f"{share:g}" for share in TARGET_ACCURACIES)
            raise UsageError(f"unknown target accuracy {target:g}", f"choose one of {known}")
        if target is not None and cost is not None:
            raise UsageError("cost and target accuracy cannot be combined", "give only one of them")


@dataclass(frozen=True)
class Guarantees(Serializable):
    """What was learned from held-out images about a model's answers.

    Attributes:
        images: (K,) number of held-out images of each class.
        calibrator: the calibration map, which the graph applies.
        conformal: thresholds for prediction sets, one entry per method; empty if there are none.
        has_ood_score: whether the graph returns an OOD score.
        confidence_thresholds: for each target accuracy, the lowest probability of a sure answer; None if no threshold
            reaches it. Empty if no images were held out.
        limitations: what cannot be guaranteed and why, in sentences without a full stop.
        target_accuracies: `TARGET_ACCURACIES`, kept in the file.
    """

    images: tuple[int, ...]
    calibrator: Calibrator
    conformal: tuple[Conformal, ...] = ()
    has_ood_score: bool = False
    confidence_thresholds: tuple[float | None, ...] = ()
    limitations: tuple[str, ...] = ()
    target_accuracies: tuple[float, ...] = TARGET_ACCURACIES

    def __post_init__(self) -> None:
        known = self.target_accuracies == TARGET_ACCURACIES
        if not known or len(self.confidence_thresholds) not in (0, len(TARGET_ACCURACIES)):
            raise ValueError("confidence thresholds are for the target accuracies of another hangtag version")

    @classmethod
    def none(cls, classes: int, why: str) -> "Guarantees":
        """No guarantees; `why` is the only limitation."""
        return cls((0,) * classes, Calibrator.none(classes), limitations=(why,))

    def by(self, method: str) -> Conformal | None:
        """The thresholds of this method; None if the model has none."""
        return next((each for each in self.conformal if each.method == method), None)

    def decide(self, probabilities: Floats, ood_score: Floats | None, policy: AnswerPolicy) -> "Verdicts":
        """Prediction sets, OOD flags and sure answers for (N, K) probabilities and (N,) OOD scores."""
        conformal = self.by(policy.method)
        in_set = None if conformal is None else conformal.sets(probabilities, policy.coverage)
        is_ood = None if ood_score is None else ood_score > 1 - policy.ood_false_positive_rate
        sure = self._sure(probabilities, in_set, policy)
        if sure is not None and is_ood is not None:
            sure = sure & ~is_ood
        return Verdicts(in_set, None if ood_score is None else np.asarray(ood_score), is_ood, sure)

    def _sure(
        self, probabilities: Floats, in_set: NDArray[np.bool_] | None, policy: AnswerPolicy
    ) -> NDArray[np.bool_] | None:
        confidence = probabilities.max(axis=1)
        if policy.cost is not None:
            return np.asarray(confidence > 1 - 1 / policy.cost)
        if policy.target_accuracy is None:
            return None if in_set is None else np.asarray(in_set.sum(axis=1) == 1)
        if not self.confidence_thresholds:
            return None
        threshold = self.confidence_thresholds[TARGET_ACCURACIES.index(policy.target_accuracy)]
        return np.asarray(confidence >= (np.inf if threshold is None else threshold))

    def why_not(self, policy: AnswerPolicy) -> str | None:
        """Why prediction sets with the policy's coverage contain all labels, in words; None if they do not."""
        conformal = self.by(policy.method)
        if conformal is None or conformal.threshold(policy.coverage) is not None:
            return None
        if policy.coverage > LEVELS[-1]:
            return f"coverage above {LEVELS[-1]:.1%} is not available, so every set contains all labels"
        return (
            f"{100 * policy.coverage:g}% coverage needs {needed(policy.coverage):,} held-out images; this model had "
            f"{sum(self.images):,}, so every set contains all labels"
        )


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Decisions about N answers; None if the model cannot decide.

    Attributes:
        in_set: (N, K) whether each label is in the prediction set.
        ood_score: (N,) the share of held-out images with a lower OOD score.
        is_ood: (N,) whether that score is above 1 - the OOD false positive rate.
        sure: (N,) whether the answer can be used without review.
    """

    in_set: NDArray[np.bool_] | None
    ood_score: Floats | None
    is_ood: NDArray[np.bool_] | None
    sure: NDArray[np.bool_] | None


def fit_guarantees(
    logits: Floats, labels: NDArray[np.int64], calibrator: Calibrator, class_names: tuple[str, ...], has_ood_score: bool
) -> Guarantees:
    """Guarantees from held-out images.

    Args:
        logits: (N, K), of images the network was not trained on.
        labels: (N,) indices of the true classes.
        calibrator: fitted on the same images.
        class_names: (K,) names.
        has_ood_score: whether the graph returns an OOD score.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    probabilities = calibrator(log_softmax(logits))
    guarantees = Guarantees(
        images=tuple(counts.tolist()),
        calibrator=calibrator,
        conformal=tuple(calibrate(probabilities, labels, method) for method in METHODS),
        has_ood_score=has_ood_score,
        confidence_thresholds=tuple(_confidence_threshold(probabilities, labels, share) for share in TARGET_ACCURACIES),
    )
    why_not = guarantees.why_not(AnswerPolicy())
    limitations = [why_not] if why_not else []
    if calibrator.method == "none":
        limitations.append("probabilities are not calibrated: too few held-out images, or calibration did not help")
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        limitations.append(f"no held-out images of {', '.join(absent[:5])}: guarantees are untested on these classes")
    return replace(guarantees, limitations=tuple(limitations))


def _confidence_threshold(probabilities: Floats, labels: NDArray[np.int64], accuracy: float) -> float | None:
    """The lowest probability at which the answers at least as probable reach this accuracy; None if there is none.

    At each probability, an exact binomial test must reject a lower accuracy at level `_RISK` (Angelopoulos et al.,
    2021, "Learn then test").
    """
    from scipy.stats import binom

    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])
    passed = np.flatnonzero(binom.cdf(wrong, answered, 1 - accuracy) <= _RISK)
    return float(confidence[order[passed[-1]]]) if len(passed) else None

"""What a model file guarantees about its answers, and the policy that decides how cautious answers are.

Calibrated probabilities, prediction sets with a coverage, out-of-distribution (OOD) warnings and selective prediction
("sure" or not). The graph calibrates and scores; this module does arithmetic on its outputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UnknownName, UsageError
from hangtag.model.calibration import Calibrator, Floats
from hangtag.model.conformal import (
    LEVELS,
    METHODS,
    MOST_SCORES,
    Conformal,
    calibrate,
    calibrate_by_folds,
    check_coverage,
    needed,
    proven_coverage,
)
from hangtag.serializable import Serializable
from hangtag.words import amount, first_few

__all__ = [
    "COVERAGE", "LEAST_SURE", "OOD_FALSE_POSITIVE_RATE", "SURE_ACCURACY", "TARGET_ACCURACIES", "AnswerPolicy",
    "Guarantees", "Verdicts", "better_than_chance", "fit_guarantees",
]  # fmt: skip

COVERAGE, OOD_FALSE_POSITIVE_RATE = 0.95, 0.05
SURE_ACCURACY = 0.9
"""Accuracy that held-out answers as probable as a sure one must reach, whatever the coverage."""

LEAST_SURE = 0.75
"""The lowest probability of a sure answer, even if most of the more probable ones are correct: odds of three to one."""

TARGET_ACCURACIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Accuracies that can be requested for sure answers."""

_RISK = 0.05  # for one threshold; over all thresholds tried, one training in ten falls short of the target accuracy
_PERMUTATIONS = 999
_LEAST_GAIN = 1e-3  # nats
_METHOD = "threshold"  # the smallest sets on validation images, at every coverage: docs/log.md


@dataclass(frozen=True)
class AnswerPolicy:
    """How cautious answers are.

    No answer is sure if its image is OOD, or if the model's held-out answers were no better than chance. With neither
    `cost` nor `target_accuracy`, an answer is sure if its set has one label and its probability reaches `LEAST_SURE`
    and the confidence threshold for `SURE_ACCURACY`.

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
        for name in ("coverage", "ood_false_positive_rate", "cost", "target_accuracy"):
            value = getattr(self, name)
            if not isinstance(value, Real) and not (value is None and name in ("cost", "target_accuracy")):
                raise UsageError(f"{name} must be a number, got {value!r}", "for example 0.9")
        check_coverage(self.coverage)
        if not isinstance(self.method, str):
            raise UsageError(f"the method must be a name, got {self.method!r}", f"known: {', '.join(METHODS)}")
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
        better_than_chance: whether the held-out answers know more about the labels than chance. If not, none is sure.
        limitations: what cannot be guaranteed and why, in sentences without a full stop.
        folds: number of folds in which these images were held out, each image once, while the model itself was trained
            on all; 0: the model was not trained on them.
        target_accuracies: `TARGET_ACCURACIES`, kept in the file.
    """

    images: tuple[int, ...]
    calibrator: Calibrator
    conformal: tuple[Conformal, ...] = ()
    has_ood_score: bool = False
    confidence_thresholds: tuple[float | None, ...] = ()
    better_than_chance: bool = True
    limitations: tuple[str, ...] = ()
    folds: int = 0
    target_accuracies: tuple[float, ...] = TARGET_ACCURACIES

    def __post_init__(self) -> None:
        known = self.target_accuracies == TARGET_ACCURACIES
        if not known or len(self.confidence_thresholds) not in (0, len(TARGET_ACCURACIES)):
            raise ValueError("confidence thresholds are for the target accuracies of another hangtag version")

    @classmethod
    def none(cls, classes: int, why: str) -> "Guarantees":
        """No guarantees; `why` is the only limitation."""
        return cls((0,) * classes, Calibrator.none(classes), limitations=(why,))

    def __repr__(self) -> str:
        limits = f"; {'; '.join(self.limitations)}" if self.limitations else ""
        by_folds = f", {self.folds} folds" if self.folds else ""
        return f"<Guarantees from {amount(self.held_out, 'held-out image')}{by_folds}{limits}>"

    @property
    def needs_folds(self) -> bool:
        """Whether prediction sets need the answers of the folds' networks, which the file then has."""
        return any(each.fold_scores for each in self.conformal)

    @property
    def held_out(self) -> int:
        """Number of held-out images."""
        return sum(self.images)

    def by(self, method: str) -> Conformal | None:
        """The thresholds of this method; None if the model has none."""
        return next((each for each in self.conformal if each.method == method), None)

    def decide(self, outputs: Mapping[str, Floats], policy: AnswerPolicy) -> "Verdicts":
        """Prediction sets, OOD flags and sure answers.

        Args:
            outputs: of the model file: "probabilities" (N, K), "uncalibrated" (N, K; needed for sets, if the model has
                a calibrator), "ood_score" (N,; if it has one) and "fold_uncalibrated" (N, F, K; if sets need it; the
                images that the model was fitted on have none, and their sets come from the pooled thresholds).
        """
        probabilities, ood_score = outputs["probabilities"], outputs.get("ood_score")
        conformal, in_set = self.by(policy.method), None
        if conformal is not None:
            rows = probabilities if self.calibrator.method == "none" else outputs["uncalibrated"]
            if conformal.fold_scores and "fold_uncalibrated" in outputs:
                in_set = conformal.sets_by_folds(outputs["fold_uncalibrated"], policy.coverage)
            else:
                in_set = conformal.sets(rows, policy.coverage, never_empty=False)
            in_set[np.arange(len(in_set)), probabilities.argmax(axis=1)] = True
        is_ood = None if ood_score is None else ood_score > 1 - policy.ood_false_positive_rate
        sure = self._sure(probabilities, in_set, policy)
        if sure is not None and is_ood is not None:
            sure = sure & ~is_ood
        return Verdicts(in_set, None if ood_score is None else np.asarray(ood_score), is_ood, sure)

    def _sure(
        self, probabilities: Floats, in_set: NDArray[np.bool_] | None, policy: AnswerPolicy
    ) -> NDArray[np.bool_] | None:
        if not self.held_out:
            return None
        confidence = probabilities.max(axis=1)
        if not self.better_than_chance:
            return np.zeros(len(confidence), bool)
        if policy.cost is not None:
            return np.asarray(confidence > 1 - 1 / policy.cost)
        if policy.target_accuracy is None and in_set is None:
            return None
        threshold = self._confidence_threshold(policy.target_accuracy or SURE_ACCURACY)
        confident = np.asarray(confidence >= (np.inf if threshold is None else threshold))
        if policy.target_accuracy is not None or in_set is None:
            return confident
        return np.asarray(confident & (confidence >= LEAST_SURE) & (in_set.sum(axis=1) == 1))

    def _confidence_threshold(self, target_accuracy: float) -> float | None:
        """The lowest probability of a sure answer; None if no answer is."""
        known = dict(zip(self.target_accuracies, self.confidence_thresholds, strict=False))
        return known.get(target_accuracy)

    def why_not(self, policy: AnswerPolicy) -> str | None:
        """Why prediction sets with the policy's coverage contain all labels, in words; None if they do not."""
        conformal = self.by(policy.method)
        if conformal is None or conformal.threshold(policy.coverage) is not None:
            return None
        if policy.coverage > LEVELS[-1]:
            return f"coverage above {LEVELS[-1]:.1%} is not available, so every set contains all labels"
        return (
            f"{100 * policy.coverage:g}% coverage needs {needed(policy.coverage):,} held-out images; this model had "
            f"{self.held_out:,}, so every set contains all labels"
        )


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Decisions about N answers; None if the model cannot decide.

    Attributes:
        in_set: (N, K) whether each label is in the prediction set. Nothing is promised about the set of an OOD image.
        ood_score: (N,) the share of held-out images with a lower OOD score.
        is_ood: (N,) whether that score is above 1 - the OOD false positive rate.
        sure: (N,) whether the answer can be used without review.
    """

    in_set: NDArray[np.bool_] | None
    ood_score: Floats | None
    is_ood: NDArray[np.bool_] | None
    sure: NDArray[np.bool_] | None


def fit_guarantees(
    probabilities: Floats,
    labels: NDArray[np.int64],
    calibrator: Calibrator,
    class_names: tuple[str, ...],
    has_ood_score: bool,
    out_of_fold: Floats | None = None,
    uncalibrated: Floats | None = None,
    folds: NDArray[np.int64] | None = None,
    folds_ship: bool = False,
) -> Guarantees:
    """Guarantees from held-out images.

    Sets and the test against chance use the probabilities before calibration, which depend on no held-out label.
    Confidence thresholds hold for the file's answers, and for those that `cross_fitted` gives without their own labels.

    Args:
        probabilities: (N, K) calibrated, as the model file gives them for images the network was not trained on.
        labels: (N,) indices of the true classes.
        calibrator: fitted on the same images.
        class_names: (K,) names.
        has_ood_score: whether the graph returns an OOD score.
        out_of_fold: (N, K) from `cross_fitted`; None if there is no calibrator.
        uncalibrated: (N, K) as the model file gives them; None if there is no calibrator.
        folds: (N,) the fold that held each image out; all rows are then those of the folds' networks, not the file's.
        folds_ship: whether the file also gives the probabilities of the folds' networks.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    unfitted = probabilities if out_of_fold is None else out_of_fold
    network = probabilities if uncalibrated is None else uncalibrated
    by_folds = folds is not None and folds_ship and len(labels) <= MOST_SCORES
    guarantees = Guarantees(
        images=tuple(counts.tolist()),
        calibrator=calibrator,
        conformal=tuple(
            calibrate_by_folds(network, labels, folds, method)
            if folds is not None and by_folds
            else calibrate(network, labels, method)
            for method in METHODS
        ),
        has_ood_score=has_ood_score,
        confidence_thresholds=tuple(
            _highest(*(_confidence_threshold(rows, labels, share) for rows in (probabilities, unfitted)))
            for share in TARGET_ACCURACIES
        ),
        better_than_chance=better_than_chance(network, labels),
        folds=0 if folds is None else int(folds.max()) + 1,
    )
    return replace(guarantees, limitations=tuple(_limitations(guarantees, class_names)))


def _limitations(guarantees: Guarantees, class_names: tuple[str, ...]) -> Iterator[str]:
    why_not = guarantees.why_not(AnswerPolicy())
    if why_not:
        yield why_not
    if not guarantees.better_than_chance:
        yield "no answer is sure: on held-out images, the answers were not measurably better than chance"
    elif guarantees.confidence_thresholds[TARGET_ACCURACIES.index(SURE_ACCURACY)] is None and not why_not:
        few = amount(guarantees.held_out, "held-out image")
        yield f"no answer is sure: on {few}, no group of answers was shown to be at least {SURE_ACCURACY:.0%} correct"
    if guarantees.calibrator.method == "none":
        yield "probabilities are not calibrated: too few held-out images, or calibration did not help"
    if guarantees.needs_folds and not why_not:
        proven = proven_coverage(COVERAGE, guarantees.held_out, guarantees.folds)
        yield (
            f"prediction sets come from {guarantees.folds} folds (CV+): about {COVERAGE:.0%} of them contain the true "
            f"label in practice, but only {proven:.0%} is proven"
        )
    elif guarantees.folds and not why_not:
        yield (
            f"prediction sets come from {guarantees.folds} networks of a cross-validation, which are not in the model "
            f"file: about {COVERAGE:.0%} of them contain the true label in practice, but nothing is proven"
        )
    absent = [name for name, count in zip(class_names, guarantees.images, strict=True) if not count]
    if absent:
        yield f"no held-out images of {first_few(absent)}: guarantees are untested on these classes"


def _highest(*thresholds: float | None) -> float | None:
    known = [threshold for threshold in thresholds if threshold is not None]
    return max(known) if len(known) == len(thresholds) else None


def _confidence_threshold(probabilities: Floats, labels: NDArray[np.int64], accuracy: float) -> float | None:
    """The lowest probability at which the answers at least as probable reach this accuracy; None if there is none.

    At each probability, an exact binomial test must reject a lower accuracy at level `_RISK` (Angelopoulos et al.,
    2021, "Learn then test"). Answers that are equally probable up to rounding are tested together.
    """
    from scipy.special import bdtr  # scipy.stats takes a second to import

    confidence = probabilities.max(axis=1).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    answered = np.arange(1, len(order) + 1)
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])
    last = np.append(ranked[:-1] - ranked[1:] > 1e-7 + 1e-5 * (1 - ranked[1:]), True)  # of equal answers
    passed = np.flatnonzero(last & (bdtr(wrong, answered, 1 - accuracy) <= _RISK))
    return float(ranked[passed[-1]]) if len(passed) else None


def better_than_chance(probabilities: Floats, labels: NDArray[np.int64]) -> bool:
    """Whether the true labels are more probable to the model than the same labels in any of 999 random orders.

    A permutation test at the level 0.001: answers that do not depend on the image, or not on its class, fail. The mean
    difference must also be above `_LEAST_GAIN`, because float32 rounding can differ between batches of sorted images.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-9))
    random, rows = np.random.default_rng(0), np.arange(len(labels))
    by_chance = [float(logs[rows, random.permutation(labels)].mean()) for _ in range(_PERMUTATIONS)]
    return float(logs[rows, labels].mean()) > max(by_chance) + _LEAST_GAIN

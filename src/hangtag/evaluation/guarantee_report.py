"""Whether a model's guarantees hold on images that were not used to fit them; every share has its interval.

This module does arithmetic on the outputs of the model file; it runs no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.evaluation.metrics import Share
from hangtag.model.calibration import Calibration, Floats, measure_calibration
from hangtag.model.guarantees import OOD_FALSE_POSITIVE_RATE, TARGET_ACCURACIES, AnswerPolicy, Guarantees
from hangtag.serializable import Serializable

__all__ = ["SHOWN", "GuaranteeReport", "SetCoverage", "measure_guarantees"]

SHOWN = (0.9, 0.95, 0.99)
"""Coverages that are tested."""

_CURVE = 200  # points of the accuracy-coverage curve


@dataclass(frozen=True)
class SetCoverage:
    """Prediction sets at one target coverage, of the images that are not flagged as OOD; the others have no set.

    Attributes:
        coverage: the target.
        covered: sets that contain the true label.
        size: mean number of labels in a set.
        single: sets with one label.
        classes: (K,) `covered` for the images of each class.
        enough: whether there were enough held-out images for this target; if not, every set contains all labels.
    """

    coverage: float
    covered: Share
    size: float
    single: Share
    classes: tuple[Share, ...]
    enough: bool


@dataclass(frozen=True)
class GuaranteeReport(Serializable):
    """How a model's guarantees held on N images.

    Attributes:
        calibration: of its probabilities.
        before: of its probabilities before calibration, if it calibrates them.
        method: how prediction sets are made; None if the model has none.
        sets: one entry for each coverage in `SHOWN`; empty if the model has no sets, or no image has one.
        ood_false_positives: images flagged as OOD; the target is 5 of 100. None if the model has no OOD score.
        sure: images with a sure answer under the default policy (one label in the 95% set, not OOD).
        sure_right: sure answers that are correct.
        target_accuracies: (target, sure answers, correct ones among them) for each of `guarantees.TARGET_ACCURACIES`;
            empty if the model has no confidence thresholds.
        answered: (P,) shares of images answered, most confident first.
        accuracy: (P,) accuracy on each of these shares.
        limitations: what the model cannot guarantee, and why.
    """

    calibration: Calibration
    before: Calibration | None
    method: str | None
    sets: tuple[SetCoverage, ...]
    ood_false_positives: Share | None
    sure: Share | None
    sure_right: Share | None
    target_accuracies: tuple[tuple[float, Share, Share], ...]
    answered: tuple[float, ...]
    accuracy: tuple[float, ...]
    limitations: tuple[str, ...]

    def __repr__(self) -> str:
        sure = "no sure answers" if self.sure is None else f"{self.sure} sure"
        return f"<GuaranteeReport: calibration error {self.calibration.ece:.4f}, {sure}>"

    def __post_init__(self) -> None:
        if len(self.answered) != len(self.accuracy):
            raise ValueError("there must be one accuracy for each share of images answered")


def measure_guarantees(
    outputs: dict[str, NDArray[np.float32]], labels: NDArray[np.int64], guarantees: Guarantees
) -> GuaranteeReport:
    """Test a model's guarantees on N >= 1 images.

    Args:
        outputs: of the model file: "probabilities" (N, K), and "uncalibrated" (N, K) and "ood_score" (N,) if it has
            them.
        labels: (N,) indices of the true classes.
        guarantees: of the model file.

    Raises:
        DataError: no images, shapes that disagree, or values that are not probabilities.
    """
    probabilities, ood_score = outputs["probabilities"], outputs.get("ood_score")
    uncalibrated = None if guarantees.calibrator.method == "none" else outputs.get("uncalibrated")
    correct = probabilities.argmax(axis=1) == labels
    policy = AnswerPolicy()
    verdicts = guarantees.decide(outputs, policy)
    familiar = np.ones(len(labels), bool) if verdicts.is_ood is None else ~verdicts.is_ood
    by_confidence = correct[np.argsort(-probabilities.max(axis=1), kind="stable")]
    counts = np.linspace(1, len(labels), min(_CURVE, len(labels))).round().astype(np.int64)
    accuracy = np.cumsum(by_confidence)[counts - 1] / counts
    conformal = guarantees.by(policy.method)
    with_sets = {name: rows[familiar] for name, rows in outputs.items()}
    without_sets = replace(guarantees, conformal=())
    return GuaranteeReport(
        calibration=measure_calibration(probabilities, labels),
        before=None if uncalibrated is None else measure_calibration(uncalibrated, labels),
        method=conformal.method if conformal else None,
        sets=tuple(
            _sets(guarantees, with_sets, labels[familiar], coverage)
            for coverage in SHOWN
            if conformal and familiar.any()
        ),
        ood_false_positives=None if ood_score is None else Share.counted(ood_score > 1 - OOD_FALSE_POSITIVE_RATE),
        sure=None if verdicts.sure is None else Share.counted(verdicts.sure),
        sure_right=None if verdicts.sure is None else Share.counted(correct[verdicts.sure]),
        target_accuracies=tuple(
            _at_target(without_sets, outputs, correct, target)
            for target in TARGET_ACCURACIES
            if guarantees.confidence_thresholds
        ),
        answered=tuple((counts / len(labels)).tolist()),
        accuracy=tuple(accuracy.tolist()),
        limitations=guarantees.limitations,
    )


def _sets(
    guarantees: Guarantees, outputs: Mapping[str, Floats], labels: NDArray[np.int64], coverage: float
) -> SetCoverage:
    policy = AnswerPolicy(coverage=coverage)
    in_set = guarantees.decide(outputs, policy).in_set
    assert in_set is not None
    covered, sizes = in_set[np.arange(len(labels)), labels], in_set.sum(axis=1)
    return SetCoverage(
        coverage=coverage,
        covered=Share.counted(covered),
        size=float(sizes.mean()),
        single=Share.counted(sizes == 1),
        classes=tuple(Share.counted(covered[labels == label]) for label in range(in_set.shape[1])),
        enough=guarantees.why_not(policy) is None,
    )


def _at_target(
    guarantees: Guarantees, outputs: dict[str, NDArray[np.float32]], correct: NDArray[np.bool_], target: float
) -> tuple[float, Share, Share]:
    policy = AnswerPolicy(target_accuracy=target)
    sure = guarantees.decide(outputs, policy).sure
    assert sure is not None
    return target, Share.counted(sure), Share.counted(correct[sure])

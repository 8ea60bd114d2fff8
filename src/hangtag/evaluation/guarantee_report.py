"""Whether a model's promises were kept on pictures that taught it nothing: `Promises`, every share with its interval.

Arithmetic on what the model file answered; it runs no model.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.evaluation.metrics import wilson
from hangtag.model.calibration import Calibration, measure_calibration
from hangtag.model.guarantees import OOD_FALSE_POSITIVE_RATE, TARGET_ACCURACIES, AnswerPolicy, Guarantees

__all__ = ["SHOWN", "GuaranteeReport", "SetCoverage", "Share", "measure_guarantees"]

SHOWN = (0.9, 0.95, 0.99)
"""Coverages that are tried."""

_CURVE = 200  # points

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Share:
    """So many of so many, with the 95 % interval of the share (Wilson); None where there were none."""

    count: int
    of: int
    share: float | None
    interval: tuple[float, float] | None

    @classmethod
    def counted(cls, hits: NDArray[np.bool_]) -> "Share":
        count, of = int(hits.sum()), len(hits)
        return cls(count, of, count / of if of else None, wilson(count, of) if of else None)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Share":
        return cls(**{**value, "interval": value["interval"] and tuple(value["interval"])})


@dataclass(frozen=True)
class SetCoverage:
    """Sets of one promised coverage.

    Attributes:
        coverage: what was promised.
        covered: how many sets covered the true label.
        size: mean number of labels in a set.
        single: how many sets hold one label.
        classes: `covered`, class by class.
        enough: whether held-out pictures were enough for this promise; if not, every set holds every label.
    """

    coverage: float
    covered: Share
    size: float
    single: Share
    classes: tuple[Share, ...]
    enough: bool


@dataclass(frozen=True)
class GuaranteeReport:
    """How a model's promises fared.

    Attributes:
        calibration: of its probabilities.
        before: the same before they were calibrated, where the file tells.
        method: how sets are made.
        sets: one for each of `SHOWN`; empty where the model makes none.
        ood_false_positives: pictures called unfamiliar; the promise is 5 of 100. None where the model does not tell.
        sure: pictures answered surely (one label in the set at 0.95, not unfamiliar).
        sure_right: how many of these were answered rightly.
        target_accuracies: for each share in `guarantees.TARGET_ACCURACIES`, (answered, of these right), where the
            model knows how.
        answered, accuracy: (P,) shares of pictures answered, surest first, and how many of these were right.
        limitations: what the model does not promise, and why.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "GuaranteeReport":
        def share(one: Any) -> Share | None:
            return None if one is None else Share.from_json(one)

        sets = tuple(
            SetCoverage(
                row["coverage"], Share.from_json(row["covered"]), row["size"], Share.from_json(row["single"]),
                tuple(map(Share.from_json, row["classes"])), row["enough"],
            )
            for row in value["sets"]
        )  # fmt: skip
        return cls(
            calibration=Calibration.from_json(value["calibration"]),
            before=None if value["before"] is None else Calibration.from_json(value["before"]),
            method=value["method"],
            sets=sets,
            ood_false_positives=share(value["ood_false_positives"]),
            sure=share(value["sure"]),
            sure_right=share(value["sure_right"]),
            target_accuracies=tuple(
                (target, Share.from_json(one), Share.from_json(two)) for target, one, two in value["target_accuracies"]
            ),
            answered=tuple(value["answered"]),
            accuracy=tuple(value["accuracy"]),
            limitations=tuple(value["limitations"]),
        )


def measure_guarantees(
    outputs: dict[str, NDArray[np.float32]], labels: NDArray[np.int64], guarantees: Guarantees
) -> GuaranteeReport:
    """Try a model's promises.

    Args:
        outputs: of the model file: "probabilities" (N, K), and "uncalibrated" and "ood_score" where it has them.
        labels: (N,) indices of the true classes.
        trust: what it promises.
    """
    probabilities, ood_score = outputs["probabilities"], outputs.get("ood_score")
    right = probabilities.argmax(axis=1) == labels
    policy = AnswerPolicy()
    verdicts = guarantees.decide(probabilities, ood_score, policy)
    by_confidence = right[np.argsort(-probabilities.max(axis=1), kind="stable")]
    counts = np.unique(np.linspace(1, len(labels), min(_CURVE, len(labels))).round().astype(np.int64))
    accuracy = np.cumsum(by_confidence)[counts - 1] / counts
    conformal = guarantees.by(policy.method)
    return GuaranteeReport(
        calibration=measure_calibration(probabilities, labels),
        before=measure_calibration(outputs["uncalibrated"], labels) if "uncalibrated" in outputs else None,
        method=conformal.method if conformal else None,
        sets=tuple(_sets(guarantees, probabilities, labels, coverage) for coverage in SHOWN) if conformal else (),
        ood_false_positives=None if ood_score is None else Share.counted(ood_score > 1 - OOD_FALSE_POSITIVE_RATE),
        sure=None if verdicts.sure is None else Share.counted(verdicts.sure),
        sure_right=None if verdicts.sure is None else Share.counted(right[verdicts.sure]),
        target_accuracies=tuple(_right(guarantees, outputs, right, share) for share in TARGET_ACCURACIES)
        if guarantees.confidence_thresholds
        else (),
        answered=tuple((counts / len(labels)).tolist()),
        accuracy=tuple(accuracy.tolist()),
        limitations=guarantees.limitations,
    )


def _sets(guarantees: Guarantees, probabilities: Floats, labels: NDArray[np.int64], coverage: float) -> SetCoverage:
    policy = AnswerPolicy(coverage=coverage)
    in_set = guarantees.decide(probabilities, None, policy).in_set
    assert in_set is not None
    covered, sizes = in_set[np.arange(len(labels)), labels], in_set.sum(axis=1)
    return SetCoverage(
        coverage=coverage,
        covered=Share.counted(covered),
        size=float(sizes.mean()),
        single=Share.counted(sizes == 1),
        classes=tuple(Share.counted(covered[labels == label]) for label in range(probabilities.shape[1])),
        enough=guarantees.why_not(policy) is None,
    )


def _right(
    guarantees: Guarantees, outputs: dict[str, NDArray[np.float32]], right: NDArray[np.bool_], share: float
) -> tuple[float, Share, Share]:
    verdicts = guarantees.decide(
        outputs["probabilities"], outputs.get("ood_score"), AnswerPolicy(target_accuracy=share)
    )
    assert verdicts.sure is not None
    return share, Share.counted(verdicts.sure), Share.counted(right[verdicts.sure])

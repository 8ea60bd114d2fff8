"""Whether a model's promises were kept on pictures that taught it nothing: `Promises`, every share with its interval.

Arithmetic on what the model file answered; it runs no model.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.evaluation.metrics import wilson
from hangtag.model.calibration import Calibration, calibration
from hangtag.model.guarantees import FALSE_ALARMS, RIGHT, Asking, Trust

__all__ = ["SHOWN", "Promises", "SetsKept", "Share", "promises"]

SHOWN = (0.9, 0.95, 0.99)
"""Coverages that are tried."""

_CURVE = 200  # points

Rows = NDArray[np.floating[Any]]


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
class SetsKept:
    """Sets of one promised coverage.

    Attributes:
        coverage: what was promised.
        held: how many sets held the true label.
        size: mean number of labels in a set.
        single: how many sets hold one label.
        classes: `held`, class by class.
        enough: whether held-out pictures were enough for this promise; if not, every set holds every label.
    """

    coverage: float
    held: Share
    size: float
    single: Share
    classes: tuple[Share, ...]
    enough: bool


@dataclass(frozen=True)
class Promises:
    """How a model's promises fared.

    Attributes:
        calibration: of its probabilities.
        before: the same before they were calibrated, where the file tells.
        method: how sets are made.
        sets: one for each of `SHOWN`; empty where the model makes none.
        false_alarms: pictures called unfamiliar; the promise is 5 of 100. None where the model does not tell.
        sure: pictures answered surely (one label in the set at 0.95, not unfamiliar).
        sure_right: how many of these were answered rightly.
        right: for each share in `trust.RIGHT`, (answered, of these right), where the model knows how.
        answered, accuracy: (P,) shares of pictures answered, surest first, and how many of these were right.
        missing: what the model does not promise, and why.
    """

    calibration: Calibration
    before: Calibration | None
    method: str | None
    sets: tuple[SetsKept, ...]
    false_alarms: Share | None
    sure: Share | None
    sure_right: Share | None
    right: tuple[tuple[float, Share, Share], ...]
    answered: tuple[float, ...]
    accuracy: tuple[float, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Promises":
        def share(one: Any) -> Share | None:
            return None if one is None else Share.from_json(one)

        sets = tuple(
            SetsKept(
                row["coverage"], Share.from_json(row["held"]), row["size"], Share.from_json(row["single"]),
                tuple(map(Share.from_json, row["classes"])), row["enough"],
            )
            for row in value["sets"]
        )  # fmt: skip
        return cls(
            calibration=Calibration.from_json(value["calibration"]),
            before=None if value["before"] is None else Calibration.from_json(value["before"]),
            method=value["method"],
            sets=sets,
            false_alarms=share(value["false_alarms"]),
            sure=share(value["sure"]),
            sure_right=share(value["sure_right"]),
            right=tuple((target, Share.from_json(one), Share.from_json(two)) for target, one, two in value["right"]),
            answered=tuple(value["answered"]),
            accuracy=tuple(value["accuracy"]),
            missing=tuple(value["missing"]),
        )


def promises(outputs: dict[str, NDArray[np.float32]], labels: NDArray[np.int64], trust: Trust) -> Promises:
    """Try a model's promises.

    Args:
        outputs: of the model file: "probabilities" (N, K), and "uncalibrated" and "unfamiliarity" where it has them.
        labels: (N,) indices of the true classes.
        trust: what it promises.
    """
    probabilities, strangeness = outputs["probabilities"], outputs.get("unfamiliarity")
    right = probabilities.argmax(axis=1) == labels
    asking = Asking()
    verdicts = trust.judge(probabilities, strangeness, asking)
    by_confidence = right[np.argsort(-probabilities.max(axis=1), kind="stable")]
    counts = np.unique(np.linspace(1, len(labels), min(_CURVE, len(labels))).round().astype(np.int64))
    accuracy = np.cumsum(by_confidence)[counts - 1] / counts
    conformal = trust.by(asking.method)
    return Promises(
        calibration=calibration(probabilities, labels),
        before=calibration(outputs["uncalibrated"], labels) if "uncalibrated" in outputs else None,
        method=conformal.method if conformal else None,
        sets=tuple(_sets(trust, probabilities, labels, coverage) for coverage in SHOWN) if conformal else (),
        false_alarms=None if strangeness is None else Share.counted(strangeness > 1 - FALSE_ALARMS),
        sure=None if verdicts.sure is None else Share.counted(verdicts.sure),
        sure_right=None if verdicts.sure is None else Share.counted(right[verdicts.sure]),
        right=tuple(_right(trust, outputs, right, share) for share in RIGHT) if trust.least else (),
        answered=tuple((counts / len(labels)).tolist()),
        accuracy=tuple(accuracy.tolist()),
        missing=trust.missing,
    )


def _sets(trust: Trust, probabilities: Rows, labels: NDArray[np.int64], coverage: float) -> SetsKept:
    asking = Asking(coverage=coverage)
    inside = trust.judge(probabilities, None, asking).inside
    assert inside is not None
    held, sizes = inside[np.arange(len(labels)), labels], inside.sum(axis=1)
    return SetsKept(
        coverage=coverage,
        held=Share.counted(held),
        size=float(sizes.mean()),
        single=Share.counted(sizes == 1),
        classes=tuple(Share.counted(held[labels == label]) for label in range(probabilities.shape[1])),
        enough=trust.shortage(asking) is None,
    )


def _right(
    trust: Trust, outputs: dict[str, NDArray[np.float32]], right: NDArray[np.bool_], share: float
) -> tuple[float, Share, Share]:
    verdicts = trust.judge(outputs["probabilities"], outputs.get("unfamiliarity"), Asking(right=share))
    assert verdicts.sure is not None
    return share, Share.counted(verdicts.sure), Share.counted(right[verdicts.sure])

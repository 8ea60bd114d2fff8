"""How a model breaks: pictures gone wrong in fifteen ways and five strengths, and the groups it is worst on.

Of each: accuracy, calibration, and how often a wrong answer comes with the warning "not sure". It opens no data and
draws nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from hangtag.evaluation.slices import Slice, groupings_of, weak_slices
from hangtag.model.artifact import OUTPUT
from hangtag.model.calibration import measure_calibration
from hangtag.model.predictor import Predictor
from hangtag.pictures import Images

__all__ = ["IMAGES", "Stress", "StressResult", "stress"]

IMAGES = 2000
"""Pictures that are made to suffer, when nothing else is asked for."""


@dataclass(frozen=True)
class StressResult:
    """One corruption at one strength.

    Attributes:
        corruption, strength: which; "none" and 0 for the pictures as they are.
        accuracy: share of right answers.
        ece: expected calibration error.
        sure: share of answers that are called sure; None where the model does not tell, as below.
        sure_right: share of these that are right; None where there are none.
        caught: share of the wrong answers that are not called sure; None where there are none.
        ood_rate: share of pictures that are called unfamiliar.
    """

    corruption: str
    severity: int
    accuracy: float
    ece: float
    sure: float | None
    sure_right: float | None
    caught: float | None
    ood_rate: float | None


@dataclass(frozen=True)
class Stress:
    """What a model made of pictures gone wrong.

    Attributes:
        images: how many were corrupted.
        clean: the same pictures as they are.
        cells: every corruption at every strength.
        slices: groups of uncorrupted pictures on which it is worse than on the rest, worst first.
        tried: how many pictures the slices come from.
        seed: of the corruptions and of the choice of pictures.
    """

    images: int
    clean: StressResult
    cells: tuple[StressResult, ...]
    slices: tuple[Slice, ...]
    tried: int
    seed: int

    @property
    def accuracy(self) -> float:
        """Mean over all corruptions and strengths."""
        return float(np.mean([cell.accuracy for cell in self.cells]))

    def at(self, corruption: str) -> list[StressResult]:
        """Its cells, weakest first."""
        return [cell for cell in self.cells if cell.corruption == corruption]

    def mean(self, corruption: str, what: str) -> float | None:
        """Of a number of its cells, over the strengths at which there is one."""
        known = [value for cell in self.at(corruption) if (value := getattr(cell, what)) is not None]
        return float(np.mean(known)) if known else None

    def worst(self) -> list[str]:
        """Corruptions by mean accuracy, the worst first."""
        return sorted(CORRUPTIONS, key=lambda name: self.mean(name, "accuracy") or 0.0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Stress":
        return cls(
            images=value["images"],
            clean=StressResult(**value["clean"]),
            cells=tuple(StressResult(**cell) for cell in value["cells"]),
            slices=tuple(Slice.from_json(each) for each in value["slices"]),
            tried=value["tried"],
            seed=value["seed"],
        )


def stress(
    predictor: Predictor,
    data: LabelledImages,
    images: int = IMAGES,
    seed: int = 0,
    columns: Mapping[str, NDArray[Any]] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Stress:
    """Make `data` suffer and judge what the model makes of it.

    Args:
        data: labelled pictures that did not train the model, with its classes.
        images: how many of them to corrupt, at most.
        columns: (N,) values known about the pictures, to form groups by.
        progress: called with (what is going on, share done).
    """
    random = np.random.default_rng(seed)
    some = np.sort(random.permutation(len(data))[:images])
    pictures, labels = np.array(data.images[some]), data.labels[some]
    clean = _judged(predictor, pictures, labels, "none", 0)
    cells = []
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            cells.append(_judged(predictor, corrupt(pictures, name, severity, seed), labels, name, severity))
            if progress:
                progress(name, len(cells) / (len(CORRUPTIONS) * len(SEVERITIES) + 1))
    right = predictor.probabilities(data.images).argmax(axis=1) == data.labels
    slices = weak_slices(right, groupings_of(data, columns))
    return Stress(len(some), clean, tuple(cells), tuple(slices), len(data), seed)


def _judged(predictor: Predictor, images: Images, labels: NDArray[np.int64], name: str, severity: int) -> StressResult:
    told = predictor.outputs(images, OUTPUT, *(["ood_score"] if predictor.guarantees.has_ood_score else []))
    rows = told[OUTPUT]
    right = rows.argmax(axis=1) == labels
    verdicts = predictor.guarantees.decide(rows, told.get("ood_score"), predictor.policy)
    sure = verdicts.sure
    return StressResult(
        corruption=name,
        severity=severity,
        accuracy=float(right.mean()),
        ece=measure_calibration(rows, labels).ece,
        sure=None if sure is None else float(sure.mean()),
        sure_right=float(right[sure].mean()) if sure is not None and sure.any() else None,
        caught=float((~sure)[~right].mean()) if sure is not None and not right.all() else None,
        ood_rate=None if verdicts.is_ood is None else float(verdicts.is_ood.mean()),
    )

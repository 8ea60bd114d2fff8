"""Stress test: accuracy, calibration and abstention on images corrupted in fifteen ways, and the weakest groups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import UsageError
from hangtag.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from hangtag.evaluation.cross_validation import as_held_out
from hangtag.evaluation.judge import Model, evaluate, opened
from hangtag.evaluation.slices import Slice, groupings_of, weak_slices
from hangtag.model.artifact import OUTPUT
from hangtag.model.calibration import measure_calibration
from hangtag.model.predictor import Predictor
from hangtag.pictures import Images
from hangtag.serializable import Serializable
from hangtag.words import amount

__all__ = ["IMAGES", "Stress", "StressResult", "stress"]

IMAGES = 2000
"""Default number of images to corrupt."""


@dataclass(frozen=True)
class StressResult:
    """Results for one corruption at one severity. A share of no images, or of an unknown decision, is None.

    Attributes:
        corruption, severity: name and 1 to 5; "none" and 0 for the uncorrupted images.
        accuracy: share of correct answers.
        ece: expected calibration error.
        sure: share of sure answers.
        sure_right: share of sure answers that are correct.
        caught: share of wrong answers that are not sure.
        ood_rate: share of images flagged as OOD.
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
class Stress(Serializable):
    """Results of a stress test.

    Attributes:
        images: number of images that were corrupted.
        clean: results on the same images, uncorrupted.
        cells: results for every corruption at every severity.
        slices: groups of uncorrupted images with a lower accuracy than the rest, worst first.
        tried: number of images that the slices were found on.
        seed: of the corruptions and the choice of images.
    """

    HINT = "run the stress test again: hangtag stress RUN"

    images: int
    clean: StressResult
    cells: tuple[StressResult, ...]
    slices: tuple[Slice, ...]
    tried: int
    seed: int

    def __post_init__(self) -> None:
        grid = {(name, severity) for name in CORRUPTIONS for severity in SEVERITIES}
        if {(cell.corruption, cell.severity) for cell in self.cells} != grid or len(self.cells) != len(grid):
            raise ValueError("it must have one result for every corruption at every severity")

    @property
    def accuracy(self) -> float:
        """Mean over all corruptions and severities."""
        return float(np.mean([cell.accuracy for cell in self.cells]))

    def __repr__(self) -> str:
        return f"<Stress: {self}>"

    def __str__(self) -> str:
        return f"accuracy {self.clean.accuracy:.1%}, corrupted {self.accuracy:.1%}, {amount(self.images, 'image')}"

    def _repr_html_(self) -> str:
        from hangtag.html import render

        rows = [(name, *(f"{cell.accuracy:.1%}" for cell in self.at(name))) for name in self.worst()]
        notes = [
            f"{each.by} {each.group}: {each.accuracy:.1%} of {amount(each.images, 'image')}, the rest {each.rest:.1%}"
            for each in self.slices
        ]
        head = ["accuracy by corruption", *(f"severity {severity}" for severity in SEVERITIES)]
        values = {"title": f"Stress test: {self}", "head": head, "rows": rows, "notes": notes, "words": False}
        return render("notebook_table.html", values)

    def at(self, corruption: str) -> list[StressResult]:
        """Results for this corruption, mildest first."""
        return [cell for cell in self.cells if cell.corruption == corruption]

    def mean(self, corruption: str, what: str) -> float | None:
        """Mean of a field of `StressResult` over the severities at which it is known; None if there are none."""
        known = [value for cell in self.at(corruption) if (value := getattr(cell, what)) is not None]
        return float(np.mean(known)) if known else None

    def worst(self) -> list[str]:
        """Corruptions by mean accuracy, lowest first."""
        return sorted(CORRUPTIONS, key=lambda name: self.mean(name, "accuracy") or 0.0)


def stress(
    model: Model,
    data: Any = None,
    images: int = IMAGES,
    seed: int = 0,
    columns: Mapping[str, NDArray[Any]] | None = None,
    progress: Callable[[str, float], None] | None = None,
    folds: NDArray[np.int64] | None = None,
) -> Stress:
    """Corrupt images in every way and judge the model's answers.

    Args:
        model: a model.onnx, a run or its folder or name, an opened model, or a fitted classifier.
        data: images that the model was not trained on: a `LabelledImages`, or anything that `read` takes. Its test
            part is used if it has one, and only classes that the model knows. None: a run's own data.
        images: maximum number of images to corrupt.
        columns: (N,) further values of the images by name, to form groups by.
        progress: called with the name of the corruption and the share done.
        folds: (N,) for images that the model was trained on, the fold that held each of them out: the network of this
            fold answers, if the file has it.

    Raises:
        RunError, ArtifactError: the model cannot be opened.
        UsageError: the model was trained on the images, and its file has no networks that were not.
        DataError: the data cannot be used, or has no class that the model knows.
    """
    predictor = opened(model)
    if not (isinstance(data, LabelledImages) and data.class_names == predictor.class_names and not data.parts):
        judged = evaluate(model, data)
        data, folds = judged.data, judged.folds
    if folds is not None and not predictor.guarantees.needs_folds:
        raise UsageError(
            f"the model was trained on all {len(data):,} images of {data.name}, so a stress test on them says nothing",
            "name images that it has not seen: hangtag stress RUN DATA",
        )
    random = np.random.default_rng(seed)
    some = np.sort(random.permutation(len(data))[:images])
    pictures, labels, folds_of = np.array(data.images[some]), data.labels[some], None if folds is None else folds[some]
    clean = _judged(predictor, pictures, labels, "none", 0, folds_of)
    cells = []
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            cells.append(_judged(predictor, corrupt(pictures, name, severity, seed), labels, name, severity, folds_of))
            if progress:
                progress(name, len(cells) / (len(CORRUPTIONS) * len(SEVERITIES) + 1))
    correct = _outputs(predictor, data.images, folds)[OUTPUT].argmax(axis=1) == data.labels
    slices = weak_slices(correct, groupings_of(data, columns))
    return Stress(len(some), clean, tuple(cells), tuple(slices), len(data), seed)


def _outputs(predictor: Predictor, images: Images, folds: NDArray[np.int64] | None) -> dict[str, NDArray[np.float32]]:
    outputs = predictor.outputs(images, *predictor.deciding)
    return outputs if folds is None else as_held_out(outputs, folds, predictor.guarantees)


def _judged(
    predictor: Predictor, images: Images, labels: NDArray[np.int64], name: str, severity: int,
    folds: NDArray[np.int64] | None,
) -> StressResult:  # fmt: skip
    outputs = _outputs(predictor, images, folds)
    rows = outputs[OUTPUT]
    correct = rows.argmax(axis=1) == labels
    verdicts = predictor.guarantees.decide(outputs, predictor.policy)
    sure = verdicts.sure
    return StressResult(
        corruption=name,
        severity=severity,
        accuracy=float(correct.mean()),
        ece=measure_calibration(rows, labels).ece,
        sure=None if sure is None else float(sure.mean()),
        sure_right=float(correct[sure].mean()) if sure is not None and sure.any() else None,
        caught=float((~sure)[~correct].mean()) if sure is not None and not correct.all() else None,
        ood_rate=None if verdicts.is_ood is None else float(verdicts.is_ood.mean()),
    )

"""`Predictor`: picture in, `Answer` out, on ONNX Runtime. The one path of command line, server, studio and Ray.

It never imports torch, training or data code; it decodes by `images.py` and everything after that is in the file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UsageError
from hangtag.model.artifact import OUTPUT, PIXELS, Artifact, Metadata, open_artifact
from hangtag.model.guarantees import COVERAGE, OOD_FALSE_POSITIVE_RATE, AnswerPolicy, Guarantees, Verdicts
from hangtag.pictures import Images, ImageSpec, Picture, check_images, decode

__all__ = ["Answer", "Predictor", "load"]


@dataclass(frozen=True)
class Answer:
    """What the model says about one picture.

    Attributes:
        label: the most probable class.
        probability: its probability, 0 to 1, calibrated.
        top: the most probable classes with their probabilities, best first.
        prediction_set: the labels that hold the true one with the promised coverage, most probable first.
        coverage: the share of pictures whose set shall hold the true label.
        ood_score: the share of held-out pictures that were less strange to the network.
        is_ood: whether that is so much that the answer should not be trusted.
        sure: whether the answer can be used without a second look (see `guarantees.AnswerPolicy`).
        warnings: what was changed about the picture before the model saw it.
        model: fingerprint of the model file that answered.

    What a model cannot tell, because it held no pictures out or was made before it was asked to, is None.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]
    model: str
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    ood_score: float | None = None
    is_ood: bool | None = None
    sure: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "coverage": self.coverage,
            "ood_score": self.ood_score,
            "is_ood": self.is_ood,
            "sure": self.sure,
            "warnings": list(self.warnings),
            "model": self.model,
        }

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.1%}"


class Predictor:
    """A model file, ready to answer.

    >>> tag = load("runs/clothes/model.onnx")  # doctest: +SKIP
    >>> tag("shoe.png")                        # doctest: +SKIP
    Answer(label='Ankle boot', probability=0.98, ...)
    """

    def __init__(self, artifact: Artifact, policy: AnswerPolicy | None = None) -> None:
        self._artifact = artifact
        self.policy = policy or AnswerPolicy()

    @property
    def metadata(self) -> Metadata:
        return self._artifact.metadata

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.metadata.class_names

    @property
    def spec(self) -> ImageSpec:
        return self.metadata.image

    @property
    def fingerprint(self) -> str:
        return self._artifact.fingerprint

    @property
    def guarantees(self) -> Guarantees:
        """What the file promises about its answers."""
        older = "this model was made by a hangtag that promised nothing about its answers; train again"
        return self.metadata.guarantees or Guarantees.none(len(self.class_names), older)

    def with_policy(self, policy: AnswerPolicy) -> "Predictor":
        """The same model, asked to be as careful as this."""
        return Predictor(self._artifact, policy)

    @property
    def can_abstain(self) -> bool:
        """Whether answers say if they are sure, asked as it is."""
        if self.policy.cost is not None:
            return True
        return (
            bool(self.guarantees.confidence_thresholds)
            if self.policy.target_accuracy is not None
            else bool(self.guarantees.conformal)
        )

    def has_output(self, output: str) -> bool:
        """Whether the file has this one of `artifact.EXTRAS`."""
        return self._artifact.has_output(output)

    def __call__(self, picture: Picture, top: int = 3) -> Answer:
        """Answer for one picture: a path, bytes, a PIL image or a uint8 array without a batch axis.

        Raises:
            PictureError: it cannot be read or is not one picture.
        """
        return self.many([picture], top)[0]

    def many(self, pictures: Iterable[Picture], top: int = 3) -> list[Answer]:
        """Answers in the order of the pictures; pictures of one size are answered together."""
        if top < 1:
            raise UsageError(f"top={top} makes no sense", "ask for at least 1 class")
        decoded = [decode(picture, self.spec) for picture in pictures]
        if not decoded:
            return []
        wanted = [OUTPUT, *(["ood_score"] if self.guarantees.has_ood_score else [])]
        told = self._rows([pixels for pixels, _ in decoded], wanted)
        verdicts = self.guarantees.decide(told[OUTPUT], told.get("ood_score"), self.policy)
        why_not = self.guarantees.why_not(self.policy)
        return [
            self._answer(position, told[OUTPUT][position], verdicts, (*notes, *self._size_notes(pixels)), why_not, top)
            for position, (pixels, notes) in enumerate(decoded)
        ]

    def probabilities(self, images: object) -> NDArray[np.float32]:
        """(N, K) float32 for an array of images (N, H, W) or (N, H, W, 3) uint8, all of one size, any size.

        Raises:
            PictureError: wrong shape or type.
        """
        return self.outputs(images, OUTPUT)[OUTPUT]

    def outputs(self, images: object, *names: str) -> dict[str, NDArray[np.float32]]:
        """What the file answers under these names (`probabilities` and those of `artifact.EXTRAS`), N rows each.

        Raises:
            PictureError: wrong shape or type.
            UsageError: this file has no such output.
        """
        missing = [name for name in names if name not in (OUTPUT, PIXELS) and not self.has_output(name)]
        if missing:
            raise UsageError(
                f"this model tells no {' and no '.join(missing)}", "; ".join(self.guarantees.limitations) or "-"
            )
        checked = check_images(images)
        if len(checked) and checked.shape[3:] != self.spec.shape[2:]:
            checked = np.stack([decode(image, self.spec)[0] for image in checked])
        return self._artifact.outputs(checked, *names)

    def _rows(self, images: list[NDArray[np.uint8]], names: list[str]) -> dict[str, NDArray[np.float32]]:
        """What the file answers for images of any sizes; those of one size are answered together."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(position)
        found: dict[str, NDArray[np.float32]] = {}
        for positions in by_shape.values():
            same_size: Images = np.stack([images[position] for position in positions])
            for name, rows in self._artifact.outputs(same_size, *names).items():
                found.setdefault(name, np.empty((len(images), *rows.shape[1:]), np.float32))[positions] = rows
        return found

    def _answer(
        self,
        position: int,
        row: NDArray[np.float32],
        verdicts: Verdicts,
        notes: tuple[str, ...],
        why_not: str | None,
        top: int,
    ) -> Answer:
        order = np.argsort(-row, kind="stable")
        ranked = tuple((self.class_names[index], float(row[index])) for index in order[:top])
        in_set = None if verdicts.in_set is None else verdicts.in_set[position]
        labels = None if in_set is None else tuple(self.class_names[index] for index in order if in_set[index])
        return Answer(
            label=ranked[0][0],
            probability=ranked[0][1],
            top=ranked,
            warnings=(*notes, why_not) if why_not else notes,
            model=self.fingerprint,
            prediction_set=labels,
            coverage=None if labels is None else self.policy.coverage,
            ood_score=None if verdicts.ood_score is None else float(verdicts.ood_score[position]),
            is_ood=None if verdicts.is_ood is None else bool(verdicts.is_ood[position]),
            sure=None if verdicts.sure is None else bool(verdicts.sure[position]),
        )

    def _size_notes(self, pixels: NDArray[np.uint8]) -> list[str]:
        height, width = pixels.shape[:2]
        if (height, width) == (self.spec.height, self.spec.width):
            return []
        note = f"resized from {width}x{height} to {self.spec.width}x{self.spec.height}"
        if self.spec.fit != "squash":
            kept = "its proportions kept, " + ("the rest filled" if self.spec.fit == "pad" else "its edges cut off")
            return [f"{note}, {kept}"]
        stretched = abs(width * self.spec.height / (height * self.spec.width) - 1) > 0.1
        return [f"{note}, which changes its proportions" if stretched else note]


def load(
    source: str | Path | bytes,
    coverage: float = COVERAGE,
    ood_false_positive_rate: float = OOD_FALSE_POSITIVE_RATE,
    cost: float | None = None,
    target_accuracy: float | None = None,
    set_method: str = "threshold",
) -> Predictor:
    """A `Predictor` from a `model.onnx`, its bytes, or the run folder that holds one.

    Args:
        coverage: the share of sets that shall hold the true label.
        ood_false_positive_rate: the share of familiar pictures that may be called unfamiliar.
        cost: of a wrong answer, where no answer costs 1; given, it decides which answers are sure.
        target_accuracy: the share of sure answers that shall be target_accuracy (see `guarantees.TARGET_ACCURACIES`);
            likewise.
        set_method: how sets of labels are made, one of `conformal.METHODS`.

    Raises:
        UsageError: a coverage, share or cost that makes no sense.
        RunError, ArtifactError: it is not there, not ours, or lies about itself.
    """
    return Predictor(
        open_artifact(source), AnswerPolicy(coverage, set_method, ood_false_positive_rate, cost, target_accuracy)
    )

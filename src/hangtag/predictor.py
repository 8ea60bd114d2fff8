"""`Predictor`: picture in, `Answer` out, on ONNX Runtime. The one path of command line, server, studio and Ray.

It never imports torch, training or data code; it decodes by `images.py` and everything after that is in the file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.artifact import Artifact, Metadata, open_artifact
from hangtag.errors import UsageError
from hangtag.images import Images, ImageSpec, Picture, check_images, decode

__all__ = ["Answer", "Predictor", "load"]


@dataclass(frozen=True)
class Answer:
    """What the model says about one picture.

    Attributes:
        label: the most probable class.
        probability: its probability, 0 to 1.
        top: the most probable classes with their probabilities, best first.
        warnings: what was changed about the picture before the model saw it.
        model: fingerprint of the model file that answered.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]
    model: str

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
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

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

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
        rows = self._rows([pixels for pixels, _ in decoded])
        return [self._answer(row, pixels, notes, top) for row, (pixels, notes) in zip(rows, decoded, strict=True)]

    def probabilities(self, images: object) -> NDArray[np.float32]:
        """(N, K) float32 for an array of images (N, H, W) or (N, H, W, 3) uint8, all of one size, any size.

        Raises:
            PictureError: wrong shape or type.
        """
        checked = check_images(images)
        if len(checked) and checked.shape[3:] != self.spec.shape[2:]:
            checked = np.stack([decode(image, self.spec)[0] for image in checked])
        return self._artifact.probabilities(checked)

    def _rows(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(position)
        rows: dict[int, NDArray[np.float32]] = {}
        for positions in by_shape.values():
            same_size: Images = np.stack([images[position] for position in positions])
            rows.update(zip(positions, self._artifact.probabilities(same_size), strict=True))
        return [rows[position] for position in range(len(images))]

    def _answer(self, row: NDArray[np.float32], pixels: NDArray[np.uint8], notes: tuple[str, ...], top: int) -> Answer:
        best = np.argsort(-row, kind="stable")[:top]
        ranked = tuple((self.class_names[index], float(row[index])) for index in best)
        return Answer(*ranked[0], ranked, (*notes, *self._size_notes(pixels)), self.fingerprint)

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


def load(source: str | Path | bytes) -> Predictor:
    """A `Predictor` from a `model.onnx`, its bytes, or the run folder that holds one.

    Raises:
        RunError, ArtifactError: it is not there, not ours, or lies about itself.
    """
    return Predictor(open_artifact(source))

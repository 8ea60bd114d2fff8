"""`Predictor`: picture in, `Answer` out, on ONNX Runtime.

It never imports torch, training or data code; `pictures.py` decodes, and everything after that is in the model file.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UsageError
from hangtag.limited import decode_limited
from hangtag.model.artifact import OUTPUT, PIXELS, Artifact, open_artifact
from hangtag.model.guarantees import COVERAGE, OOD_FALSE_POSITIVE_RATE, AnswerPolicy, Guarantees, Verdicts
from hangtag.pictures import Images, ImageSpec, Picture, check_images, decode

__all__ = ["Answer", "Predictor", "load"]


_BATCH_BYTES = 32_000_000  # of decoded pictures that are answered together
Decoded = tuple[NDArray[np.uint8], tuple[str, ...]]
"""A picture's pixels, and notes on what was changed."""
Decode = Callable[[Picture, ImageSpec], Decoded]


@dataclass(frozen=True)
class Answer:
    """The model's answer for one picture. A value the model cannot give (see `Guarantees.limitations`) is None.

    Attributes:
        label: the most probable class.
        probability: its calibrated probability, 0 to 1.
        top: the most probable classes with their probabilities, most probable first.
        warnings: changes made to the picture before the model saw it, and limits of the answer.
        model: fingerprint of the model file.
        prediction_set: labels that may be the true one, most probable first; None if `is_ood`.
        coverage: target share of prediction sets that contain the true label; None if `is_ood`, as nothing is promised.
        ood_score: share of images like the training images with a lower OOD score, estimated on the safe side.
        is_ood: whether the picture is unlike the training images, so that the answer may be unreliable.
        sure: whether the answer can be used without review (see `guarantees.AnswerPolicy`).
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
        """All fields by name; `top` as a list of objects with `label` and `probability`."""
        return {
            **vars(self),
            "top": [{"label": label, "probability": share} for label, share in self.top],
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.1%}"


class Predictor:
    """A model file that is ready to answer.

    Attributes:
        metadata: what the file says about itself; `class_names` and `spec` are its classes and image size.
        sha256, fingerprint: the file's SHA-256 in hex, and its first 12 digits.
        policy: how cautious answers are.
        guarantees: what the file guarantees about its answers.

    >>> tag = load("runs/clothes/model.onnx")  # doctest: +SKIP
    >>> tag("shoe.png")                        # doctest: +SKIP
    Answer(label='Ankle boot', probability=0.98, ...)
    """

    def __init__(self, artifact: Artifact, policy: AnswerPolicy | None = None, decode: Decode = decode) -> None:
        self._artifact, self._decode = artifact, decode
        self.metadata, self.sha256, self.fingerprint = artifact.metadata, artifact.sha256, artifact.fingerprint
        self.class_names, self.spec = self.metadata.class_names, self.metadata.image
        self.policy = policy or AnswerPolicy()
        none = "this model file was exported without guarantees; train a new model to get them"
        self.guarantees = self.metadata.guarantees or Guarantees.none(len(self.class_names), none)

    def __reduce__(self) -> tuple[Any, ...]:  # the model file's bytes travel, and are opened again
        return Predictor, (self._artifact, self.policy, self._decode)

    def with_policy(self, policy: AnswerPolicy) -> "Predictor":
        """The same model with another policy."""
        return Predictor(self._artifact, policy, self._decode)

    def with_limits(self) -> "Predictor":
        """The same model for pictures from strangers: no file may take much time or memory (see `limited.py`)."""
        return Predictor(self._artifact, self.policy, decode_limited)

    @property
    def can_abstain(self) -> bool:
        """Whether answers say if they are sure under the policy."""
        return self.guarantees.held_out > 0

    @property
    def deciding(self) -> list[str]:
        """The outputs that `Guarantees.decide` needs."""
        return [OUTPUT, "uncalibrated", *(["ood_score"] if self.guarantees.has_ood_score else [])]

    def has_output(self, output: str) -> bool:
        """Whether the file has this output (see `artifact.EXTRA_OUTPUTS`)."""
        return self._artifact.has_output(output)

    def __call__(self, picture: Picture, top: int = 3) -> Answer:
        """Answer for one picture: a path, an open file, bytes, a PIL image or an array without a batch axis.

        Pixels of more than 8 bits are read on the scale of the training images.

        Args:
            top: number of classes in `Answer.top`, at least 1.

        Raises:
            PictureError: the picture cannot be read or is not one picture.
        """
        return self.many([picture], top)[0]

    def many(self, pictures: Iterable[Picture], top: int = 3) -> list[Answer]:
        """Answers in the order of the pictures, which may differ in size and form; arguments and errors as for one."""
        if top < 1:
            raise UsageError(f"top must be at least 1, got {top}", "it is the number of classes to show")
        return [answer for batch in self._batches(pictures) for answer in self._answers(batch, top)]

    def _batches(self, pictures: Iterable[Picture]) -> Iterator[list[Decoded]]:
        """The decoded pictures, as many at a time as memory should hold."""
        batch: list[Decoded] = []
        for picture in pictures:
            batch.append(self._decode(picture, self.spec))
            if sum(pixels.nbytes for pixels, _ in batch) >= _BATCH_BYTES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _answers(self, decoded: list[Decoded], top: int) -> list[Answer]:
        outputs = self._rows([pixels for pixels, _ in decoded], self.deciding)
        verdicts = self.guarantees.decide(outputs, self.policy)
        why_not = self.guarantees.why_not(self.policy)
        limits = [why_not] if why_not else []
        return [
            self._answer(outputs[OUTPUT], verdicts, position, (*notes, *self._size_notes(pixels), *limits), top)
            for position, (pixels, notes) in enumerate(decoded)
        ]

    def probabilities(self, images: object) -> NDArray[np.float32]:
        """(N, K) float32 for an array of images (N, H, W) or (N, H, W, 3) uint8 of any size.

        Raises:
            PictureError: wrong shape or type.
        """
        return self.outputs(images, OUTPUT)[OUTPUT]

    def outputs(self, images: object, *names: str) -> dict[str, NDArray[np.float32]]:
        """Outputs of the file by name, N rows each: `artifact.OUTPUT`, `artifact.PIXELS` and `artifact.EXTRA_OUTPUTS`.

        Raises:
            PictureError: wrong shape or type.
            UsageError: the file has no such output.
        """
        missing = [name for name in names if name not in (OUTPUT, PIXELS) and not self.has_output(name)]
        if missing:
            raise UsageError(
                f"this model file has no output {' or '.join(missing)}",
                "; ".join(self.guarantees.limitations) or "train a new model to get it",
            )
        checked = check_images(images, spec=self.spec)
        if len(checked) and checked.shape[3:] != self.spec.shape[2:]:
            checked = np.stack([decode(image, self.spec)[0] for image in checked])
        return self._artifact.outputs(checked, *names)

    def _rows(self, images: list[NDArray[np.uint8]], names: list[str]) -> dict[str, NDArray[np.float32]]:
        """Outputs for images of different sizes; the model runs once for each size."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(position)
        outputs: dict[str, NDArray[np.float32]] = {}
        for positions in by_shape.values():
            same_size: Images = np.stack([images[position] for position in positions])
            for name, rows in self._artifact.outputs(same_size, *names).items():
                outputs.setdefault(name, np.empty((len(images), *rows.shape[1:]), np.float32))[positions] = rows
        return outputs

    def _answer(
        self, rows: NDArray[np.float32], verdicts: Verdicts, position: int, warnings: tuple[str, ...], top: int
    ) -> Answer:
        row = rows[position]
        order = np.argsort(-row, kind="stable")
        ranked = tuple((self.class_names[index], float(row[index])) for index in order[:top])
        is_ood = None if verdicts.is_ood is None else bool(verdicts.is_ood[position])
        in_set = None if verdicts.in_set is None or is_ood else verdicts.in_set[position]
        labels = None if in_set is None else tuple(self.class_names[index] for index in order if in_set[index])
        return Answer(
            label=ranked[0][0],
            probability=ranked[0][1],
            top=ranked,
            warnings=warnings,
            model=self.fingerprint,
            prediction_set=labels,
            coverage=None if labels is None else self.policy.coverage,
            ood_score=None if verdicts.ood_score is None else float(verdicts.ood_score[position]),
            is_ood=is_ood,
            sure=False if is_ood else None if verdicts.sure is None else bool(verdicts.sure[position]),
        )

    def _size_notes(self, pixels: NDArray[np.uint8]) -> list[str]:
        height, width = pixels.shape[:2]
        if (height, width) == (self.spec.height, self.spec.width):
            return []
        note = f"resized from {width}x{height} to {self.spec.width}x{self.spec.height}"
        change = width * self.spec.height / (height * self.spec.width)
        least = 1.1 if self.spec.fit == "squash" else 1.02  # what is worth a warning; what leaves a margin
        done = {
            "squash": "which changes its proportions",
            "pad": "its proportions kept, the rest filled",
            "crop": "its proportions kept, its edges cut off",
        }
        return [f"{note}, {done[self.spec.fit]}" if max(change, 1 / change) > least else note]


def load(
    source: str | Path | bytes,
    coverage: float = COVERAGE,
    ood_false_positive_rate: float = OOD_FALSE_POSITIVE_RATE,
    cost: float | None = None,
    target_accuracy: float | None = None,
    set_method: str = "threshold",
    threads: int | None = None,
) -> Predictor:
    """A `Predictor` from a `model.onnx`, its bytes, or the run folder that holds one.

    Args:
        coverage: target share of prediction sets that contain the true label, above 0 and below 1.
        ood_false_positive_rate: share of in-distribution images that may be flagged as OOD, above 0 and below 1.
        cost: cost of a wrong answer relative to abstaining, above 1; it then decides which answers are sure.
        target_accuracy: accuracy required of sure answers, one of `guarantees.TARGET_ACCURACIES`; it then decides
            which answers are sure.
        set_method: how prediction sets are made, one of `conformal.METHODS`.
        threads: how many threads an answer may use; None: one per core.

    Raises:
        UsageError: a value is out of range.
        RunError, ArtifactError: the model is missing, damaged, or not made by hangtag.
    """
    return Predictor(
        open_artifact(source, threads),
        AnswerPolicy(coverage, set_method, ood_false_positive_rate, cost, target_accuracy),
    )

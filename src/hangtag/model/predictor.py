"""`Predictor`: picture in, `Answer` out, on ONNX Runtime.

It never imports torch, training or data code; `pictures.py` decodes, and everything after that is in the model file.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import compress
from numbers import Integral
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import PictureError, UnknownName, UsageError, warn
from hangtag.limited import decode_limited
from hangtag.model.artifact import EXTRA_OUTPUTS, OUTPUT, PIXELS, Artifact, open_artifact
from hangtag.model.doctor import NOTHING, Doctor, Proposal, Repair
from hangtag.model.guarantees import COVERAGE, OOD_FALSE_POSITIVE_RATE, AnswerPolicy, Guarantees, Verdicts
from hangtag.pictures import (
    RESIZED,
    ROTATED,
    Images,
    ImageSpec,
    Picture,
    check_images,
    decode,
    decode_noting_size,
    is_one_picture,
    many_images,
    stacked,
)
from hangtag.words import amount, first_few, in_percent

__all__ = ["LOGITS", "SURE_AFTER", "Answer", "Pictures", "Predictor", "Prepared", "load", "load_for_many"]

LOGITS = "logits"
"""The name of an output of `Predictor.outputs` that no file has: logarithms of the uncalibrated probabilities."""

SURE_AFTER = 0.5
"""The OOD score up to which a repaired picture can have a sure answer: repairs flatter strange pictures."""

Pictures: TypeAlias = "NDArray[Any] | Iterable[Picture]"
"""Several pictures: an array (N, H, W) or (N, H, W, 3), or any iterable of pictures of any sizes and forms."""

_BATCH_BYTES, _BATCH_PICTURES = 32_000_000, 10_000  # decoded pictures that are answered together
_NAMES = (OUTPUT, PIXELS, LOGITS, *EXTRA_OUTPUTS)
_SCORES = ("ood_score", "ood_distance")
_NAMED = 5  # pictures that a warning names
_THUMBNAIL = 256  # pixels of the longer side of the picture that an answer keeps
_SUSPECT = 0.5  # OOD score above which the doctor looks at a picture
_GAIN = 1.0  # standard deviations of the OOD distance by which a repaired picture must be more familiar
_ABOUT = 0.1  # and by which more repairs must be better than fewer
Decoded = tuple[NDArray[np.uint8], tuple[str, ...]]
"""A picture's pixels, and notes on what was changed."""
Decode = Callable[[Picture, ImageSpec], Decoded]


@dataclass(frozen=True)
class Answer:
    """The model's answer for one picture. A value the model cannot give (see `Guarantees.limitations`) is None.

    Attributes:
        label: the most probable class; None if the picture could not be read.
        probability: its calibrated probability, 0 to 1; None if the picture could not be read.
        top: the most probable classes with their probabilities, most probable first.
        warnings: changes made to the picture before the model saw it, and limits of the answer.
        repairs: what the doctor repaired (see `doctor.py`), in this order; the answer is about the repaired picture.
        model: fingerprint of the model file.
        prediction_set: labels that may be the true one, most probable first; None if `is_ood`.
        coverage: target share of prediction sets that contain the true label; None if `is_ood` or after repairs, as
            nothing is promised.
        ood_score: share of images like the training images with a lower OOD score, estimated on the safe side.
        is_ood: whether the picture is unlike the training images, so that the answer may be unreliable.
        sure: whether the answer can be used without review (see `guarantees.AnswerPolicy`). After repairs, the picture
            must also be as familiar as half of the held-out images.
        error: why the picture could not be read, as the answers of `Predictor.many` say; None if it was read.
        picture: (h, w[, 3]) uint8, the picture made smaller, as the answer of `Predictor(picture)` shows it in a
            notebook; None in other answers.
        seen: (H, W[, 3]) uint8, what the model saw of it, after any repairs; None in other answers.
    """

    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]
    model: str
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    ood_score: float | None = None
    is_ood: bool | None = None
    sure: bool | None = None
    error: str | None = None
    repairs: tuple[Repair, ...] = ()
    picture: NDArray[np.uint8] | None = field(default=None, compare=False)
    seen: NDArray[np.uint8] | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """All fields by name; `top` as a list of objects with `label` and `probability`, `error` only if there is one.

        Pixels are left out.
        """
        left_out = {"picture", "seen", *(() if self.error is not None else ("error",))}
        return {
            **{name: value for name, value in vars(self).items() if name not in left_out},
            "top": [{"label": label, "probability": share} for label, share in self.top],
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "warnings": list(self.warnings),
            "repairs": [vars(repair) for repair in self.repairs],
        }

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.1%}" if self.probability is not None else str(self.error)

    def __repr__(self) -> str:
        if self.probability is None:
            return f"<Answer: no label, {self.error}>"
        return f"<Answer: {', '.join([f'{self.label} {in_percent(self.probability)}', *self._verdict()])}>"

    def _verdict(self) -> list[str]:
        """Whether the answer is sure, in words; empty if the model cannot tell."""
        if self.is_ood:
            return ["not sure: unlike the training images"]
        return [] if self.sure is None else ["sure" if self.sure else "not sure"]

    def _repr_html_(self) -> str:
        from hangtag.html import render, thumbnail

        shown = None if self.picture is None else thumbnail(self.picture, 160)
        seen = thumbnail(self.seen, 160) if self.seen is not None and self.repairs else None
        bars = [(label, share, in_percent(share)) for label, share in self.top]
        return render(
            "notebook_answer.html",
            {"answer": self, "picture": shown, "seen": seen, "bars": bars, "verdict": self._verdict()},
        )


@dataclass(eq=False)
class Prepared:
    """A decoded picture, the question about it, and what the doctor does with it.

    Attributes:
        pixels: as the model takes it.
        notes: what decoding changed.
        picture: where it came from, if the doctor may look at it; else None.
        policy: how cautious its answer is.
        top: number of classes in its answer.
        is_shown: whether its answer has `picture` and `seen`.
        is_blank: whether nothing stands out in it.
        warnings: what cannot be repaired.
        repaired: what the model saw instead; None if nothing was repaired.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]
    picture: "Picture | None"
    policy: AnswerPolicy
    top: int = 3
    is_shown: bool = False
    is_blank: bool = False
    warnings: list[str] = field(default_factory=list)
    repaired: Proposal | None = None


class Predictor:
    """A model file that is ready to answer.

    Attributes:
        metadata: what the file says about itself; `class_names` and `spec` are its classes and image size.
        sha256, fingerprint: the file's SHA-256 in hex, and its first 12 digits.
        policy: how cautious answers are.
        guarantees: what the file guarantees about its answers.
        doctor: whether pictures unlike the training images are repaired (see `doctor.py`): None: all but arrays, as an
            array was prepared by a program; True: all, but not an array of many images; False: none.

    >>> tag = load("runs/clothes/model.onnx")  # doctest: +SKIP
    >>> tag("shoe.png")                        # doctest: +SKIP
    <Answer: Ankle boot 98%, sure>
    >>> tag.predict(["shoe.png", "coat.jpg"])  # doctest: +SKIP
    array(['Ankle boot', 'Coat'], dtype=object)
    """

    def __init__(
        self,
        artifact: Artifact,
        policy: AnswerPolicy | None = None,
        decode_picture: Decode | None = None,
        doctor: bool | None = None,
    ) -> None:
        self._artifact, self._decode, self.doctor = artifact, decode_picture or decode_noting_size, doctor
        self.metadata, self.sha256, self.fingerprint = artifact.metadata, artifact.sha256, artifact.fingerprint
        self.class_names, self.spec = self.metadata.class_names, self.metadata.image
        self.policy = policy or AnswerPolicy()
        none = "this model file was exported without guarantees; train a new model to get them"
        self.guarantees = self.metadata.guarantees or Guarantees.none(len(self.class_names), none)

    def __reduce__(self) -> tuple[Any, ...]:  # the model file's bytes travel, and are opened again
        return Predictor, (self._artifact, self.policy, self._decode, self.doctor)

    def __repr__(self) -> str:
        name = self.metadata.data.get("name", "unnamed data")
        classes = first_few(self.class_names)
        return f"<Predictor {self.fingerprint}: {len(self.class_names)} classes ({classes}), {self.spec}, from {name}>"

    def with_policy(self, policy: AnswerPolicy) -> "Predictor":
        """The same model with another policy."""
        return Predictor(self._artifact, policy, self._decode, self.doctor)

    def with_doctor(self, doctor: bool | None) -> "Predictor":
        """The same model with or without repairs; see `doctor`."""
        return Predictor(self._artifact, self.policy, self._decode, doctor)

    def with_limits(self) -> "Predictor":
        """The same model for pictures from strangers: no file may take much time or memory (see `limited.py`)."""
        return Predictor(self._artifact, self.policy, decode_limited, self.doctor)

    def with_decoder(self, decode_picture: Decode) -> "Predictor":
        """The same model with another function that decodes pictures, as `pictures.decode_noting_size` does."""
        return Predictor(self._artifact, self.policy, decode_picture, self.doctor)

    @property
    def device(self) -> str:
        """Where the network computes: "cpu" or "cuda"."""
        return self._artifact.device

    @property
    def content(self) -> bytes:
        """The bytes of the model file."""
        return self._artifact.content

    @property
    def can_abstain(self) -> bool:
        """Whether answers say if they are sure under the policy."""
        return self.guarantees.held_out > 0

    @property
    def deciding(self) -> list[str]:
        """The outputs that `Guarantees.decide` needs."""
        names = [OUTPUT, "uncalibrated", *(["ood_score"] if self.guarantees.has_ood_score else [])]
        return [*names, *(["fold_uncalibrated"] if self.guarantees.needs_folds else [])]

    def has_output(self, output: str) -> bool:
        """Whether the file has this output (see `artifact.EXTRA_OUTPUTS`)."""
        return self._artifact.has_output(output)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The outputs of the file, and the shape of each for one image."""
        return self._artifact.output_shapes

    def __call__(self, picture: Picture, top: int = 3) -> Answer:
        """Answer for one picture: a path, an open file, bytes, a PIL image or an array without a batch axis.

        Pixels of more than 8 bits are read on the scale of the training images.

        Args:
            top: number of classes in `Answer.top`, at least 1.

        Raises:
            PictureError: the picture cannot be read or is not one picture.
        """
        _check_top(top)
        (answer,) = self.together([self.prepare(_image_of(picture), top, is_shown=True)])
        return answer

    def before_and_after(self, picture: Picture, top: int = 3) -> tuple[Answer, Answer]:
        """Answers for one picture without and with repairs; without repairs, both are the same. As for a call."""
        _check_top(top)
        prepared = self.prepare(_image_of(picture), top, is_shown=True)
        as_is = replace(prepared, picture=None)
        (after,) = self.together([prepared])
        return (self.together([as_is])[0] if after.repairs else after), after

    def many(self, pictures: Pictures, top: int = 3) -> list[Answer]:
        """Answers in the order of the pictures, which may differ in size and form.

        A picture that cannot be read has an answer too: its `label` is None, and its `error` says why. Only some
        pictures are in memory at a time.

        Args:
            pictures: an array (N, H, W) or (N, H, W, 3), or any iterable of paths, bytes, open files, PIL images and
                arrays of any sizes.
            top: number of classes in `Answer.top`, at least 1.

        Raises:
            UsageError, PictureError: `top` is out of range, or `pictures` is one picture.
        """
        _check_top(top)
        answers: list[Answer] = []
        for batch in self._batches(pictures, top):
            read = iter(self.together([each for each in batch if not isinstance(each, PictureError)]))
            answers += [self._no_answer(each) if isinstance(each, PictureError) else next(read) for each in batch]
        return answers

    def predict(self, pictures: Pictures) -> NDArray[np.object_]:
        """(N,) labels, the most probable class of each picture; None for a picture that cannot be read.

        A `HangtagWarning` names pictures that cannot be read. Arguments and errors as for `outputs`.
        """
        rows = self._named(pictures, (OUTPUT,))[OUTPUT]
        names = np.array([*self.class_names, None], object)
        read = np.isfinite(rows[:, 0])
        return names[np.where(read, np.where(read[:, None], rows, 0).argmax(axis=1), len(names) - 1)]

    def predict_proba(self, pictures: Pictures) -> NDArray[np.float32]:
        """(N, K) calibrated probabilities, columns in the order of `class_names`; NaN if a picture cannot be read.

        A `HangtagWarning` names pictures that cannot be read. Arguments and errors as for `outputs`.
        """
        return self._named(pictures, (OUTPUT,))[OUTPUT]

    def prepare(
        self,
        picture: Picture,
        top: int = 3,
        policy: AnswerPolicy | None = None,
        doctor: bool | None = None,
        is_shown: bool = False,
    ) -> Prepared:
        """The decoded picture, for `together`.

        Args:
            top: number of classes in its answer, at least 1.
            policy, doctor: other than the predictor's own.
            is_shown: whether the answer has `picture` and `seen`.

        Raises:
            PictureError: the picture cannot be read or is not one picture.
        """
        pixels, notes = self._decode(picture, self.spec)
        doctor = self.doctor if doctor is None else doctor
        wanted = is_one_picture(picture) if doctor is None else doctor
        return Prepared(pixels, notes, picture if wanted else None, policy or self.policy, top, is_shown)

    def together(self, pictures: list[Prepared]) -> list[Answer]:
        """The answers that `Predictor(picture)` gives, for pictures of any sizes, each with its own `top` and policy.

        Raises:
            ArtifactError: the graph fails, for example because it needs too much memory.
        """
        return self._together(pictures, None)

    def postponing_repairs(self, pictures: list[Prepared]) -> list[Answer | None]:
        """As `together`, but None for pictures that the doctor would try to repair, which takes several times as long.

        If more than half of the pictures need it, none is postponed.
        """
        left: list[int] = []
        answers: list[Answer | None] = [*self._together(pictures, left)]
        for place in left:
            answers[place] = None
        return answers

    def _together(self, pictures: list[Prepared], left: list[int] | None) -> list[Answer]:
        """As `together`; with `left`, a few pictures to repair are not repaired, and their places are added to it."""
        shown = any(each.is_shown for each in pictures)
        outputs = self._examined(pictures, [*self.deciding, PIXELS] if shown else self.deciding, left)
        places: dict[AnswerPolicy, list[int]] = {}
        for place, each in enumerate(pictures):
            places.setdefault(each.policy, []).append(place)
        if len(places) == 1:
            return self._answers(pictures, outputs, pictures[0].policy)
        answers: list[Any] = [None] * len(pictures)
        for policy, rows in places.items():
            some = {name: values[rows] for name, values in outputs.items()}
            for place, answer in zip(rows, self._answers([pictures[row] for row in rows], some, policy), strict=True):
                answers[place] = answer
        return answers

    def _batches(self, pictures: Pictures, top: int = 3) -> Iterator[list[Prepared | PictureError]]:
        """The decoded pictures or what is wrong with them, as many at a time as memory should hold."""
        batch: list[Prepared | PictureError] = []
        size = 0
        for picture in _several(pictures, self.spec):
            try:
                batch.append(prepared := self.prepare(_image_of(picture), top))
                size += prepared.pixels.nbytes
            except PictureError as error:
                batch.append(error)
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_PICTURES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _no_answer(self, error: PictureError) -> Answer:
        return Answer(None, None, (), (), self.fingerprint, error=error.message)

    def _answers(
        self, patients: list[Prepared], outputs: dict[str, NDArray[np.float32]], policy: AnswerPolicy
    ) -> list[Answer]:
        verdicts = self.guarantees.decide(outputs, policy)
        order = np.argsort(-outputs[OUTPUT], axis=1, kind="stable")
        why_not = self.guarantees.why_not(policy)
        limits = [why_not] if why_not else []
        answers = []
        for place, patient in enumerate(patients):
            repairs: tuple[Repair, ...] = ()
            notes = [*patient.notes]
            if patient.picture is not None and ROTATED in notes:
                notes.remove(ROTATED)
                repairs = (Repair("rotated", "its Exif data says how it was held"),)
            if patient.repaired:
                repairs += patient.repaired.repairs
                notes = [note for note in notes if not note.startswith(RESIZED)]
            else:
                notes += [*([NOTHING] if patient.is_blank else []), *patient.warnings]
            answer = self._answer(outputs[OUTPUT][place], order[place], verdicts, place, (*notes, *limits), patient)
            if patient.is_blank or patient.warnings or patient.repaired:  # nothing is promised for these
                familiar = patient.repaired is not None and float(outputs["ood_score"][place]) <= SURE_AFTER
                answer = replace(answer, coverage=None, sure=answer.sure and familiar)
            if repairs:
                answer = replace(answer, repairs=repairs)
            answers.append(_shown(answer, patient, outputs[PIXELS][place]) if patient.is_shown else answer)
        return answers

    def _examined(
        self, patients: list[Prepared], names: list[str], left: list[int] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The outputs of these names for pictures, or for what the doctor made of them; `left` as in `_together`."""
        appearance, images = self.metadata.appearance, [patient.pixels for patient in patients]
        asked = [place for place, patient in enumerate(patients) if patient.picture is not None]
        if not asked or appearance is None or not self.has_output("ood_distance"):
            return self._rows(images, names)
        doctor = Doctor(self.spec, appearance)
        outputs = self._rows(images, list(dict.fromkeys([*names, *_SCORES])))
        for places, same_size in _by_shape([images[place] for place in asked]):
            warnings_of_all = doctor.warnings(*same_size.shape[1:3])
            for place, is_blank in zip(places, doctor.is_blank(same_size).tolist(), strict=True):
                patients[asked[place]].is_blank, patients[asked[place]].warnings = is_blank, warnings_of_all
        strange = [place for place in asked if outputs["ood_score"][place] > _SUSPECT and not patients[place].is_blank]
        to_repair = [*compress(strange, doctor.is_off([images[place] for place in strange]))]
        if left is not None and 2 * len(to_repair) <= len(patients):
            left += to_repair
            to_repair = []
        for place in to_repair:
            patient = patients[place]
            proposals = doctor.proposals(self._in_colour(patient))
            patient.is_blank = proposals is None
            if proposals:
                rows = self._rows([proposal.pixels for proposal in proposals], list(outputs))
                before, after = outputs["ood_distance"][place], rows["ood_distance"]
                best = int(np.flatnonzero(after <= after.min() + _ABOUT)[0])
                if after[best] < before - _GAIN:
                    scores = float(outputs["ood_score"][place]), float(rows["ood_score"][best])
                    patient.repaired = proposals[best].scored(*scores)
                    for name, values in rows.items():
                        outputs[name][place] = values[best]
        return {name: outputs[name] for name in names}

    def _in_colour(self, patient: Prepared) -> NDArray[np.uint8]:
        """The picture in its own colours, if it can be decoded once more."""
        if self.spec.channels == 3 or patient.pixels.ndim == 3 or patient.picture is None:
            return patient.pixels
        try:
            pixels = self._decode(patient.picture, replace(self.spec, channels=3))[0]
        except PictureError:  # a pipe, which was read
            return patient.pixels
        return pixels if pixels.shape[:2] == patient.pixels.shape[:2] else patient.pixels

    def probabilities(self, images: object) -> NDArray[np.float32]:
        """(N, K) float32 for an array of images (N, H, W) or (N, H, W, 3) of one size; `predict_proba` takes any.

        Raises:
            PictureError: wrong shape or type, or an image with NaN or infinite pixels.
        """
        return self._artifact.outputs(self._checked(images), OUTPUT)[OUTPUT]

    def outputs(self, pictures: Pictures, *names: str) -> dict[str, NDArray[np.float32]]:
        """Outputs of the model by name, N rows each; the row of a picture that cannot be read is NaN.

        A `HangtagWarning` names pictures that cannot be read. Only some pictures are in memory at a time.

        Args:
            pictures: an array (N, H, W) or (N, H, W, 3), or any iterable of paths, bytes, open files, PIL images and
                arrays of any sizes.
            names: `artifact.OUTPUT`, `artifact.PIXELS`, a key of `artifact.EXTRA_OUTPUTS`, or "logits": (N, K) natural
                logarithms of the probabilities before calibration, which are the network's logits up to a constant of
                each row.

        Raises:
            PictureError: an array of the wrong shape or type, or of one picture.
            UsageError: the file has no such output, or `pictures` is one picture in another form.
        """
        return self._named(pictures, names)

    def _named(self, pictures: Pictures, names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
        """See `outputs`; public methods call this one."""
        in_file = list(dict.fromkeys("uncalibrated" if name == LOGITS else str(name) for name in names))
        if not names:
            raise UsageError("no output was named", f"name some of {', '.join(_NAMES)}")
        self._check_names(in_file)
        parts: list[dict[str, NDArray[np.float32]]] = []
        problems: list[str] = []
        images = _as_array(pictures, self.spec)
        if images is not None:
            bad = _not_finite(images)
            problems = [f"image {position}: NaN or infinite pixels" for position in np.flatnonzero(bad).tolist()]
            checked = self._checked(images[~bad] if problems else images)
            parts.append(_with_gaps(self._artifact.outputs(checked, *in_file), bad))
        else:
            for batch in self._batches(pictures):
                bad = np.array([isinstance(each, PictureError) for each in batch])
                problems += [each.message for each in batch if isinstance(each, PictureError)]
                read = [each for each in batch if not isinstance(each, PictureError)]
                parts.append(_with_gaps(self._examined(read, in_file), bad))
        count = sum(len(next(iter(part.values()), ())) for part in parts)
        if problems:
            what = f"{amount(len(problems), 'picture')} of {count:,} cannot be read"
            some = "; ".join([*problems[:_NAMED], *(["..."] if len(problems) > _NAMED else [])])
            warn(f"{what}: {some}")
        parts = parts or [self._rows([], in_file)]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in in_file}
        if LOGITS in names:
            rows[LOGITS] = np.log(np.maximum(rows["uncalibrated"], np.finfo(np.float32).tiny))
        return {name: rows[name] for name in names}

    def _check_names(self, names: list[str]) -> None:
        for name in names:
            if name not in (OUTPUT, PIXELS) and name not in EXTRA_OUTPUTS:
                raise UnknownName.among("output", str(name), _NAMES)
        missing = [name for name in names if name not in (OUTPUT, PIXELS) and not self.has_output(name)]
        if missing:
            raise UsageError(
                f"this model file has no output {' or '.join(missing)}",
                "; ".join(self.guarantees.limitations) or "train a new model to get it",
            )

    def _checked(self, images: object) -> Images:
        """Images of one size as the model takes them."""
        checked = check_images(images, spec=self.spec)
        if len(checked) and checked.shape[3:] != self.spec.shape[2:]:
            checked = np.stack([decode(image, self.spec)[0] for image in checked])
        return checked

    def _rows(self, images: list[NDArray[np.uint8]], names: list[str]) -> dict[str, NDArray[np.float32]]:
        """Outputs for images of different sizes; the model runs once for each size, unless it sizes them before."""
        if images and self._artifact.fills_up:
            return self._artifact.outputs(self._artifact.sized(images), *names)
        outputs: dict[str, NDArray[np.float32]] = {}
        for places, same_size in _by_shape(images) if images else [([], np.empty((0, *self.spec.shape), np.uint8))]:
            found = self._artifact.outputs(same_size, *names)
            if len(places) == len(images):
                return found
            for name, rows in found.items():
                outputs.setdefault(name, np.empty((len(images), *rows.shape[1:]), np.float32))[places] = rows
        return outputs

    def _answer(
        self, row: NDArray[np.float32], order: NDArray[np.int64], verdicts: Verdicts, position: int,
        warnings: tuple[str, ...], picture: Prepared,
    ) -> Answer:  # fmt: skip
        names, best = self.class_names, order[: picture.top]
        ranked = tuple([(names[index], share) for index, share in zip(best.tolist(), row[best].tolist(), strict=True)])
        is_ood = None if verdicts.is_ood is None else bool(verdicts.is_ood[position])
        in_set = None if verdicts.in_set is None or is_ood else verdicts.in_set[position]
        labels = None if in_set is None else tuple([names[index] for index in order[in_set[order]].tolist()])
        return Answer(
            label=ranked[0][0],
            probability=ranked[0][1],
            top=ranked,
            warnings=warnings,
            model=self.fingerprint,
            prediction_set=labels,
            coverage=None if labels is None else picture.policy.coverage,
            ood_score=None if verdicts.ood_score is None else float(verdicts.ood_score[position]),
            is_ood=is_ood,
            sure=False if is_ood else None if verdicts.sure is None else bool(verdicts.sure[position]),
        )


def _shown(answer: Answer, prepared: Prepared, pixels: NDArray[np.float32]) -> Answer:
    """The answer with the picture made smaller, and what the model saw of it: `pixels` (C, H, W) from 0 to 1."""
    step = -(-max(prepared.pixels.shape[:2]) // _THUMBNAIL)
    planes = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    seen = planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
    return replace(answer, picture=prepared.pixels[::step, ::step].copy(), seen=seen)


def _check_top(top: object) -> None:
    if not isinstance(top, Integral) or int(top) < 1:
        raise UsageError(f"top must be at least 1, got {top!r}", "it is the number of classes to show")


def _by_shape(images: list[NDArray[np.uint8]]) -> Iterator[tuple[list[int], Images]]:
    """The images of each shape together, and their places."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(place)
    for places in by_shape.values():
        yield places, np.stack([images[place] for place in places]) if len(places) > 1 else images[places[0]][None]


def _image_of(picture: Any) -> Any:
    """The image of a `LabelledImage`; any other picture as it is."""
    return getattr(picture, "image", picture) if isinstance(picture, tuple) else picture


def _several(pictures: Pictures, spec: ImageSpec) -> Iterable[Picture]:
    """The pictures one by one; raises UsageError or PictureError if it is one picture."""
    pictures = getattr(pictures, "images", pictures)  # of a `LabelledImages`
    if is_one_picture(pictures) or _image_of(pictures) is not pictures:
        raise UsageError("expected several pictures, got one", "put it into a list: [picture]; or call model(picture)")
    if not isinstance(pictures, Iterable):
        raise UsageError(
            f"expected several pictures, got an object of the type {type(pictures).__name__}",
            "pass an array of images, or a list of paths, bytes, files, arrays or PIL images",
        )
    return cast(Pictures, many_images(pictures, width=spec.width))


def _as_array(pictures: Pictures, spec: ImageSpec) -> NDArray[Any] | None:
    """Images of one size as an array of numbers; None for all other pictures."""
    given = _several(pictures, spec)
    if isinstance(given, (list, tuple, Iterator)) or not hasattr(given, "__array__"):
        return None
    array = np.asarray(given)
    if array.ndim == 1 and array.dtype.kind in "OSUT":  # paths, or arrays of several sizes
        return None
    return stacked(array)


def _not_finite(images: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether an image has a pixel that is NaN or infinite."""
    if images.dtype.kind != "f":
        return np.zeros(len(images), bool)
    finite: NDArray[np.bool_] = np.isfinite(images).reshape(len(images), math.prod(images.shape[1:])).all(axis=1)
    return ~finite


def _with_gaps(rows: dict[str, NDArray[np.float32]], bad: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """The rows with rows of NaN at the places of pictures that cannot be read."""
    if not bad.any():
        return rows
    filled = {name: np.full((len(bad), *row.shape[1:]), np.nan, np.float32) for name, row in rows.items()}
    for name, row in rows.items():
        filled[name][~bad] = row
    return filled


def load(
    source: str | os.PathLike[str] | bytes,
    coverage: float = COVERAGE,
    ood_false_positive_rate: float = OOD_FALSE_POSITIVE_RATE,
    cost: float | None = None,
    target_accuracy: float | None = None,
    set_method: str = "threshold",
    threads: int | None = None,
    doctor: bool | None = None,
    device: str = "cpu",
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
        doctor: whether pictures unlike the training images are repaired; see `Predictor`.
        device: "cpu", or "cuda" for an NVIDIA GPU, which needs the package onnxruntime-gpu. The last digits of
            probabilities differ between devices.

    Raises:
        UsageError: a value is out of range, or the device cannot be used.
        GpuError: the GPU fails, or has no memory left.
        RunError, ArtifactError: the model is missing, damaged, or not made by hangtag.
    """
    return Predictor(
        open_artifact(source, threads, device=device),
        AnswerPolicy(coverage, set_method, ood_false_positive_rate, cost, target_accuracy),
        doctor=doctor,
    )


def load_for_many(source: str | os.PathLike[str] | bytes) -> Predictor:
    """A `Predictor` like that of `load` for thousands of images: its threads do not spin between calls."""
    return Predictor(open_artifact(source, spins=False))

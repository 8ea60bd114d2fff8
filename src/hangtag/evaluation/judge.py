"""Judging a model file on images it was not trained on: at the end of training, and later on request.

What reads files of other forms, and what divides data, is imported where it is needed: a run on a public set needs
neither.
"""

import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hangtag.data.class_names import look_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public.datasets import NAMED, read_public
from hangtag.errors import DataError, RunError, SaveError, UsageError
from hangtag.evaluation import metrics
from hangtag.evaluation.cross_validation import PART, CrossValidation, read_cross_validation
from hangtag.evaluation.guarantee_report import GuaranteeReport, measure_guarantees
from hangtag.evaluation.metrics import Evaluation, Share, Strangers
from hangtag.evaluation.run_folder import Run, find_run
from hangtag.files import user_path
from hangtag.machine import now
from hangtag.model.artifact import OUTPUT
from hangtag.model.predictor import Predictor, load_for_many
from hangtag.words import first_few

__all__ = [
    "Fitted", "Judgement", "Model", "data_before_decisions", "evaluate", "is_cross_validated", "judge", "judge_own",
    "judged_part", "opened", "read_again", "read_same",
]  # fmt: skip

_FEW_REPEATED = 0.02  # the share of repeated images up to which intervals are as good as right


@dataclass(frozen=True, eq=False)
class Judgement:
    """An evaluation and what it was made from.

    Attributes:
        part: "test"; "validation", which also set the thresholds; "cross-validation", training images that were held
            out in one fold each, which also set them; or "given", other data without a test part.
        data: the N images judged, with the model's classes.
        outputs: (N, ...) float32 each, of the model file: `OUTPUT`, and "uncalibrated" and "ood_score" if it has them.
        evaluation: accuracy, loss and numbers per class.
        guarantees: how the model's guarantees held.
        before_decisions: the evaluation on the test part before a person's decisions about it; None without decisions.
        notes: how class names were matched, and whether images are repeated, in sentences.
        folds: (N,) the fold that held each image out of the training; None if the model was not trained on the images.
    """

    part: str
    data: LabelledImages
    outputs: dict[str, NDArray[np.float32]]
    evaluation: Evaluation
    guarantees: GuaranteeReport
    before_decisions: Evaluation | None = None
    notes: tuple[str, ...] = ()
    folds: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls, model: Predictor, part: str, data: LabelledImages, accuracy: float | None, before: LabelledImages | None,
        outputs: dict[str, NDArray[np.float32]] | None = None,
    ) -> "Judgement":  # fmt: skip
        """Run the model on `data`, and on the same part before decisions, if any.

        Images of classes that the model does not know are judged apart: `Evaluation.strangers`.

        Args:
            accuracy: accuracy on the training images, if known.
            before: the part before decisions; None without decisions.
            outputs: of the model for `data`; None: they are computed.

        Raises:
            DataError: there are no images, or none of a class that the model knows.
        """
        given = len(data)
        data, unknown, notes = _by_class_name(data, model.class_names)
        strangers = _strangers(model, unknown) if len(unknown) else None
        if given and not len(data):
            used = [unknown.class_names[label] for label in np.unique(unknown.labels)]
            raise DataError(
                f"{unknown.name} has no class that the model knows: its classes are {first_few(used)}; "
                f"the model's are {first_few(model.class_names)}",
                "name data with at least one class of the model",
            )
        outputs, earlier = outputs or model.outputs(data.images, *model.deciding), None
        if before is not None:
            earlier = metrics.evaluate(model.probabilities(before.images), before.labels, before.class_names, accuracy)
        evaluation = metrics.evaluate(outputs[OUTPUT], data.labels, data.class_names, accuracy, strangers)
        guarantees = measure_guarantees(outputs, data.labels, model.guarantees)
        return cls(part, data, outputs, evaluation, guarantees, earlier, (*notes, *_note_repeated(data)))

    @classmethod
    def of_folds(
        cls, model: Predictor, answers: CrossValidation, train: LabelledImages, accuracy: float | None
    ) -> "Judgement":
        """What a cross-validation said about a model that was trained on all images of `train`.

        Raises:
            DataError: there are answers to more images.
        """
        data, rows = answers.images_of(train), answers.outputs
        evaluation = metrics.evaluate(
            rows[OUTPUT], data.labels, data.class_names, accuracy, folds=answers.count, groups=answers.groups
        )
        guarantees = measure_guarantees(rows, data.labels, model.guarantees)
        return cls(PART, data, rows, evaluation, guarantees, folds=answers.folds)

    @property
    def in_words(self) -> str:
        """The evaluation, and what it was made on."""
        return str(self.evaluation) if self.evaluation.folds else f"{self.part} {self.evaluation}"

    def __repr__(self) -> str:
        return f"<Judgement: {self.data.name}, {self.evaluation}>"

    def _repr_html_(self) -> str:
        return metrics.notebook_view(self.evaluation, self.notes)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(N, K) float32."""
        return self.outputs[OUTPUT]

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        facts = {"part": self.part, **self.evaluation.to_json(), "guarantees": self.guarantees.to_json()}
        facts |= {"before_decisions": self.before_decisions.to_json()} if self.before_decisions else {}
        return facts | ({"notes": list(self.notes)} if self.notes else {})


class Fitted(Protocol):
    """A fitted classifier, such as an `ImageClassifier`, which has its opened model."""

    @property
    def predictor_(self) -> Predictor: ...


Model: TypeAlias = "Predictor | Fitted | Run | str | PathLike[str]"
"""A model in any form: opened, a fitted classifier, a run, a run's folder or name ("last"), or a model.onnx."""


def evaluate(model: Model, data: Any = None) -> Judgement:
    """Judge a model on the test part of `data`, or on all of it if it has none; classes are matched by name.

    The data may have fewer classes than the model, or more: images of a class that the model does not know are counted
    apart, in `Judgement.evaluation.strangers`.

    Args:
        model: a model.onnx, a run or its folder or name, an opened model, or a fitted classifier.
        data: a `LabelledImages`, or anything that `read` takes; None: the data that the run was made for, whose test
            part, or else its validation images, judge it. A cross-validated run without a test part was trained on all
            its images; the answers that were given to them while they were held out judge it.

    Raises:
        RunError, ArtifactError: the model cannot be opened.
        DataError: the data has no class that the model knows, or a run's own data changed.
        UsageError: no data is given for a model that is not a run.
    """
    if data is None:
        return judge(_run_of(model))
    from hangtag.data.read import read

    predictor = opened(model)
    images = read(data, **_read_as(data, predictor))
    part, judged = _given_part(images)
    found = Judgement.of(predictor, part, judged, None, None)
    notes = _note_trained_on(predictor, images) if judged is images else []
    return replace(found, notes=(*found.notes, *notes))


def opened(model: Model) -> Predictor:
    """The model, opened.

    Raises:
        RunError, ArtifactError: it cannot be opened.
    """
    if isinstance(model, Predictor):
        return model
    if isinstance(model, (str, PathLike)):
        return load_for_many(model if _is_file(model) else find_run(model))
    return model.predictor_


def _read_as(data: Any, model: Predictor) -> dict[str, Any]:
    """The options that make `read` resize a user's own data for a model; none for public sets and data already read."""
    is_own = not isinstance(data, LabelledImages) and not (isinstance(data, str) and data in NAMED)
    return {"spec": model.spec} if is_own else {}


def _run_of(model: Model) -> Run:
    if isinstance(model, (str, PathLike)) and not _is_file(model):
        return find_run(model)
    raise UsageError("a model alone does not know its data", "pass the data to judge it on, or name a run folder")


def _is_file(model: "str | PathLike[str]") -> bool:
    with suppress(OSError, ValueError):
        return user_path(model).is_file()
    return False


def _given_part(data: LabelledImages) -> tuple[str, LabelledImages]:
    return ("test", data.test) if "test" in data.parts else ("given", data)


def judge(run: Run, data: LabelledImages | None = None) -> Judgement:
    """Judge a run's model file again: on the data it was made for, or on `data` as `evaluate` does.

    Raises:
        RunError, ArtifactError: the folder or its model is incomplete.
        DataError: the data changed since training, or has no class that the model knows.
    """
    return evaluate(run.path, data) if data is not None else judge_own(run, *_open_own(run))


def _open_own(run: Run) -> tuple[LabelledImages, Predictor]:
    """A run's data, as `read_again` gives it, and its model, opened while the images' checksum is computed.

    Raises:
        RunError, ArtifactError: the folder or its model is incomplete.
        DataError: the data changed since training.
    """
    with ThreadPoolExecutor(1) as beside:
        model = beside.submit(load_for_many, run.path)
        data = read_again(run)
    return data, model.result()


def judge_own(run: Run, data: LabelledImages, predictor: Predictor) -> Judgement:
    """Judge a run's model file again, with what is already open: its data, as `read_again` gives it, and its model.

    Raises:
        DataError: the data has other classes than the model.
    """
    is_crossed = is_cross_validated(run, data)
    part, images = (PART, data.train) if is_crossed else judged_part(run, data)
    if images.class_names != predictor.class_names:
        raise DataError(
            f"{images.name} has classes {first_few(images.class_names)}; the model has "
            f"{first_few(predictor.class_names)}",
            "restore the run's model.onnx and config.json, or train again",
        )
    if part == "test":
        _note_opened(run)
    accuracy = None
    with suppress(RunError):  # a run without metrics.json
        accuracy = run.metrics().get("training_accuracy")
    if is_crossed:
        return Judgement.of_folds(predictor, read_cross_validation(run.path, len(images.class_names)), images, accuracy)
    return Judgement.of(predictor, part, images, accuracy, data_before_decisions(run.config(), part))


def _by_class_name(
    data: LabelledImages, class_names: tuple[str, ...]
) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """The images of the model's classes, labelled as the model labels them; all others; and notes on the names.

    A name that the model does not have stands for the one of the model's other classes that differs from it only in
    case, punctuation or Unicode form; a note says so.
    """
    if data.class_names == class_names:
        return data, data.take(slice(0, 0)), ()
    used = {label: data.class_names[label] for label in np.unique(data.labels).tolist()}
    free = [name for name in class_names if name not in used.values()]
    alike: dict[str, list[str]] = {}
    for name in free:
        alike.setdefault(look_of(name), []).append(name)
    index = {name: position for position, name in enumerate(class_names)}
    to_model, notes = np.full(len(data.class_names), -1, np.int64), []
    looks = [look_of(name) for name in used.values() if name not in index]
    for label, name in used.items():
        similar = alike.get(look_of(name), [])
        if name in index:
            to_model[label] = index[name]
        elif len(similar) == 1 and looks.count(look_of(name)) == 1:
            to_model[label] = index[similar[0]]
            notes.append(f"class '{name}' of {data.name} was taken for the model's '{similar[0]}'")
    labels = to_model[data.labels]
    known = data.take(np.flatnonzero(labels >= 0))
    known = replace(known, labels=labels[labels >= 0], class_names=class_names)
    return known, data.take(np.flatnonzero(labels < 0)), tuple(notes)


def _note_trained_on(model: Predictor, data: LabelledImages) -> list[str]:
    """A note if the model was made from exactly these images."""
    if model.metadata.data.get("fingerprint") not in (data.fingerprint, data.train.fingerprint):
        return []
    return [
        "the model was trained on these images, so the numbers say little about new ones; without naming data, a run "
        "is judged on images that were held out"
    ]


def _note_repeated(data: LabelledImages) -> list[str]:
    different = int(np.count_nonzero(np.diff(np.sort(data.contents[:, 0])))) + 1  # a lower bound, found faster
    if len(data) - different > _FEW_REPEATED * len(data):
        different = len(np.unique(data.contents, axis=0))
    if len(data) - different <= _FEW_REPEATED * len(data):
        return []
    return [
        f"only {different:,} of the {len(data):,} images are different, so the numbers are less certain than their "
        "intervals say"
    ]


def _strangers(model: Predictor, data: LabelledImages) -> Strangers:
    verdicts = model.guarantees.decide(model.outputs(data.images, *model.deciding), model.policy)
    counts = zip(data.class_names, data.counts().tolist(), strict=True)
    return Strangers(
        images=len(data),
        classes=tuple((name, count) for name, count in counts if count),
        unfamiliar=None if verdicts.is_ood is None else Share.counted(verdicts.is_ood),
        sure=None if verdicts.sure is None else Share.counted(verdicts.sure),
    )


def data_before_decisions(config: dict[str, Any], part: str) -> LabelledImages | None:
    """The test part as it was before decisions about single images; None if the run applied no decisions."""
    source = config.get("source", {})
    options = source.get("options", {})
    if "decisions" not in options or part != "test":
        return None
    without = {name: value for name, value in options.items() if name != "decisions"}
    return _read(source.get("what") or config["data"]["name"], source.get("path"), without).test


def _note_opened(run: Run) -> None:
    """Record in the run's config that the test images were used; a read-only run is judged without this record."""
    with suppress(SaveError):
        config = run.config()
        run.write_config({**config, "test_opened": [*config.get("test_opened", []), now()]})


def read_again(run: Run, source: dict[str, Any] | None = None) -> LabelledImages:
    """The data a run was made from, verified by its fingerprint.

    Args:
        source: where the data is now and how to read it; None: as in the run's config.

    Raises:
        DataError: the data is different.
    """
    config = run.config("data")
    source = config.get("source", {}) if source is None else source
    return read_same(source, config["data"]["name"], config["data"]["fingerprint"])


def read_same(source: Mapping[str, Any], name: str, fingerprint: str) -> LabelledImages:
    """The data from where a run found it, verified by its fingerprint.

    Args:
        source: as in the run's config.

    Raises:
        DataError: the data is different.
    """
    data = _read(source.get("what") or name, source.get("path"), source.get("options", {}))
    if data.fingerprint != fingerprint:
        change = "has changed since this run" if data.name == name else f"is not the data of this run, {name}"
        raise DataError(
            f"{data.name} {change}: its fingerprint is {data.fingerprint[:12]}, the run's {fingerprint[:12]}",
            "use the data that this run was trained on, or train again",
        )
    return data


def _read(what: str, path: str | None, options: dict[str, Any]) -> LabelledImages:
    """Read data with the options of a run's config."""
    if what in NAMED:  # earlier versions recorded these options for public sets too, and ignored them
        options = {name: value for name, value in options.items() if name not in ("size", "fit", "colour")}
        if not options:
            return read_public(what, None if path is None else user_path(path))
    from hangtag.data.read import read

    if unknown := [name for name in options if name not in inspect.signature(read).parameters]:
        raise RunError(
            f"config.json says to read the data with the option '{unknown[0]}', which this hangtag does not have",
            "name the data and how to read it: hangtag evaluate RUN DATA",
        )
    size = options.get("size")
    return read(what, path, **options | ({"size": tuple(size)} if isinstance(size, list) else {}))


def is_cross_validated(run: Run, data: LabelledImages) -> bool:
    """Whether a run's own data can judge it only by `cross_validation.npz`, because it was trained on all of it."""
    return "test" not in data.parts and bool(run.config("recipe")["recipe"].get("folds"))


def judged_part(run: Run, data: LabelledImages) -> tuple[str, LabelledImages]:
    """The part and images that judge this run: the test part, or the validation images if there is none."""
    if "test" in data.parts:
        return "test", data.test
    from hangtag.data.splits import split_of

    config = run.config("recipe", "seed")
    if "validation" not in config["recipe"]:
        raise RunError(f"{run.path / 'config.json'} is incomplete: its recipe has no `validation`", "train again")
    images, split = split_of(data, config["recipe"]["validation"], config.get("split_seed", config["seed"]))
    return "validation", images.take(split.validation)

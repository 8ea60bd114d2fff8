"""Judging a model file on images it was not trained on: at the end of training, and later on request."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.class_names import matching_class
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public.datasets import NAMED
from hangtag.data.read import read
from hangtag.data.splits import split_of
from hangtag.errors import DataError, SaveError
from hangtag.evaluation.guarantee_report import GuaranteeReport, measure_guarantees
from hangtag.evaluation.metrics import Evaluation, evaluate
from hangtag.evaluation.run_folder import Run
from hangtag.machine import now
from hangtag.model.artifact import OUTPUT
from hangtag.model.predictor import Predictor, load

__all__ = ["Judgement", "data_before_decisions", "judge", "judged_part", "read_again"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """An evaluation and what it was made from.

    Attributes:
        part: "test"; "validation", which also set the thresholds; or "given", other data without a test part.
        data: the N images judged.
        outputs: (N, ...) float32 each, of the model file: `OUTPUT`, and "uncalibrated" and "ood_score" if it has them.
        evaluation: accuracy, loss and numbers per class.
        guarantees: how the model's guarantees held.
        before_decisions: the evaluation on the test part before a person's decisions about it; None without decisions.
    """

    part: str
    data: LabelledImages
    outputs: dict[str, NDArray[np.float32]]
    evaluation: Evaluation
    guarantees: GuaranteeReport
    before_decisions: Evaluation | None = None

    @classmethod
    def of(
        cls, model: Predictor, part: str, data: LabelledImages, accuracy: float | None, before: LabelledImages | None
    ) -> "Judgement":
        """Run the model on `data`, and on the same part before decisions, if any.

        Args:
            accuracy: accuracy on the training images, if known.
            before: the part before decisions; None without decisions.

        Raises:
            DataError: there are no images, or their labels do not fit the model's classes.
        """
        names = [name for name in ("uncalibrated", "ood_score") if model.has_output(name)]
        outputs, earlier = model.outputs(data.images, OUTPUT, *names), None
        if before is not None:
            earlier = evaluate(model.probabilities(before.images), before.labels, before.class_names, accuracy)
        evaluation = evaluate(outputs[OUTPUT], data.labels, data.class_names, accuracy)
        guarantees = measure_guarantees(outputs, data.labels, model.guarantees)
        return cls(part, data, outputs, evaluation, guarantees, earlier)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(N, K) float32."""
        return self.outputs[OUTPUT]

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        metrics = {"part": self.part, **self.evaluation.to_json(), "guarantees": self.guarantees.to_json()}
        return metrics | ({"before_decisions": self.before_decisions.to_json()} if self.before_decisions else {})


def judge(run: Run, data: LabelledImages | None = None) -> Judgement:
    """Judge a run's model file again: on the data it was made for, or on `data`.

    Raises:
        RunError, ArtifactError: the folder or its model is incomplete.
        DataError: the data changed since training, or has other classes.
    """
    predictor = load(run.path)
    if data is None:
        part, images = judged_part(run, read_again(run))
    else:
        part, images = ("test", data.test) if "test" in data.parts else ("given", data)
    images = _with_classes_of(predictor, images)
    if images.class_names != predictor.class_names:
        raise DataError(
            f"{images.name} has classes {', '.join(images.class_names)}; the model has "
            f"{', '.join(predictor.class_names)}",
            "evaluate the model on data with the same classes",
        )
    if part == "test" and data is None:
        _note_opened(run)
    kept = run.config().get("kept_epoch")
    accuracies = {epoch["number"]: epoch["accuracy"] for epoch in run.history()}
    accuracy = accuracies.get(kept, list(accuracies.values())[-1] if accuracies else None)
    before = data_before_decisions(run.config(), part) if data is None else None
    return Judgement.of(predictor, part, images, accuracy, before)


def _with_classes_of(predictor: Predictor, images: LabelledImages) -> LabelledImages:
    """The images with the model's spelling and order of the classes; unchanged if these are others."""
    names = [matching_class(name, predictor.class_names) for name in images.class_names]
    if images.class_names == predictor.class_names or set(names) != set(predictor.class_names):
        return images
    numbers = np.array([predictor.class_names.index(str(name)) for name in names])
    return replace(images, labels=numbers[images.labels], class_names=predictor.class_names)


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
    config = run.config()
    source = config.get("source", {}) if source is None else source
    data = _read(source.get("what") or config["data"]["name"], source.get("path"), source.get("options", {}))
    name, fingerprint = config["data"]["name"], config["data"]["fingerprint"]
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
    size = options.get("size")
    return read(what, path, **options | ({"size": tuple(size)} if isinstance(size, list) else {}))


def judged_part(run: Run, data: LabelledImages) -> tuple[str, LabelledImages]:
    """The part and images that judge this run: the test part, or the validation images if there is none."""
    if "test" in data.parts:
        return "test", data.test
    config = run.config()
    images, split = split_of(data, config["recipe"]["validation"], config.get("split_seed", config["seed"]))
    return "validation", images.take(split.validation)

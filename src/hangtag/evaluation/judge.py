"""A model file judged on images that taught it nothing: when its training ends, and again whenever somebody asks."""

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public.datasets import NAMED
from hangtag.data.read import read
from hangtag.data.splits import split_of
from hangtag.errors import DataError, SaveError
from hangtag.evaluation.guarantee_report import measure_guarantees
from hangtag.evaluation.metrics import Evaluation, evaluate
from hangtag.evaluation.run_folder import Run
from hangtag.machine import now
from hangtag.model.artifact import OUTPUT
from hangtag.model.predictor import Predictor, load

__all__ = ["Judgement", "data_before_decisions", "judge", "judged_part", "read_again"]


class Judgement:
    """An evaluation and what it was made from.

    Attributes:
        evaluation: the numbers.
        part: "test"; "validation", which also set the thresholds; or "given", other data without a test part.
        data: the images judged.
        outputs: (N, ...) float32 each, what the model file answered.
        promises: how what the model promises about its answers fared.
        distributed: the evaluation on the test part before a person's decisions about it; None where there were none.
    """

    def __init__(
        self,
        predictor: Predictor,
        part: str,
        data: LabelledImages,
        training_accuracy: float | None,
        before_decisions: LabelledImages | None = None,
    ) -> None:
        names = [name for name in ("uncalibrated", "ood_score") if predictor.has_output(name)]
        self.part, self.data = part, data
        self.outputs = predictor.outputs(data.images, OUTPUT, *names)
        self.evaluation = evaluate(self.probabilities, data.labels, data.class_names, training_accuracy)
        self.guarantees = measure_guarantees(self.outputs, data.labels, predictor.guarantees)
        self.before_decisions: Evaluation | None = None
        if before_decisions is not None:
            rows = predictor.probabilities(before_decisions.images)
            self.before_decisions = evaluate(
                rows, before_decisions.labels, before_decisions.class_names, training_accuracy
            )

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(N, K)."""
        return self.outputs[OUTPUT]

    def to_json(self) -> dict[str, Any]:
        said = {"part": self.part, **self.evaluation.to_json(), "guarantees": self.guarantees.to_json()}
        return said | ({"before_decisions": self.before_decisions.to_json()} if self.before_decisions else {})


def judge(run: Run, data: LabelledImages | None = None) -> Judgement:
    """Judge a run's model file again: on the data it was made for, or on `data`.

    Raises:
        RunError, ArtifactError: the folder or its model is not whole.
        DataError: the data changed since, or has other classes.
    """
    predictor = load(run.path)
    if data is None:
        part, images = judged_part(run, read_again(run))
    else:
        part, images = ("test", data.test) if "test" in data.parts else ("given", data)
    if images.class_names != predictor.class_names:
        raise DataError(
            f"{images.name} has classes {', '.join(images.class_names)}; the model knows "
            f"{', '.join(predictor.class_names)}",
            "judge the model on data with its own classes",
        )
    if part == "test" and data is None:
        _note_opened(run)
    kept = run.config().get("kept_epoch")
    accuracies = {epoch["number"]: epoch["accuracy"] for epoch in run.history()}
    accuracy = accuracies.get(kept, list(accuracies.values())[-1] if accuracies else None)
    before = data_before_decisions(run.config(), part) if data is None else None
    return Judgement(predictor, part, images, accuracy, before)


def data_before_decisions(config: dict[str, Any], part: str) -> LabelledImages | None:
    """The test part of a run's data as it was distributed, where the run obeyed decisions about single pictures."""
    source = config.get("source", {})
    options = source.get("options", {})
    if "decisions" not in options or part != "test":
        return None
    without = {name: value for name, value in options.items() if name != "decisions"}
    return _read(source.get("what") or config["data"]["name"], source.get("path"), without).test


def _note_opened(run: Run) -> None:
    """Write down that the test images were looked at; a run that cannot be written to is judged all the same."""
    with suppress(SaveError):
        config = run.config()
        run.write_config({**config, "test_opened": [*config.get("test_opened", []), now()]})


def read_again(run: Run, source: dict[str, Any] | None = None) -> LabelledImages:
    """The data a run was made from, proved to be the same by its fingerprint.

    Args:
        source: where they are now; None is where they were.

    Raises:
        DataError: they are others.
    """
    config = run.config()
    source = config.get("source", {}) if source is None else source
    data = _read(source.get("what") or config["data"]["name"], source.get("path"), source.get("options", {}))
    name, fingerprint = config["data"]["name"], config["data"]["fingerprint"]
    if data.fingerprint != fingerprint:
        other = "changed since this run" if data.name == name else f"is not what this run began with, {name}"
        raise DataError(
            f"{data.name} {other}: fingerprint {data.fingerprint[:12]}, then {fingerprint[:12]}",
            "name the data it began with, or train again",
        )
    return data


def _read(what: str, path: str | None, options: dict[str, Any]) -> LabelledImages:
    """As a run folder's config says."""
    if what in NAMED:  # earlier versions wrote these down, and passed them over, for public sets too
        options = {name: value for name, value in options.items() if name not in ("size", "fit", "colour")}
    size = options.get("size")
    return read(what, path, **options | ({"size": tuple(size)} if isinstance(size, list) else {}))


def judged_part(run: Run, data: LabelledImages) -> tuple[str, LabelledImages]:
    """The images that judge this run: the test part, else the ones its training held out."""
    if "test" in data.parts:
        return "test", data.test
    config = run.config()
    images, split = split_of(data, config["recipe"]["validation"], config.get("split_seed", config["seed"]))
    return "validation", images.take(split.validation)

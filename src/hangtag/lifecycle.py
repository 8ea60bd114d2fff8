"""The life of one run: a folder begun, trained in, its model exported, verified and judged, and judged again later.

It joins the estimator and the run folder. It prints and draws nothing: `cli.py` and `report.py` do.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.classifier import ImageClassifier
from hangtag.errors import DataError
from hangtag.evaluate import Evaluation, evaluate
from hangtag.export import verify
from hangtag.models import layers, parameter_count
from hangtag.predictor import load
from hangtag.runs import Run, machine, new_run, now, versions
from hangtag.sources import LabelledImages, read
from hangtag.splits import stratified
from hangtag.train import Epoch

__all__ = ["Judged", "Training", "judge", "judged_part", "read_again"]


class Judged:
    """An evaluation and what it was made from.

    Attributes:
        evaluation: the numbers.
        part: "test" or "validation".
        data: the images judged.
        probabilities: (N, K) float32, from the model file.
    """

    def __init__(self, evaluation: Evaluation, part: str, data: LabelledImages, rows: NDArray[np.float32]) -> None:
        self.evaluation, self.part, self.data, self.probabilities = evaluation, part, data, rows

    def to_json(self) -> dict[str, Any]:
        return {"part": self.part, **self.evaluation.to_json()}


class Training:
    """One training and its run folder, from the first byte to the last.

    Args:
        classifier: unfitted.
        data: with a training part; a test part is judged at the end, else the held-out images are.
        source: what `read` was given, so that a later command can read it again.
        out: the folder to make; None takes the next free name under runs/.
    """

    def __init__(
        self, classifier: ImageClassifier, data: LabelledImages, source: dict[str, str | None], out: Path | None
    ) -> None:
        self.classifier, self.data = classifier, data
        recipe = classifier._recipe()
        self.run: Run = new_run(out, f"{data.name}-{recipe.name}")
        self.seconds: dict[str, float] = {}
        self.config: dict[str, Any] = {
            "hangtag": versions().get("hangtag"),
            "created": now(),
            "status": "training",
            "recipe": recipe.to_json(),
            "seed": classifier.seed,
            "source": source,
            "data": _describe(data),
            "versions": versions(),
            "machine": machine(),
        }
        self.run.write_config(self.config)

    def epochs(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch]:
        """Train, keeping each finished epoch in the folder."""
        began = time.perf_counter()
        for epoch in self.classifier.fit_epochs(self.data, stop=stop):
            if epoch.finished:
                self.run.add_epoch(epoch.to_json())
            yield epoch
        self.seconds["train"] = time.perf_counter() - began

    def finish(self) -> Judged:
        """Export, verify on the images that are judged, judge, and complete the folder.

        Raises:
            ModelError: the file would not answer as the network does; the weights are kept.
            SaveError: the disk is full.
        """
        classifier, began = self.classifier, time.perf_counter()
        self.run.write_weights(_weights(classifier.network_))
        content = classifier.to_bytes()
        self.seconds["export"] = time.perf_counter() - began
        began = time.perf_counter()
        part, data = self._judged()
        rows = verify(content, classifier.network_, data.images)
        history = classifier.history_
        evaluation = evaluate(rows, data.labels, data.class_names, history[-1].accuracy)
        self.seconds["evaluate"] = time.perf_counter() - began
        judged = Judged(evaluation, part, data, rows)
        self.run.write_metrics(judged.to_json())
        self.run.write_model(content)
        self._complete(content)
        return judged

    def _judged(self) -> tuple[str, LabelledImages]:
        if "test" in self.data.parts:
            return "test", self.data.test
        held_out = self.classifier.split_.validation
        if not len(held_out):
            raise DataError(
                "there are no images to judge the model on: no test part, and this recipe holds none out",
                "use another recipe, or data with a test part",
            )
        return "validation", self.data.train.take(held_out)

    def _complete(self, content: bytes) -> None:
        classifier = self.classifier
        split = classifier.split_
        stopped = classifier.history_[-1].cut_short or len(classifier.history_) < classifier.recipe_.epochs
        self.config |= {
            "status": "stopped early" if stopped else "finished",
            "network": {
                "name": classifier._network_name(),
                "parameters": parameter_count(classifier.network_),
                "layers": [vars(layer) for layer in layers(classifier.network_, classifier.spec_)],
            },
            "split": split.to_json(),
            "device": classifier.device,
            "seconds": self.seconds,
            "model": {"bytes": len(content), "fingerprint": load(content).fingerprint},
        }
        self.run.write_config(self.config)


def judge(run: Run, data: LabelledImages | None = None) -> Judged:
    """Judge a run's model file again: on the data it was made for, or on `data`.

    Raises:
        RunError, ArtifactError: the folder or its model is not whole.
        DataError: the data changed since, or has other classes.
    """
    predictor = load(run.path)
    if data is None:
        part, images = judged_part(run, read_again(run))
    else:
        part, images = ("test", data.test) if "test" in data.parts else ("validation", data)
    if images.class_names != predictor.class_names:
        raise DataError(
            f"{images.name} has classes {', '.join(images.class_names)}; the model knows "
            f"{', '.join(predictor.class_names)}",
            "judge the model on data with its own classes",
        )
    rows = predictor.probabilities(images.images)
    history = run.history()
    accuracy = history[-1]["accuracy"] if history else None
    return Judged(evaluate(rows, images.labels, images.class_names, accuracy), part, images, rows)


def read_again(run: Run) -> LabelledImages:
    """The data a run was made from, proved to be the same by its fingerprint."""
    config = run.config()
    source = config.get("source", {})
    data = read(source.get("what") or config["data"]["name"], source.get("path"))
    if data.fingerprint != config["data"]["fingerprint"]:
        raise DataError(
            f"{data.name} changed since this run: fingerprint {data.fingerprint[:12]}, then "
            f"{config['data']['fingerprint'][:12]}",
            "name the data to judge on, or train again",
        )
    return data


def judged_part(run: Run, data: LabelledImages) -> tuple[str, LabelledImages]:
    """The images that judge this run: the test part, else the ones its training held out."""
    if "test" in data.parts:
        return "test", data.test
    config = run.config()
    split = stratified(data.train.labels, config["recipe"]["validation"], config["seed"])
    return "validation", data.train.take(split.validation)


def _weights(network: nn.Module) -> bytes:
    """The network's state as safetensors; in training its arrays may be views of one vector, so each is copied."""
    state = network.state_dict()
    return safetensors.torch.save(
        {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    )


def _describe(data: LabelledImages) -> dict[str, Any]:
    counts = {name: data.part(name).counts().tolist() for name in data.parts}
    return {**data.to_json(), "counts": counts or {"train": data.counts().tolist()}}

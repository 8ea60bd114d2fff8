"""What the sections of a run's report have in common: the run's own files and the images that judged it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UsageError
from hangtag.evaluation.cross_validation import PART
from hangtag.evaluation.guarantee_report import GuaranteeReport
from hangtag.evaluation.metrics import Evaluation
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.stress_test import Stress
from hangtag.evaluation.tuning_results import Trials
from hangtag.html import Thumbnail, is_light_on_black, thumbnail
from hangtag.pictures import Images
from hangtag.words import in_percent

__all__ = ["Facts", "examples", "gather_facts"]

_THUMBNAIL = 96  # pixels a side


@dataclass(frozen=True)
class Facts:
    """All that is known about a run; `images`, `labels` and `probabilities` are those that judged it.

    `files` are the names of these images, if they have any.
    """

    run: Run
    config: Mapping[str, Any]
    split: str  # "test", "validation", "cross-validation", or "other" for data that is not the run's own
    history: Sequence[Mapping[str, Any]]
    images: Images
    labels: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]
    evaluation: Evaluation
    guarantees: GuaranteeReport | None
    stress: Stress | None
    tuning: Trials | None
    before_decisions: Evaluation | None
    notes: Sequence[str]
    files: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return [result.name for result in self.evaluation.classes]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        classes: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        return np.array(self.evaluation.confusion, dtype=np.int64)

    @property
    def noun(self) -> str:
        """What the images that judged the run are called."""
        if self.split == PART:
            return "cross-validated image"
        return "image" if self.split == "other" else f"{self.split} image"

    @property
    def folds(self) -> int:
        """Number of folds whose held-out images set the thresholds; 0 if validation images did."""
        return int(self.setting("split", "folds") or 0)

    @property
    def correct(self) -> int:
        return int(self.confusion.trace())

    @property
    def mistakes(self) -> int:
        return int(self.confusion.sum()) - self.correct

    @cached_property
    def _inverted(self) -> bool:
        return is_light_on_black(self.images[:25])

    def picture(self, index: int) -> Thumbnail:
        return thumbnail(np.asarray(self.images[index]), _THUMBNAIL, self._inverted)

    def answer(self, index: int, label: int) -> str:
        """The name of a class and its probability for an image."""
        return f"{self.names[label]} {in_percent(float(self.probabilities[index, label]))}"

    def setting(self, *keys: str) -> Any:
        """A value of config.json, several tables deep; None if it is missing."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def gather_facts(
    run: Run,
    images: Images,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    metrics: Mapping[str, Any] | None = None,
    is_other: bool = False,
    files: Sequence[str] = (),
) -> Facts:
    """Read the run's files.

    Args:
        metrics: of these images; None for those of the run.
        is_other: whether the images are other data than the run's own.
        files: the names of these images, if they have any.

    Raises:
        RunError: the folder is incomplete.
        UsageError: the arrays do not fit each other or the run.
    """
    metrics = run.metrics() if metrics is None else metrics
    stress = None if is_other else run.stress()
    where = str(run.path / "metrics.json")
    evaluation = Evaluation.from_json(metrics, where)
    expected = (len(labels), len(evaluation.classes))
    if len(images) != len(labels) or probabilities.shape != expected or not len(labels):
        raise UsageError(
            f"images, labels and probabilities must match, got {len(images):,} images, {len(labels):,} labels and "
            f"probabilities of shape {probabilities.shape} for {len(evaluation.classes)} classes",
            "pass the images that this run was evaluated on, with one label and one row of probabilities each",
        )
    return Facts(
        run=run,
        config=run.config(),
        split="other" if is_other else metrics.get("part", "test"),
        history=run.history() if (run.path / "history.jsonl").is_file() else [],
        images=images,
        labels=labels,
        probabilities=probabilities,
        evaluation=evaluation,
        guarantees=GuaranteeReport.from_json(metrics["guarantees"], where) if metrics.get("guarantees") else None,
        stress=None if stress is None else Stress.from_json(stress, str(run.path / "stress.json")),
        tuning=None if is_other else _finished_search(run),
        before_decisions=(
            Evaluation.from_json(metrics["before_decisions"], where) if metrics.get("before_decisions") else None
        ),
        notes=metrics.get("notes", []),
        files=files,
    )


def _finished_search(run: Run) -> Trials | None:
    """The search that found the run's settings; None if there was none."""
    trials = run.trials()
    return trials if trials is not None and trials.chosen is not None else None


def examples(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions of at most `count` images to show: the first ones, or evenly spaced ones if they are sorted by class.

    >>> examples(np.array([1, 0, 1, 0]), 2).tolist(), examples(np.array([0, 0, 0, 1, 1, 2]), 3).tolist()
    ([0, 1], [0, 2, 4])
    """
    count = min(count, len(labels))
    is_sorted = len(labels) and labels[0] != labels[-1] and (np.diff(labels) >= 0).all()
    return np.arange(count) * len(labels) // count if is_sorted else np.arange(count)

"""One recipe trained with several seeds in one run folder: how much results vary, and the best run by validation loss.

    seeds/0, seeds/1, ...    complete runs, one per seed
    everything else          a copy of the best run; metrics.json also has the statistics, under "seeds"

All seeds hold out the same images. Each seed's run can be resumed.
"""

import math
import statistics
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.cross_validation import FILE as CROSS_VALIDATION
from hangtag.evaluation.cross_validation import PART
from hangtag.evaluation.judge import Judgement, judge
from hangtag.evaluation.run_folder import REFERENCE, STOPPED, Run
from hangtag.files import write_bytes
from hangtag.machine import now
from hangtag.model.neighbours import FILE
from hangtag.training.arguments import seed_of
from hangtag.training.classifier import Classifier
from hangtag.training.run import DIVERGED, NOT_EXPORTED, Training, initial_config, open_run

__all__ = ["Seeds", "begin_seed", "check_count", "spread"]

_MOST = 1000  # seeds
_COPIED = ("weights.safetensors", "model.onnx", "metrics.json", "history.jsonl")


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, sd (with n - 1), 95 % confidence interval of the mean (Student's t), and number of values, at least two.

    The interval covers the choice of seeds, not of test images.

    >>> low, high = spread([0.90, 0.92, 0.94])["interval"]
    >>> round(low, 4), round(high, 4)
    (0.8703, 0.9697)
    """
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return {"mean": mean, "sd": sd, "interval": (mean - half, mean + half), "n": len(values)}


def check_count(count: int) -> None:
    """Raise UsageError unless this many seeds can be trained."""
    if not 2 <= count <= _MOST:
        raise UsageError(f"--seeds must be from 2 to {_MOST:,}, got {count:,}", "leave --seeds out to train once")


class Seeds:
    """Several trainings and the run folder they share.

    Args:
        classifier: unfitted; its seed is the first one and determines which images all seeds hold out.
        data, source: as for `Training.begin`.
        out: as for `Training.begin`; an unfinished run with exactly these seeds is resumed.
        count: number of seeds, from 2 to 1,000.

    Raises:
        RunError: `out` holds another run.
        UsageError: `count` is out of range, or the last seed is too large.
    """

    def __init__(
        self,
        classifier: Classifier,
        data: LabelledImages,
        source: dict[str, str | None],
        out: Path | None,
        count: int,
    ) -> None:
        check_count(count)
        self.data, self.source, self.classifier = data, source, classifier
        self.numbers = [seed_of(classifier) + index for index in range(count)]
        seed_of(self.unfitted(self.numbers[-1]))  # raises an error if it is too large
        config = initial_config(self.unfitted(seed_of(classifier)), data, source) | {"seeds": self.numbers}
        name = f"{data.name}-{config['recipe']['name']}-seeds"
        self.run, self.lock, self.resumed = open_run(config, out, name)

    def trainings(self) -> Iterator[tuple[int, Training | Judgement]]:
        """For each seed in turn: a training to run and finish, or the judgement of a finished one.

        Raises:
            RunError: an earlier training with this seed failed and would fail again.
        """
        for number in self.numbers:
            yield number, begin_seed(self.unfitted(number), self.data, self.source, self.folder(number))

    def finish(self) -> tuple[int, Judgement]:
        """Keep the run with the smallest validation or cross-validation loss, or the first one without either.

        Returns:
            Its seed and judgement.

        Raises:
            RunError: a seed's training is not finished.
        """
        runs = [Run(self.folder(number)) for number in self.numbers]
        for run in runs:
            status = run.config().get("status")
            if status != "finished":
                raise RunError(f"{run.path}: the status of this run is '{status}'", "to resume it, repeat the command")
        losses = [_validation_loss(run) for run in runs]
        best = 0 if None in losses else min(range(len(runs)), key=lambda index: losses[index] or 0.0)
        kept = runs[best]
        optional = [name for name in (FILE, CROSS_VALIDATION, REFERENCE) if (kept.path / name).is_file()]
        for name in (*_COPIED, *optional):
            write_bytes(self.run.path / name, (kept.path / name).read_bytes())
        self.run.write_metrics({**kept.metrics(), "seeds": self._statistics(runs, best, losses)})
        own, seed = self.run.config(), self.numbers[best]
        own = {key: own[key] for key in ("created", "source", "split_seed", "seeds")}
        self.run.write_config({**kept.config(), **own, "seed": seed, "kept_seed": seed, "ended": now()})
        self.lock.close()
        return seed, judge(self.run)

    def discard(self) -> None:
        """Remove the folder if no seed's run began, as when the first one is refused."""
        if not any(self.folder(number).exists() for number in self.numbers):
            with suppress(OSError):
                (self.run.path / "seeds").rmdir()
            self.run.discard()

    def unfitted(self, seed: int) -> Classifier:
        """A new classifier for one seed; a fitted one would keep its images in memory."""
        own = {"seed": seed, "random_state": None, "split_seed": seed_of(self.classifier)}
        return Classifier(**{**self.classifier.arguments(), **own})

    def folder(self, number: int) -> Path:
        """The run folder of one seed."""
        return self.run.path / "seeds" / str(number)

    def _statistics(self, runs: list[Run], best: int, losses: list[float | None]) -> dict[str, Any]:
        metrics = [run.metrics() for run in runs]
        which = PART if metrics[0].get("part") == PART else "validation"
        summary: dict[str, Any] = {
            "numbers": self.numbers,
            "kept": self.numbers[best],
            "kept_because": "the first, because no images were held out" if None in losses else f"lowest {which} loss",
            "validation_loss": losses,
        }
        for key in ("accuracy", "loss"):
            values = [float(table[key]) for table in metrics]
            summary[key] = {"values": values, **spread(values)}
        low, high = summary["accuracy"]["interval"]
        summary["accuracy"]["interval"] = (max(0.0, low), min(1.0, high))  # Student's t is unbounded
        return summary


def begin_seed(
    classifier: Classifier, data: LabelledImages, source: dict[str, str | None], folder: Path
) -> Training | Judgement:
    """A training to run and finish, new or resumed, or the judgement of a finished one in this folder.

    Raises:
        RunError: an earlier training in the folder failed and would fail again.
    """
    run = Run(folder)
    status = run.config().get("status") if (run.path / "config.json").is_file() else None
    if status == DIVERGED:
        raise RunError(
            f"{run.path}: training with seed {seed_of(classifier)} diverged, and would diverge again",
            "use a smaller learning rate, --set learning_rate=NUMBER, and another --out",
        )
    if status == NOT_EXPORTED:
        raise RunError(f"{run.path}: its network could not be exported", "change the network, and choose another --out")
    if status == "finished":
        return judge(run)
    if status == STOPPED:
        return Training.resume(run, classifier.device, network=classifier.chosen_recipe(data).network, data=data)
    return Training.begin(classifier, data, source, folder)


def _validation_loss(run: Run) -> float | None:
    """The validation loss of the epoch whose weights were kept, or the loss of the cross-validation."""
    if run.metrics().get("part") == PART:
        return float(run.metrics()["loss"])
    kept = run.config().get("kept_epoch")
    return next((epoch.get("val_loss") for epoch in run.history() if epoch["number"] == kept), None)

"""One recipe trained with several seeds, in one run folder: how much is luck, and the best of them by validation.

    seeds/0, seeds/1, ...    whole runs, each as any other
    everything else          the run that was kept, and in metrics.json, under "seeds", what they had in common

All of them hold out the same images. Each goes on by itself after a crash.
"""

import math
import statistics
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.judge import Judgement, judge
from hangtag.evaluation.run_folder import STOPPED, Lock, Run, new_run
from hangtag.files import write_bytes
from hangtag.machine import now
from hangtag.model.neighbours import FILE
from hangtag.training.classifier import ImageClassifier
from hangtag.training.run import DIVERGED, UNSHIPPED, Training, locked, unfinished_like

__all__ = ["Seeds", "Spread", "spread"]

_COPIED = ("weights.safetensors", "model.onnx", "metrics.json", "history.jsonl")


@dataclass(frozen=True)
class Spread:
    """A number measured with several seeds.

    Attributes:
        mean, sd: over the seeds; the sd with n - 1.
        interval: 95 %, of the mean, by Student's t; it says nothing about other test images.
        n: how many seeds.
    """

    mean: float
    sd: float
    interval: tuple[float, float]
    n: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.4f} (sd {self.sd:.4f}, 95 % [{low:.4f}, {high:.4f}], {self.n} seeds)"


def spread(values: list[float]) -> Spread:
    """Mean, sd and t-interval of at least two values.

    >>> print(spread([0.90, 0.92, 0.94]))
    0.9200 (sd 0.0200, 95 % [0.8703, 0.9697], 3 seeds)
    """
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return Spread(mean, sd, (mean - half, mean + half), len(values))


class Seeds:
    """Several trainings and the run folder they share.

    Args:
        classifier: unfitted; its seed is the first, and decides which images all of them hold out.
        data: as for `Training`.
        source: likewise.
        out: likewise; an unfinished run of exactly these seeds is gone on with.
        count: how many, at least 2.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        data: LabelledImages,
        source: dict[str, str | None],
        out: Path | None,
        count: int,
    ) -> None:
        if count < 2:
            raise UsageError(f"--seeds {count} makes no sense", "give at least 2, or none")
        self.data, self.source = data, source
        self.numbers = [classifier.seed + index for index in range(count)]
        self.classifier = classifier
        config = Training.config_of(self._unfitted(classifier.seed), data, source) | {"seeds": self.numbers}
        name = f"{data.name}-{config['recipe']['name']}-seeds"
        before = unfinished_like(config, out, name)
        self.held: Lock
        if before is not None:
            self.run, self.held = before
            self.config = self.run.config()
        else:
            self.run, self.config = new_run(out, name), config
            self.held = locked(self.run)
            self.run.write_config(config)
        self.goes_on = before is not None

    def trainings(self) -> Iterator[tuple[int, Training | Judgement]]:
        """For each seed in turn: a training to go through and finish; or, where it is done already, its judgement.

        Raises:
            RunError: a seed diverged before, and would again.
        """
        for number in self.numbers:
            folder = self._folder(number)
            status = Run(folder).config().get("status") if (folder / "config.json").is_file() else None
            if status == DIVERGED:
                raise RunError(
                    f"{folder}: with seed {number} the loss was no longer a number, and would not be again",
                    "choose a smaller learning rate, --set learning_rate=NUMBER, and another --out",
                )
            if status == UNSHIPPED:
                raise RunError(f"{folder}: its network could not be exported", "change it, and choose another --out")
            if status == "finished":
                yield number, judge(Run(folder))
            elif status == STOPPED:
                yield number, Training.of(Run(folder), self.classifier.device)
            else:
                yield number, Training(self._unfitted(number), self.data, self.source, folder)

    def finish(self) -> tuple[int, Judgement]:
        """Keep the best by validation, the first where nothing was held out; returns its seed and judgement.

        Raises:
            RunError: a seed is not trained to its end.
        """
        runs = [Run(self._folder(number)) for number in self.numbers]
        for run in runs:
            if run.config().get("status") != "finished":
                raise RunError(f"{run.path}: is {run.config().get('status')}", "give the same command again to go on")
        losses = [_validation_loss(run) for run in runs]
        best = 0 if None in losses else min(range(len(runs)), key=lambda index: losses[index] or 0.0)
        kept = runs[best]
        for name in (*_COPIED, *([FILE] if (kept.path / FILE).is_file() else [])):
            write_bytes(self.run.path / name, (kept.path / name).read_bytes())
        metrics = kept.metrics()
        metrics["seeds"] = self._in_common(runs, best, losses)
        self.run.write_metrics(metrics)
        theirs = kept.config()
        self.config |= {
            key: value for key, value in theirs.items() if key not in ("created", "source", "seed", "split_seed")
        }
        self.config |= {"seed": self.numbers[best], "kept_seed": self.numbers[best], "ended": now()}
        self.run.write_config(self.config)
        self.held.close()
        return self.numbers[best], judge(self.run)

    def discard(self) -> None:
        """Take the folder away again where no seed was begun, as when the first one is refused."""
        if not any(self._folder(number).exists() for number in self.numbers):
            with suppress(OSError):
                (self.run.path / "seeds").rmdir()
            self.run.discard()

    def _unfitted(self, seed: int) -> ImageClassifier:
        """For one seed; made when its turn comes, since a fitted one holds its images."""
        one = self.classifier
        return ImageClassifier(one.recipe, one.model, one.epochs, seed, one.device, split_seed=one.seed)

    def _folder(self, number: int) -> Path:
        return self.run.path / "seeds" / str(number)

    def _in_common(self, runs: list[Run], best: int, losses: list[float | None]) -> dict[str, Any]:
        metrics = [run.metrics() for run in runs]
        found: dict[str, Any] = {
            "numbers": self.numbers,
            "kept": self.numbers[best],
            "kept_because": "smallest validation loss" if None not in losses else "the first: nothing was held out",
            "validation_loss": losses,
        }
        for key in ("accuracy", "loss"):
            values = [float(table[key]) for table in metrics]
            found[key] = {"values": values, **vars(spread(values))}
        low, high = found["accuracy"]["interval"]
        found["accuracy"]["interval"] = (max(0.0, low), min(1.0, high))  # Student's t knows no bounds
        return found


def _validation_loss(run: Run) -> float | None:
    """Of the epoch whose weights were kept."""
    kept = run.config().get("kept_epoch")
    return next((epoch.get("val_loss") for epoch in run.history() if epoch["number"] == kept), None)

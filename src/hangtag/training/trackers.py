"""Experiment trackers: a training's metrics for TensorBoard and MLflow, each through its own client.

A tracker that cannot be opened ends the training in its first epoch. One that fails later does not: a warning names it,
and training continues.
"""

import importlib.util
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from hangtag.errors import MissingExtra, UnknownName, UsageError, warn

if TYPE_CHECKING:  # so that a wrong name is reported before PyTorch is loaded
    from hangtag.evaluation.metrics import Evaluation
    from hangtag.evaluation.run_folder import Run
    from hangtag.training.engine.loop import Epoch

__all__ = ["TRACKERS", "Tracker", "Tracking"]

_METRICS = {
    "loss": "loss/training", "val_loss": "loss/validation", "accuracy": "accuracy/training",
    "val_accuracy": "accuracy/validation", "learning_rate": "learning_rate", "seconds": "seconds",
}  # fmt: skip


class Tracker(Protocol):
    """Receives the metrics of one training."""

    where: str
    """Where to look at them, for the user."""

    def epoch(self, epoch: "Epoch") -> None:
        """Called after each finished epoch."""
        ...

    def end(self, evaluation: "Evaluation") -> None:
        """Called when the run folder is complete."""
        ...


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, run: "Run", recipe: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        self.writer = SummaryWriter(str(folder))
        self.where = f"tensorboard --logdir {shlex.quote(str(folder))}"
        self.writer.add_text("recipe", "\n".join(f"    {name}: {value}" for name, value in recipe.items()))

    def epoch(self, epoch: "Epoch") -> None:
        for name, value in _metrics(epoch).items():
            self.writer.add_scalar(name, value, epoch.number)
        self.writer.flush()

    def end(self, evaluation: "Evaluation") -> None:
        for name in ("accuracy", "loss"):
            self.writer.add_scalar(f"judged/{name}", getattr(evaluation, name))
        self.writer.close()


class MLflow:
    """A run in the experiment that MLflow's own settings (MLFLOW_TRACKING_URI, ...) name.

    MLflow sends usage statistics to its makers by default. hangtag turns that off (MLFLOW_DISABLE_TELEMETRY=true)
    unless the environment already sets this variable.
    """

    def __init__(self, run: "Run", recipe: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
        import mlflow

        self.mlflow, self.run = mlflow, run
        started = mlflow.start_run(run_name=run.path.name)
        mlflow.log_params(dict(recipe))
        self.where = f"MLflow run {started.info.run_id} at {mlflow.get_tracking_uri()}"

    def epoch(self, epoch: "Epoch") -> None:
        metrics = {name.replace("/", "_"): value for name, value in _metrics(epoch).items()}
        self.mlflow.log_metrics(metrics, epoch.number)

    def end(self, evaluation: "Evaluation") -> None:
        self.mlflow.log_metrics({"judged_accuracy": evaluation.accuracy, "judged_loss": evaluation.loss})
        for path in (self.run.model, self.run.report):
            if path.is_file():
                self.mlflow.log_artifact(str(path))
        self.mlflow.end_run()


TRACKERS: "dict[str, Callable[[Run, Mapping[str, Any]], Tracker]]" = {"tensorboard": TensorBoard, "mlflow": MLflow}


class Tracking:
    """Sends a training's metrics to one of `TRACKERS`, or nowhere.

    Args:
        name: of the tracker; None sends nothing.

    Raises:
        UnknownName: there is no such tracker.
        MissingExtra: its client is not installed.
    """

    def __init__(self, name: str | None) -> None:
        if name is not None and name not in TRACKERS:
            raise UnknownName.among("tracker", name, TRACKERS)
        if name is not None and importlib.util.find_spec(name) is None:
            raise MissingExtra.named(name, name)
        self.name = name
        self.tracker: Tracker | None = None

    def track(self, epochs: "Iterator[Epoch]", run: "Run", recipe: Mapping[str, Any]) -> "Iterator[Epoch]":
        """Pass the epochs on and send each finished one to the tracker, which is opened at the first one.

        Args:
            recipe: its settings by name.

        Raises:
            UsageError: the tracker cannot be opened.
        """
        for number, epoch in enumerate(epochs):
            if number == 0 and self.name is not None:
                self.tracker = _open(self.name, run, recipe)
            if self.tracker is not None and epoch.finished:
                with self._survive_failure():
                    self.tracker.epoch(epoch)
            yield epoch

    def end(self, evaluation: "Evaluation") -> str:
        """Complete the tracker's record; returns where to look at it, or "" if nothing was sent."""
        tracker, self.tracker = self.tracker, None
        if tracker is None:
            return ""
        with self._survive_failure():
            tracker.end(evaluation)
        return tracker.where

    @contextmanager
    def _survive_failure(self) -> Iterator[None]:
        """A tracker that raises is dropped, with a warning."""
        try:
            yield
        except Exception as error:  # trackers raise errors of many types
            self.tracker = None
            reason = _first_line(error)
            warn(f"{self.name} failed and receives no more data: {reason}; training continues")


def _open(name: str, run: "Run", recipe: Mapping[str, Any]) -> Tracker:
    try:
        return TRACKERS[name](run, recipe)
    except Exception as error:  # trackers raise errors of many types
        raise UsageError(
            f"{name} cannot be opened: {_first_line(error)}",
            "check its settings, such as MLFLOW_TRACKING_URI, or leave --log-to out; then repeat the command",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _metrics(epoch: "Epoch") -> dict[str, float]:
    values = {title: getattr(epoch, name) for name, title in _METRICS.items()}
    return {title: float(value) for title, value in values.items() if value is not None}

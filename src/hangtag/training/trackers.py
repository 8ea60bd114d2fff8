"""Training's numbers for other tools: TensorBoard and MLflow, each through its own client.

A tool that cannot be opened ends a training before its first epoch is over; one that fails later does not: the
training goes on, and that is said once.
"""

import importlib.util
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from hangtag.errors import MissingExtra, UnknownName, UsageError

if TYPE_CHECKING:  # so that a wrong name is said before PyTorch is loaded
    from hangtag.evaluation.metrics import Evaluation
    from hangtag.evaluation.run_folder import Run
    from hangtag.training.engine.loop import Epoch

__all__ = ["TRACKERS", "Tracker", "Tracking"]


class Tracker(Protocol):
    """Told of a training as it goes."""

    where: str
    """Where to look, in words."""

    def epoch(self, epoch: "Epoch") -> None:
        """A finished one."""
        ...

    def end(self, evaluation: "Evaluation") -> None:
        """The run folder is complete."""
        ...


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, run: "Run", recipe: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        self.writer = SummaryWriter(str(folder))
        self.where = f"tensorboard --logdir {shlex.quote(str(folder))}"
        text = "\n".join(f"    {name}: {value}" for name, value in recipe.items())
        self.writer.add_text("recipe", text)

    def epoch(self, epoch: "Epoch") -> None:
        for name, value in _numbers(epoch).items():
            self.writer.add_scalar(name, value, epoch.number)
        self.writer.flush()

    def end(self, evaluation: "Evaluation") -> None:
        for name in ("accuracy", "loss"):
            self.writer.add_scalar(f"judged/{name}", getattr(evaluation, name))
        self.writer.close()


class MLflow:
    """A run in the experiment that MLflow's own settings (MLFLOW_TRACKING_URI, ...) name."""

    def __init__(self, run: "Run", recipe: Mapping[str, Any]) -> None:
        import mlflow

        self.mlflow, self.run = mlflow, run
        started = mlflow.start_run(run_name=run.path.name)
        mlflow.log_params(dict(recipe))
        self.where = f"MLflow run {started.info.run_id} at {mlflow.get_tracking_uri()}"

    def epoch(self, epoch: "Epoch") -> None:
        self.mlflow.log_metrics(
            {name.replace("/", "_"): value for name, value in _numbers(epoch).items()}, epoch.number
        )

    def end(self, evaluation: "Evaluation") -> None:
        self.mlflow.log_metrics({"judged_accuracy": evaluation.accuracy, "judged_loss": evaluation.loss})
        for path in (self.run.model, self.run.report):
            if path.is_file():
                self.mlflow.log_artifact(str(path))
        self.mlflow.end_run()


TRACKERS: "dict[str, Callable[[Run, Mapping[str, Any]], Tracker]]" = {"tensorboard": TensorBoard, "mlflow": MLflow}


class Tracking:
    """A training told to one of `LOGGERS`, or, where none is named, to nobody.

    Args:
        name: of the tool; None: nobody is told.

    Raises:
        UnknownName: no such tool.
        MissingExtra: its client is not installed.
    """

    def __init__(self, name: str | None) -> None:
        if name is not None and name not in TRACKERS:
            raise UnknownName.among("logger", name, TRACKERS)
        if name is not None and importlib.util.find_spec(name) is None:
            raise MissingExtra.named(name, name)
        self.name = name
        self.logger: Tracker | None = None

    def through(self, epochs: "Iterator[Epoch]", run: "Run", recipe: Mapping[str, Any]) -> "Iterator[Epoch]":
        """The same epochs, each finished one also told to the tool, which is opened once the training has begun.

        Args:
            recipe: its settings, by name.

        Raises:
            UsageError: the tool cannot be opened.
        """
        opened = False
        for epoch in epochs:
            if self.name is not None and not opened:
                self.logger, opened = _opened(self.name, run, recipe), True
            if self.logger is not None and epoch.finished:
                with self._harmless():
                    self.logger.epoch(epoch)
            yield epoch

    def end(self, evaluation: "Evaluation") -> str:
        """The run folder is complete; returns where to look, in words, "" where nothing was told."""
        logger = self.logger
        if logger is None:
            return ""
        with self._harmless():
            logger.end(evaluation)
        self.logger = None
        return logger.where

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """A tool that fails is told nothing more."""
        try:
            yield
        except Exception as error:  # whatever the tool may raise
            self.logger = None
            warnings.warn(
                f"{self.name} failed and is told nothing more: {_first_line(error)}; the training goes on", stacklevel=2
            )


def _opened(name: str, run: "Run", recipe: Mapping[str, Any]) -> Tracker:
    try:
        return TRACKERS[name](run, recipe)
    except Exception as error:  # whatever the tool may raise
        raise UsageError(
            f"{name} cannot be opened: {_first_line(error)}",
            "check its settings, as MLFLOW_TRACKING_URI, or leave --log-to out; the same command begins again",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _numbers(epoch: "Epoch") -> dict[str, float]:
    wanted = {
        "loss": "loss/training", "val_loss": "loss/validation", "accuracy": "accuracy/training",
        "val_accuracy": "accuracy/validation", "learning_rate": "learning_rate", "seconds": "seconds",
    }  # fmt: skip
    values: dict[str, Any] = asdict(epoch)
    return {title: float(values[name]) for name, title in wanted.items() if values[name] is not None}

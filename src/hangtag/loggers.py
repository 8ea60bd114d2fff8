"""Training's numbers for other tools: TensorBoard and MLflow, each through its own client."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Protocol

from hangtag.errors import HangtagError, MissingExtra, UnknownName, UsageError
from hangtag.evaluate import Evaluation
from hangtag.recipes import Recipe
from hangtag.runs import Run
from hangtag.train import Epoch

__all__ = ["LOGGERS", "Logger", "logged", "open_logger"]


class Logger(Protocol):
    """Told of a training as it goes."""

    where: str
    """Where to look, in words."""

    def epoch(self, epoch: Epoch) -> None:
        """A finished one."""
        ...

    def end(self, evaluation: Evaluation) -> None:
        """The run folder is complete."""
        ...


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        try:
            import tensorboard  # noqa: F401  # the client below says less clearly that it is missing
        except ModuleNotFoundError:
            raise MissingExtra.named("tensorboard", "tensorboard") from None
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        self.writer = SummaryWriter(str(folder))
        self.where = f"tensorboard --logdir {folder}"
        text = "\n".join(f"    {name}: {value}" for name, value in recipe.to_json().items())
        self.writer.add_text("recipe", text)

    def epoch(self, epoch: Epoch) -> None:
        for name, value in _numbers(epoch).items():
            self.writer.add_scalar(name, value, epoch.number)
        self.writer.flush()

    def end(self, evaluation: Evaluation) -> None:
        for name in ("accuracy", "loss"):
            self.writer.add_scalar(f"judged/{name}", getattr(evaluation, name))
        self.writer.close()


class MLflow:
    """A run in the experiment that MLflow's own settings (MLFLOW_TRACKING_URI, ...) name."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        try:
            import mlflow
        except ModuleNotFoundError:
            raise MissingExtra.named("mlflow", "mlflow") from None
        self.mlflow, self.run = mlflow, run
        try:
            started = mlflow.start_run(run_name=run.path.name)
            mlflow.log_params(recipe.to_json())
        except mlflow.exceptions.MlflowException as error:
            raise _mlflow_failed(error) from error
        self.where = f"MLflow run {started.info.run_id} at {mlflow.get_tracking_uri()}"

    def epoch(self, epoch: Epoch) -> None:
        self.mlflow.log_metrics(
            {name.replace("/", "_"): value for name, value in _numbers(epoch).items()}, epoch.number
        )

    def end(self, evaluation: Evaluation) -> None:
        self.mlflow.log_metrics({"judged_accuracy": evaluation.accuracy, "judged_loss": evaluation.loss})
        for path in (self.run.model, self.run.report):
            if path.is_file():
                self.mlflow.log_artifact(str(path))
        self.mlflow.end_run()


LOGGERS: dict[str, Callable[[Run, Recipe], Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def open_logger(name: str, run: Run, recipe: Recipe) -> Logger:
    """Raises UnknownName, MissingExtra, or UsageError where the tool refuses."""
    if name not in LOGGERS:
        raise UnknownName.among("logger", name, LOGGERS)
    return LOGGERS[name](run, recipe)


def logged(epochs: Iterator[Epoch], logger: Logger | None) -> Iterator[Epoch]:
    """The same epochs, each finished one also told to the logger."""
    for epoch in epochs:
        if logger is not None and epoch.finished:
            logger.epoch(epoch)
        yield epoch


def _numbers(epoch: Epoch) -> dict[str, float]:
    wanted = {
        "loss": "loss/training", "val_loss": "loss/validation", "accuracy": "accuracy/training",
        "val_accuracy": "accuracy/validation", "learning_rate": "learning_rate", "seconds": "seconds",
    }  # fmt: skip
    values: dict[str, Any] = asdict(epoch)
    return {title: float(values[name]) for name, title in wanted.items() if values[name] is not None}


def _mlflow_failed(error: Exception) -> HangtagError:
    return UsageError(f"MLflow: {str(error).splitlines()[0]}", "check MLFLOW_TRACKING_URI; or leave --log-to out")

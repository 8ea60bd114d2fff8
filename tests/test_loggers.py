"""loggers.py: each epoch reaches TensorBoard's own files; what is missing or unknown is said."""

import sys
from pathlib import Path

import pytest

from hangtag.errors import MissingExtra, UnknownName
from hangtag.evaluate import evaluate
from hangtag.loggers import logged, open_logger
from hangtag.runs import Run
from hangtag.train import Epoch
from toys import CLASSES, quick_recipe


def epochs() -> list[Epoch]:
    return [
        Epoch(1, 2, 1, 2, 0.9, 0.5, 0.01, 0.5),
        Epoch(1, 2, 2, 2, 0.8, 0.6, 0.01, 1.0, 0.7, 0.65, finished=True),
        Epoch(2, 2, 2, 2, 0.4, 0.8, 0.005, 1.0, finished=True),
    ]


def test_finished_epochs_reach_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    import numpy as np

    logger = open_logger("tensorboard", Run(tmp_path), quick_recipe())
    assert list(logged(iter(epochs()), logger)) == epochs()
    rows = np.eye(3, dtype=np.float32)
    logger.end(evaluate(rows, np.array([0, 1, 1]), CLASSES))

    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("loss/training")
    assert [(event.step, round(event.value, 4)) for event in losses] == [(1, 0.8), (2, 0.4)]
    assert [event.step for event in events.Scalars("accuracy/validation")] == [1]
    assert events.Scalars("judged/accuracy")[0].value == pytest.approx(2 / 3)
    assert str(tmp_path / "tensorboard") in logger.where


@pytest.mark.filterwarnings("ignore")  # MLflow's own libraries warn each other
def test_finished_epochs_reach_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    import numpy as np

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    logger = open_logger("mlflow", Run(tmp_path), quick_recipe())
    list(logged(iter(epochs()), logger))
    logger.end(evaluate(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), CLASSES))

    found = mlflow.last_active_run()
    assert found.data.params["batch_size"] == "32"
    assert found.data.metrics["loss_training"] == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tool_that_is_not_installed_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(MissingExtra, match=rf"pip install 'hangtag\[{name}\]'"):
        open_logger(name, Run(tmp_path), quick_recipe())


def test_an_unknown_tool_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'tensorboard'"):
        open_logger("tensorbord", Run(tmp_path), quick_recipe())


def test_without_a_logger_nothing_happens() -> None:
    assert list(logged(iter(epochs()), None)) == epochs()

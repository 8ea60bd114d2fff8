"""trackers.py: each epoch reaches the tracker; a tracker that is missing or fails is named."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from hangtag.errors import MissingExtra, UnknownName, UsageError
from hangtag.evaluation.metrics import Evaluation, evaluate
from hangtag.evaluation.run_folder import Run
from hangtag.training import trackers
from hangtag.training.engine.loop import Epoch
from hangtag.training.trackers import Tracking
from toys import CLASSES, quick_recipe


def epochs() -> list[Epoch]:
    return [
        Epoch(1, 2, 1, 2, 0.9, 0.5, 0.01, 0.5),
        Epoch(1, 2, 2, 2, 0.8, 0.6, 0.01, 1.0, 0.7, 0.65, finished=True),
        Epoch(2, 2, 2, 2, 0.4, 0.8, 0.005, 1.0, finished=True),
    ]


def test_finished_epochs_reach_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Tracking("tensorboard")
    assert list(log.track(iter(epochs()), Run(tmp_path), quick_recipe().to_json())) == epochs()
    rows = np.eye(3, dtype=np.float32)
    where = log.end(evaluate(rows, np.array([0, 1, 1]), CLASSES))

    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("loss/training")
    assert [(event.step, round(event.value, 4)) for event in losses] == [(1, 0.8), (2, 0.4)]
    assert [event.step for event in events.Scalars("accuracy/validation")] == [1]
    assert events.Scalars("judged/accuracy")[0].value == pytest.approx(2 / 3)
    assert str(tmp_path / "tensorboard") in where


@pytest.mark.filterwarnings("ignore")  # MLflow's own libraries warn each other
def test_finished_epochs_reach_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    log = Tracking("mlflow")
    list(log.track(iter(epochs()), Run(tmp_path), quick_recipe().to_json()))
    log.end(evaluate(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), CLASSES))

    found = mlflow.last_active_run()
    assert found.data.params["batch_size"] == "32"
    assert found.data.metrics["loss_training"] == pytest.approx(0.4)


@pytest.mark.parametrize("setting", [None, "false"])
def test_mlflow_sends_no_usage_statistics_unless_the_user_says_so(
    setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", setting or "")
    if setting is None:
        monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    monkeypatch.setitem(sys.modules, "mlflow", MagicMock())

    trackers.MLflow(Run(tmp_path), {})

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == (setting or "true")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match=rf"pip install 'hangtag\[{name}\]'"):
        Tracking(name)


def test_an_unknown_tracker_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tensorboard'"):
        Tracking("tensorbord")


def test_without_a_tracker_nothing_happens(tmp_path: Path) -> None:
    assert list(Tracking(None).track(iter(epochs()), Run(tmp_path), quick_recipe().to_json())) == epochs()
    assert not any(tmp_path.iterdir())


class Failing:
    """A tracker that fails at the first epoch."""

    where = "nowhere"

    def __init__(self, run: Run, recipe: Mapping[str, Any]) -> None:
        pass

    def epoch(self, epoch: Epoch) -> None:
        raise ConnectionError("the server is gone\nand more")

    def end(self, evaluation: Evaluation) -> None:
        raise AssertionError("it was dropped before")


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Failing)
    log = Tracking("tensorboard")

    with pytest.warns(UserWarning, match="tensorboard failed and receives no more data: the server is gone;") as caught:
        assert list(log.track(iter(epochs()), Run(tmp_path), quick_recipe().to_json())) == epochs()

    assert len(caught) == 1
    assert log.end(evaluate(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), CLASSES)) == ""


def test_a_tracker_that_cannot_be_opened_ends_the_training_in_its_first_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where its folder would be")
    tracked = Tracking("tensorboard").track(iter(epochs()), Run(tmp_path), quick_recipe().to_json())

    with pytest.raises(UsageError, match=r"tensorboard cannot be opened: .*leave --log-to out"):
        next(tracked)

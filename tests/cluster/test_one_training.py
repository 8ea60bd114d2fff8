"""One training on several workers of a real cluster; a worker that is killed is replaced."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hangtag.cluster.connect import Resources, connected
from hangtag.cluster.one_training import on_workers
from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.errors import ClusterError, DivergedError
from hangtag.evaluation.run_folder import STOPPED
from hangtag.training.classifier import Classifier
from hangtag.training.run import Training
from workers_cases import images_and_labels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Train's, about Ray Data

SETTINGS = {"bfloat16": False, "muon_learning_rate": 0.0, "adapt_cores": False}


def data() -> LabelledImages:
    return from_arrays(*images_and_labels())


def begun(out: Path, **more: Any) -> Training:
    settings = {**SETTINGS, **more.pop("settings", {})}
    arguments: dict[str, Any] = {
        "recipe": "fast",
        "epochs": 3,
        "batch_size": 16,
        "folds": 0,
        "settings": settings,
    } | more
    return Training.begin(Classifier(**arguments), data(), {}, out)


def train(
    training: Training, address: str, workers: int = 2, each: Callable[[Any], None] = lambda epoch: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[str]:  # fmt: skip
    """Train to the end; returns what was said."""
    said: list[str] = []
    with connected(address, Resources(workers)) as cluster:
        training.trainer = on_workers(cluster, workers, 1, "cpu", said.append)
        training.workers = workers
        for epoch in training.epochs(stop):
            each(epoch)
    training.finish()
    return said


def worker_processes(cluster: Any) -> list[int]:
    """The processes of this cluster in which Ray Train's workers run."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, parent = (entry / "cmdline").read_bytes(), (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"RayTrainWorker" in name and int(parent) in raylets:
            found.append(int(entry.name))
    return found


def test_two_workers_train_as_one_a_killed_one_is_replaced_and_a_stopped_training_can_be_resumed(
    cluster: Any, address: str, tmp_path: Path
) -> None:
    alone, training = (begun(tmp_path / name, epochs=400) for name in ("alone", "two"))
    killed: list[int] = []
    reached = {"alone": 0, "two": 0}

    def kill(epoch: Any) -> None:
        reached["two"] = epoch.number
        if epoch.finished and epoch.number == 1 and not killed:
            killed.append(max(worker_processes(cluster)))
            os.kill(killed[0], signal.SIGKILL)

    for epoch in alone.epochs(lambda: reached["alone"] > 3):
        reached["alone"] = epoch.number
    said = train(training, address, each=kill, stop=lambda: reached["two"] > 3)
    assert killed
    assert "a worker was lost and replaced; continuing from the last checkpoint" in said
    one, two = (each.run.history() for each in (alone, training))
    assert [line["number"] for line in two] == [*range(1, len(two) + 1)]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [line[name] for line in two[:3]] == pytest.approx([line[name] for line in one[:3]], abs=1e-3)
    assert training.stopped
    assert training.run.config()["status"] == STOPPED
    assert training.run.config()["workers"] == 2
    checkpoint = Training.resume(training.run, data=data()).checkpoint
    assert checkpoint is not None
    assert checkpoint.metadata["workers"] == 2


def test_a_diverged_training_says_so(address: str, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="training diverged"):
        train(begun(tmp_path / "diverged", settings={"learning_rate": 1e20}), address, workers=1)


def test_more_workers_than_the_cluster_has_room_for_are_refused_at_once(address: str) -> None:
    with connected(address) as cluster, pytest.raises(ClusterError, match="asked for 4 CPUs"):
        on_workers(cluster, 4, None, "cpu", print)

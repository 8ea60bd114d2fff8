"""One training on several workers of a real cluster; a worker that is killed is replaced."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

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


def weights(training: Training) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(training.run.path / "weights.safetensors")


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


def test_two_workers_train_as_one_and_a_killed_one_is_replaced(cluster: Any, address: str, tmp_path: Path) -> None:
    alone = begun(tmp_path / "alone")
    for _ in alone.epochs():
        pass
    alone.finish()
    killed: list[int] = []

    def kill(epoch: Any) -> None:
        if epoch.finished and epoch.number == 1 and not killed:
            killed.append(max(worker_processes(cluster)))
            os.kill(killed[0], signal.SIGKILL)

    training = begun(tmp_path / "two")
    said = train(training, address, each=kill)
    assert killed
    assert "a worker was lost and replaced; continuing from the last checkpoint" in said
    assert [line["number"] for line in training.run.history()] == [1, 2, 3]
    assert training.run.config()["workers"] == 2
    assert training.run.config()["status"] == "finished"
    one, two = weights(alone), weights(training)
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) < 1e-2


def test_a_stopped_training_is_resumed_and_a_diverged_one_says_so(address: str, tmp_path: Path) -> None:
    training, pressed = begun(tmp_path / "stopped", epochs=400), []
    train(training, address, each=pressed.append, stop=lambda: bool(pressed))
    assert training.stopped
    assert training.run.config()["status"] == STOPPED
    checkpoint = Training.resume(training.run, data=data()).checkpoint
    assert checkpoint is not None
    assert checkpoint.metadata["workers"] == 2
    with pytest.raises(DivergedError, match="training diverged"):
        train(begun(tmp_path / "diverged", settings={"learning_rate": 1e20}), address, workers=1)


def test_more_workers_than_the_cluster_has_room_for_are_refused_at_once(address: str) -> None:
    with connected(address) as cluster, pytest.raises(ClusterError, match="asked for 4 CPUs"):
        on_workers(cluster, 4, None, "cpu", print)

"""What goes wrong on a cluster is one line for every command, which says what, where and what to do."""

import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hangtag.cli import main
from hangtag.cluster import connect
from hangtag.cluster.connect import connected
from hangtag.cluster.crew import Crew
from hangtag.cluster.one_training import on_workers
from hangtag.data.labelled_images import from_arrays
from hangtag.errors import ClusterError
from hangtag.training.classifier import Classifier
from hangtag.training.run import Training
from object_store import object_store
from toys import shapes, tiny_arrays, toy_model
from workers_cases import images_and_labels

TRAIN = ("train", "tiny.npz", "--recipe", "tutorial", "--epochs", "1", "--out", "out")
COMMANDS = {
    "predict": ("predict", "model.onnx", "photos", "--out", "out"),
    "seeds": (*TRAIN, "--seeds", "2"),
    "folds": (*TRAIN, "--folds", "2"),
    "workers": (*TRAIN, "--workers", "2"),
    "tune": ("tune", "tiny.npz", "--recipe", "tutorial", "--trials", "2", "--out", "out"),
    "audit": ("audit", "photos", "--out", "out"),
    "serve": ("serve", "model.onnx", "--port", "0", "--no-auth"),
}

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command of `COMMANDS` with more options where it has all it needs; returns its exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(toy_model())
    images, labels = tiny_arrays()
    np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for number, image in enumerate(shapes(12)[0]):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    def running(command: str, *more: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hangtag", *COMMANDS[command], *more])
        with pytest.raises(SystemExit) as end:
            main.main()
        return int(end.value.code or 0), capsys.readouterr().err

    return running


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_that_cannot_be_reached_is_one_line_and_leaves_nothing(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    refused, malformed = run(command, "--ray", address), run(command, "--ray=head")
    monkeypatch.setitem(sys.modules, "ray", None)
    missing = run(command, "--ray")

    assert refused == (1, f"hangtag: {address}: no Ray cluster answers: Connection refused (check the address and that "
                          "the cluster runs; --ray alone starts Ray on this machine)\n")  # fmt: skip
    assert malformed[0] == 2 and malformed[1].startswith("hangtag: the address of a Ray cluster must be HOST:PORT")
    assert missing == (1, "hangtag: this needs 'ray', which is not installed (pip install 'hangtag[ray]')\n")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("predict", ("--workers", "5"), "asked for 5 CPUs, the cluster has 3 (ask for fewer workers, or add nodes"),
        ("workers", ("--cpus", "2"), "asked for 4 CPUs, the cluster has 3"),
        ("seeds", ("--cpus", "2"), "asked for 1 worker with 2 CPUs, the nodes of the cluster have room for 0"),
        ("audit", ("--cpus", "4"), "asked for 4 CPUs, the cluster has 3"),
    ],
)
def test_more_than_the_cluster_has_is_refused(
    command: str, more: tuple[str, ...], says: str, run: Run, address: str
) -> None:
    code, error = run(command, "--ray", address, *more)

    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(f"hangtag: {says}")
    assert not Path("out").exists()


def test_a_damaged_shard_is_answered_again_and_the_folder_is_not_used_for_other_work(run: Run, address: str) -> None:
    assert run("predict")[0] == 0
    there = contents(Path("out"))
    (shard,) = Path("out").glob("part-*")
    shard.write_bytes(shard.read_bytes()[:500])

    assert run("predict", "--ray", address)[0] == 0

    assert contents(Path("out")) == there
    Path("model.onnx").write_bytes(toy_model(seed=1))
    for command, says in (
        ("predict", "out: the job in this folder is about another model"),
        ("seeds", "out: "),
        ("tune", "out: "),
    ):
        code, error = run(command, "--ray", address)
        assert code in (1, 2) and says in error.splitlines()[-1], error
        assert "Traceback" not in error
    assert contents(Path("out")) == there


def test_credentials_that_the_nodes_lack_are_named_with_the_node(
    run: Run, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store(auth=True) as guarded:
        for name, value in guarded.environment.items():
            monkeypatch.setenv(name, value)
        code, error = run("predict", "--ray", address, "--out", f"s3://{guarded.bucket}/out")

    assert code == 1
    assert "access denied, or no credentials" in error.splitlines()[-1] and "Traceback" not in error


def test_a_training_ends_when_a_node_is_lost_for_good(
    cluster: Any, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_NO_ROOM_SECONDS", 1.0)
    classifier = Classifier(recipe="fast", epochs=5000, batch_size=16, folds=0)
    training = Training.begin(classifier, from_arrays(*images_and_labels()), {}, tmp_path / "run")
    said: list[str] = []

    with (
        pytest.raises(ClusterError, match="no room for 1 worker with 2 CPUs for 1 s: nodes were lost"),
        connected(address) as before,  # the large node joins later, so that this process does not use it
    ):
        large = cluster.add_node(num_cpus=2, object_store_memory=100_000_000, node_name="large")
        nodes = replace(before, nodes=connect._nodes())
        training.workers, training.trainer = 1, on_workers(nodes, 1, 2, "cpu", said.append)
        for epoch in training.epochs():
            if large is not None and epoch.number > 1:
                cluster.remove_node(large)
                large, lost = None, time.monotonic()

    assert time.monotonic() - lost < 30
    assert said[1:] == ["workers: 0 on large", "the cluster has no room for 1 worker with 2 CPUs; waiting for nodes"]
    assert training.run.config()["status"] == "training"  # the same command resumes it


def test_many_trainings_end_when_no_node_is_large_enough_any_more(
    cluster: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(link: Any) -> None:  # in the test, so that Ray sends its code
        time.sleep(60)

    monkeypatch.setattr(connect, "_NO_ROOM_SECONDS", 1.0)

    with connected(address) as nodes, pytest.raises(ClusterError, match="no room for 1 worker with 2 CPUs for 1 s"):
        large = cluster.add_node(num_cpus=2, object_store_memory=100_000_000, node_name="large")
        crew = Crew(nodes, cpus=2)
        crew.start(0, wait)
        threading.Timer(1.0, cluster.remove_node, [large]).start()
        list(crew.results(lambda: False))

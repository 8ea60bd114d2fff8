"""trainings.py: seeds, trials and folds on a real cluster give what one machine gives, bit for bit; each can go on."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hangtag.cluster import crew, trainings
from hangtag.cluster.connect import connected
from hangtag.cluster.images import SharedImages
from hangtag.cluster.trainings import Nodes, fold_runner, label_fold_runner, run_trials, train_seeds
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import ModelError
from hangtag.evaluation.run_folder import Run
from hangtag.training.estimator import ImageClassifier
from hangtag.training.label_errors import find_label_errors
from hangtag.training.run import Training
from hangtag.training.seeds import Seeds
from hangtag.training.tuning import Search, run_trial
from toys import CLASSES, quick_recipe, shapes

SOURCE = {"what": "toys", "path": None}
SPACE = {"learning_rate": (1e-4, 0.1), "batch_size": [8, 16, 32]}


@pytest.fixture(autouse=True)
def one_thread_as_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    monkeypatch.setattr("hangtag.data.read.read", lambda *_: data())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nodes(address: str) -> Iterator[Nodes]:
    with connected(address) as cluster:
        yield Nodes(cluster)


def data(images: int = 210) -> LabelledImages:
    pixels, labels = shapes(images)
    noise = np.random.default_rng(1).integers(0, 160, pixels.shape)
    pixels = np.clip(pixels.astype(int) // 3 + noise, 0, 255).astype(np.uint8)
    parts = {"train": slice(0, images - 60), "test": slice(images - 60, images)}
    return LabelledImages(pixels, labels, CLASSES, "toys", parts=parts)


def classifier(epochs: int = 3, **changes: Any) -> ImageClassifier:
    return ImageClassifier(recipe=replace(quick_recipe(epochs), **{"validation": 0.2, **changes}), seed=4)


def never() -> bool:
    return False


def quiet(*_: Any) -> None:
    return


def weights_of(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def test_seeds_give_the_weights_and_numbers_of_one_machine(nodes: Nodes, tmp_path: Path) -> None:
    said: list[str] = []
    here = Seeds(classifier(), data(), SOURCE, tmp_path / "here", 3)
    for _, step in here.trainings():
        assert isinstance(step, Training)
        list(step.epochs())
        step.finish()
    there = Seeds(classifier(), data(), SOURCE, tmp_path / "there", 3)

    ended = {number: words for number, words, _ in train_seeds(nodes, there, never, quiet, said.append)}

    assert sorted(ended) == [4, 5, 6]
    assert here.finish()[0] == there.finish()[0]
    for number in (4, 5, 6):
        assert weights_of(there.folder(number)) == weights_of(here.folder(number))
        assert ended[number].startswith("test accuracy")
    assert there.run.metrics()["seeds"] == here.run.metrics()["seeds"]
    assert "object store" in said[0]
    assert "all nodes see" in said[1]
    assert not list(there.run.path.glob(".shared*"))


def test_trials_are_those_of_one_machine_also_after_a_stop(nodes: Nodes, tmp_path: Path) -> None:
    def search(name: str) -> Search:
        return Search(classifier(9), data(), SOURCE, tmp_path / name, SPACE, trials=6, parallel=3)

    here = search("here")
    while (job := next(here.waiting(), None)) is not None:
        trial = run_trial(job, here.searched, here.source, never)
        assert trial is not None
        here.add(trial)
    there, ended = search("there"), count()
    for _ in run_trials(nodes, there, lambda: next(ended) >= 3, quiet, quiet):
        pass
    there.pause()
    assert len(there.results) < 6
    again = search("there")
    assert again.resumed
    list(run_trials(nodes, again, never, quiet, quiet))

    assert [replace(each, seconds=0.0) for each in again.results.trials] == [
        replace(each, seconds=0.0) for each in here.results.trials
    ]


def test_folds_are_those_of_one_machine_and_finished_ones_are_not_trained_again(nodes: Nodes, tmp_path: Path) -> None:
    def training(name: str) -> Training:
        own = Training.begin(classifier(folds=3, validation=0.0), data(), SOURCE, tmp_path / name)
        list(own.epochs())
        return own

    here, there, ended = training("here"), training("there"), list[int]()
    here.cross_fit()
    here.finish()
    shown: set[str] = set()
    there.cross_fit(run=fold_runner(nodes, never, lambda *each: shown.add(each[2]), ended.append, quiet))
    kept = sorted(path.name for path in (tmp_path / "there/folds").iterdir())
    there.lock.close()
    again = Training.resume(Run(tmp_path / "there"), data=data())
    list(again.epochs())
    again.cross_fit(run=fold_runner(nodes, never, quiet, ended.append, quiet))
    again.finish()

    assert sorted(ended) == [0, 1, 2]
    assert kept == ["0.safetensors", "1.safetensors", "2.safetensors"]
    same = [(tmp_path / name / "cross_validation.npz").read_bytes() for name in ("here", "there")]
    assert same[0] == same[1]
    assert not (tmp_path / "there/folds").exists()


def test_an_audit_judges_labels_in_the_same_way(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.training.label_errors._MOST_DESCRIBED", 0)
    images = data().train

    here = find_label_errors(images)
    there = find_label_errors(images, run=label_fold_runner(nodes, quiet))

    assert here.agreement > 0.5
    np.testing.assert_array_equal(there.wrong, here.wrong)


def test_a_worker_that_is_killed_is_replaced_and_the_result_is_the_same(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_LOOK_SECONDS", 0.02)
    found = Seeds(classifier(400), data(), SOURCE, tmp_path / "run", 2)
    killed: list[int] = []

    def kill(number: int, state: dict[str, Any], node: str) -> None:
        if not killed and (worker := _worker_of(found.folder(number))):
            os.kill(worker, signal.SIGKILL)
            killed.append(number)

    ended = [number for number, _, _ in train_seeds(nodes, found, never, kill, quiet)]

    assert killed
    assert sorted(ended) == [4, 5]
    other = Training.begin(found.unfitted(killed[0]), data(), SOURCE, tmp_path / "other")
    list(other.epochs())
    other.finish()
    assert weights_of(found.folder(killed[0])) == weights_of(tmp_path / "other")


def _worker_of(folder: Path) -> int | None:
    """The process that holds the lock of a run folder; None after the end of the training."""
    inode = folder.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def test_files_travel_where_a_node_cannot_see_the_run_folder(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = trainings._sent
    monkeypatch.setattr(trainings, "_sent", lambda folder, token: {**sent(folder, token), "token": "/nowhere/token"})
    found = Seeds(classifier(), data(), SOURCE, tmp_path / "run", 2)

    assert len(list(train_seeds(nodes, found, never, quiet, quiet))) == 2
    best, _ = found.finish()
    assert weights_of(found.run.path) == weights_of(found.folder(best))


def test_images_are_mapped_where_their_file_is_and_travel_otherwise(nodes: Nodes, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", data().images)
    mapped = replace(data(), images=np.load(tmp_path / "images.npy", mmap_mode="r"))

    assert "all nodes map" in SharedImages(nodes.cluster, mapped).in_words
    assert "all nodes map" in SharedImages(nodes.cluster, mapped.test).in_words
    assert "in memory" in SharedImages(nodes.cluster, data()).in_words
    shared = SharedImages(nodes.cluster, mapped.test)
    assert shared.message["pixels"] is None
    (tmp_path / "images.npy").rename(tmp_path / "moved.npy")
    lost = SharedImages(nodes.cluster, mapped)
    assert "node east, node head and node west cannot map" in lost.in_words


def test_the_error_of_a_training_names_its_node(nodes: Nodes, tmp_path: Path) -> None:
    found = Seeds(classifier(learning_rate=1e30), data(), SOURCE, tmp_path / "run", 2)

    with pytest.raises(ModelError, match=r"on node (head|east|west): training diverged"):
        list(train_seeds(nodes, found, never, quiet, quiet))

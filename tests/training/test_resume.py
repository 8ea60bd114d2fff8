"""A killed training is resumed, and ends with the same bits as an uninterrupted one."""

import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from torch import nn

from hangtag import files
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import ModelError, RunError, SaveError
from hangtag.evaluation.run_folder import Run
from hangtag.files import MARKER
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.estimator import ImageClassifier
from hangtag.training.run import Training
from toys import shapes, where_fashion_is

SOURCE = {"what": "toys", "path": None}
SOAK = Path(__file__).parents[2] / "scripts" / "soak.py"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hangtag.training.engine.batches._CHUNK_PIXELS", 2 * 32 * 64)
    monkeypatch.setattr("hangtag.training.engine.checkpoints._FIRST_SECONDS", 0.0)
    monkeypatch.setattr("hangtag.training.engine.checkpoints._COST", 1e9)
    yield


def data() -> LabelledImages:
    images, labels = shapes(600)
    parts = {"train": slice(0, 500), "test": slice(500, 600)}
    return LabelledImages(images, labels, ("bar", "dot", "edge"), "toys", parts=parts)


def training(out: Path | None = None, seed: int = 3, epochs: int = 4) -> Training:
    recipe = find_recipe("tutorial", epochs=epochs)
    return Training.begin(ImageClassifier(recipe=recipe, seed=seed, device="cpu"), data(), SOURCE, out)


def weights(run: Run) -> str:
    return hashlib.sha256(run.weights.read_bytes()).hexdigest()


def finish(training: Training) -> Run:
    list(training.epochs())
    training.finish()
    return training.run


def leave(training: Training, after: int) -> Run:
    """What a kill leaves behind: nothing more is saved, and the lock is free."""
    epochs = training.epochs()
    for _ in range(after):
        next(epochs)
    epochs.close()
    training.lock.close()
    return training.run


def test_the_same_training_again_resumes_and_ends_with_the_same_bits() -> None:
    whole = finish(training(Path("whole")))
    killed = leave(training(), after=2)

    again = training()
    finish(again)

    assert again.run.path == killed.path
    assert "epoch" in again.resume_message
    assert weights(again.run) == weights(whole)
    assert [line["number"] for line in again.run.history()] == [1, 2, 3, 4]
    assert [line["loss"] for line in again.run.history()] == [line["loss"] for line in whole.history()]
    assert again.run.config()["status"] == "finished"
    assert not again.run.checkpoints.exists()


def test_another_training_does_not_resume_it() -> None:
    killed = leave(training(), after=2)

    other = training(seed=4)

    assert other.run.path != killed.path
    assert other.resume_message == ""


def test_an_unfinished_run_of_another_training_at_out_is_an_error_that_names_both() -> None:
    leave(training(Path("mine")), after=2)

    with pytest.raises(RunError, match="seed 3 there, 4 here"):
        training(Path("mine"), seed=4)


def test_a_finished_run_is_never_resumed() -> None:
    run = finish(training())

    assert training().run.path != run.path
    with pytest.raises(RunError, match="cannot be resumed: its status is 'finished'"):
        Training.resume(run)


def test_a_run_that_another_process_trains_is_left_alone() -> None:
    first = training()

    second = training()

    assert second.run.path != first.run.path
    with pytest.raises(RunError, match="another process"):
        training(first.run.path)


def test_a_damaged_newest_checkpoint_costs_a_little_and_changes_nothing() -> None:
    whole = finish(training(Path("whole")))
    killed = leave(training(), after=3)
    newest = sorted(killed.checkpoints.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-7])

    with pytest.warns(UserWarning, match="damaged checkpoint"):
        again = training()
    finish(again)

    assert weights(again.run) == weights(whole)


def test_a_kill_inside_a_save_leaves_nothing_behind() -> None:
    whole = finish(training(Path("whole")))
    killed = leave(training(Path("killed")), after=3)
    for left in (killed.checkpoints / ".00009.checkpoint.x.partial", killed.path / ".config.json.y.partial"):
        left.write_bytes(b"half")

    finish(training(Path("killed")))

    assert weights(killed) == weights(whole)
    assert not killed.checkpoints.exists()
    assert {path.name for path in killed.path.glob(".*")} <= {MARKER}


def test_a_stopped_run_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finish(training(Path("whole")))
    stopped = training()
    answers = iter([False] * 11)
    list(stopped.epochs(lambda: next(answers, True)))
    stopped.finish()
    assert stopped.run.config()["status"] == "stopped early"
    monkeypatch.setattr(
        "hangtag.training.run.read_again", lambda run, source: data()
    )  # toys have no name to read them by

    again = Training.resume(stopped.run, "cpu")
    finish(again)

    assert weights(again.run) == weights(whole)
    assert [line["number"] for line in again.run.history()] == [1, 2, 3, 4]
    assert again.run.config()["status"] == "finished"


def test_a_network_that_cannot_be_built_is_its_own_error() -> None:
    with pytest.raises(ModelError, match="logits"):
        list(
            Training.begin(
                ImageClassifier(model=lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(64, 7))), data(), SOURCE, None
            ).epochs()
        )


def test_a_training_that_diverges_keeps_the_last_finite_weights_and_is_not_resumed() -> None:
    wild = replace(find_recipe("fast"), epochs=3, batch_size=8, learning_rate=1e30, warmup=0.9)
    one = Training.begin(ImageClassifier(recipe=wild, device="cpu"), data(), SOURCE, None)

    with pytest.raises(ModelError, match="the initial weights were restored"):
        list(one.epochs())

    kept = safetensors.numpy.load_file(one.run.weights)
    assert all(np.isfinite(array).all() for array in kept.values())
    assert one.run.config()["status"] == "diverged"
    assert Training.begin(ImageClassifier(recipe=wild, device="cpu"), data(), SOURCE, None).run.path != one.run.path


SCRIPT = """
import sys
import hangtag.training.engine.batches, hangtag.training.engine.checkpoints
hangtag.training.engine.batches._CHUNK_PIXELS = 2 * 32 * 64
hangtag.training.engine.checkpoints._FIRST_SECONDS = 0.0
hangtag.training.engine.checkpoints._COST = 1e9
sys.path[:0] = {folders!r}
from pathlib import Path
from test_resume import training, finish
one = training(Path("killed"), epochs=30)
print("ready", flush=True)
finish(one)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_9_at_any_instant_changes_no_bit() -> None:
    whole = finish(training(Path("whole"), epochs=30))
    random = np.random.default_rng(0)
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(folders=folders)]
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    if Run(Path("killed")).config()["status"] != "finished":
        finish(training(Path("killed"), epochs=30))

    assert kills >= 1
    assert weights(Run(Path("killed"))) == weights(whole)
    assert json.loads((Path("killed") / "metrics.json").read_text())["part"] == "test"


def test_the_long_campaign_says_which_files_of_a_run_are_not_those_of_one_left_alone(soak: ModuleType) -> None:
    whole, other = finish(training(Path("whole"))), finish(training(Path("other")))
    right = soak.contents(whole.path)
    assert soak.differences(right, soak.contents(other.path)) == []

    other.write_weights(b"other bits")
    other.write_metrics({"part": "test"})
    other.write_history([{**line, "seconds": 7.0} for line in other.history()])
    other.model.unlink()
    other.checkpoints.mkdir()
    (other.path / ".model.onnx.x.partial").write_bytes(b"half")

    assert soak.differences(right, soak.contents(other.path)) == [
        "model.onnx is missing",
        ".model.onnx.x.partial does not belong there",
        "checkpoints does not belong there",
        "weights.safetensors differs from an undisturbed training",
        "metrics.json differs from an undisturbed training",
    ]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_the_long_campaign_counts_kills_and_those_while_finishing_and_none_after_the_end(soak: ModuleType) -> None:
    run = Path("run")
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text('{"status": "training"}')
    (run / "history.jsonl").write_text("{}\n{}\n")
    alone = soak.Alone({}, 0.1)

    def kills(*commands: str, epochs: int = 2) -> object:
        """Of a training whose processes are these, one after the other."""
        processes = (
            ended(command) if command != "sleep" else subprocess.Popen(["sleep", "60"]) for command in commands
        )
        return soak.killed_until_done(lambda: next(processes), run, epochs, alone, random.Random(0))

    assert kills("sleep", "sleep", "true") == soak.Kills(2, 2)
    assert alone.seconds == 0.1  # a killed training does not change the time of an undisturbed one
    alone.seconds = 60.0
    assert kills("true") == soak.Kills(0, 0)
    assert alone.seconds < 60
    alone.seconds = 0.1
    assert kills("sleep", "true", epochs=3) == soak.Kills(1, 0)
    with pytest.raises(SystemExit, match="resuming failed after 1 kills"):
        kills("sleep", "false")
    (run / "config.json").write_text('{"status": "finished"}')
    assert kills("sleep") == soak.Kills(0, 0)
    assert not (run / "checkpoints").exists()


def ended(command: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([command])
    process.wait()
    return process


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    """scripts/soak.py as a module."""
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.slow
def test_the_long_campaign_runs(fashion: LabelledImages) -> None:
    command = [sys.executable, "-W", "ignore", SOAK, "--images", "256", "--kills", "1", "--recipes", "fast"]
    command += ["--seed", "8"]  # the first kill comes early enough, and the second too late

    shown = subprocess.run(command, check=False, capture_output=True, text=True, env=where_fashion_is(fashion))

    assert shown.returncode == 0, shown.stderr
    assert "with equal bits" in shown.stdout


@pytest.mark.parametrize("name", ["00002.checkpoint", "model.onnx"])
def test_a_training_that_met_a_full_disk_resumes_and_ends_with_the_same_folder(
    name: str, soak: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = soak.contents(finish(training(Path("whole"))).path)
    unfinished, make = training(Path("full")), files.tempfile.mkstemp

    def full(prefix: str, **options: Any) -> tuple[int, str]:
        if prefix == f".{name}.":
            raise OSError(28, "No space left on device")
        return make(prefix=prefix, **options)

    with monkeypatch.context() as patch, pytest.raises(SaveError, match="the disk is full"):
        patch.setattr(files.tempfile, "mkstemp", full)
        finish(unfinished)
    unfinished.lock.close()
    again = training(Path("full"))

    assert again.resumed
    assert soak.differences(right, soak.contents(finish(again).path)) == []

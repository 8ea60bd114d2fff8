"""`hangtag train` with several workers: what is refused, and the same command under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from toys import tiny_arrays

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
START = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2"], "so it needs --ray"),
        (["--workers", "2", "--ray", "--seeds", "3"], "cannot be combined with --seeds"),
        (["--workers", "2", "--ray", "--minutes", "1"], "cannot be combined with --minutes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(hangtag: Any, arguments: list[str], message: str) -> None:
    refused = hangtag("train", "nowhere", *arguments)
    assert refused.code == 2
    assert message in refused.err


def test_under_torchrun_nothing_else_may_start_workers(hangtag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    refused = hangtag("train", "nowhere", "--ray", "--workers", "2")
    assert refused.code == 2
    assert "torchrun has started the workers" in refused.err


def test_torchrun_starts_one_training_that_the_first_process_prints_and_writes(hangtag: Any, tmp_path: Path) -> None:
    images, labels = tiny_arrays()
    parts = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "tiny.npz", **parts)

    def train(out: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *START, "-m", "hangtag", "train", "tiny.npz", "--out", out, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, check=False, timeout=240, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    settings = ("--recipe", "tutorial", "--epochs", "2", "--batch-size", "4")
    divided = train("two", *settings)
    assert divided.returncode == 0, divided.stderr
    assert divided.stdout.count("epoch 2/2") == 1
    assert json.loads((tmp_path / "two/config.json").read_text())["workers"] == 2
    assert hangtag("train", "tiny.npz", "--out", "one", *settings).code == 0
    one, two = (safetensors.torch.load_file(tmp_path / run / "weights.safetensors") for run in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4

    refused = train("three", "--recipe", "transfer")
    assert refused.returncode != 0
    assert "which several workers cannot share" in refused.stderr
    assert not (tmp_path / "three").exists()

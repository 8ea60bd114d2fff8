"""`hangtag predict --ray` as a process: what it prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hangtag
import toys

COMMAND = [sys.executable, "-m", "hangtag", "predict", "model.onnx", "photos"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and twenty images."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "model.onnx").write_bytes(toys.toy_model())
    for number, image in enumerate(toys.shapes(20)[0]):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number:02d}.png")
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(hangtag.__file__).parents[1])}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=200
    )


def test_a_job_on_a_cluster_prints_nothing_of_rays(address: str, folder: Path) -> None:
    done = run(folder, "--out", "shards", "--ray", address, "--json")

    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["images"], answer["failed"], answer["shards"]) == (20, 0, 1)
    lines = done.stderr.splitlines()
    assert lines[0] == "Ray: 3 nodes, 3 CPUs"
    assert all(line.startswith(("Ray:", "images a second: ", "hangtag: note:")) for line in lines), done.stderr

    again = run(folder, "--out", "shards", f"--ray={address}", "--json")

    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_a_cluster_on_this_machine_ends_with_a_command_that_is_stopped(folder: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--out", "shards", "--ray"], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stderr is not None
        first = command.stderr.readline()
        there = descendants(command.pid)
        time.sleep(0.5)
        command.send_signal(signal.SIGTERM)
        rest = command.stderr.read()

    assert command.returncode == 128 + signal.SIGTERM, rest
    assert first.startswith("Ray: 1 node, ") and "; dashboard: http://127.0.0.1:" in first
    assert all(line.startswith(("note: ", "stopped")) for line in rest.splitlines() if line), rest
    assert len(there) > 3
    end = time.monotonic() + 20
    while any(map(is_alive, there)) and time.monotonic() < end:
        time.sleep(0.2)
    assert [pid for pid in there if is_alive(pid)] == []


def test_a_table_cannot_be_written_on_a_cluster(folder: Path) -> None:
    done = run(folder, "--out", "answers.csv", "--ray")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--ray needs --out with a folder or an address for shards" in done.stderr


def descendants(pid: int) -> set[int]:
    """A process's children, and theirs."""
    parents: dict[int, Any] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, more = set[int](), {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in found} - found
    return found - {pid}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

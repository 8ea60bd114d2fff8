"""The peers measured beside hangtag: who they are, where their Python is, how one is run.

Each has its own environment (`make bench-peers`) and a small script in `peers/`; `peers/protocol.py` says what a script
takes and tells. `HANGTAG_PEERS` names another folder that holds the environments.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["NOT_MEASURED", "PEERS", "Peer", "PeerEpoch", "PeerRun", "python_of", "run", "write_arrays"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """One way of running one peer.

    Attributes:
        name: in words, with its settings.
        environment: a folder under .venv-peers.
        script: a module of `benchmarks.peers`.
        arguments: its settings.
    """

    name: str
    environment: str
    script: str
    arguments: str = ""


@dataclass(frozen=True)
class PeerEpoch:
    """One epoch a peer told of; `since_start` is from the start of its process, the judging of epochs taken off."""

    seconds: float
    since_start: float
    accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class PeerRun:
    versions: dict[str, str]
    epochs: list[PeerEpoch] = field(default_factory=list)


KERAS_AS_WRITTEN = Peer("Keras on TensorFlow, as in the lesson", "tensorflow", "keras_lesson")
KERAS_BEST = Peer(
    "Keras on TensorFlow, steps_per_execution=75, one thread",
    "tensorflow",
    "keras_lesson",
    "--steps-per-execution 75 --threads 1",
)
KERAS_JAX_75 = Peer(
    "Keras on JAX, steps_per_execution=75", "jax", "keras_lesson", "--backend jax --steps-per-execution 75"
)
PEERS = (
    KERAS_AS_WRITTEN,  # jit_compile="auto", which is on for this network
    Peer("Keras on TensorFlow, jit_compile=False", "tensorflow", "keras_lesson", "--jit off"),
    Peer("Keras on TensorFlow, steps_per_execution=75", "tensorflow", "keras_lesson", "--steps-per-execution 75"),
    KERAS_BEST,
    Peer(
        "Keras on TensorFlow, steps_per_execution=75, jit_compile=False, one thread",
        "tensorflow",
        "keras_lesson",
        "--steps-per-execution 75 --jit off --threads 1",
    ),
    Peer("Keras on JAX, as in the lesson", "jax", "keras_lesson", "--backend jax"),
    KERAS_JAX_75,
    Peer(
        "Keras on JAX, steps_per_execution=75, one thread",
        "jax",
        "keras_lesson",
        "--backend jax --steps-per-execution 75 --threads 1",
    ),
    Peer("PyTorch loop, as in the quickstart", "pytorch", "pytorch_loop"),
    Peer(
        "PyTorch loop, whole batches, fused Adam, one thread",
        "pytorch",
        "pytorch_loop",
        "--loader batches --adam fused --threads 1",
    ),
    Peer(
        "PyTorch loop, whole batches, fused Adam, torch.compile",
        "pytorch",
        "pytorch_loop",
        "--loader batches --adam fused --compile on",
    ),
    Peer("skorch, as documented", "skorch", "skorch_lesson"),
    Peer("skorch, fused Adam, one thread", "skorch", "skorch_lesson", "--adam fused --threads 1"),
    Peer("scikit-learn MLPClassifier", "sklearn", "sklearn_lesson"),
    Peer("scikit-learn MLPClassifier, one thread", "sklearn", "sklearn_lesson", "--threads 1"),
    Peer("fastai Learner", "fastai", "fastai_lesson"),
    Peer("fastai Learner, PyTorch's fused Adam, one thread", "fastai", "fastai_lesson", "--adam fused --threads 1"),
)


NOT_MEASURED = {
    "timm": "it cannot be imported beside a CPU build of PyTorch: the torchvision it needs comes built for CUDA "
    "(`operator torchvision::nms does not exist`: timm 1.0.31, torchvision 0.28.0, torch 2.13.0+cpu), and a CUDA build "
    "is gigabytes; it also brings networks for large pictures, but no training loop for arrays as small as these",
}


def python_of(environment: str) -> Path | None:
    """The Python of a peer's environment, if it is made."""
    folder = Path(os.environ.get("HANGTAG_PEERS", ROOT / ".venv-peers"))
    python = folder / environment / "bin" / "python"
    return python if python.is_file() else None


def write_arrays(folder: Path) -> None:
    """Fashion-MNIST as files that need no hangtag to read."""
    import numpy as np

    import hangtag

    data = hangtag.read("fashion-mnist")
    for name in ("train", "test"):
        part = data.part(name)
        np.save(folder / f"{name}-images.npy", np.array(part.images))
        np.save(folder / f"{name}-labels.npy", part.labels.astype(np.uint8))


def run(peer: Peer, folder: Path, epochs: int, *arguments: str, enough: float = 2.0) -> PeerRun:
    """Run a peer in a process of its own; it is ended early once an epoch's test accuracy is `enough`."""
    python = python_of(peer.environment)
    assert python is not None
    command = [str(python), "-m", f"benchmarks.peers.{peer.script}", str(folder), "--epochs", str(epochs)]
    command += [*peer.arguments.split(), *arguments]
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        told = lines(process)
        found = PeerRun(next(told, {}).get("versions", {}))
        for one in told:
            since_start = time.perf_counter() - began - one["judging_seconds"]
            add(found.epochs, PeerEpoch(one["seconds"], since_start, one["accuracy"], one["test_accuracy"]))
            if (one["test_accuracy"] or 0.0) >= enough:
                process.kill()
                return found
        if process.wait():
            complaints.seek(0)
            raise RuntimeError(f"{peer.name}: {complaints.read().strip()[-500:]}")
    return found


def add(epochs: list[PeerEpoch], newest: PeerEpoch) -> None:
    """One more epoch; those before it whose line was read late, which shows by now, were told by then at the latest."""
    for at in reversed(range(len(epochs))):
        if epochs[at].since_start <= newest.since_start:
            break
        epochs[at] = replace(epochs[at], since_start=newest.since_start)
    epochs.append(newest)


def lines(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)


def environment() -> dict[str, str]:
    """As an ordinary machine has it: Python's bytecode cached, nothing of hangtag's own settings for threads."""
    ours = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "GOMP_SPINCOUNT"}
    return {name: value for name, value in os.environ.items() if name not in ours}

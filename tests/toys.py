"""Small, honest stand-ins shared by the tests: images that can be learned, networks that train in a blink."""

import dataclasses
import gzip
import hashlib
import io
import itertools
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

import hangtag
from hangtag.data.public.catalog import NAMED, Archive, DataFile, NamedSet
from hangtag.data.public.datasets import fingerprint
from hangtag.model.artifact import Metadata
from hangtag.model.calibration import softmax
from hangtag.pictures import Images, ImageSpec
from hangtag.training.engine.recipes import Recipe, find_recipe

if TYPE_CHECKING:
    from hangtag.training.engine.backbones import Backbone

SIDE = 8
CLASSES = ("bar", "dot", "edge")


def shapes(count: int = 90, seed: int = 0) -> tuple[Images, NDArray[np.int64]]:
    """(count, 8, 8) uint8 and labels 0-2: a bright bar, dot or edge on a noisy dark ground."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images = random.integers(0, 40, (count, SIDE, SIDE), dtype=np.uint8)
    images[labels == 0, 2:6, :] = 220
    images[labels == 1, 3:5, 3:5] = 250
    images[labels == 2, :, :2] = 200
    return images, labels


def quick_recipe(epochs: int = 2) -> Recipe:
    return find_recipe("tutorial", epochs=epochs)


def metadata(spec: ImageSpec | None = None, class_names: tuple[str, ...] = CLASSES) -> Metadata:
    """What a model file of the toy images says about itself."""
    return Metadata(
        class_names=class_names,
        image=spec or ImageSpec(SIDE, SIDE, background=0),
        network="mlp",
        parameters=1,
        recipe=quick_recipe().to_json(),
        seed=0,
        data={"name": "shapes", "fingerprint": "0" * 64, "images": 90},
        versions={"hangtag": "0"},
        created="2026-01-01T00:00:00+00:00",
    )


@cache
@cache
def tiny_backbone(side: int = 32) -> "Backbone":
    """A real EfficientNet-Lite with random weights, for images of this size."""
    import torch

    from hangtag.model.artifact import BackboneRecord
    from hangtag.training.engine.backbones import Backbone, with_weights
    from hangtag.training.engine.efficientnet_lite import EfficientNetLite

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EfficientNetLite(0).eval()
    record = BackboneRecord("efficientnet-lite0", "Apache-2.0", "0" * 64, (127.0,) * 3, (128.0,) * 3)
    empty = Backbone("efficientnet-lite0", record, (side, side), b"", 1280, True, 3_400_000, network)
    return dataclasses.replace(with_weights(empty, network), record=record)


def toy_model(channels: int = 1, image: ImageSpec | None = None, seed: int = 0) -> bytes:
    """A model file for the toy images, its network untrained; made once per test run."""
    from hangtag.training.engine.build import build_network
    from hangtag.training.engine.export import export_model

    spec = image or ImageSpec(SIDE, SIDE, channels, background=0)
    return export_model(build_network("mlp", spec, len(CLASSES), seed=seed), metadata(spec))


def in_a_process(program: str, folder: Path) -> str:
    """What a Python program prints that starts in `folder` as a process of its own."""
    source = str(Path(hangtag.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def where_fashion_is(fashion: hangtag.LabelledImages) -> dict[str, str]:
    """The environment of a process that reads Fashion-MNIST from the place this test run has it from."""
    origin = Path(fashion.source.origin)
    cached = (origin / "images.npy").is_file()
    return {**os.environ, **({"XDG_CACHE_HOME": str(origin.parents[2])} if cached else {"HANGTAG_DATA": str(origin)})}


# --- a public set of thirty pictures -----------------------------------------------------------------------------


def tiny_arrays() -> tuple[Images, NDArray[np.int64]]:
    """(30, 4, 4) uint8 and labels 0-2: twenty to train on, ten to test on."""
    random = np.random.default_rng(7)
    return random.integers(0, 256, (30, 4, 4), dtype=np.uint8), np.arange(30, dtype=np.int64) % 3


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as the content of an IDX file (http://yann.lecun.com/exdb/mnist: magic, sizes, bytes)."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(images: Images, labels: NDArray[np.int64], train: int) -> dict[str, bytes]:
    """The four files of a set, by name."""
    small = labels.astype(np.uint8)
    return {
        "train-images-idx3-ubyte": idx(images[:train]),
        "t10k-images-idx3-ubyte": idx(images[train:]),
        "train-labels-idx1-ubyte": idx(small[:train]),
        "t10k-labels-idx1-ubyte": idx(small[train:]),
    }


def tiny_files() -> dict[str, bytes]:
    return idx_files(*tiny_arrays(), train=20)


def tiny_set(mirrors: tuple[str, ...] = (), debian_folder: Path = Path("/nowhere/tiny")) -> NamedSet:
    images, labels = tiny_arrays()
    files = [DataFile(name, 20 if "train" in name else 10, sha256(content)) for name, content in tiny_files().items()]
    return NamedSet(
        name="tiny",
        title="Tiny",
        what="the pictures of Tiny",
        class_names=CLASSES,
        shape=(4, 4),
        train=20,
        home="http://tiny.example",
        images=(files[0], files[1]),
        labels=(files[2], files[3]),
        fingerprint=fingerprint(images, labels),
        mirrors=mirrors,
        debian_package="dataset-tiny",
        debian_folder=debian_folder,
    )


# --- sets like those in archives ---------------------------------------------------------------------------------


def even_arrays(classes: int, shape: tuple[int, ...]) -> tuple[Images, NDArray[np.int64]]:
    """(6 K, ...) uint8 and labels 0 to K - 1, four images of each class to train on and then two to test on."""
    random = np.random.default_rng(11)
    labels = np.tile(np.arange(classes, dtype=np.int64), 6)
    return random.integers(0, 256, (len(labels), *shape), dtype=np.uint8), labels


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def records(images: Images, labels: NDArray[np.int64], label_bytes: int) -> bytes:
    """(N, H, W, 3) images as CIFAR's binary files hold them; a label byte before the last is 19 less the label."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    groups = [19 - labels] * (label_bytes - 1)
    return np.column_stack([*groups, labels, planes]).astype(np.uint8).tobytes()


def letters_like(mirrors: tuple[str, ...] = ()) -> tuple[NamedSet, dict[str, bytes]]:
    """EMNIST Letters with three letters of 5x4 pixels, and the .gz files in its archive by their names."""
    real = NAMED["emnist-letters"]
    images, labels = even_arrays(3, (5, 4))
    stored = images.swapaxes(1, 2)
    contents = (stored[:12], stored[12:], labels[:12].astype(np.uint8) + 1, labels[12:].astype(np.uint8) + 1)
    packed = {
        f"{file.name}.gz": gzip.compress(idx(content), mtime=0)
        for file, content in zip(real.files, contents, strict=True)
    }
    files = [
        DataFile(file.name, len(content), packed_sha256=sha256(packed[f"{file.name}.gz"]))
        for file, content in zip(real.files, contents, strict=True)
    ]
    wanted = dataclasses.replace(
        real, class_names=("a", "b", "c"), shape=(5, 4), train=12, images=(files[0], files[1]),
        labels=(files[2], files[3]), mirrors=mirrors, archive=Archive("gzip.zip", "", "gzip/", "all", ".gz"),
    )  # fmt: skip
    return wanted, packed


def cifar_like(real: NamedSet, mirrors: tuple[str, ...] = ()) -> tuple[NamedSet, dict[str, bytes]]:
    """CIFAR-10 or CIFAR-100 with five classes of 4x4 pixels, and the files in its archive by their names."""
    images, labels = even_arrays(5, (4, 4, 3))
    training = len(real.images) - 1
    cuts = [20 * part // training for part in range(training + 1)] + [30]
    spans = [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
    contents = {
        file.name: records(images[span], labels[span], real.label_bytes)
        for file, span in zip(real.images, spans, strict=True)
    }
    files = tuple(
        DataFile(file.name, span.stop - span.start, sha256(contents[file.name]))
        for file, span in zip(real.images, spans, strict=True)
    )
    wanted = dataclasses.replace(
        real, class_names=("v", "w", "x", "y", "z"), shape=(4, 4, 3), train=20, images=files, mirrors=mirrors
    )
    return wanted, contents


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Mirror(ThreadingHTTPServer):
    """A real web server on this machine; `trouble` goes wrong in its stead for that many of the first requests."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], trouble: str = "", times: int = 1_000_000) -> None:
        super().__init__(("127.0.0.1", 0), _MirrorRequest)
        self.files, self.trouble, self.times = files, trouble, times
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _MirrorRequest(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        trouble = self.server.trouble if len(self.server.asked) <= self.server.times else ""
        if content is None or trouble == "not found":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if trouble == "cut" else content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


Drawn = tuple[NDArray[np.float64], NDArray[np.int64]]


def drawn(count: int, temperature: float = 1.0, classes: int = 5, seed: int = 0) -> Drawn:
    """Logits whose probabilities at `temperature` are the truth, and labels drawn from it."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(count, classes))
    chances = softmax(logits / temperature)
    labels = (chances.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return logits, np.minimum(labels, classes - 1).astype(np.int64)

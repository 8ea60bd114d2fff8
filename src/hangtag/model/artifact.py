"""model.onnx: the metadata in it, and opening a file from an untrusted source.

The graph takes uint8 images (N, H, W[, 3]) of any height and width, and returns probabilities (N, K) float32 and the
`EXTRA_OUTPUTS`. Resizing, scaling, network, calibration and softmax are inside. `training/engine/export.py` builds it;
docs/model-file.md describes it for other programs.
"""

import contextlib
import hashlib
import math
import os
import random
import threading
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from hangtag.errors import ArtifactError, HangtagError, ModelNotFound, RunError, RunNotFound, UsageError
from hangtag.files import inside, user_path
from hangtag.machine import memory_bytes, processors
from hangtag.model import gpu
from hangtag.model.appearance import Appearance
from hangtag.model.conformal import MOST_SCORES, highest_score
from hangtag.model.guarantees import Guarantees
from hangtag.model.onnx_file import RETRAIN, OnnxFile, Value
from hangtag.pictures import FITS, MAX_PIXELS, Images, ImageSpec
from hangtag.resize import Sizer
from hangtag.serializable import Serializable, read_json

__all__ = [
    "EXTRA_OUTPUTS", "FORMAT", "INPUT", "MODEL_FILE", "OUTPUT", "PIXELS", "Artifact", "BackboneRecord", "Metadata",
    "check_file", "limited_time", "needs_memory", "open_artifact", "open_session", "read_onnx",
]  # fmt: skip

FORMAT = 5
MODEL_FILE = "model.onnx"
INPUT, PIXELS, OUTPUT = "images", "pixels", "probabilities"
"""The graph's input (uint8 images), what the network sees (float32, N, C, H, W, 0 to 1) and the graph's main output."""

EXTRA_OUTPUTS = {
    "uncalibrated": "float32 (N, K): the probabilities before calibration",
    "ood_score": "float32 (N,): the share of held-out images with a lower score",
    "fold_uncalibrated": "float32 (N, F, K): the probabilities of the networks of F folds, before calibration",
    "ood_distance": "float32 (N,): what `ood_score` ranks: how far an image is from the training images",
    "embedding": "float32 (N, E): the network's features; similar images have similar rows",
    "maps": "float32 (N, V, F, h, w): the last feature maps of the image and, with V = 2, of its mirror image",
    "map_weights": "float32 (N, F): each feature's weight for the predicted class, minus its mean over all classes",
}
"""Outputs that a graph may have; only built-in convolutional networks have `maps` and `map_weights`."""

_AXES = {
    OUTPUT: 2, PIXELS: 4, "uncalibrated": 2, "fold_uncalibrated": 3, "ood_score": 1, "ood_distance": 1, "embedding": 2,
    "maps": 5, "map_weights": 2,
}  # fmt: skip
_MOST_CLASSES, _MOST_NAME = 100_000, 1000  # characters of a name
_MOST_LIMITATIONS, _MOST_SENTENCE = 20, 10_000  # characters of a limitation
_MOST_FOLDS = 1000
_PIXELS_PER_CALL = 50_176  # 64 images of 28x28; four times as many are no faster and take 130 MB more; docs/log.md
_MOST_THREADS = 1024
_MOST_BESIDE = 8  # batches of `_PIXELS_PER_CALL` that are computed side by side
_CHECK_SECONDS = 60.0  # for each of the runs that check a graph
_MOST_BYTES = 2**31 - 1  # the largest Protocol Buffers message
_LEAST_MEMORY = 4 << 30  # bytes that graphs may always use
_NOT_OURS = "its graph does not do what its metadata says"


@dataclass(frozen=True)
class BackboneRecord(Serializable):
    """The pretrained network in a model file: where it comes from, and what it expects.

    Attributes:
        name: such as "efficientnet-lite0", "timm:resnet18" or "features.onnx".
        licence: of its weights; empty if unknown.
        sha256: of its weights, as they were distributed.
        mean, deviation: (3,) what it subtracts from RGB pixels from 0 to 255, and then divides them by.
        fine_tuned: whether its weights in this file were trained on.
    """

    name: str
    licence: str
    sha256: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    fine_tuned: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.deviation) != 3 or min(self.deviation) <= 0:
            raise ValueError("the backbone's mean and deviation must be three numbers each, deviations above 0")
        if not max(len(self.name), len(self.licence), len(self.sha256)) <= _MOST_NAME:
            raise ValueError(f"the backbone's name, licence and hash must have at most {_MOST_NAME} characters")


@dataclass(frozen=True)
class Metadata(Serializable):
    """Everything a model file says about itself, besides its graph.

    Attributes:
        pooling: how the network reduces its last feature maps to features, "max" or "mean".
        backbone: the pretrained part of the network; None: the whole network was trained on the data.
        appearance: what the training images look like; None: pictures are not compared with it.
    """

    class_names: tuple[str, ...]
    image: ImageSpec
    network: str
    parameters: int
    recipe: dict[str, Any]
    seed: int
    data: dict[str, Any]  # name, fingerprint, images
    versions: dict[str, str]
    created: str  # ISO 8601, UTC
    guarantees: Guarantees | None = None
    pooling: str = "max"
    backbone: BackboneRecord | None = None
    appearance: Appearance | None = None
    format: int = FORMAT

    FAILURE = ArtifactError
    HINT = RETRAIN

    def __repr__(self) -> str:
        return f"<Metadata: {len(self.class_names)} classes, {self.image}, {self.network}, created {self.created}>"

    def __post_init__(self) -> None:
        names, spec, guarantees = self.class_names, self.image, self.guarantees
        if not 2 <= len(names) <= _MOST_CLASSES:
            raise ValueError(f"there must be 2 to {_MOST_CLASSES:,} class names, got {len(names):,}")
        if len({unicodedata.normalize("NFC", name) for name in names}) < len(names):
            raise ValueError(f"class names must be distinct, got {', '.join(names)[:100]}")
        if not all(len(name) <= _MOST_NAME for name in names):
            raise ValueError(f"class names must have at most {_MOST_NAME} characters")
        sides = range(1, MAX_PIXELS)
        possible = {"height": sides, "width": sides, "channels": (1, 3), "background": range(256), "fit": FITS}
        for name, values in possible.items():
            if getattr(spec, name) not in values:
                raise ValueError(f"image {name} must be one that hangtag supports, got {getattr(spec, name)!r}")
        if self.pooling not in ("max", "mean"):
            raise ValueError(f"pooling must be 'max' or 'mean', got {self.pooling!r}")
        if self.appearance and len(self.appearance.background) != spec.channels:
            raise ValueError("the background of the training images must have as many channels as the images")
        if self.parameters < 0:
            raise ValueError(f"the number of parameters must be at least 0, got {self.parameters}")
        if guarantees:
            _check_guarantees(guarantees, len(names))


def _check_guarantees(guarantees: Guarantees, classes: int) -> None:
    """Raise ValueError unless their numbers are possible for this number of classes."""
    calibrator = guarantees.calibrator
    shapes = {len(guarantees.images), len(calibrator.bias), len(calibrator.weights), *map(len, calibrator.weights)}
    if shapes != {classes}:
        raise ValueError("guarantees are for a different number of classes")
    if min(guarantees.images) < 0:
        raise ValueError("numbers of held-out images must be at least 0")
    if (
        len(guarantees.limitations) > _MOST_LIMITATIONS
        or max(map(len, guarantees.limitations), default=0) > _MOST_SENTENCE
    ):
        raise ValueError(f"there must be at most {_MOST_LIMITATIONS} limitations of {_MOST_SENTENCE:,} characters")
    for each in guarantees.conformal:
        if not all(limit is None or 0 <= limit <= highest_score(classes) for limit in each.thresholds):
            raise ValueError(f"{each.method} thresholds are out of range")
        if not all(0 <= score <= highest_score(classes) for scores in each.fold_scores for score in scores):
            raise ValueError(f"{each.method} scores are out of range")
        if each.fold_scores and not (len(each.fold_scores) == guarantees.folds and each.images <= MOST_SCORES):
            raise ValueError(f"{each.method} scores must be those of {guarantees.folds} folds")
    if not 0 <= guarantees.folds <= _MOST_FOLDS:
        raise ValueError(f"the number of folds must be at most {_MOST_FOLDS}")
    if not all(limit is None or 0 <= limit <= 1.01 for limit in guarantees.confidence_thresholds):
        raise ValueError("confidence thresholds must be from 0 to 1")


class Artifact:
    """An opened, checked model file. It can be pickled and copied, and works in forked processes.

    Attributes:
        metadata: what the file says about itself.
        sha256: of the file.
        fingerprint: the first 12 hex digits of `sha256`.
        threads: how many threads a call uses at most; None: one per core, which batches side by side share.
        spins: whether threads wait for their next task in a loop, see `open_session`; if not, several batches are
            computed side by side on the CPU.
        fills_up: whether the graph always gets the same number of images, all of the model's size; see `gpu`.
        device: one of `gpu.DEVICES`. With "cuda" it does not work in a forked process whose parent used it, too.
    """

    def __init__(
        self,
        content: bytes,
        metadata: Metadata,
        outputs: dict[str, Value],
        threads: int | None = None,
        spins: bool = True,
        device: str = "cpu",
    ) -> None:
        self._content, self._outputs = content, outputs
        self.threads, self.spins, self.device = threads, spins, gpu.check_device(device)
        self._most_per_call, self.fills_up = _PIXELS_PER_CALL, device == "cuda"
        self._sizer = Sizer(metadata.image)
        self._session = self._opened_session()
        self.metadata = metadata
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.fingerprint = self.sha256[:12]
        _OPENED.add(self)

    def _opened_session(self) -> Any:
        """A session; if it computes several batches side by side, each gets its share of the cores."""
        threads = self.threads
        if threads is None and not self.spins and self.device == "cpu":
            threads = -(-processors() // _MOST_BESIDE)
        return open_session(self._content, threads, self.spins, self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_artifact, (self._content, self.threads, self.spins, self.device)

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self._content

    def has_output(self, output: str) -> bool:
        """Whether the graph has this output (see `EXTRA_OUTPUTS`)."""
        return output in self._outputs

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each output for one image."""
        return {name: self._sides(name) for name in self._outputs}

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """(N, K) float32 for checked uint8 images (N, H, W[, 3]), all of one size, which may be any."""
        return self.outputs(images, OUTPUT)[OUTPUT]

    def outputs(self, images: Images, *names: str) -> dict[str, NDArray[np.float32]]:
        """The named outputs of the graph for checked uint8 images (N, H, W[, 3]); N rows each.

        Raises:
            ArtifactError: the graph fails, or returns something other than its metadata says.
            GpuError: the GPU fails, or has no memory left.
        """
        per_call = self._per_call(images.shape[1:])

        def answered(start: int) -> list[NDArray[np.float32]]:
            return self._run(np.ascontiguousarray(images[start : start + per_call]), names)

        starts = range(0, len(images), per_call)
        beside = 1 if self.spins or self.device != "cpu" else min(processors(), _MOST_BESIDE, len(starts))
        if beside > 1:
            with ThreadPoolExecutor(beside) as pool:
                rows = list(pool.map(answered, starts))
        else:
            rows = list(map(answered, starts))
        if not rows:
            return {name: np.zeros((0, *self._sides(name)), np.float32) for name in names}
        whole = rows[0] if len(rows) == 1 else [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        outputs = dict(zip(names, whole, strict=True))
        _check_values(outputs)
        return outputs

    def _per_call(self, shape: tuple[int, ...]) -> int:
        """How many images of this shape the graph gets at once, or at most if it need not be filled up."""
        if self.fills_up:
            return min(self._most_per_call, gpu.images_per_call(math.prod(self.metadata.image.shape)))
        return min(self._most_per_call, max(1, _PIXELS_PER_CALL // max(1, math.prod(shape))))

    def sized(self, images: Iterable[Images]) -> Images:
        """Images of any sizes as the network sees them: the first step of the graph, on the processor."""
        sized = []
        for image in images:
            try:
                sized.append(self._sizer(image))
            except Exception as error:  # ONNX Runtime's exceptions share no base class
                _refuse_run(error, image[np.newaxis], None, "cpu")
        return np.stack(sized)

    def _run(self, images: Images, names: tuple[str, ...], options: Any = None) -> list[NDArray[np.float32]]:
        if self._session is None:
            self._session = self._opened_session()
        given = images
        if self.fills_up:
            blank = max(0, self._per_call(images.shape[1:]) - len(images))
            given = np.concatenate([self.sized(images), np.zeros((blank, *self.metadata.image.shape), np.uint8)])
        try:
            rows: list[NDArray[np.float32]] = self._session.run(list(names), {INPUT: given}, options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            _refuse_run(error, images, options, self.device)
        for name, row in zip(names, rows, strict=True):
            if row.shape != (len(given), *self._sides(name)) or row.dtype != np.float32:
                raise ArtifactError(f"{_NOT_OURS}: '{name}' has the shape {row.shape}", RETRAIN)
        return rows if len(given) == len(images) else [row[: len(images)] for row in rows]

    def settle_batches(self) -> bool:
        """Whether this machine computes the same bits for an image alone and in a batch; if not, all images go alone.

        Matrix products of one row and of several may be added up in another order.
        """
        images = _noise(random.Random(0), (8, *self.metadata.image.shape))
        alone = [self._run(image[np.newaxis], (OUTPUT,))[0] for image in images]
        for count in (2, 3, 8):
            if count > self._per_call(images.shape[1:]):
                break
            if not np.array_equal(self._run(images[:count], (OUTPUT,))[0], np.concatenate(alone[:count])):
                self._most_per_call = 1
                return False
        return True

    def _sides(self, name: str) -> tuple[Any, ...]:
        return self._outputs[name].shape[1:]

    def check(self) -> None:
        """Run the graph on a few pictures of several sizes; raise ArtifactError unless its outputs are possible."""
        spec, source = self.metadata.image, random.Random(0)
        small = (min(spec.height, 64) + 1, min(spec.width, 64) // 2 + 1)
        for count, size in ((1, spec.shape[:2]), (2, spec.shape[:2]), (1, (1, 1)), (3, small)):
            images = _noise(source, (count, *size, *spec.shape[2:]))
            images[0] = 0 if count > 1 else images[0]
            with limited_time() as options:
                rows = dict(zip(self._outputs, self._run(images, tuple(self._outputs), options), strict=True))
            _check_values(rows)
            scores = rows.get("ood_score", np.zeros(1))
            if scores.min() < 0 or scores.max() > 1:
                raise ArtifactError("its graph returns OOD scores that are not from 0 to 1", RETRAIN)


def _noise(source: random.Random, shape: tuple[int, ...]) -> Images:
    """Random images; importing NumPy's generators would take longer than the rest of a check."""
    return np.frombuffer(bytearray(source.randbytes(math.prod(shape))), np.uint8).reshape(shape)


def _check_values(outputs: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise ArtifactError if outputs of a graph have impossible values."""
    for name, rows in outputs.items():
        if not np.isfinite(rows).all():
            raise ArtifactError(f"its graph returns NaN or infinite numbers as '{name}'", RETRAIN)
        if name in (OUTPUT, "fold_uncalibrated") and (rows.min() < 0 or np.abs(rows.sum(axis=-1) - 1).max() > 1e-3):
            raise ArtifactError("its graph does not return probabilities", RETRAIN)


_OPENED: "weakref.WeakSet[Artifact]" = weakref.WeakSet()
_ABANDONED: list[Any] = []


def _abandon_sessions() -> None:
    """In a forked process, open every model again when it is next needed: a session's threads stay in the parent.

    The old sessions are kept, because deleting one would wait for its threads.
    """
    for artifact in _OPENED:
        _ABANDONED.append(artifact._session)
        artifact._session = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_sessions)


def open_artifact(
    source: str | os.PathLike[str] | bytes, threads: int | None = None, spins: bool = True, device: str = "cpu"
) -> Artifact:
    """Open a `model.onnx`, its bytes, or the run folder that holds one.

    Args:
        threads, spins, device: see `Artifact`.

    Raises:
        UsageError: the number of threads is out of range, or the device cannot be used.
        RunError: a run folder without a model, or with another model than it was written with.
        ArtifactError: no such file, not ONNX, not made by this version of hangtag, damaged, or its metadata and its
            graph disagree.
    """
    wanted: Any = threads
    if wanted is not None and not (isinstance(wanted, Integral) and 1 <= int(wanted) <= _MOST_THREADS):
        raise UsageError(
            f"threads must be a whole number from 1 to {_MOST_THREADS:,}, got {threads!r}",
            "leave it out to use all cores",
        )
    gpu.check_device(device)
    content, name, folder = _read(source)
    if folder is not None:
        _check_record(folder, content)
    try:
        artifact = Artifact(content, *check_file(content), threads, spins, device)
        artifact.check()
        if device == "cuda":
            artifact.settle_batches()
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error.message}", error.hint) from error.__cause__
    return artifact


def check_file(content: bytes, sealed: bool = True) -> tuple[Metadata, dict[str, Value]]:
    """The metadata and the outputs of a file, after checking everything that can be checked without running it.

    Args:
        sealed: whether the file already has its checksum.

    Raises:
        ArtifactError: not made by this version of hangtag, damaged, or its metadata and its graph disagree.
    """
    file = OnnxFile(content)
    _check_format(file.metadata)
    if sealed:
        file.check_checksum()
    metadata = Metadata.read(file.metadata, "its metadata")
    inputs, outputs = file.check_graph()
    _check_ends(metadata, inputs, outputs)
    return metadata, outputs


class _Format(msgspec.Struct):
    format: int = 0


def _check_format(metadata: bytes) -> None:
    try:
        found = msgspec.json.decode(metadata, type=_Format).format
    except (ValueError, RecursionError):
        raise ArtifactError("its metadata is not valid JSON, or has no format", RETRAIN) from None
    if found > FORMAT:
        raise ArtifactError(
            f"it has format {found}; this hangtag reads formats up to {FORMAT}", "install a newer hangtag"
        )
    if found < FORMAT:
        raise ArtifactError(f"it was written by an older version of hangtag (format {found})", "train again")


def _check_ends(metadata: Metadata, inputs: dict[str, Value], outputs: dict[str, Value]) -> None:
    """Check that the graph's inputs and outputs are those that the metadata describes."""
    spec, classes = metadata.image, len(metadata.class_names)
    if list(inputs) != [INPUT] or not {OUTPUT, PIXELS} <= outputs.keys() <= _AXES.keys():
        raise ArtifactError(f"its graph must go from '{INPUT}' through '{PIXELS}' to '{OUTPUT}'", RETRAIN)
    images, pixels = inputs[INPUT], outputs[PIXELS].shape[1:]
    fixed = tuple(side for side in images.shape if isinstance(side, int))
    if images.type is not np.uint8 or len(images.shape) != 1 + len(spec.shape) or fixed != spec.shape[2:]:
        given = f"{images.type.__name__} {list(images.shape)}"
        raise ArtifactError(f"its metadata says {spec} but its graph takes {given}", RETRAIN)
    if pixels != (spec.channels, spec.height, spec.width):
        raise ArtifactError(f"its metadata says {spec} but its network takes images of shape {pixels}", RETRAIN)
    for name, value in outputs.items():
        sides = value.shape[1:]
        known = [side for side in sides if isinstance(side, int) and side > 0]
        is_known = len(known) == len(sides) == _AXES[name] - 1 and math.prod(known) <= MAX_PIXELS
        if value.type is not np.float32 or not is_known:
            raise ArtifactError(f"its output '{name}' cannot have the shape {list(value.shape)}", RETRAIN)
        if name in (OUTPUT, "uncalibrated") and sides != (classes,):
            raise ArtifactError(f"its metadata names {classes} classes but '{name}' has {sides[0]}", RETRAIN)
    if ("maps" in outputs) != ("map_weights" in outputs):
        raise ArtifactError("its graph must have both of 'maps' and 'map_weights', or neither", RETRAIN)
    if "maps" in outputs and outputs["maps"].shape[2] != outputs["map_weights"].shape[1]:
        raise ArtifactError("its outputs 'maps' and 'map_weights' must have the same number of features", RETRAIN)
    if metadata.guarantees and metadata.guarantees.needs_folds:
        folds = outputs["fold_uncalibrated"].shape[1:] if "fold_uncalibrated" in outputs else None
        if folds != (metadata.guarantees.folds, classes):
            raise ArtifactError("its metadata has scores of folds that its graph does not answer for", RETRAIN)
    if metadata.guarantees and metadata.guarantees.has_ood_score and "ood_score" not in outputs:
        raise ArtifactError("its metadata promises an OOD score but its graph has none", RETRAIN)


def _read(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str, Path | None]:
    """The content, its name for messages, and the run folder if one was given."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "model", None
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(
            f"expected a path or the content of a model file, got {type(source).__name__}",
            "name a run folder or a model.onnx, or pass its bytes",
        )
    path, folder = user_path(source), None
    if _is_folder(path):
        folder, path = path, path / MODEL_FILE
        if not path.is_file():
            raise RunNotFound(
                f"{folder}: no {MODEL_FILE} in this folder",
                "name a run folder or a model.onnx; the training of a run without one did not finish",
            )
        if not inside(folder, path):
            raise RunError(f"{path}: is a link that leads out of the run folder", "name the file it leads to")
    content = read_onnx(path, "name a run folder or a model.onnx")
    if not content:
        raise ArtifactError(f"{path}: the file is empty", RETRAIN)
    return content, str(path), folder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have; reading says so
        return False


def read_onnx(path: Path, hint: str) -> bytes:
    """The bytes of an ONNX file; never of a device or a pipe, which could be endless.

    Args:
        hint: what to name instead.

    Raises:
        ModelNotFound: there is no such file.
        ArtifactError: it is not a file, is too large, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise ArtifactError(f"{path}: is not a file", hint)
        if path.stat().st_size > _MOST_BYTES:
            raise ArtifactError(f"{path}: is larger than an ONNX file can be (2 GB)", hint)
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelNotFound(f"{path}: no such file", hint) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}", "check the path and the file's permissions") from error


def _check_record(folder: Path, content: bytes) -> None:
    """Raise RunError if a finished run's config.json records another model file."""
    config = read_json(folder, "config.json") if (folder / "config.json").is_file() else {}
    model = config.get("model")
    recorded = model.get("sha256") if isinstance(model, dict) and config.get("status") != "training" else None
    if recorded is not None and recorded != hashlib.sha256(content).hexdigest():
        path = folder / MODEL_FILE
        raise RunError(
            f"{path}: is not the file that this run wrote: its SHA-256 differs from the one in config.json",
            f"restore the file or train again; to use it anyway, name the file itself: {path}",
        )


def _refuse_run(error: Exception, images: Images, options: Any, device: str) -> NoReturn:
    """Raise the ArtifactError or GpuError for an exception of ONNX Runtime."""
    size = f"{images.shape[2]}x{images.shape[1]}"
    if options is not None and options.terminate:
        message = f"its graph takes more than {_CHECK_SECONDS:.0f} s for a few small images"
        raise ArtifactError(message, "use a model from a source you trust") from error
    if device == "cuda" and (problem := gpu.refused(error)):
        raise problem from error
    if needs_memory(error):
        raise ArtifactError(
            f"its graph needs more memory for images of {size} pixels than hangtag allows", "use smaller images"
        ) from error
    raise ArtifactError(f"its graph fails on images of {size} pixels", RETRAIN) from error


def needs_memory(error: Exception) -> bool:
    """Whether a graph failed because it asked for more memory than it may have."""
    texts = ("Available memory", "allocate memory", "would require more than")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def open_session(content: bytes, threads: int | None = None, spins: bool = True, device: str = "cpu") -> Any:
    """An ONNX Runtime session, in which a graph can use at most half of the memory.

    Args:
        spins: whether threads wait for their next task in a loop. One image is then answered sooner; for thousands of
            images it takes twice the processor time, and longer on a busy machine.
        device: one of `gpu.DEVICES`.

    Raises:
        UsageError: the device cannot be used.
        GpuError: the GPU fails, or has no memory left.
        ArtifactError: ONNX Runtime cannot open the graph.
    """
    import onnxruntime

    _limit_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one per core
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    options.log_severity_level = 4  # errors are raised; their log lines would only repeat them
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        if device == "cuda":
            return gpu.open_session(content, options)
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except HangtagError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtifactError("ONNX Runtime cannot open its graph", RETRAIN) from error


@contextmanager
def limited_time(seconds: float = _CHECK_SECONDS) -> Iterator[Any]:
    """Options for a run of a session that ends it after this time."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


@cache
def _limit_memory() -> None:
    """Let the graphs of this process use at most half of the memory: a few bytes of a graph can ask for any amount."""
    import onnxruntime

    limit = max(_LEAST_MEMORY, memory_bytes() // 2)
    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    usual = {"arena_extend_strategy": -1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    with contextlib.suppress(Exception):  # the program around hangtag has set a limit of its own
        onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg({"max_mem": limit, **usual}))

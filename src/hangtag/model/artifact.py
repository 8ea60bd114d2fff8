"""model.onnx: the metadata in it, and opening a file from an untrusted source.

The graph takes uint8 images (N, H, W[, 3]) of any height and width, and returns probabilities (N, K) float32 and the
`EXTRA_OUTPUTS`. Resizing, scaling, network, calibration and softmax are inside. `training/engine/export.py` builds it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import ArtifactError, RunError
from hangtag.files import user_path
from hangtag.model.guarantees import Guarantees
from hangtag.pictures import FITS, MAX_PIXELS, Images, ImageSpec
from hangtag.serializable import Serializable

__all__ = [
    "EXPLAIN", "EXTRA_OUTPUTS", "FORMAT", "INPUT", "METADATA_KEY", "MODEL_FILE", "OUTPUT", "PIXELS", "Artifact",
    "Metadata", "open_artifact",
]  # fmt: skip

FORMAT = 3
MODEL_FILE = "model.onnx"
METADATA_KEY = "hangtag"
INPUT, PIXELS, OUTPUT = "images", "pixels", "probabilities"
"""The graph's input (uint8 images), what the network sees (float32, N, C, H, W, 0 to 1) and the graph's main output."""

EXTRA_OUTPUTS = {
    "uncalibrated": "float32 (N, K): the probabilities before calibration",
    "ood_score": "float32 (N,): the share of held-out images with a lower score",
    "embedding": "float32 (N, E): the network's features; similar images have similar rows",
    "evidence": "float32 (N, h, w): evidence of each place for the answer, in logits; empty unless `EXPLAIN` is true",
}
"""Outputs that a graph may have."""

EXPLAIN = "explain"
"""The graph's second input, false by default: whether to compute evidence."""

_RETRAIN = "train again, or get a fresh copy of the file"
_PIXELS_PER_CALL = 50_000  # 63 images of 28x28; four times as many are no faster and take 130 MB more; docs/log.md


@dataclass(frozen=True)
class Metadata(Serializable):
    """Everything a model file says about itself, besides its graph."""

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
    format: int = FORMAT

    FAILURE = ArtifactError
    HINT = _RETRAIN

    @classmethod
    def from_json(cls, value: object, where: str = "its metadata") -> Self:
        """The metadata of a file. Formats 1 and 2 are read without guarantees.

        Raises:
            ArtifactError: a field is missing or invalid, or the file needs a newer hangtag.
        """
        if isinstance(value, dict):
            version = value.get("format")
            if type(version) is not int:
                raise ArtifactError(f"{where} is invalid: expected a whole number (field `format`)", _RETRAIN)
            if version > FORMAT:
                raise ArtifactError(
                    f"it has format {version}; this hangtag reads formats up to {FORMAT}", "install a newer hangtag"
                )
            if version < FORMAT:
                value = {**value, "guarantees": None}
        return super().from_json(value, where)

    def __post_init__(self) -> None:
        names, spec, guarantees = self.class_names, self.image, self.guarantees
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"class names must be two or more distinct names, got {', '.join(names)}")
        sides = range(1, MAX_PIXELS)
        possible = {"height": sides, "width": sides, "channels": (1, 3), "background": range(256), "fit": FITS}
        for name, values in possible.items():
            if getattr(spec, name) not in values:
                raise ValueError(f"image {name} must be one that hangtag supports, got {getattr(spec, name)!r}")
        if guarantees and not len(guarantees.images) == len(guarantees.calibrator.bias) == len(names):
            raise ValueError("guarantees are for a different number of classes")


class Artifact:
    """An opened, checked model file.

    Attributes:
        metadata: what the file says about itself.
        fingerprint: first 12 hex digits of the file's SHA-256.
    """

    def __init__(self, session: Any, metadata: Metadata, fingerprint: str) -> None:
        self._session = session
        self._outputs = {node.name: node.shape for node in session.get_outputs()}
        self.metadata = metadata
        self.fingerprint = fingerprint

    def has_output(self, output: str) -> bool:
        """Whether the graph has this output (see `EXTRA_OUTPUTS`)."""
        return output in self._outputs

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """(N, K) float32 for checked uint8 images (N, H, W[, 3]), all of one size, which may be any."""
        return self.outputs(images, OUTPUT)[OUTPUT]

    def outputs(self, images: Images, *names: str) -> dict[str, NDArray[np.float32]]:
        """The named outputs of the graph for checked uint8 images (N, H, W[, 3]); N rows each."""
        per_call = max(1, _PIXELS_PER_CALL // int(np.prod(images.shape[1:])))
        flags = {EXPLAIN: np.array(True)} if "evidence" in names else {}
        rows = [
            self._session.run(list(names), {INPUT: np.ascontiguousarray(images[start : start + per_call]), **flags})
            for start in range(0, len(images), per_call)
        ]
        if not rows:
            return {name: np.zeros((0, *self._shape(name)), np.float32) for name in names}
        return {name: np.concatenate([row[place] for row in rows]) for place, name in enumerate(names)}

    def _shape(self, name: str) -> tuple[int, ...]:
        return (len(self.metadata.class_names),) if name == OUTPUT else tuple(self._outputs[name][1:])


def open_artifact(source: str | Path | bytes) -> Artifact:
    """Open a `model.onnx`, its bytes, or the run folder that holds one.

    Raises:
        RunError: a run folder without a model.
        ArtifactError: no such file, not ONNX, not made by hangtag, or its metadata and its graph disagree.
    """
    content, name = _read(source)
    session = _session(content, name)
    try:
        artifact = Artifact(session, _metadata(session), hashlib.sha256(content).hexdigest()[:12])
        _check_graph(session, artifact)
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error.message}", error.hint) from None
    return artifact


def _read(source: str | Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "model"
    path = user_path(source)
    try:
        if path.is_dir():
            if not (path / MODEL_FILE).is_file():
                raise RunError(
                    f"{path}: no {MODEL_FILE} in this folder", "its training did not finish; resume it or train again"
                )
            path = path / MODEL_FILE
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file", "name a run folder or a model.onnx") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}", "check the path and the file's permissions") from error
    if not content:
        raise ArtifactError(f"{path}: the file is empty", _RETRAIN)
    return content, str(path)


def _session(content: bytes, name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; their log lines would only repeat them
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtifactError(f"{name}: not a model that ONNX Runtime can open", _RETRAIN) from error


def _metadata(session: Any) -> Metadata:
    entries = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in entries:
        raise ArtifactError("an ONNX model, but not one made by hangtag", "use a model.onnx that hangtag wrote")
    try:
        value = json.loads(entries[METADATA_KEY])
    except ValueError:
        raise ArtifactError("its metadata is not valid JSON", _RETRAIN) from None
    return Metadata.from_json(value)


def _check_graph(session: Any, artifact: Artifact) -> None:
    """Check that the graph does what the metadata says, by running it once on a blank image."""
    metadata = artifact.metadata
    inputs, outputs = session.get_inputs(), {node.name: node for node in session.get_outputs()}
    spec, classes = metadata.image, len(metadata.class_names)
    if [node.name for node in inputs] != [INPUT] or not {PIXELS, OUTPUT} <= outputs.keys():
        raise ArtifactError(f"its graph must go from '{INPUT}' through '{PIXELS}' to '{OUTPUT}'", _RETRAIN)
    images, pixels = inputs[0], outputs[PIXELS].shape[1:]
    if images.type != "tensor(uint8)" or len(images.shape) != 1 + len(spec.shape):
        raise ArtifactError(f"its metadata says {spec} but its graph takes {images.type} {images.shape}", _RETRAIN)
    if pixels != [spec.channels, spec.height, spec.width]:
        raise ArtifactError(f"its metadata says {spec} but its network takes images of shape {pixels}", _RETRAIN)
    try:
        probabilities = artifact.probabilities(np.zeros((1, *spec.shape), np.uint8))
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtifactError("its graph fails on a blank image", _RETRAIN) from error
    if probabilities.shape != (1, classes):
        raise ArtifactError(
            f"its metadata names {classes} classes but its graph returns {probabilities.shape[1:]}", _RETRAIN
        )
    if not np.isclose(probabilities.sum(), 1, atol=1e-3):
        raise ArtifactError("its graph does not return probabilities", _RETRAIN)
    if metadata.guarantees and metadata.guarantees.has_ood_score and not artifact.has_output("ood_score"):
        raise ArtifactError("its metadata promises an OOD score but its graph has none", _RETRAIN)

"""model.onnx: what its metadata must say, and opening one without trusting it.

The file holds the whole way from pixels to probabilities: uint8 (N, H, W[, 3]) in, any height and width; resize,
scaling, network, calibration and softmax inside; float32 (N, K) out, and beside it what else the graph can tell (see
`EXTRAS`). Building it is `export.py`'s task. This module reaches neither torch nor training code.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import ArtifactError, RunError
from hangtag.files import user_path
from hangtag.model.guarantees import Guarantees
from hangtag.pictures import FITS, MAX_PIXELS, Images, ImageSpec

__all__ = [
    "EXPLAIN",
    "EXTRA_OUTPUTS",
    "FORMAT",
    "INPUT",
    "METADATA_KEY",
    "MODEL_FILE",
    "OUTPUT",
    "PIXELS",
    "Artifact",
    "Metadata",
    "open_artifact",
]

FORMAT = 3
MODEL_FILE = "model.onnx"
METADATA_KEY = "hangtag"
INPUT, PIXELS, OUTPUT = "images", "pixels", "probabilities"
"""Of the graph: pictures as they come, pictures as the network sees them (float32, N, C, H, W), answers."""

EXTRA_OUTPUTS = {
    "uncalibrated": "float32 (N, K): the probabilities before calibration",
    "ood_score": "float32 (N,): the share of held-out pictures that are less strange",
    "embedding": "float32 (N, E): near rows are pictures alike",
    "evidence": "float32 (N, h, w): what each place speaks for the answer, in logits; none unless asked to explain",
}
"""What a graph may also answer."""

EXPLAIN = "explain"
"""A graph's second input, which is false unless it is given: whether to compute evidence."""

_RETRAIN = "train again, or take the file from its source again"
_PIXELS_PER_CALL = 50_000  # 63 images of 28x28; four times as many are no faster and take 130 MB more; docs/log.md


@dataclass(frozen=True)
class Metadata:
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
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "guarantees": None if self.guarantees is None else self.guarantees.to_json()}

    @classmethod
    def from_json(cls, value: object) -> "Metadata":
        """The metadata of a file, each field checked; `ArtifactError` names the first that is wrong."""
        if not isinstance(value, dict):
            raise ArtifactError("its metadata is not a table of names and values", _RETRAIN)
        if isinstance(value.get("format"), int) and value["format"] > FORMAT:
            raise ArtifactError(
                f"it has format {value['format']}, this hangtag knows up to {FORMAT}", "install a newer hangtag"
            )
        for name, kind in _SCHEMA.items():
            if not isinstance(value.get(name), kind) or isinstance(value.get(name), bool):
                raise ArtifactError(f"its metadata has no valid '{name}'", _RETRAIN)
        names, image = value["class_names"], value["image"]
        if len(names) < 2 or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ArtifactError("its class names are not two or more different names", _RETRAIN)
        sizes = [image.get(side) for side in ("height", "width", "channels", "background")]
        possible = (range(1, MAX_PIXELS), range(1, MAX_PIXELS), (1, 3), range(256))
        if not all(type(size) is int and size in known for size, known in zip(sizes, possible, strict=True)):
            raise ArtifactError(f"its image size makes no sense: {image}", _RETRAIN)
        if image.get("fit", FITS[0]) not in FITS:
            raise ArtifactError(f"it sizes pictures in a way nobody knows: {image['fit']}", _RETRAIN)
        try:
            guarantees = (
                None
                if value.get("guarantees") is None or value["format"] < FORMAT
                else Guarantees.from_json(value["guarantees"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"what it promises about its answers makes no sense: {error!r}", _RETRAIN) from None
        if guarantees is not None and not len(guarantees.images) == len(guarantees.calibrator.bias) == len(names):
            raise ArtifactError("its promises are about another number of classes", _RETRAIN)
        known = {key: value[key] for key in _SCHEMA}
        height, width, channels, background = sizes
        spec = ImageSpec(height, width, channels, background, image.get("fit", FITS[0]))
        rest = {"class_names": tuple(names), "image": spec, "notes": tuple(value["notes"]), "guarantees": guarantees}
        return cls(**{**known, **rest})


_SCHEMA: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "class_names": list,
    "image": dict,
    "network": str,
    "parameters": int,
    "recipe": dict,
    "seed": int,
    "data": dict,
    "versions": dict,
    "created": str,
    "notes": list,
}


class Artifact:
    """An opened, checked model file."""

    def __init__(self, session: Any, metadata: Metadata, fingerprint: str) -> None:
        self._session = session
        self._outputs = {node.name: node.shape for node in session.get_outputs()}
        self.metadata = metadata
        self.fingerprint = fingerprint
        """First 12 hex digits of the file's SHA-256."""

    def has_output(self, output: str) -> bool:
        """Whether the graph has this one of `EXTRAS`."""
        return output in self._outputs

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """(N, K) float32 for checked uint8 images (N, H, W[, 3]) of any one size."""
        return self.outputs(images, OUTPUT)[OUTPUT]

    def outputs(self, images: Images, *names: str) -> dict[str, NDArray[np.float32]]:
        """What the graph answers under these names; N rows each."""
        per_call = max(1, _PIXELS_PER_CALL // int(np.prod(images.shape[1:])))
        asked = {EXPLAIN: np.array(True)} if "evidence" in names else {}
        rows = [
            self._session.run(list(names), {INPUT: np.ascontiguousarray(images[start : start + per_call]), **asked})
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
        ArtifactError: no such file, not ONNX, not made by hangtag, or its metadata contradicts its graph.
    """
    content, name = _read(source)
    session = _session(content, name)
    try:
        metadata = _metadata(session)
        artifact = Artifact(session, metadata, hashlib.sha256(content).hexdigest()[:12])
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
                raise RunError(f"{path}: no {MODEL_FILE} in this folder", "its training did not end; train again")
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
    options.log_severity_level = 4  # what goes wrong is raised; its log lines would only repeat it
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
    """What the metadata promises, the graph must do: run it once on a blank picture."""
    metadata = artifact.metadata
    inputs, outputs = session.get_inputs(), {node.name: node for node in session.get_outputs()}
    spec = metadata.image
    if [node.name for node in inputs] != [INPUT] or not {PIXELS, OUTPUT} <= outputs.keys():
        raise ArtifactError(f"its graph does not go from '{INPUT}' over '{PIXELS}' to '{OUTPUT}'", _RETRAIN)
    taken, seen = inputs[0], outputs[PIXELS].shape[1:]
    if taken.type != "tensor(uint8)" or len(taken.shape) != 1 + len(spec.shape):
        raise ArtifactError(f"its metadata says {spec} but its graph takes {taken.type} {taken.shape}", _RETRAIN)
    if seen != [spec.channels, spec.height, spec.width]:
        raise ArtifactError(f"its metadata says {spec} but its network sees pictures of shape {seen}", _RETRAIN)
    try:
        probabilities = artifact.probabilities(np.zeros((1, *metadata.image.shape), np.uint8))
    except Exception as error:  # as above: no common base class
        raise ArtifactError("its graph fails on a blank picture", _RETRAIN) from error
    if probabilities.shape != (1, len(metadata.class_names)):
        raise ArtifactError(
            f"its metadata names {len(metadata.class_names)} classes but its graph answers {probabilities.shape[1:]}",
            _RETRAIN,
        )
    if not np.isclose(probabilities.sum(), 1, atol=1e-3):
        raise ArtifactError("its graph's answers are not probabilities", _RETRAIN)
    if metadata.guarantees is not None and metadata.guarantees.has_ood_score and not artifact.has_output("ood_score"):
        raise ArtifactError("its metadata promises to tell unfamiliar pictures but its graph does not", _RETRAIN)

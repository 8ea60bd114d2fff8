"""An ONNX file from anywhere -> a graph that computes features of images, for `backbones.py`.

The file may come from a stranger and from any exporter. It is brought to the form that hangtag's own model files have
(no functions, no constants as nodes, operators from the same list, a current opset), checked as they are, and run with
limits on memory and time. What the file does not say about itself is guessed, and each guess is returned as a note.
"""

import hashlib
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
import onnx.version_converter
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hangtag.errors import ArtifactError, HangtagError, ModelError, UsageError
from hangtag.model.artifact import limited_time, needs_memory, open_session, read_onnx
from hangtag.model.onnx_file import METADATA_KEY, MOST_NODES, OPERATORS, OnnxFile
from hangtag.training.engine.export import plain_model
from hangtag.training.engine.onnx_writer import IR_VERSION, GraphWriter, float_value

__all__ = ["SCALES", "OnnxFeatures", "check_features", "read_onnx_features"]

SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "0..1": ((0.0,) * 3, (255.0,) * 3),
    "-1..1": ((127.5,) * 3, (127.5,) * 3),
    "0..255": ((0.0,) * 3, (1.0,) * 3),
}
"""What networks expect: mean and deviation of RGB pixels from 0 to 255."""

_HINT = "use an ONNX file with one input for images and one output for features"
_FREE_BATCH = "export it for any number of images (a free batch axis)"
_LEAST_OPSET, _OPSET = 18, 20
_USUAL_SIDE, _MOST_SIDE, _MOST_FEATURES = 224, 2048, 100_000
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601-2 luma, as in `pictures.py`
_IMAGENET_CLASSES = {1000, 1001, 10450, 11221, 11821, 21841, 21843}
_NAMES_OF_SCORES = ("logit", "prob", "class", "softmax", "predict", "score")
_NAMES_OF_FEATURES = ("embed", "feature", "pool", "descriptor")
_RESHAPING = {"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout"}
_SQUASHING = {"Softmax", "LogSoftmax", "Sigmoid"}
_POOLING = {"GlobalAveragePool", "ReduceMean", "AveragePool"}
_TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.UINT8: np.uint8,
}
_SAME = 1e-3  # of the largest feature; float32 rounds a thousand times finer


@dataclass(frozen=True, eq=False)
class OnnxFeatures:
    """A graph from "pixels" (N, 3, H, W) from 0 to 1 to "embedding" (N, E), and "maps" (N, E, h, w) if it has any.

    Attributes:
        mean, deviation: what the file's own graph expects of pixels from 0 to 255.
        licence: what the file says about it; may be empty.
        sha256: of the file.
        notes: what was guessed or chosen, in sentences.
    """

    model: onnx.ModelProto
    side: tuple[int, int]
    size: int
    has_maps: bool
    parameters: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    licence: str
    sha256: str
    notes: tuple[str, ...]


class _Input(NamedTuple):
    """The input of a graph: its layout and size; `batch` is 0 if any number of images may go in."""

    name: str
    type: type[np.generic]
    channels_last: bool
    channels: int
    side: tuple[int, int]
    batch: int
    note: str


def read_onnx_features(path: Path, scale: str = "") -> OnnxFeatures:
    """Read a feature extractor, or a classifier, whose last layer is then left out.

    Args:
        scale: a key of `SCALES`; empty: what the graph itself says, or else what is usual for its layout.

    Raises:
        UsageError: an unknown scale.
        ArtifactError: no such file, not an ONNX file, or one with parts that are not allowed.
        ModelError: the graph does not take images, or does not compute features.
    """
    if scale and scale not in SCALES:
        raise UsageError(f"unknown scale of pixels '{scale}'", f"known: {', '.join(SCALES)}")
    content = read_onnx(path, _HINT)
    try:
        return _features(content, scale, path.name)
    except HangtagError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error
    except Exception as error:  # ONNX's own tools raise exceptions of any type for strange graphs
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise ArtifactError(f"{path}: this graph cannot be used: {reason}", _HINT) from error


def _features(content: bytes, scale: str, name: str) -> OnnxFeatures:
    graph = _Graph(_simplified(content))
    given = graph.image_input()
    if scale or given.type is np.uint8:
        mean, deviation = SCALES[scale or "0..255"]
        notes = [given.note]
    else:
        (mean, deviation), note = graph.expected_scale(given)
        notes = [given.note, f"{note}; to choose another, name it as FILE.onnx@SCALE ({', '.join(SCALES)})"]
    graph.free_batch(given)
    chosen, note = graph.find_features(given)
    notes.append(note)
    if chosen.size > _MOST_FEATURES:
        raise ModelError(
            f"it computes {chosen.size:,} features of an image; the limit is {_MOST_FEATURES:,}",
            "use a network that pools its feature maps",
        )
    model = _assembled(graph.model, given, mean, deviation, chosen)
    check_features(model)
    return OnnxFeatures(
        model=model,
        side=given.side,
        size=chosen.size,
        has_maps=bool(chosen.maps),
        parameters=_parameters(model),
        mean=mean,
        deviation=deviation,
        licence=_licence(content),
        sha256=hashlib.sha256(content).hexdigest(),
        notes=tuple(f"{name}: {note}" for note in notes if note),
    )


def _simplified(content: bytes) -> onnx.ModelProto:
    """The model with nothing but plain nodes and weights, in a current opset.

    Raises:
        ArtifactError: it has a part that is not allowed.
    """
    damaged = ArtifactError("not a valid ONNX model, or a damaged one", _HINT)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's exceptions are not public
        raise damaged from error
    if any(each.data_location == TensorProto.EXTERNAL or each.external_data for each in _tensors(model)):
        hint = "save it as one file: onnx.save(onnx.load(FILE), NEW_FILE)"
        raise ArtifactError("its weights are in another file", hint)
    if (inlined := _inlined_nodes(model)) > MOST_NODES:
        raise ArtifactError(f"it has {inlined:,} nodes with those of its functions; the limit is {MOST_NODES:,}", _HINT)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, or protobuf's
        raise damaged from error
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    nodes, graph = list(model.graph.node), model.graph
    for node in nodes:
        node.domain = "" if node.domain == "ai.onnx" else node.domain
        if any(each.HasField("g") or each.graphs for each in node.attribute):
            raise ArtifactError(f"it has a branch or a loop ({node.op_type})", "export the network without them")
        if node.domain or node.op_type not in OPERATORS | {"Constant", "Upsample"}:
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise ArtifactError(
                f"it uses the operator '{operator}', which model files may not contain",
                "use a network of standard operators in float32, without quantisation",
            )
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Constant")
    for node in nodes:
        if node.op_type == "Constant":
            graph.initializer.append(numpy_helper.from_array(_constant(node), node.output[0]))
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1)
    model.ir_version = IR_VERSION  # before 4, every weight had to be an input; ONNX may be newer than ONNX Runtime
    if opset < _LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
        opset = _OPSET
        return _simplified(model.SerializeToString())  # the converter adds constants as nodes
    del model.opset_import[:]
    model.opset_import.add(domain="", version=opset)
    return model


def _inlined_nodes(model: onnx.ModelProto) -> int:
    """How many nodes the graph has if each call of a function is replaced by the function's nodes."""
    functions = {(each.domain, each.name): each for each in model.functions}

    @cache
    def inside(function: tuple[str, str]) -> int:
        return count(functions[function].node)

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            total += inside(name) if (name := (node.domain, node.op_type)) in functions else 1
            total += sum(count(graph.node) for each in node.attribute for graph in (each.g, *each.graphs))
        return total

    return count(model.graph.node)


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        array: NDArray[Any] = numpy_helper.to_array(value)
        return array
    if attribute.name in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    raise ArtifactError(f"it has a constant of a kind that model files may not contain ({attribute.name})", _HINT)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    yield from (each.t for node in nodes for each in node.attribute if each.HasField("t"))


class _Features(NamedTuple):
    """Where the features of a graph are: `maps` is empty without feature maps."""

    embedding: str
    axes: int
    maps: str
    maps_channels_last: bool
    size: int
    last: tuple[int, ...]  # h, w of the maps


class _Graph:
    """A simplified model, and where its values come from."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}

    def image_input(self) -> _Input:
        """The only input.

        Raises:
            ModelError: there are several, or it does not take images.
        """
        inputs = self.model.graph.input
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise ModelError(f"it must have one input, got {len(inputs)} ({names[:100]})", _HINT)
        tensor = inputs[0].type.tensor_type
        sides = [side.dim_value if side.HasField("dim_value") else 0 for side in tensor.shape.dim]
        if len(sides) != 4 or tensor.elem_type not in _TYPES:
            kind = TensorProto.DataType.Name(tensor.elem_type)
            raise ModelError(f"its input '{inputs[0].name}' does not take images: {kind} {sides}", _HINT)
        batch, *rest = sides
        last = rest[2] in (1, 3) and rest[0] not in (1, 3)
        channels = rest[2] if last else rest[0] or 3
        if channels not in (1, 3):
            raise ModelError(f"its input must have 1 or 3 channels, got {channels}", _HINT)
        given = tuple(rest[:2] if last else rest[1:])
        side = (given[0] or given[1] or _USUAL_SIDE, given[1] or given[0] or _USUAL_SIDE)
        if max(side) > _MOST_SIDE:
            raise ModelError(f"it takes images of {side[1]}x{side[0]} pixels; the limit is {_MOST_SIDE}", _HINT)
        note = "" if all(given) else f"the graph takes images of any size; {side[1]}x{side[0]} pixels are used"
        return _Input(inputs[0].name, _TYPES[tensor.elem_type], last, channels, side, batch, note)

    def expected_scale(self, given: _Input) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str]:
        """The scale of pixels that the graph expects, and why."""
        factor, offset = self._first_arithmetic(given.name)
        if factor is not None and offset is not None:
            if np.abs(factor).max() <= 0.1 or (offset < -2 * np.abs(factor)).any():
                return SCALES["0..255"], "the graph scales pixels itself, so it gets them from 0 to 255"
            return SCALES["0..1"], "the graph normalises pixels itself, so it gets them from 0 to 1"
        if given.channels_last:
            return SCALES["-1..1"], "pixels are scaled to -1..1, as usual for a graph with channels last (a guess)"
        return SCALES["imagenet"], "pixels are scaled by ImageNet's mean and deviation (a guess)"

    def _first_arithmetic(self, name: str) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """(factor, offset) of what is done to each pixel before the first layer; (None, None) if nothing is."""
        factor, offset, found = np.ones(1), np.zeros(1), False
        while True:
            users = [node for node in self.model.graph.node if name in node.input]
            if len(users) != 1:
                break
            (node,) = users
            values = [self.constants[each].astype(float).ravel() for each in node.input if each in self.constants]
            if node.op_type in ("Identity", "Cast", "Transpose"):
                name = node.output[0]
                continue
            if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(values) != 1 or values[0].size not in (1, 3):
                break
            if node.op_type in ("Div", "Sub") and node.input[0] != name:
                break
            (value,) = values
            match node.op_type:
                case "Mul":
                    factor, offset = factor * value, offset * value
                case "Div":
                    factor, offset = factor / value, offset / value
                case "Add":
                    offset = offset + value
                case "Sub":
                    offset = offset - value
            name, found = node.output[0], True
        return (factor, offset) if found else (None, None)

    def free_batch(self, given: _Input) -> None:
        """Let any number of images go in: a fixed number of 1 is replaced, in the input and in reshapes."""
        self.model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
        self.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        if not given.batch:
            return
        del self.model.graph.value_info[:]  # with the fixed number
        for node in self.model.graph.node:
            shape = self.constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
            if shape is not None and shape.size > 1 and shape[0] == given.batch:
                name = f"{node.output[0]}/shape"
                free = numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name)  # 0: as in the input
                self.model.graph.initializer.append(free)
                node.input[1] = name
                del node.attribute[:]  # `allowzero` would make 0 a length

    def find_features(self, given: _Input) -> tuple[_Features, str]:
        """The features, found by running the graph, and a note if a layer was left out.

        Raises:
            ModelError: there are none.
        """
        outputs = [value.name for value in self.model.graph.output]
        outputs.sort(key=lambda name: not any(word in name.lower() for word in _NAMES_OF_FEATURES))
        candidates = {name: self._before_classifier(name) for name in outputs}
        maps = {name: self._before_pooling(name) for name in (*outputs, *filter(None, candidates.values()))}
        names = {name for name in (*outputs, *candidates.values(), *maps.values()) if name}
        rows = self._run(given, sorted(names))
        for name in outputs:
            found, note = name, ""
            inner = candidates[name]
            if inner and self._is_classifier(name, rows[name]):
                found, classes = inner, rows[name].shape[-1]
                note = f"the last layer, a classifier of {classes:,} classes, is left out"
            row = rows[found]
            if not row.ndim or len(row) != 2:
                continue
            if row.ndim == 4 and row[0].size == max(row.shape[1:]):
                row = row.reshape(len(row), -1)
            if row.ndim == 4:
                reorder = given.channels_last and not row.shape[1] != row.shape[2] == row.shape[3]
                sides = row.shape[1:3] if reorder else row.shape[2:]
                return _Features("", 2, found, reorder, row.shape[3 if reorder else 1], sides), note
            if row.ndim == 3:
                size, note = row.shape[2], note or "the features are the mean of the tokens"
                return _Features(found, 3, "", False, size, ()), note
            if row.ndim == 2 and row.shape[1] > 1:
                before = maps.get(found, "")
                for channels_last in (False, True) if before and rows[before].ndim == 4 else ():
                    axes = (1, 2) if channels_last else (2, 3)
                    mean = rows[before].mean(axes)
                    last = tuple(rows[before].shape[axis] for axis in axes)
                    if mean.shape == row.shape and last != (1, 1) and _same(mean, row):
                        return _Features("", 2, before, channels_last, row.shape[1], last), note
                if not note and self._is_classifier(name, row):
                    note = f"'{name}' looks like the scores of a classifier; they are used as features"
                return _Features(found, 2, "", False, row.shape[1], ()), note
        shapes = ", ".join(f"{name} {list(rows[name].shape)}" for name in outputs)
        raise ModelError(f"none of its outputs holds features of 2 images: {shapes}", _HINT)

    def _back(self, name: str, through: set[str]) -> tuple[onnx.NodeProto | None, bool]:
        """The first node before a value that does more than the kinds in `through`; whether scores were squashed."""
        node, squashed = self.producers.get(name), False
        while node is not None and node.op_type in through:
            squashed |= node.op_type in _SQUASHING
            node = self.producers.get(node.input[0])
        return node, squashed

    def _before_classifier(self, name: str) -> str:
        """What goes into the last linear layer before an output; empty if there is no such layer."""
        node, _ = self._back(name, _RESHAPING | _SQUASHING)
        if node is not None and node.op_type == "Add":
            computed = [each for each in node.input if each not in self.constants]
            node = self.producers.get(computed[0]) if len(computed) == 1 else None
        if node is not None and node.op_type in ("Gemm", "MatMul") and node.input[1] in self.constants:
            return str(node.input[0])
        return ""

    def _before_pooling(self, name: str) -> str:
        """The feature maps whose mean a value may be; empty if it is not pooled."""
        node, _ = self._back(name, _RESHAPING)
        return str(node.input[0]) if node is not None and node.op_type in _POOLING else ""

    def _is_classifier(self, name: str, row: NDArray[Any]) -> bool:
        named = any(word in name.lower() for word in _NAMES_OF_SCORES)
        return row.ndim == 2 and (
            named or row.shape[1] in _IMAGENET_CLASSES or self._back(name, _RESHAPING | _SQUASHING)[1]
        )

    def _run(self, given: _Input, names: list[str]) -> dict[str, NDArray[Any]]:
        """These values for two random images."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        random, sides = np.random.default_rng(0), (given.channels, *given.side)
        shape = (2, *(sides[1:] + sides[:1] if given.channels_last else sides))
        images = random.integers(0, 255, shape).astype(given.type)
        images = images if given.type is np.uint8 else images / given.type(255)
        return dict(zip(names, _run(model, names, {given.name: images}), strict=True))


def check_features(model: onnx.ModelProto) -> None:
    """Raise an error unless a graph from "pixels" to features may be part of a model file, and its features are sound.

    Raises:
        ArtifactError: a part of it is not allowed.
        ModelError: it fails, or does not return finite features of each image.
    """
    sealed = onnx.ModelProto()
    sealed.CopyFrom(model)
    helper.set_model_props(sealed, {METADATA_KEY: "{}"})
    _, outputs = OnnxFile(sealed.SerializeToString()).check_graph()
    height, width = (side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[2:])
    pixels, names = np.random.default_rng(1).random((3, 3, height, width), np.float32), list(outputs)
    together, alone = (_run(model, names, {"pixels": some}) for some in (pixels, pixels[2:]))
    for name, rows, row in zip(names, together, alone, strict=True):
        if not np.isfinite(rows).all():
            raise ModelError(f"it returns NaN or infinite numbers as '{name}'", _HINT)
        if len(rows) != 3 or not _same(rows[2:], row):
            raise ModelError("its features of an image depend on the images beside it", _FREE_BATCH)


def _same(rows: NDArray[Any], others: NDArray[Any]) -> bool:
    return rows.shape == others.shape and bool(np.abs(rows - others).max() <= _SAME * max(1e-6, np.abs(rows).max()))


def _run(model: onnx.ModelProto, names: list[str], given: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    session = open_session(model.SerializeToString())
    try:
        with limited_time() as options:
            rows: list[NDArray[Any]] = session.run(names, given, options)
            return rows
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        count = len(next(iter(given.values())))
        if needs_memory(error):
            raise ModelError(f"it needs more memory for {count} images than hangtag allows", _HINT) from error
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise ModelError(f"the graph fails on {count} images: {reason}", _FREE_BATCH) from error


def _assembled(
    inner: onnx.ModelProto, given: _Input, mean: tuple[float, ...], deviation: tuple[float, ...], chosen: _Features
) -> onnx.ModelProto:
    """The graph from "pixels" to "embedding" and "maps", without the nodes that neither needs."""
    graph = onnx.compose.add_prefix(inner, "file/").graph
    writer = GraphWriter()
    add, x = writer.add, "pixels"

    def constant(value: Any, kind: Any = np.float32) -> str:
        return writer.constant(np.array(value, kind))

    if given.channels == 1:
        x = add("Conv", x, constant(np.reshape(_GREY, (1, 3, 1, 1))))
        mean, deviation = mean[1:2], deviation[1:2]
    sides = (1, len(mean), 1, 1)
    x = add("Mul", x, constant(np.reshape(255 / np.array(deviation), sides)))
    x = add("Sub", x, constant(np.reshape(np.array(mean) / np.array(deviation), sides)))
    if given.type is np.uint8:
        x = add("Round", x)
    if given.channels_last:
        x = add("Transpose", x, perm=[0, 2, 3, 1])
    add("Cast", x, output=f"file/{given.name}", to=helper.np_dtype_to_tensor_dtype(np.dtype(given.type)))
    writer.nodes.extend(graph.node)
    outputs = {"embedding": f"{chosen.size}"}
    if chosen.maps:
        perm = [0, 3, 1, 2] if chosen.maps_channels_last else [0, 1, 2, 3]
        maps = add("Transpose", add("Cast", f"file/{chosen.maps}", to=TensorProto.FLOAT), output="maps", perm=perm)
        add("ReduceMean", maps, constant([2, 3], np.int64), output="embedding", keepdims=0)
        outputs["maps"] = ", ".join(map(str, (chosen.size, *chosen.last)))
    else:
        x = add("Cast", f"file/{chosen.embedding}", to=TensorProto.FLOAT)
        if chosen.axes == 3:
            add("ReduceMean", x, constant([1], np.int64), output="embedding", keepdims=0)
        else:
            add("Flatten", x, output="embedding")
    needed, kept = set(outputs), list[onnx.NodeProto]()
    for node in reversed(writer.nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    whole = helper.make_graph(
        kept[::-1],
        "features",
        [float_value("pixels", f"3, {given.side[0]}, {given.side[1]}")],
        [float_value(name, shape) for name, shape in outputs.items()],
        [weight for weight in (*writer.tensors(), *graph.initializer) if weight.name in needed],
    )
    return plain_model(helper.make_model(whole, ir_version=IR_VERSION, opset_imports=inner.opset_import))


def _parameters(model: onnx.ModelProto) -> int:
    weights = (numpy_helper.to_array(each) for each in model.graph.initializer)
    return sum(weight.size for weight in weights if weight.dtype.kind == "f")


def _licence(content: bytes) -> str:
    entries = onnx.load_model_from_string(content).metadata_props
    found = (entry.value for entry in entries if entry.key.lower() in ("licence", "license"))
    return next(found, "")[:200]

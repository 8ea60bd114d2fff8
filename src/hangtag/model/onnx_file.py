"""A model file read as plain data, and checked before ONNX Runtime sees it.

ONNX Runtime runs any graph, reads weights from other files that a model names, and can be crashed by a hostile model.
This module therefore reads the file itself (Protocol Buffers wire format) and accepts only what hangtag writes: one
graph without subgraphs and functions, operators from a fixed list, weights inside the file, and a checksum of the whole
file. Export runs the same check, so that every exported file can be opened.
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from hangtag.errors import ArtifactError

__all__ = ["CHECKSUM_KEY", "METADATA_KEY", "MOST_NODES", "OPERATORS", "RETRAIN", "OnnxFile", "Value", "sealed"]

METADATA_KEY, CHECKSUM_KEY = "hangtag", "hangtag.sha256"
"""Keys of the file's metadata: JSON, and the SHA-256 of the file with the 64 digits of the checksum set to "0"."""

RETRAIN = "train again, or get a fresh copy of the file"

OPERATORS = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Compress", "Concat", "ConstantOfShape",
    "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "Div", "Dropout", "Einsum", "Elu", "Equal",
    "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf",
    "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mish",
    "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "RMSNormalization", "RNN", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterElements",
    "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
    "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
"""The operators of the standard domain that a graph may use: deterministic arithmetic on tensors."""

_OPSETS = range(18, 27)
_IR_VERSIONS = range(8, 12)
_MOST_PARTS = 400_000  # fields of a file; large networks have some ten thousand, and reading these takes a second
MOST_NODES = 20_000
_MOST_AXES = 8
_LARGEST = 2**31 - 1  # sides of tensors, and whole numbers in attributes
_DIGITS = 64

_TYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64,
}  # fmt: skip
"""ONNX's element types that tensors may have."""

# Field number -> (name, content). "*": any number of times. "span": bytes that stay where they are.
_FIELDS: dict[str, dict[int, tuple[str, str]]] = {
    "model": {
        1: ("ir_version", "int"), 2: ("producer_name", "text"), 7: ("graph", "span"), 8: ("opset_import", "opset*"),
        14: ("metadata_props", "entry*"),
    },
    "opset": {1: ("domain", "text"), 2: ("version", "int")},
    "entry": {1: ("key", "text"), 2: ("value", "span")},
    "graph": {
        1: ("node", "node*"), 2: ("name", "text"), 5: ("initializer", "tensor*"), 11: ("input", "value*"),
        12: ("output", "value*"),
    },
    "node": {
        1: ("input", "text*"), 2: ("output", "text*"), 3: ("name", "text"), 4: ("op_type", "text"),
        5: ("attribute", "attribute*"), 7: ("domain", "text"),
    },
    "attribute": {
        1: ("name", "text"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "text"), 5: ("t", "tensor"),
        7: ("floats", "float*"), 8: ("ints", "int*"), 9: ("strings", "text*"), 20: ("type", "int"),
    },
    "tensor": {1: ("dims", "int*"), 2: ("data_type", "int"), 8: ("name", "text"), 9: ("raw_data", "span")},
    "value": {1: ("name", "text"), 2: ("type", "type")},
    "type": {1: ("tensor_type", "tensor type")},
    "tensor type": {1: ("elem_type", "int"), 2: ("shape", "shape")},
    "shape": {1: ("dim", "side*")},
    "side": {1: ("dim_value", "int"), 2: ("dim_param", "text")},
}  # fmt: skip
_NEVER = {
    ("model", 25): "functions", ("graph", 15): "sparse weights", ("attribute", 6): "a subgraph",
    ("attribute", 11): "subgraphs", ("tensor", 13): "weights in another file",
    ("tensor", 14): "weights in another file",
}  # fmt: skip
_ATTRIBUTE_TYPES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
_WIRE = {"int": 0, "float": 5}  # everything else is length-delimited: 2

# ONNX Runtime divides by these numbers without checking that they are not 0.
_AT_LEAST_ONE = {"blocksize", "dilations", "group", "hidden_size", "kernel_shape", "num_groups", "size", "strides"}
_TO_INTEGERS = {"ArgMax", "ArgMin", "Shape", "Size"}
_TYPED_BY = {"CastLike": 1, "OneHot": 2, "Where": 1}  # the input whose type the output has; by default the first

Span: TypeAlias = tuple[int, int]
Message: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: its element type, and its sides (a name stands for a side of any length)."""

    type: type[np.generic]
    shape: tuple[int | str, ...]


class OnnxFile:
    """A file whose outermost level has been read.

    Attributes:
        metadata: the file's own description, JSON.

    Raises:
        ArtifactError: not an ONNX file, or not one that hangtag wrote.
    """

    def __init__(self, content: bytes) -> None:
        self._reader = _Reader(content)
        try:
            self._model = self._reader.message("model", (0, len(content)), lenient=True)
        except ArtifactError as error:
            raise ArtifactError("not an ONNX model, or a damaged one", RETRAIN) from error
        self._entries = {entry.get("key"): entry.get("value", (0, 0)) for entry in self._model["metadata_props"]}
        if METADATA_KEY not in self._entries:
            if not (self._model["graph"] and self._model["opset_import"]):
                raise ArtifactError("not an ONNX model, or a damaged one", RETRAIN)
            raise ArtifactError("an ONNX model, but not one made by hangtag", "use a model.onnx that hangtag wrote")
        self.metadata = self._reader.bytes_at(self._entries[METADATA_KEY])

    def check_checksum(self) -> None:
        """Raise ArtifactError unless the file is exactly as it was written."""
        span = self._entries.get(CHECKSUM_KEY, (0, 0))
        if self._reader.bytes_at(span).decode("latin-1") != _checksum(self._reader.content, span):
            raise ArtifactError("damaged: its checksum does not match its content", RETRAIN)

    def check_graph(self) -> tuple[dict[str, Value], dict[str, Value]]:
        """The inputs and outputs of the graph, after checking that it contains only what hangtag writes.

        Raises:
            ArtifactError: it contains anything else.
        """
        model = self._model
        opsets = [(each.get("domain", ""), each.get("version")) for each in model["opset_import"]]
        if model["unknown"]:
            _refuse_part("model", model["unknown"][0])
        if len(opsets) != 1 or opsets[0][0] or opsets[0][1] not in _OPSETS:
            _refuse(f"must use version {_OPSETS[0]} to {_OPSETS[-1]} of the standard operators, got {opsets}")
        if model["ir_version"] not in _IR_VERSIONS or len(self._entries) != len(model["metadata_props"]):
            _refuse("has a header that hangtag does not write")
        if model["graph"] is None:
            _refuse("is missing")
        graph = self._reader.message("graph", model["graph"])
        if len(graph["node"]) > MOST_NODES:
            _refuse(f"has {len(graph['node']):,} nodes; the limit is {MOST_NODES:,}")
        inputs, outputs = ({each["name"]: _value(each) for each in graph[key]} for key in ("input", "output"))
        tensors = {tensor["name"]: self._tensor(tensor) for tensor in graph["initializer"]}
        names = [*tensors, *inputs, *(name for node in graph["node"] for name in node["output"] if name)]
        if "" in names or len(set(names)) < len(names) or len(tensors) < len(graph["initializer"]):
            _refuse("computes two values of one name")
        if len(inputs) < len(graph["input"]) or len(outputs) < len(graph["output"]):
            _refuse("has two inputs or outputs of one name")
        self._check_nodes(graph["node"], tensors, inputs)
        if not outputs.keys() <= set(names):
            _refuse("does not compute all its outputs")
        return inputs, outputs

    def _check_nodes(self, nodes: list[Message], tensors: dict[str, np.ndarray], inputs: dict[str, Value]) -> None:
        """Check each node, in order; follow which values are whole numbers, for divisions."""
        whole = {name: array.dtype.kind in "iu" for name, array in tensors.items()}
        whole |= {name: issubclass(value.type, np.integer) for name, value in inputs.items()}
        for node in nodes:
            kind, given = node["op_type"], node["input"]
            if kind not in OPERATORS or node["domain"]:
                named = f"{node['domain']}::{kind}" if node["domain"] else kind
                _refuse(f"uses the operator {named!r}, which hangtag's model files may not contain")
            unknown = [name for name in given if name and name not in whole]
            if unknown or not node["output"]:
                _refuse(f"has a node ({kind}) whose inputs are not computed before it")
            attributes = {each["name"]: self._attribute(each) for each in node["attribute"]}
            if kind in ("Div", "Mod") and len(given) == 2 and whole.get(given[0]):
                divisor = tensors.get(given[1])
                if divisor is None or np.isin(divisor, (0, -1)).any():  # either can end the process
                    _refuse("divides whole numbers by a number that is not a fixed one other than 0 and -1")
            is_whole = self._gives_whole(node, attributes, whole)
            whole |= {name: is_whole or place > 0 for place, name in enumerate(node["output"])}

    def _gives_whole(self, node: Message, attributes: Message, whole: dict[str, bool]) -> bool:
        """Whether a node's first output may consist of whole numbers."""
        kind, given = node["op_type"], node["input"]
        if kind in _TO_INTEGERS:
            return True
        if kind in ("Cast", "EyeLike") and ("to" in attributes or "dtype" in attributes):
            return issubclass(_type(attributes.get("to", attributes.get("dtype"))), np.integer)
        if kind == "ConstantOfShape":
            value = attributes.get("value")
            return value is not None and value.dtype.kind in "iu"
        by = _TYPED_BY.get(kind, 0)
        return whole.get(given[by], False) if by < len(given) else False

    def _attribute(self, attribute: Message) -> Any:
        kind = _ATTRIBUTE_TYPES.get(attribute["type"])
        filled = [name for name in _ATTRIBUTE_TYPES.values() if attribute[name] not in (None, [], "")]
        if kind is None or any(name != kind for name in filled):
            _refuse(f"has an attribute {attribute['name']!r} of a kind that hangtag does not write")
        value = attribute[kind]
        numbers = [value] if kind == "i" else value if kind == "ints" else []
        least = 1 if attribute["name"] in _AT_LEAST_ONE else -_LARGEST
        if not all(number is not None and least <= number <= _LARGEST for number in numbers):
            _refuse(f"has an attribute {attribute['name']!r} that is out of range: {str(value)[:60]}")
        return self._tensor(value) if kind == "t" and value else value

    def _tensor(self, tensor: Message) -> np.ndarray:
        kind, dims, span = _type(tensor["data_type"]), tensor["dims"], tensor["raw_data"] or (0, 0)
        if len(dims) > _MOST_AXES or not all(0 <= side <= _LARGEST for side in dims):
            _refuse(f"has weights of shape {str(dims)[:60]}")
        if math.prod(dims) * np.dtype(kind).itemsize != span[1] - span[0]:
            _refuse(f"has weights of shape {dims} in {span[1] - span[0]:,} bytes")
        return np.frombuffer(self._reader.content, kind, math.prod(dims), span[0]).reshape(dims)


def sealed(content: bytes) -> bytes:
    """The content of a file that `onnx` wrote, with the checksum of the whole file put in.

    Args:
        content: its metadata has the entry `CHECKSUM_KEY` with 64 digits.
    """
    start, end = OnnxFile(content)._entries[CHECKSUM_KEY]
    return content[:start] + _checksum(content, (start, end)).encode() + content[end:]


def _checksum(content: bytes, span: Span) -> str:
    """SHA-256 in hex, with zeros in place of the checksum itself; empty if it has another length."""
    if span[1] - span[0] != _DIGITS:
        return "none"
    view = memoryview(content)
    digest = hashlib.sha256(view[: span[0]])
    digest.update(b"0" * _DIGITS)
    digest.update(view[span[1] :])
    return digest.hexdigest()


def _type(number: Any) -> type[np.generic]:
    if number not in _TYPES:
        _refuse(f"has values of the type {number}, which hangtag does not use")
    return _TYPES[number]


def _value(value: Message) -> Value:
    tensor = ((value["type"] or {}).get("tensor_type")) or {}
    if not tensor.get("shape"):
        _refuse(f"has an input or output {value['name']!r} without a shape")
    sides = [side["dim_param"] if side["dim_value"] is None else side["dim_value"] for side in tensor["shape"]["dim"]]
    return Value(_type(tensor["elem_type"]), tuple(side or "" for side in sides))


def _refuse(problem: str) -> NoReturn:
    raise ArtifactError(f"its graph {problem}", RETRAIN)


def _refuse_part(kind: str, number: int) -> NoReturn:
    part = _NEVER.get((kind, number), f"a part that hangtag does not write ({kind}, field {number})")
    raise ArtifactError(f"it has {part}", RETRAIN)


class _Reader:
    """Reads Protocol Buffers messages: each known field once, in the declared form; everything else is an error."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._left = _MOST_PARTS

    def bytes_at(self, span: Span) -> bytes:
        return self.content[span[0] : span[1]]

    def message(self, kind: str, span: Span, lenient: bool = False) -> Message:
        """The fields of a message by name; a missing one is None, or [] if it may be repeated.

        Args:
            kind: a key of `_FIELDS`.
            lenient: collect the numbers of unknown fields under "unknown".
        """
        fields = _FIELDS[kind]
        found: Message = {name: [] if content.endswith("*") else None for name, content in fields.values()}
        if kind in ("node", "entry", "value", "tensor", "attribute"):
            found |= {name: "" for name, content in fields.values() if content == "text"}
        unknown = []
        at, end = span
        while at < end:
            key, at = self._number(at, end)
            value, at = self._raw(key & 7, at, end)
            name, content = fields.get(key >> 3, ("", ""))
            self._left -= 1
            if self._left < 0:
                raise ArtifactError(f"it has more than {_MOST_PARTS:,} parts", RETRAIN)
            if not name:
                if not lenient:
                    _refuse_part(kind, key >> 3)
                unknown.append(key >> 3)
            elif content.endswith("*"):
                found[name] += self._all(content[:-1], key & 7, value)
            elif found[name] not in (None, ""):
                _broken()
            else:
                found[name] = self._one(content, key & 7, value)
        return found | ({"unknown": unknown} if lenient else {})

    def _raw(self, wire: int, at: int, end: int) -> tuple[Any, int]:
        """The number or span of a field, and where the next one begins."""
        if wire == 0:
            return self._number(at, end)
        if wire == 2:
            size, at = self._number(at, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            _broken()
        if at + size > end:
            _broken()
        return (at, at + size), at + size

    def _all(self, content: str, wire: int, value: Any) -> list[Any]:
        """The values of a field that may be repeated; numbers may be packed."""
        if content not in _WIRE or wire == _WIRE[content]:
            return [self._one(content, wire, value)]
        if wire != 2:
            _broken()
        at, end = value
        numbers = []
        self._left -= end - at
        if self._left < 0:
            raise ArtifactError(f"it has more than {_MOST_PARTS:,} parts", RETRAIN)
        while at < end:
            raw, at = self._raw(_WIRE[content], at, end)
            numbers.append(self._one(content, _WIRE[content], raw))
        return numbers

    def _one(self, content: str, wire: int, value: Any) -> Any:
        if wire != _WIRE.get(content, 2):
            _broken()
        if content == "int":
            return value - (1 << 64) if value >> 63 else value
        if content == "float":
            return struct.unpack("<f", self.bytes_at(value))[0]
        if content == "span":
            return value
        if content == "text":
            try:
                return self.bytes_at(value).decode("utf-8")
            except UnicodeDecodeError:
                _broken()
        return self.message(content, value)

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """A variable-length whole number below 2^64."""
        number, start = 0, at
        while at < end:
            byte = self.content[at]
            number |= (byte & 127) << 7 * (at - start)
            at += 1
            if number >> 64:
                break
            if byte < 128:
                return number, at
            if at - start == 10:
                break
        return _broken()


def _broken() -> NoReturn:
    raise ArtifactError("it is damaged, or not an ONNX file", RETRAIN)

"""A small graph in ONNX's text form -> the bytes of a model file, without the package `onnx`.

The base install has no `onnx`, but resizes images with an ONNX graph. This module knows only the forms that `resize.py`
uses, and writes the same bytes as `onnx.parser` (Protocol Buffers wire format, fields in the order of their numbers).
"""

import re
import struct
from collections.abc import Iterable

__all__ = ["model_bytes"]

_TYPES = {"float": 1, "uint8": 2, "int64": 7}  # ONNX's numbers of element types
_DATA_FIELDS = {"float": 4, "uint8": 5, "int64": 7}  # of a tensor
_INT, _STRING, _INTS = 2, 3, 7  # ONNX's numbers of attribute types

_VALUE = re.compile(r"(?P<type>\w+)(?:\[(?P<sides>[^\]]*)\])? (?P<name>\w+)(?: = \{(?P<numbers>[^}]*)\})?")
_NODE = re.compile(r"(?P<output>\w+) = (?P<kind>\w+) (?:<(?P<attributes>[^>]*)> )?\((?P<inputs>[^)]*)\)")
_ATTRIBUTE = re.compile(r"(\w+) = (\[[^\]]*\]|\"[^\"]*\"|-?\d+)")


def model_bytes(
    name: str, inputs: str, outputs: str, constants: str, nodes: str, *, ir_version: int, opset: int
) -> bytes:
    """A model file with one graph.

    Args:
        name: of the graph.
        inputs, outputs, constants: such as "uint8[N, height, 3] images" and "int64[2] size = {28, 28}".
        nodes: one per line, such as "shape = Concat <axis = 0> (count, size)".
    """
    graph = [
        *(_field(1, _node(found)) for found in _NODE.finditer(nodes)),
        _field(2, name),
        *(_field(5, _tensor(found)) for found in _VALUE.finditer(constants)),
        *(_field(11, _value(found)) for found in _VALUE.finditer(inputs)),
        *(_field(12, _value(found)) for found in _VALUE.finditer(outputs)),
    ]
    return _field(1, ir_version) + _field(7, b"".join(graph)) + _field(8, _field(1, "") + _field(2, opset))


def _node(found: re.Match[str]) -> bytes:
    attributes = _ATTRIBUTE.findall(found["attributes"] or "")
    return b"".join(
        [
            *(_field(1, each.strip()) for each in found["inputs"].split(",")),
            _field(2, found["output"]),
            _field(4, found["kind"]),
            *(_field(5, _attribute(*each)) for each in attributes),
            _field(7, ""),
        ]
    )


def _attribute(name: str, text: str) -> bytes:
    if text.startswith('"'):
        value, kind = _field(4, text.strip('"')), _STRING
    elif text.startswith("["):
        value, kind = b"".join(_field(8, int(each)) for each in text.strip("[]").split(",")), _INTS
    else:
        value, kind = _field(3, int(text)), _INT
    return _field(1, name) + value + _field(20, kind)


def _tensor(found: re.Match[str]) -> bytes:
    numbers = found["numbers"].split(",")
    if found["type"] == "float":
        data = struct.pack(f"<{len(numbers)}f", *map(float, numbers))
    else:
        data = b"".join(_number(int(each)) for each in numbers)
    dims = b"".join(_field(1, int(side)) for side in _sides(found))
    kind = found["type"]
    return dims + _field(2, _TYPES[kind]) + _field(_DATA_FIELDS[kind], data) + _field(8, found["name"])


def _value(found: re.Match[str]) -> bytes:
    sides = (_field(1, int(side)) if side.isdigit() else _field(2, side) for side in _sides(found))
    shape = b"".join(_field(1, side) for side in sides)
    tensor = _field(1, _TYPES[found["type"]]) + _field(2, shape)
    return _field(1, found["name"]) + _field(2, _field(1, tensor))


def _sides(found: re.Match[str]) -> Iterable[str]:
    return map(str.strip, found["sides"].split(",")) if found["sides"] else ()


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field with its key: whole numbers as they are, everything else with its length."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    content = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """A variable-length whole number of at least 0: seven bits a byte, the lowest first."""
    parts = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])

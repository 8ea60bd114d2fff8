"""Tensors of the Open Inference Protocol v2: requests and responses in JSON, with or without binary data after it.

The binary layout is that of Triton's extension "binary_tensor_data": little-endian, row-major, and each element of a
BYTES tensor after its length in 4 bytes.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from hangtag.serving.refusals import Refusal
from hangtag.words import visible

__all__ = ["DATATYPES", "HEADER_LENGTH", "Inference", "Input", "Output", "Reply", "read_inference", "shown"]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON; the others are binary data."""

DATATYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""Datatypes of numbers, and what NumPy calls them."""

_MOST_AXES = 8
_MOST_IN_JSON, _MOST_OBJECTS = 2_000_000, 1000  # parsing more would hold up all other requests for seconds
_SHORT = 100_000  # bytes of JSON that need no counting
_MOST_SHOWN = 60  # characters of a client's words in an error
_Length = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _InputParameters(msgspec.Struct):
    binary_data_size: _Length | None = None
    shared_memory_region: Any = None


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    shared_memory_region: Any = None


class _Parameters(msgspec.Struct):
    binary_data_output: bool | None = None
    timeout: _Length | None = None


class Input(msgspec.Struct):
    """An input tensor of a request.

    Attributes:
        data: its elements in JSON, not read yet.
        binary: its elements as binary data; None: they are in `data`.
    """

    name: str
    shape: Annotated[list[_Length], msgspec.Meta(max_length=_MOST_AXES)]
    datatype: str
    parameters: _InputParameters | None = None
    data: msgspec.Raw = msgspec.Raw()
    binary: memoryview | None = None

    @property
    def has_data(self) -> bool:
        """Whether there is data in JSON."""
        return bytes(memoryview(self.data)[:5]) not in (b"", b"null")

    def numbers(self) -> NDArray[Any]:
        """The elements, if they are numbers; those of binary data are not copied.

        Raises:
            Refusal: the datatype, the number of elements or an element is wrong.
        """
        kind = DATATYPES.get(self.datatype)
        if kind is None:
            raise self._wrong(
                f"cannot have the datatype {shown(self.datatype)}", f"use {', '.join(DATATYPES)} or BYTES"
            )
        if self.binary is None:
            return self._from_json(np.dtype(kind))
        wanted = math.prod(self.shape) * np.dtype(kind).itemsize
        if len(self.binary) != wanted:
            text = f"must have {wanted:,} bytes for {self.datatype} {self.shape}, got {len(self.binary):,}"
            raise self._wrong(text, "send as many elements as the shape says")
        return np.frombuffer(self.binary, kind).reshape(self.shape)

    def elements(self) -> list[bytes]:
        """The elements, if they are BYTES; in JSON, each is a text in base64. Errors as of `numbers`."""
        if self.binary is None:
            found: list[bytes] = self._parsed(list[bytes], "must be base64 strings in JSON")
        else:
            found, place = [], 0
            while place < len(self.binary):
                if len(found) == math.prod(self.shape):
                    raise self._wrong(f"has more elements than its shape {self.shape} says", "change either")
                if place + 4 > len(self.binary):
                    break
                (length,) = struct.unpack_from("<I", self.binary, place)
                found.append(bytes(self.binary[place + 4 : place + 4 + length]))
                place += 4 + length
            if place != len(self.binary):
                raise self._wrong(
                    "has an element that ends after the data", "send 4 bytes of length before each element"
                )
        if len(found) != math.prod(self.shape):
            raise self._wrong_number(len(found))
        return found

    def _from_json(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        is_nested = bytes(memoryview(self.data)[:64]).translate(None, b" \t\r\n")[:2] == b"[["
        depth = len(self.shape) if is_nested else 1
        found = self._parsed(_lists(dtype.str, depth), f"must be numbers of {self.datatype}")
        try:
            with np.errstate(over="ignore"):  # becomes infinite, which images may not be
                array = np.array(found, dtype)
        except ValueError:
            raise self._wrong("has rows that differ in length", f"send data of the shape {self.shape}") from None
        if is_nested and list(array.shape) != self.shape:
            raise self._wrong(f"has data of the shape {list(array.shape)}", f"its shape says {self.shape}")
        if array.size != math.prod(self.shape):
            raise self._wrong_number(array.size)
        return array.reshape(self.shape)

    def _parsed(self, kind: Any, must: str) -> Any:
        if not self.has_data:
            raise self._wrong("has no data", "send it in data, or as binary data with binary_data_size")
        if (least := bytes(self.data).count(b",") + 1) > max(1, math.prod(self.shape)):
            raise self._wrong_number(least)
        try:
            return msgspec.json.decode(self.data, type=kind)
        except msgspec.ValidationError as error:
            raise self._wrong(
                f"{must}: {_reason(error)}", f"send data of the shape {self.shape}, flat or nested"
            ) from None

    def _wrong_number(self, found: int) -> Refusal:
        wanted = math.prod(self.shape)
        return self._wrong(
            f"must have {wanted:,} elements for the shape {self.shape}, got {found:,}", "make the shape fit the data"
        )

    def _wrong(self, text: str, hint: str) -> Refusal:
        return Refusal(400, f"input {shown(self.name)} {text}", hint)


class Output(msgspec.Struct):
    """An output tensor that a request wants."""

    name: str
    parameters: _OutputParameters | None = None


class Inference(msgspec.Struct):
    """A request for inference.

    Attributes:
        id: is returned with the response.
        outputs: those wanted; None: all.
    """

    inputs: list[Input]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[Output] | None = None

    @property
    def timeout(self) -> float:
        """How long the client waits, in seconds."""
        wanted = self.parameters.timeout if self.parameters else None
        return wanted / 1e6 if wanted else math.inf

    def is_binary(self, output: Output) -> bool:
        """Whether the client wants this output as binary data."""
        own = output.parameters.binary_data if output.parameters else None
        return bool(self.parameters and self.parameters.binary_data_output) if own is None else own


_DECODER = msgspec.json.Decoder(Inference)


def read_inference(body: bytes, header_length: str | None) -> Inference:
    """The request in a body.

    Args:
        header_length: the header `HEADER_LENGTH`, if there is one.

    Raises:
        Refusal: the JSON is not a request, or sizes contradict each other.
    """
    length = _json_length(body, header_length)
    content = memoryview(body)
    if length > _SHORT and (body.count(b",", 0, length) > _MOST_IN_JSON or body.count(b"{", 0, length) > _MOST_OBJECTS):
        raise Refusal(
            413, f"the JSON may have at most {_MOST_IN_JSON:,} elements and {_MOST_OBJECTS:,} objects",
            f"send tensors as binary data after it, see {HEADER_LENGTH}",
        )  # fmt: skip
    try:
        request = _DECODER.decode(content[:length])
    except msgspec.ValidationError as error:
        raise Refusal(
            400, f"the inference request is wrong: {_reason(error)}", "compare it with the description at /docs"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(
            400, f"the body is not valid JSON: {_reason(error)}", f"see {HEADER_LENGTH} for binary data"
        ) from None
    except RecursionError:
        raise Refusal(400, "the JSON is nested too deeply", "send tensors as flat lists") from None
    place = length
    for each in request.inputs:
        each.binary = None
        if each.parameters is None:
            continue
        if (size := each.parameters.binary_data_size) is not None:
            if each.has_data:
                raise Refusal(400, f"input {shown(each.name)} has data and binary data", "send only one of them")
            each.binary = content[place : place + size]
            place += size
    if place != len(body):
        text = f"the inputs need {place - length:,} bytes of binary data, but {len(body) - length:,} follow the JSON"
        raise Refusal(400, text, f"correct binary_data_size or {HEADER_LENGTH}")
    _check_names_and_memory(request)
    return request


def _json_length(body: bytes, header_length: str | None) -> int:
    """How many bytes of the body are JSON."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
            raise Refusal(
                400,
                f"{HEADER_LENGTH} must be a whole number, got {shown(header_length)}",
                "it is the number of bytes of the JSON",
            )
        if (length := int(header_length)) > len(body):
            raise Refusal(
                400,
                f"{HEADER_LENGTH} is {length:,}, but the body has {len(body):,} bytes",
                "it is the number of bytes of the JSON",
            )
    return length


def _check_names_and_memory(request: Inference) -> None:
    for each in (*request.inputs, *(request.outputs or ())):
        if each.parameters and each.parameters.shared_memory_region is not None:
            raise Refusal(400, "shared memory is not supported", "send and receive tensors with the request")
    for kind, named in (("input", request.inputs), ("output", request.outputs or ())):
        names = [each.name for each in named]
        if len(set(names)) < len(names):
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise Refusal(400, f"{kind} {shown(twice)} is named twice", "name it once")


@dataclass
class Reply:
    """A response to a request for inference, which is put together tensor by tensor."""

    head: dict[str, Any]
    _tensors: "list[dict[str, Any]]"
    _parts: "list[Any]"

    @classmethod
    def to(cls, request: Inference, model: str, version: str) -> "Reply":
        """An empty response from a model."""
        said = {} if request.id is None else {"id": request.id}
        return cls({"model_name": model, "model_version": version, **said}, [], [])

    def add(self, name: str, values: "NDArray[np.float32] | Sequence[str]", shape: Sequence[int], binary: bool) -> None:
        """Add a tensor of FP32 or, from texts, of BYTES."""
        is_numbers = isinstance(values, np.ndarray)
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32" if is_numbers else "BYTES", "shape": list(shape)}
        if binary:
            part: Any
            if isinstance(values, np.ndarray):
                part = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data
            else:
                encoded = [value.encode() for value in values]
                part = b"".join([piece for each in encoded for piece in (struct.pack("<I", len(each)), each)])
            self._parts.append(part)
            tensor["parameters"] = {"binary_data_size": len(part)}
        else:
            tensor["data"] = np.ascontiguousarray(values).reshape(-1) if isinstance(values, np.ndarray) else values
        self._tensors.append(tensor)

    def encoded(self) -> tuple[bytes, int | None]:
        """The body, and how many of its bytes are JSON if there is binary data."""
        head = orjson.dumps({**self.head, "outputs": self._tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
        return (b"".join([head, *self._parts]), len(head)) if self._parts else (head, None)


def shown(text: str) -> str:
    """A client's words in quotes, cut."""
    return f"'{visible(text[:_MOST_SHOWN])}{'...' if len(text) > _MOST_SHOWN else ''}'"


@cache
def _lists(dtype: str, depth: int) -> Any:
    """The type of so deeply nested lists of numbers."""
    number = np.dtype(dtype)
    kind: Any = bool if number.kind == "b" else float
    if number.kind in "iu":
        limits = np.iinfo(number)
        kind = Annotated[int, msgspec.Meta(ge=max(int(limits.min), -(2**63)), le=min(int(limits.max), 2**63 - 1))]
    for _ in range(depth):
        kind = list[kind]
    return kind


def _reason(error: Exception) -> str:
    return visible(str(error).replace("`", "'"))[:200]

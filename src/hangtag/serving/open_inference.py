"""The Open Inference Protocol v2 over HTTP, with Triton's extensions for binary tensors and classification.

The input `images` holds pixels (N, H, W[, 3]) of any datatype of numbers, read on the scale of the training images as
the library reads arrays, or BYTES (N,): encoded pictures, which are decoded and repaired as `/predict` does it. The
outputs are those of the model file and `label`; for BYTES, `probabilities`, `label`, `ood_score` and `answer` (JSON).
"""

import asyncio
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from hangtag.errors import HangtagError, PictureError
from hangtag.model.artifact import INPUT, OUTPUT
from hangtag.model.predictor import Answer
from hangtag.pictures import Images, check_images
from hangtag.serving.body import read_body
from hangtag.serving.compute import Ask
from hangtag.serving.description import INFER_BODY, answers_with, in_path
from hangtag.serving.models import ServedModel
from hangtag.serving.parameters import timeout_in
from hangtag.serving.refusals import Refusal
from hangtag.serving.replies import json_response
from hangtag.serving.routes import Router
from hangtag.serving.settings import Settings
from hangtag.serving.tensors import DATATYPES, HEADER_LENGTH, Inference, Input, Output, Reply, read_inference, shown
from hangtag.version import __version__

if TYPE_CHECKING:
    from hangtag.serving.app import Server

__all__ = ["router"]

LABEL, ANSWER = "label", "answer"
EXTENSIONS = ("binary_tensor_data", "classification", "model_repository(index)", "parameters")
_SCORES = (OUTPUT, "uncalibrated")  # outputs with a column for each class
_INLINE = 300_000  # bytes that are compressed, or read into images of 8 bits, in the event loop
_LEAST_COMPRESSED = 256  # bytes
_MOST_ANSWER = 256_000_000  # bytes of the outputs of a request

_MODEL: dict[str, Any] = {"openapi_extra": {"parameters": in_path("model")}}
_VERSION: dict[str, Any] = {"openapi_extra": {"parameters": in_path("model", "version")}}
_INFER: dict[str, Any] = {"openapi_extra": {**_MODEL["openapi_extra"], "requestBody": INFER_BODY}}
_INFER_VERSION: dict[str, Any] = {"openapi_extra": {**_VERSION["openapi_extra"], "requestBody": INFER_BODY}}
_METADATA, _READY = answers_with("ModelMetadata", 404), answers_with("Ready", 404, 503)
_INFERENCE = answers_with("InferenceResponse", 400, 404, 413, 415, 503, 504)

router = Router(tags=["Open Inference Protocol v2"])


@router.get("/v2", responses=answers_with("ServerMetadata"))
@router.get("/v2/", include_in_schema=False)
async def server_metadata(request: Request) -> Response:
    """What this server is, and which extensions of the protocol it has."""
    return json_response({"name": "hangtag", "version": __version__, "extensions": EXTENSIONS})


@router.get("/v2/health/live", responses=answers_with("Live"))
async def live(request: Request) -> Response:
    """Whether the server answers at all."""
    return json_response({"live": True})


@router.get("/v2/health/ready", responses=answers_with("Ready", 503))
async def ready(request: Request) -> Response:
    """Whether the server takes requests, and all models are in order; 503 if not."""
    server: Server = request.app.state.server
    return _readiness({}, server, list(server.models.problems))


@router.post("/v2/repository/index", responses=answers_with("ModelIndex", 503))
async def repository_index(request: Request) -> Response:
    """The models and their versions."""
    server: Server = request.app.state.server
    state = "UNAVAILABLE" if server.is_draining else "READY"
    return json_response([{"name": each.name, "version": each.version, "state": state} for each in server.models])


@router.get("/v2/models/{model}", responses=_METADATA, **_MODEL)
@router.get("/v2/models/{model}/versions/{version}", responses=_METADATA, **_VERSION)
async def model_metadata(request: Request) -> Response:
    """The inputs and outputs of a model; -1 stands for a length that may vary."""
    model = _model_of(request)
    axes = [-1, -1, -1, *model.predictor.spec.shape[2:]]
    images = {"datatypes": ", ".join([*DATATYPES, "BYTES"])}
    return json_response({
        "name": model.name,
        "versions": [model.version],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": axes, "parameters": images}],
        "outputs": [
            {"name": name, "datatype": "BYTES" if name == LABEL else "FP32", "shape": [-1, *sides]}
            for name, sides in _shapes(model).items()
        ],
    })  # fmt: skip


@router.get("/v2/models/{model}/ready", responses=_READY, **_MODEL)
@router.get("/v2/models/{model}/versions/{version}/ready", responses=_READY, **_VERSION)
async def model_ready(request: Request) -> Response:
    """Whether a model answers; 503 if not."""
    server: Server = request.app.state.server
    name = _model_of(request).name
    return _readiness({"name": name}, server, [name] if name in server.models.problems else [])


@router.post("/v2/models/{model}/infer", responses=_INFERENCE, **_INFER)
@router.post("/v2/models/{model}/versions/{version}/infer", responses=_INFERENCE, **_INFER_VERSION)
async def infer(request: Request) -> Response:
    """Classify a batch of images."""
    server: Server = request.app.state.server
    began, headers = time.monotonic(), request.headers
    model = _model_of(request)
    body = await read_body(request)
    inference = read_inference(body, headers.get(HEADER_LENGTH))
    deadline = began + min(inference.timeout, timeout_in(headers), server.settings.timeout)
    images = _images_input(inference, server.settings)
    reply = Reply.to(inference, model.name, model.version)
    if images.datatype == "BYTES":
        await _add_answers(server, model, images, inference, reply, deadline)
    else:
        await _add_outputs(server, model, images, inference, reply, deadline)
    content, json_length = reply.encoded()
    said = {"content-type": "application/json"}
    if json_length is not None:
        said = {"content-type": "application/octet-stream", HEADER_LENGTH: str(json_length)}
    encoding = _encoding(headers.get("accept-encoding")) if len(content) >= _LEAST_COMPRESSED else None
    if encoding is not None:
        said["content-encoding"] = encoding
        is_small = len(content) <= _INLINE
        content = (
            _compressed(content, encoding) if is_small else await asyncio.to_thread(_compressed, content, encoding)
        )
    return Response(content, headers=said)


async def _add_outputs(
    server: "Server", model: ServedModel, images: Input, inference: Inference, reply: Reply, deadline: float
) -> None:
    shapes = _shapes(model)
    wanted = _wanted(inference, list(shapes), "")
    size = sum(4 * math.prod(shapes[each.name]) * (1 if inference.is_binary(each) else 4) for each in wanted)
    if size * images.shape[0] > _MOST_ANSWER:
        raise Refusal(413, "the outputs would be too large", "name the outputs that you need, or send fewer images")
    is_small = images.binary is not None and (images.datatype == "UINT8" or len(images.binary) <= _INLINE)
    pixels = _pixels(images, model) if is_small else await asyncio.to_thread(_pixels, images, model)
    names = list(dict.fromkeys(OUTPUT if each.name == LABEL else each.name for each in wanted))
    rows = await server.batcher.outputs(model, pixels, names, deadline)
    for output in wanted:
        is_label = output.name == LABEL
        _add(reply, output, rows[OUTPUT if is_label else output.name], model.predictor.class_names, inference, is_label)


async def _add_answers(
    server: "Server", model: ServedModel, images: Input, inference: Inference, reply: Reply, deadline: float
) -> None:
    predictor = model.predictor
    names = [OUTPUT, LABEL, *(["ood_score"] if predictor.guarantees.has_ood_score else []), ANSWER]
    wanted = _wanted(inference, names, " for encoded pictures")
    ask = Ask(top=len(predictor.class_names))
    found = await server.batcher.answers(model, images.elements(), ask, deadline)
    answers: list[Answer] = []
    for place, answer in enumerate(found):
        if isinstance(answer, HangtagError):
            reason = answer.reason if isinstance(answer, PictureError) else answer.message
            status = answer.status if isinstance(answer, Refusal) else 400
            raise Refusal(status, f"element {place} of '{INPUT}' cannot be read: {reason}", answer.hint)
        answers.append(answer)
    columns = {name: column for column, name in enumerate(predictor.class_names)}
    rows = np.empty((len(answers), len(columns)), np.float32)
    for row, answer in zip(rows, answers, strict=True):
        for name, share in answer.top:
            row[columns[name]] = share
    for output in wanted:
        if output.name == ANSWER:
            short = [replace(answer, top=answer.top[: Ask().top]) for answer in answers]
            texts = [orjson.dumps(answer.to_json()).decode() for answer in short]
            reply.add(ANSWER, texts, [len(answers)], inference.is_binary(output))
        elif output.name == "ood_score":
            scores = np.array([answer.ood_score for answer in answers], np.float32)
            _add(reply, output, scores, (), inference)
        else:
            _add(reply, output, rows, predictor.class_names, inference, output.name == LABEL)


def _add(
    reply: Reply, output: Output, rows: NDArray[np.float32], names: Sequence[str], inference: Inference,
    is_label: bool = False,
) -> None:  # fmt: skip
    """Add an output as it is, or as labels or classifications ("value:index:label") of its rows."""
    is_binary = inference.is_binary(output)
    count = output.parameters.classification if output.parameters else None
    if is_label and not count:
        reply.add(LABEL, [names[column] for column in rows.argmax(axis=1)], [len(rows)], is_binary)
    elif count:
        order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
        texts = [
            f"{row[column]!s}:{column}:{names[column]}"
            for row, columns in zip(rows, order, strict=True)
            for column in columns
        ]
        reply.add(output.name, texts, order.shape, is_binary)
    else:
        reply.add(output.name, rows, rows.shape, is_binary)


def _model_of(request: Request) -> ServedModel:
    server: Server = request.app.state.server
    named = request.path_params
    return server.models.find(named["model"], named.get("version"))


def _shapes(model: ServedModel) -> dict[str, tuple[int, ...]]:
    """The outputs for pixels, and the shape of each for one image."""
    shapes = model.predictor.output_shapes
    return {OUTPUT: shapes[OUTPUT], LABEL: (), **{name: sides for name, sides in shapes.items() if name != OUTPUT}}


def _wanted(inference: Inference, names: list[str], where: str) -> list[Output]:
    """The outputs that a request wants, all if it names none; raises Refusal."""
    for output in inference.outputs or ():
        if output.name not in names:
            raise Refusal(400, f"unknown output {shown(output.name)}{where}", f"choose from {', '.join(names)}")
        if output.parameters and output.parameters.classification and output.name not in _SCORES:
            raise Refusal(400, f"'{output.name}' has no classes", f"ask for the classification of {OUTPUT}")
    return inference.outputs or [Output(name) for name in names]


def _images_input(inference: Inference, settings: Settings) -> Input:
    """The one input, its shape within the limits; raises Refusal."""
    if [each.name for each in inference.inputs] != [INPUT]:
        names = ", ".join(shown(each.name) for each in inference.inputs[:3]) or "no input"
        raise Refusal(400, f"the only input must be '{INPUT}', got {names}", "see the metadata of the model")
    (images,) = inference.inputs
    shape, is_bytes = images.shape, images.datatype == "BYTES"
    if not (len(shape) in (1, 2) and math.prod(shape[1:]) == 1 if is_bytes else len(shape) in (3, 4)):
        wanted = "(N,)" if is_bytes else "(N, H, W) or (N, H, W, 3)"
        raise Refusal(
            400, f"'{INPUT}' of {images.datatype} must have the shape {wanted}, got {shape}", "reshape the tensor"
        )
    if not shape[0]:
        raise Refusal(400, f"'{INPUT}' is empty: its shape is {shape}", "send at least one image")
    if shape[0] > settings.max_pictures:
        most = settings.max_pictures
        raise Refusal(413, f"a request may have at most {most:,} images, got {shape[0]:,}", "send several requests")
    if math.prod(shape[1:]) > 4 * settings.max_pixels or math.prod(sorted(shape[1:])[-2:]) > settings.max_pixels:
        raise Refusal(
            413,
            f"an image may have at most {settings.max_pixels:,} pixels, got the shape {shape}",
            "send smaller images",
        )
    return images


def _pixels(images: Input, model: ServedModel) -> Images:
    """The images in 8 bits, as the library reads arrays; raises Refusal or PictureError."""
    numbers = images.numbers()
    if numbers.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1))
        if len(bad):
            raise Refusal(400, f"image {bad[0]} of '{INPUT}' has NaN or infinite pixels", "replace these pixels")
    return check_images(numbers, INPUT, model.predictor.spec)


def _encoding(accepted: str | None) -> str | None:
    """The compression that a client prefers; None: it takes none."""
    if not accepted:
        return None
    found = {}
    for each in accepted.lower().split(",")[:20]:
        name, _, quality = each.partition(";")
        found[name.strip()] = quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return next((name for name in ("gzip", "deflate") if found.get(name, found.get("*"))), None)


def _compressed(content: bytes, encoding: str) -> bytes:
    stream = zlib.compressobj(1, wbits=31 if encoding == "gzip" else 15)
    return stream.compress(content) + stream.flush()


def _readiness(about: dict[str, Any], server: "Server", troubled: list[str]) -> Response:
    if server.is_draining:
        error, hint = "the server is shutting down", "send requests to another server, or try again in a second"
    elif server.batcher.engine.problem is not None:
        error, hint = server.batcher.engine.problem, "try again in some seconds"
    elif troubled:
        error, hint = f"the file of {', '.join(troubled)} cannot be used", "the version that was opened last answers"
    else:
        return json_response({**about, "ready": True})
    return json_response({**about, "ready": False, "error": error, "hint": hint}, 503)

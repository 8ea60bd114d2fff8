"""The simple API: pictures in, answers out, and what the models say about themselves."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from hangtag.errors import HangtagError, PictureError, RunError, UsageError
from hangtag.model.predictor import Answer
from hangtag.pictures import encode_png
from hangtag.serving.description import MODEL_PARAMETERS, PREDICT_BODY, PREDICT_PARAMETERS, answers_with
from hangtag.serving.models import ServedModel
from hangtag.serving.parameters import MODEL, TIMEOUT_HEADER, Wish, wish_of
from hangtag.serving.posted import read_posted
from hangtag.serving.refusals import Refusal
from hangtag.serving.replies import json_response
from hangtag.serving.routes import Router

if TYPE_CHECKING:
    from hangtag.serving.app import Server

__all__ = ["router"]

router = Router()


@router.post(
    "/predict",
    tags=["pictures"],
    responses=answers_with("Prediction", 400, 404, 413, 415, 422, 503, 504),
    openapi_extra={"parameters": PREDICT_PARAMETERS, "requestBody": PREDICT_BODY},
)
async def predict(request: Request) -> Response:
    """Classify pictures.

    A picture as the body, or as "image" in JSON, has one answer. Files in a form, or "images" in JSON, have a list of
    answers in the same order; the row of a picture that cannot be read has an error and a hint instead. If it is the
    only picture, the status says so, too.
    """
    server: Server = request.app.state.server
    began = time.monotonic()
    wish = wish_of(request.scope["query_string"])
    model = server.models.find(wish.model)
    posted = await read_posted(request, server.settings)
    if posted.fields:
        wish = wish_of(request.scope["query_string"], posted.fields)
        model = server.models.find(wish.model)
    deadline = began + min(_timeout(request, wish), server.settings.timeout)
    good = [each for each in posted.pictures if isinstance(each, bytes)]
    found = iter(await server.batcher.answers(model, good, wish.ask, deadline)) if good else iter(())
    names: Sequence[str | None] = posted.names or [None] * len(posted.pictures)
    rows = [
        await _row(server, model, wish, name, next(found) if isinstance(each, bytes) else each, deadline)
        for name, each in zip(names, posted.pictures, strict=True)
    ]
    status = rows[0][1] if len(rows) == 1 else 200
    return json_response([row for row, _ in rows] if posted.is_list and status == 200 else rows[0][0], status)


def _timeout(request: Request, wish: Wish) -> float:
    header = request.headers.get(TIMEOUT_HEADER)
    if header is None:
        return math.inf if wish.timeout is None else wish.timeout
    return wish_of(b"", [("timeout", header)]).timeout or math.inf


async def _row(
    server: "Server", model: ServedModel, wish: Wish, name: str | None, found: Answer | HangtagError, deadline: float
) -> tuple[dict[str, Any], int]:
    """The JSON of an answer as `hangtag predict --json` prints it, and its status if it is alone."""
    named = {} if name is None else {"file": name}
    if isinstance(found, HangtagError):
        reason = found.reason if isinstance(found, PictureError) else found.message  # without a name of its own
        return {**named, "error": f"{name}: {reason}" if name else reason, "hint": found.hint}, _status(found)
    row = {**named, **found.to_json()}
    if wish.why:
        from hangtag.serving.heat_map import why

        assert found.seen is not None
        row["why"] = await why(server, model, found.seen, deadline)
    if wish.doctor and found.repairs:
        assert found.seen is not None and found.picture is not None
        from hangtag.html import data_uri

        row["doctor"] = {"before": data_uri(encode_png(found.picture)), "after": data_uri(encode_png(found.seen))}
    return row, 200


def _status(error: HangtagError) -> int:
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, PictureError):
        return 413 if error.kind == "too large" else 422
    return 422 if isinstance(error, UsageError) else 500


def _model(request: Request) -> ServedModel:
    server: Server = request.app.state.server
    return server.models.find(wish_of(request.scope["query_string"], known=MODEL).model)


@router.get(
    "/labels",
    tags=["models"],
    responses=answers_with("Labels", 404, 422),
    openapi_extra={"parameters": MODEL_PARAMETERS},
)
async def labels(request: Request) -> Response:
    """The labels that a model knows, in the order of its classes."""
    return json_response(_model(request).predictor.class_names)


@router.get(
    "/model",
    tags=["models"],
    responses=answers_with("Model", 404, 422),
    openapi_extra={"parameters": MODEL_PARAMETERS},
)
async def model(request: Request) -> Response:
    """What a model is, what it takes, how good it is, and what its answers guarantee."""
    return json_response(_about(request.app.state.server, _model(request)))


@router.get("/models", tags=["models"], responses=answers_with("Models", 422))
async def models(request: Request) -> Response:
    """All models of this server. The first one answers if a request names none."""
    wish_of(request.scope["query_string"], known={})
    return json_response([{"name": each.name, "version": each.version} for each in request.app.state.server.models])


@router.get("/healthz", tags=["health"], responses=answers_with("Health"))
async def healthz(request: Request) -> Response:
    """Whether this process answers. Whether it takes new work is at /v2/health/ready."""
    return json_response({"status": "ok"})


def _about(server: "Server", model: ServedModel) -> dict[str, Any]:
    predictor, settings = model.predictor, server.settings
    metadata, guarantees = predictor.metadata, predictor.guarantees
    return {
        "name": model.name,
        "version": model.version,
        "sha256": predictor.sha256,
        "classes": metadata.class_names,
        "image": asdict(metadata.image),
        "network": metadata.network,
        "backbone": None if metadata.backbone is None else metadata.backbone.name,
        "parameters": metadata.parameters,
        "created": metadata.created,
        "score": _score(model),
        "guarantees": {
            "can_abstain": predictor.can_abstain,
            "held_out": guarantees.held_out,
            "limitations": guarantees.limitations,
        },
        "policy": asdict(predictor.policy),
        "limits": {
            "pictures": settings.max_pictures,
            "bytes": settings.max_body,
            "pixels": settings.max_pixels,
            "seconds": settings.timeout,
        },
    }


def _score(model: ServedModel) -> dict[str, Any] | None:
    """The accuracy of this version from its run folder; None if the folder does not say."""
    from hangtag.evaluation.run_folder import Run

    if model.path is None or not model.path.is_dir():
        return None
    run = Run(model.path)
    try:
        metrics, recorded = run.metrics(), run.config().get("model")
        if isinstance(recorded, dict) and recorded.get("sha256") != model.predictor.sha256:
            return None
        return {name: metrics[name] for name in ("part", "images", "accuracy", "accuracy_interval")}
    except (RunError, KeyError):
        return None

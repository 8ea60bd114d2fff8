"""The OpenAPI description: bodies, answers, statuses and parameters of both APIs, and all paths of the server."""

from collections.abc import Iterable
from typing import Any

from hangtag.serving.guard import OPEN_PATHS
from hangtag.serving.parameters import MODEL, PREDICT, TIMEOUT_HEADER, described
from hangtag.serving.routes import Router
from hangtag.version import __version__

__all__ = [
    "INFER_BODY",
    "MODEL_PARAMETERS",
    "PREDICT_BODY",
    "PREDICT_PARAMETERS",
    "answers_with",
    "describe",
    "in_path",
]

_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BASE64 = {"type": "string", "description": "The bytes of a picture in base64, or a data URI."}
_REASONS = {
    400: "The body cannot be read.",
    401: "The token is missing or wrong.",
    403: "The host or the origin is not permitted.",
    404: "The model is unknown.",
    405: "The method is not allowed here.",
    413: "The body, the picture or the number of pictures is too large.",
    415: "The content type is not read.",
    422: "A parameter is unknown or out of range, or the only picture cannot be read.",
    503: "The server is overloaded or shutting down; try again later.",
    504: "The time was up before there was an answer.",
}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _list(items: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **limits}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "nullable": True}


_TEXT, _NUMBER, _WHOLE, _TRUTH = ({"type": name} for name in ("string", "number", "integer", "boolean"))
_TEXTS = _list(_TEXT)
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT, _AT_LEAST_ONE = ({"type": "integer", "minimum": least} for least in (0, 1))
_DATA_URI = {"type": "string", "pattern": "^data:image/png;base64,"}

_SCHEMAS = {
    "Error": _object({"error": _TEXT, "hint": _TEXT}, file=_TEXT),
    "Answer": _object(
        {
            "label": _TEXT,
            "probability": _SHARE,
            "top": _list(_object({"label": _TEXT, "probability": _SHARE})),
            "warnings": _TEXTS,
            "model": {**_TEXT, "description": "Fingerprint of the model file."},
            "prediction_set": _or_null(_TEXTS),
            "coverage": _or_null(_SHARE),
            "ood_score": _or_null(_SHARE),
            "is_ood": _or_null(_TRUTH),
            "sure": _or_null(_TRUTH),
            "repairs": _list(
                _object({"name": _TEXT, "reason": _TEXT, "before": _or_null(_NUMBER), "after": _or_null(_NUMBER)})
            ),
        },
        file={**_TEXT, "description": "The client's name for the file, if the picture came in a form."},
        why={
            **_object({"method": _TEXT, "most_for": _NUMBER, "most_against": _NUMBER, "heat_map": _DATA_URI}),
            "description": "Where the evidence is: blue for the answer, red against it. Only with why=1.",
        },
        doctor={
            **_object({"before": _DATA_URI, "after": _DATA_URI}),
            "description": "A repaired picture before repairs, and what the model saw. Only with doctor=1.",
        },
    ),
    "Prediction": {
        "oneOf": [_ref("Answer"), _list({"anyOf": [_ref("Answer"), _ref("Error")]})],
        "description": "An answer, or a list if several pictures were sent as a form or as images in JSON.",
    },
    "Labels": _TEXTS,
    "Models": _list(_object({"name": _TEXT, "version": _TEXT})),
    "Health": _object({"status": _TEXT}),
    "Model": _object({
        **dict.fromkeys(("name", "version", "sha256", "network", "created"), _TEXT),
        "classes": _TEXTS,
        "image": _object({"height": _WHOLE, "width": _WHOLE, "channels": _WHOLE}),
        "backbone": _or_null(_TEXT),
        "parameters": _WHOLE,
        "score": _or_null(_object({
            "part": _TEXT, "images": _WHOLE, "accuracy": _SHARE,
            "accuracy_interval": _list(_SHARE),
        })),
        "guarantees": _object({"can_abstain": _TRUTH, "held_out": _WHOLE, "limitations": _TEXTS}),
        "policy": _object({"coverage": _SHARE, "method": _TEXT, "ood_false_positive_rate": _SHARE}),
        "limits": _object({"pictures": _WHOLE, "bytes": _WHOLE, "pixels": _WHOLE, "seconds": _NUMBER}),
    }),
    "Tensor": _object({"name": _TEXT, "datatype": _TEXT, "shape": _list(_WHOLE)}),
    "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _TEXTS}),
    "ModelMetadata": _object(
        {"name": _TEXT, "platform": _TEXT, "inputs": _list(_ref("Tensor")), "outputs": _list(_ref("Tensor"))},
        versions=_TEXTS,
    ),
    "ModelIndex": _list(_object({"name": _TEXT, "version": _TEXT, "state": _TEXT})),
    "Live": _object({"live": _TRUTH}),
    "Ready": _object({"ready": _TRUTH}, name=_TEXT),
    "InferenceRequest": _object(
        {"inputs": _list(_object(
            {"name": _TEXT, "shape": _list(_COUNT, maxItems=8), "datatype": _TEXT},
            data={"type": "array"}, parameters=_object({}, binary_data_size=_COUNT),
        ))},
        id=_TEXT, parameters=_object({}, timeout=_COUNT, binary_data_output=_TRUTH),
        outputs=_list(_object(
            {"name": _TEXT}, parameters=_object({}, binary_data=_TRUTH, classification=_AT_LEAST_ONE)
        )),
    ),
    "InferenceResponse": _object(
        {"model_name": _TEXT, "outputs": _list(_ref("Tensor"))}, model_version=_TEXT, id=_TEXT
    ),
}  # fmt: skip

MODEL_PARAMETERS = described(MODEL)

PREDICT_PARAMETERS: list[dict[str, Any]] = [
    *described(PREDICT),
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "required": False,
        "schema": PREDICT["timeout"].schema,
        "description": "As the parameter timeout.",
    },
]
assert PREDICT_PARAMETERS[-1]["name"].lower() == TIMEOUT_HEADER

PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": _PICTURE,
        "application/octet-stream": _PICTURE,
        "multipart/form-data": {"schema": {
            **_object({}, pictures=_list(_PICTURE["schema"], minItems=1)),
            "description": "Files under any names. Parameters may be fields of the form, too.",
        }},
        "application/json": {"schema": {
            "oneOf": [
                _object({"image": _BASE64}),
                _object({"images": _list(_BASE64, minItems=1)}),
            ],
            "description": "Parameters may be keys of the object, too.",
        }},
    },
}  # fmt: skip


INFER_BODY: dict[str, Any] = {
    "required": True, "content": {"application/json": {"schema": _ref("InferenceRequest")}},
}  # fmt: skip


def in_path(*names: str) -> list[dict[str, Any]]:
    """Parameters that are parts of a path."""
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]


def answers_with(schema: str, *errors: int) -> dict[int | str, dict[str, Any]]:
    """The responses of an operation: its answer, and its errors besides those that every operation has."""
    errors_too = {status: (_REASONS[status], "Error") for status in sorted({401, 403, *errors})}
    return {
        status: {"description": text, "content": {"application/json": {"schema": _ref(name)}}}
        for status, (text, name) in {200: ("The answer.", schema), **errors_too}.items()
    }


def describe(routers: Iterable[Router], needs_token: bool) -> dict[str, Any]:
    """The OpenAPI description of all paths of the server."""
    from fastapi import FastAPI
    from fastapi.openapi.utils import get_openapi

    app = FastAPI()
    for router in routers:
        router.describe_to(app)
    found = get_openapi(
        title="hangtag",
        openapi_version="3.0.3",  # as swagger-ui-bundle reads it
        version=__version__,
        description="Classify pictures with answers you can trust.",
        routes=app.routes,
    )
    components = found.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **_SCHEMAS}
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
        for path in OPEN_PATHS & found["paths"].keys():
            for operation in found["paths"][path].values():
                operation["security"] = []
    return found

"""Answers and errors as JSON."""

from typing import Any

import orjson
from starlette.responses import Response

from hangtag.errors import HangtagError
from hangtag.serving.refusals import Refusal

__all__ = ["error_body", "error_response", "json_response"]


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def error_body(error: HangtagError, path: str) -> bytes:
    """An error as {"error", "hint"}; clients of the Open Inference Protocol show only `error`, so it has the hint, too.

    Args:
        path: of the request.
    """
    said = error.to_json()
    if path.startswith("/v2") and error.hint:
        said["error"] = f"{error.message}: {error.hint}"
    return orjson.dumps(said)


def error_response(error: HangtagError, path: str) -> Response:
    """The same with the status of a `Refusal`, and 400 for another error."""
    status, headers = (error.status, error.headers) if isinstance(error, Refusal) else (400, None)
    return Response(error_body(error, path), status, headers, "application/json")

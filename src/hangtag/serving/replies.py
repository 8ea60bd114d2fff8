"""Answers as JSON."""

from typing import Any

import orjson
from starlette.responses import Response

__all__ = ["json_response"]


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")

"""A line of JSON for each request, and the request's id.

It is the outermost layer of the application, so it sees what every other layer answers.
"""

import os
import re
import secrets
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from hangtag.serving.line_log import LineLog
from hangtag.serving.metrics import Metrics, Seen, current_request

__all__ = ["AccessLog", "Requests", "open_access_log"]

CLIENT_LEFT = 499
"""The status in the log of a request whose client left before it was answered."""

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")  # of a client; any other id is replaced
_MOST_PATH = 200  # characters of a path in the log
_ESCAPED = "/:@!$&'()*+,;=-._~%"


class Requests:
    """Gives each request an id, counts it, and writes its line.

    A well-formed `X-Request-Id` of the client is kept. A line never contains a header other than that, a query string
    or anything of a body.

    Args:
        metrics: counts requests.
        log: gets a line for each request; None: no log.
    """

    def __init__(self, metrics: Metrics, log: LineLog | None = None) -> None:
        self.metrics, self.log = metrics, log
        self._prefix, self._numbers = secrets.token_hex(6), count(1)

    def identify(self, scope: Any) -> bytes:
        request_id: bytes | None = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        if request_id is None or not _ID.fullmatch(request_id):
            request_id = f"{self._prefix}-{next(self._numbers):x}".encode()
        return request_id

    def record(
        self, scope: Any, request_id: bytes, moment: float, status: int, taken: int, given: int, seconds: float,
        seen: Seen,
    ) -> None:  # fmt: skip
        """A request of this Unix time has ended, after so many bytes in and out."""
        route = scope.get("route")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.requested(getattr(route, "path", "other"), method, status, seconds)
        if self.log is not None:
            client = scope.get("client")
            self.log.write((
                moment, request_id, method, scope.get("raw_path") or scope["path"].encode(), status, taken, given,
                seconds, seen.queued, seen.pictures, client[0] if client else None, seen.model,
            ))  # fmt: skip


class AccessLog:
    """ASGI middleware that measures each request, and gives each answer its id."""

    def __init__(self, app: Any, requests: Requests) -> None:
        self.app, self.requests = app, requests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, moment = time.perf_counter(), time.time()
        request_id = self.requests.identify(scope)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        status, taken, given = 0, 0, 0

        async def count_in() -> Any:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
            return message

        async def count_out(message: Any) -> None:
            nonlocal status, given
            if message["type"] == "http.response.start":
                status = CLIENT_LEFT if scope["state"].get("is_left") else message["status"]
                headers = [each for each in message.get("headers", ()) if each[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-request-id", request_id)]}
            else:
                given += len(message.get("body", b""))
            await send(message)

        seen = Seen()
        token = current_request.set(seen)
        try:
            await self.app(scope, count_in, count_out)
        except Exception:
            status = status or 500
            raise
        finally:
            current_request.reset(token)
            seconds = time.perf_counter() - began
            self.requests.record(scope, request_id, moment, status or CLIENT_LEFT, taken, given, seconds, seen)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_NAMES = (
    "time", "request_id", "method", "path", "status", "bytes_in", "bytes_out", "seconds", "queue_seconds", "pictures",
    "client", "model",
)  # fmt: skip


def open_access_log(path: str | os.PathLike[str], metrics: Metrics) -> LineLog:
    """The log in this file, or on standard error for "-"; raises SaveError if it cannot be opened."""
    return LineLog(None if str(path) == "-" else Path(path), _line, lambda: metrics.lost_line("access"))


def _line(values: Any) -> bytes:
    line = dict(zip(_NAMES, values, strict=True))
    line["time"] = datetime.fromtimestamp(line["time"], UTC)
    line["request_id"] = line["request_id"].decode("ascii")
    line["path"] = quote(line["path"].partition(b"?")[0], _ESCAPED)[:_MOST_PATH]
    for name in ("seconds", "queue_seconds"):
        line[name] = round(line[name], 6)
    return orjson.dumps(line, option=orjson.OPT_UTC_Z)

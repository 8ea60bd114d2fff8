"""Refuses requests for which a full queue has no room, before the application sees them.

Under overload most requests are refused, and the time that this takes is lost for those that are answered.
"""

import time
from typing import Any

from hangtag.serving.app import Server
from hangtag.serving.metrics import Seen
from hangtag.serving.refusals import Refusal
from hangtag.serving.replies import error_body

__all__ = ["EarlyRefusals"]


class EarlyRefusals:
    """Called with the ASGI scope of each request: the answer of status 503 to one that has no room, else None.

    The answer is the application's, byte for byte, without the status line and the headers that all answers have.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_possible = not server.settings.allow_origins  # or else the answer needs headers for other origins

    def __call__(self, scope: Any) -> bytes | None:
        server = self.server
        if not (self.is_possible and server.batcher.is_full and scope["method"] == "POST"):
            return None
        moment = time.time()
        try:
            server.checks.check(scope)
            return None
        except Refusal as refusal:
            if refusal.status != 503:
                return None
            body, headers = error_body(refusal, scope["path"]), refusal.headers
        request_id = server.requests.identify(scope)
        fields = {
            **{name.lower(): value for name, value in headers.items()}, "content-length": len(body),
            "content-type": "application/json", "x-request-id": request_id.decode(),
        }  # fmt: skip
        server.requests.record(scope, request_id, moment, 503, 0, len(body), time.time() - moment, Seen())
        head = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        return head.encode("latin-1") + b"\r\n" + body

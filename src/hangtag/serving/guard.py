"""What stands before every handler: Host, Origin, token, size, a full queue, and errors that nobody expected."""

import hmac
import ipaddress
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from hangtag.errors import logger
from hangtag.serving.refusals import Refusal
from hangtag.serving.replies import error_response
from hangtag.serving.settings import Settings, is_loopback

if TYPE_CHECKING:
    from hangtag.serving.app import Server

__all__ = ["OPEN_PATHS", "Checks", "Guard"]

OPEN_PATHS = frozenset(
    {"/", "/favicon.ico", "/docs", "/openapi.json", "/healthz", "/v2/health/live", "/v2/health/ready"}
)
"""What `GET` answers without a token, beside /static/: the page, which then asks for one, the documentation, which is
the same for all servers, and health, for load balancers that have no token. They say nothing about the models."""

_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Pure ASGI middleware around an application."""

    def __init__(self, app: Any, server: "Server") -> None:
        self.app, self.check = app, server.checks.check

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            self.check(scope)
        except Refusal as refusal:
            await error_response(refusal, scope["path"])(scope, receive, send)
            return
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            pass  # nobody waits for an answer
        except Exception as error:
            number = scope["state"]["request_id"]
            logger.error("request %s failed:\n%s", number, "".join(traceback.format_exception(error)))
            if not started:
                failure = Refusal(500, "the server failed to answer", f"its log says more under request {number}")
                await error_response(failure, scope["path"])(scope, receive, send)


class Checks:
    """What a request must fulfil before any handler sees it.

    Args:
        admit: raises Refusal if so many more pictures cannot wait.
    """

    def __init__(self, settings: Settings, admit: Callable[[int], None]) -> None:
        self.settings, self.admit = settings, admit
        self.token = f"Bearer {settings.token}".encode() if settings.token else None
        self.is_known_host: Callable[[bytes], bool] = lru_cache(256)(_Hosts(settings).__contains__)

    def check(self, scope: Any) -> None:
        """Raise Refusal for a request that no handler may see."""
        hosts, origin, token, length = 0, None, b"", b""
        host = b""
        for name, value in scope["headers"]:
            if name == b"host":
                hosts += 1
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"authorization":
                token = value
            elif name == b"content-length":
                length = value
        method, path = scope["method"], scope["path"]
        if hosts != 1 and (hosts or scope["http_version"] != "1.0"):
            raise Refusal(400, "the request must have one Host header", "use HTTP/1.1 as browsers and curl do")
        if hosts and not self.is_known_host(host):
            raise Refusal(421, "this server does not answer to that host name", "start it with --allow-host NAME")
        if origin is not None and method not in _SAFE and not self._is_allowed_origin(origin, host):
            raise Refusal(403, "pages of this origin may not call the server", "start it with --allow-origin ORIGIN")
        if self.token is not None and not (method in _SAFE and (path in OPEN_PATHS or path.startswith("/static/"))):
            scheme, _, secret = token.partition(b" ")
            if not hmac.compare_digest(b"Bearer " + secret.strip(), self.token) or scheme.lower() != b"bearer":
                raise Refusal(
                    401, "the token is missing or wrong", "send the header Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
        if len(length) > 12 or (length.isdigit() and int(length) > self.settings.max_body):
            raise Refusal(
                413, f"the body must have at most {self.settings.max_body:,} bytes", "send smaller or fewer pictures",
                {"Connection": "close"},
            )  # fmt: skip
        if method == "POST":
            self.admit(1)

    def _is_allowed_origin(self, origin: bytes, host: bytes) -> bool:
        allowed = self.settings.allow_origins
        name = origin.decode("latin-1").lower()
        return "*" in allowed or name in allowed or name.partition("://")[2] == host.decode("latin-1").lower()


class _Hosts:
    """The Host headers that a server answers to.

    A page of a stranger can make its own name point to this machine (DNS rebinding), and the browser then sends that
    name; it cannot do so with an IP address.
    """

    def __init__(self, settings: Settings) -> None:
        self.names = {settings.host.lower(), "localhost", *(name.lower() for name in settings.allow_hosts)}
        self.is_public = settings.is_public
        if settings.is_public and settings.token and not settings.allow_hosts:
            self.names.add("*")  # a page of a stranger has no token

    def __contains__(self, host: bytes) -> bool:
        text = host.decode("latin-1").lower()
        if text.startswith("["):
            name, closed, port = text[1:].partition("]")
            if not closed or (port and not port.startswith(":")):
                return False
            port = port[1:]
        else:
            name, _, port = text.partition(":")
        if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
            return False
        name = name.removesuffix(".")
        if name in self.names or is_loopback(name) or (name and "*" in self.names):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.is_public

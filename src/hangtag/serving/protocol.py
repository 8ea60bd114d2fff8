"""uvicorn's HTTP protocol with limits on heads, bodies, connections and slow clients.

uvicorn has few limits of its own (its issue 157), and an application sees a request only after its head.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hangtag.serving.refusals import Refusal
from hangtag.serving.settings import Settings

__all__ = ["Bodies", "LimitedProtocol"]

_MOST_PIPELINED = 32
_MOST_OVERHEAD = 65_536  # bytes of a body's chunk headers, extensions and trailers beyond the bytes of the body
_LINGER = 3.0  # seconds in which a client that is still sending can read why it was refused
_QUIET = 0.25  # seconds without a request after which a connection is closed when the server ends


class _Transport:
    """What a protocol writes to. Closing it goes through the protocol, which may have to read on.

    Attributes:
        head: of an answer, which waits for the first bytes of its body: one call of the system sends both.
    """

    __slots__ = ("close", "head", "raw")

    def __init__(self, raw: asyncio.Transport, protocol: "LimitedProtocol") -> None:
        self.raw, self.close, self.head = raw, protocol.close, b""

    def write(self, data: bytes) -> None:
        if self.head:
            data, self.head = self.head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and data[9:12] != b"100":
            self.head = data
            return
        self.raw.write(data)

    def flush(self) -> None:
        """Send a head without a body."""
        if self.head:
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class Bodies:
    """The bodies that are being received on all connections, before a handler sees them.

    Attributes:
        size: their bytes so far.
    """

    size = 0


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        refuse_early: the answer, after its status and common headers, to a request that the application need not see.

    Attributes:
        counted: its share of `Bodies.size`.
        since: when what the connection waits for began, by `time.monotonic` (uvloop's own clock counts milliseconds, so
            that two connections could be equally old).
    """

    def __init__(
        self, settings: Settings, bodies: Bodies, refuse_early: "Callable[[Any], bytes | None]", **uvicorns: Any
    ) -> None:
        super().__init__(**uvicorns)
        self.limits, self.bodies, self.counted, self.refuse_early = settings, bodies, 0, refuse_early
        self.refusal: Refusal | None = None
        self.running: Any = None  # the request that is being answered
        self.is_receiving = False  # a request has begun and is not complete
        self.is_head = True  # what comes next belongs to a head
        self.is_deaf = False  # what comes next is not parsed
        self.is_refused = self.is_closing = self.is_draining = False
        self.is_ended = False  # the client sends nothing more
        self.received = self.of_body = self.chunks = 0
        self.again = b""  # a head that is parsed a second time, without its wish for another protocol
        self.since = monotonic()
        self.paused_at: float | None = None  # since when the client has not read what was written
        self.unsent = 0

    # --- the connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.raw = transport
        self.transport = self.ours = _Transport(transport, self)  # type: ignore[assignment]
        if len(self.connections) > self.limits.max_connections and not self._make_room():
            self.refuse(Refusal(503, "the server has too many connections", "try again later", {"Retry-After": "1"}))

    def _make_room(self) -> bool:
        """Close the connection of another client that waits for nothing."""
        connections: Iterable[Any] = self.connections
        idle = [each for each in connections if each is not self and each.is_idle and each.running is not None]
        if idle:
            min(idle, key=lambda each: each.since).close()
        return bool(idle)

    def data_received(self, data: bytes) -> None:
        if self.is_deaf:
            return
        self.received += len(data)
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as wish:  # its argument is where the head ends
                data, self.again = self.again + data[wish.args[0] :], b""
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            except httptools.HttpParserError:
                self.send_400_response("")
                break
        if self.is_head:
            if self.received > self.limits.max_header_bytes + self.limits.max_url:
                self.refuse(Refusal(431, "the headers are too large", "send fewer or shorter headers"))
        elif self.received - self.of_body > _MOST_OVERHEAD + self.of_body:
            self.refuse(Refusal(413, "the chunks of the body are too small", "send larger chunks"))

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer also clients that have said that they will send nothing more."""
        self.is_ended = True
        if self.is_closing or self.scheme == "https":
            return None
        if self.is_answering and not self.is_receiving:
            self.cycle.keep_alive = False
            return True
        if self.is_receiving and not self.is_deaf:
            self.refuse(Refusal(400, "the request ends too early", "send as many bytes as Content-Length says"))
            return True
        return None

    @property
    def is_answering(self) -> bool:
        return self.running is not None and not self.running.response_complete

    @property
    def is_idle(self) -> bool:
        return not self.is_receiving and not self.is_answering

    def close(self) -> None:
        """Close the connection; if the client is still sending, let it read the answer first.

        Closing a socket with unread bytes makes the kernel drop what was written (RFC 9112, section 9.6).
        """
        if self.is_closing:
            return
        self.ours.flush()
        self.is_closing = self.is_deaf = True
        if self.is_ended or not (self.is_receiving or self.is_refused):
            self.raw.close()
            return
        if self.raw.can_write_eof():
            self.raw.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER, self.raw.abort)

    def refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be understood or takes too long, and close the connection."""
        if self.is_deaf:
            return
        running, self.is_deaf, self.is_refused = self.running, True, True
        self._forget_body()
        if self.is_answering:
            if running is not self.cycle or not running.more_body:  # the refused request is a later one
                if self.is_receiving and not self.is_head:
                    self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else running
                last.keep_alive = False
                return
            running.disconnected = True
            running.message_event.set()
        elif self.cycle is not None and not self.is_head:  # the rest of a request that was answered early
            self.close()
            return
        if running is None or not running.response_started or running.response_complete:
            body = orjson.dumps(refusal.to_json())
            headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
            lines = [f"{name}: {value}\r\n".encode() for name, value in {**headers, **refusal.headers}.items()]
            self.raw.write(b"".join([STATUS_LINE[refusal.status], *self._common_headers(), *lines, b"\r\n", body]))
        self.close()

    def send_400_response(self, msg: str) -> None:
        self.refuse(self.refusal or Refusal(400, "this is not a valid HTTP request", "the server understands HTTP/1.1"))

    def check(self, now: float) -> None:
        """End what takes too long; called several times a second."""
        waited, limits = now - self.since, self.limits
        if self.is_closing and self.paused_at is None:
            self.paused_at = now
        if self.paused_at is not None:
            unsent = self.raw.get_write_buffer_size()
            if unsent < self.unsent:  # it reads on
                self.paused_at = now
            elif now - self.paused_at > limits.client_timeout:
                self.raw.abort()  # the client does not read its answer
            self.unsent = unsent
        elif self.is_idle:
            if waited > (_QUIET if self.is_draining else limits.keep_alive if self.running else limits.client_timeout):
                self.close()
        elif self.is_receiving and self.is_head:
            if waited > limits.client_timeout and not self.is_answering:
                self.refuse(Refusal(408, "the head of the request took too long", "send it at once"))
        elif self.is_receiving and waited > limits.timeout:
            self.refuse(Refusal(408, "the body of the request took too long", "send fewer bytes"))

    def shutdown(self) -> None:
        """Close after the requests that were accepted, and those that are under way."""
        self.is_draining = True
        if self.is_answering:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        self.paused_at, self.unsent = monotonic(), self.raw.get_write_buffer_size()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.paused_at = None
        super().resume_writing()

    # --- one request: callbacks of the parser ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_receiving = self.is_head = True
        self.received, self.since = 0, monotonic()

    def on_headers_complete(self) -> None:
        limits, headers, url = self.limits, self.headers, self.url
        headers[:] = [(name, value.strip(b" \t")) for name, value in headers]
        if self.parser.should_upgrade():
            self._refuse_upgrade()
            return
        if len(url) > limits.max_url:
            self._stop(Refusal(414, "the URL is too long", f"at most {limits.max_url:,} bytes are read"))
        if len(headers) > limits.max_headers:
            self._stop(Refusal(431, "there are too many headers", f"at most {limits.max_headers} are read"))
        if sum([len(name) + len(value) for name, value in headers]) > limits.max_header_bytes:
            self._stop(Refusal(431, "the headers are too large", f"at most {limits.max_header_bytes:,} bytes are read"))
        if url[:1] != b"/" and url != b"*":
            self._stop(Refusal(400, "the request must name a path", "this server is not a proxy"))
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            self._stop(Refusal(505, "the HTTP version is not supported", "use HTTP/1.1"))
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._stop(Refusal(400, "too many requests at once", "wait for answers"))
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        super().on_headers_complete()
        if self.is_draining:
            self.cycle.keep_alive = False
        self.headers = []  # trailers must not become headers of a request that has been checked
        self.is_head = False
        self.received = self.of_body = self.chunks = 0

    def _refuse_upgrade(self) -> None:
        """Have the request parsed again as one of HTTP/1.1, as RFC 9110 (section 7.8) allows: Java's client and `curl
        --http2` ask for HTTP/2 with every request, and httptools takes what follows such a head for another protocol.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._stop(Refusal(405, "method not allowed", "this server is not a proxy", {"Allow": "GET, POST"}))
        lines = [b"%s: %s" % each for each in self.headers if each[0] != b"upgrade"]
        start = b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())
        self.again = b"\r\n".join([start, *lines, b"", b""])

    def on_chunk_header(self) -> None:
        self.chunks += 1
        if self.chunks > self.limits.max_chunks:
            self._stop(Refusal(413, "the body has too many chunks", "send larger chunks"))

    def on_body(self, body: bytes) -> None:
        self.of_body += len(body)
        if self.of_body > self.limits.max_body:
            self._stop(
                Refusal(413, f"the body must have at most {self.limits.max_body:,} bytes", "send fewer pictures")
            )
        self.counted += len(body)
        self.bodies.size += len(body)
        if self.counted < self.bodies.size > self.limits.max_queue_bytes:
            self._stop(Refusal(503, "the server is overloaded", "try again in a second", {"Retry-After": "1"}))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.again:
            return
        super().on_message_complete()
        self._forget_body()
        self.is_receiving, self.is_head, self.received = False, True, 0
        self.since = monotonic()

    def on_response_complete(self) -> None:
        self.ours.flush()
        super().on_response_complete()
        if not self.is_receiving:
            self.since = monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_body()
        if self.is_answering:
            self.running.scope["state"]["is_left"] = True  # for the access log
        super().connection_lost(exc)

    def _forget_body(self) -> None:
        self.bodies.size -= self.counted
        self.counted = 0

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.running = cycle
        is_usual = cycle.keep_alive and not cycle.waiting_for_100_continue
        answer = self.refuse_early(cycle.scope) if is_usual else None
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        self.raw.write(b"".join([STATUS_LINE[503], *self._common_headers(), answer]))
        cycle.response_started = cycle.response_complete = True
        cycle.on_response()

    def _common_headers(self) -> list[bytes]:
        return [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]

    def _stop(self, refusal: Refusal) -> None:
        """Raise, out of the parser, a refusal that `send_400_response` then sends."""
        self.refusal = refusal
        raise refusal

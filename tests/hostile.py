"""Hostile HTTP, byte by byte: named cases over raw sockets, each with the statuses that a server may answer with."""

import contextlib
import functools
import gzip
import io
import os
import re
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

REFUSED = frozenset({*range(400, 418), 421, 422, 426, 431, 501, 505})
"""Statuses that blame the client."""

CLOSED = 0
"""Instead of a status: the connection ended without an answer."""

HOST = b"Host: 127.0.0.1\r\n"
TOKEN = "a-token-for-tests"


@dataclass(frozen=True)
class Case:
    """What a client sends, and what may come back.

    Attributes:
        pieces: bytes to send, one after the other; floats are seconds to wait.
        statuses: of the first answer.
        answers: the most answers that may come.
        ends: whether the client says afterwards that it will send nothing more.
        needs_token: whether the case is for a server with `TOKEN`.
        slow: whether the server may wait for its time limits before it answers.
    """

    name: str
    pieces: Callable[[], Iterable[bytes | float]]
    statuses: frozenset[int] = REFUSED
    answers: int = 1
    ends: bool = False
    needs_token: bool = False
    slow: bool = False


class Outcome(NamedTuple):
    """The statuses of all answers, whether the connection was closed, seconds to the first answer or the end."""

    statuses: list[int]
    is_closed: bool
    seconds: float


CASES: list[Case] = []


def _case(
    name: str, sent: bytes | Callable[[], Iterable[bytes | float]], *statuses: int, answers: int = 1,
    ends: bool = False, needs_token: bool = False, slow: bool = False,
) -> None:  # fmt: skip
    pieces: Callable[[], Iterable[bytes | float]] = (lambda: [sent]) if isinstance(sent, bytes) else sent
    CASES.append(Case(name, pieces, frozenset(statuses) or REFUSED | {CLOSED}, answers, ends, needs_token, slow))


def attack(port: int, case: Case, patience: float = 5.0) -> Outcome:
    """Send a case to a server on this machine, reading at the same time, until it closes or is silent."""
    pieces: Iterator[bytes | float] = iter(list(case.pieces()))  # making them may take longer than the answer
    began = time.monotonic()
    received, first = bytearray(), None
    pending, pause_until, sending, is_closed = b"", 0.0, True, False
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.setblocking(False)
        quiet_since = time.monotonic()
        while time.monotonic() - began < patience:
            now = time.monotonic()
            if sending and not pending and now >= pause_until:
                piece = next(pieces, None)
                if piece is None:
                    sending, quiet_since = False, now
                    if case.ends:
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_WR)
                elif isinstance(piece, float):
                    pause_until = now + piece
                else:
                    pending = piece
            readable, writable, _ = select.select([connection], [connection] if pending else [], [], 0.01)
            try:
                if readable:
                    data = connection.recv(65536)
                    first = first or time.monotonic()
                    if not data:
                        is_closed = True
                        break
                    received += data
                    quiet_since = time.monotonic()
                if writable and pending:
                    pending = pending[connection.send(pending) :]
            except OSError:  # reset: the server has closed
                first, is_closed = first or time.monotonic(), True
                break
            if not sending and received and time.monotonic() - quiet_since > 0.03:
                break
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received)
    return Outcome([int(status) for status in statuses], is_closed, (first or time.monotonic()) - began)


def _post(body: bytes = b"", *headers: str, path: str = "/predict", length: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/1.1\r\n".encode(), HOST, *(f"{header}\r\n".encode("latin-1") for header in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}\r\n".encode())
    return b"".join([*lines, b"\r\n", body])


def _get(path: bytes, *headers: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return b"".join([method, b" ", path, b" ", version, b"\r\n", HOST, *(h + b"\r\n" for h in headers), b"\r\n"])


def _chunked(*pieces: bytes | float) -> Callable[[], Iterable[bytes | float]]:
    return lambda: [_post(b"", "Transfer-Encoding: chunked", length=False), *pieces]


def _dripping(begin: bytes, drop: bytes) -> Callable[[], Iterable[bytes | float]]:
    drops: list[bytes | float] = [drop, 0.1]
    return lambda: [begin, *drops * 40]


def _picture(side: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side), 90).save(buffer, kind)
    return buffer.getvalue()


def _giant_png(side: int) -> bytes:
    """A small valid file of a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@functools.cache
def _bomb(kind: str, size: int = 66_000_000) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31 if kind == "gzip" else 15)
    zeros = bytes(1_000_000)
    return b"".join([*(stream.compress(zeros) for _ in range(size // len(zeros))), stream.flush()])


def _form(parts: int, boundary: str = "x", name: str = "file") -> bytes:
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\nnot a picture\r\n'
    return (part * parts + f"--{boundary}--\r\n").encode()


SMUGGLED = _get(b"/smuggled")

# --- chunks --------------------------------------------------------------------------------------------------------
_case("chunk flood: a million chunks of a byte", _chunked(b"1\r\nx\r\n" * 1_000_000), 400, 413)
_case("endless chunks", _chunked(*[b"ffff\r\n" + b"x" * 65535 + b"\r\n"] * 2000), 413)
_case("a chunk extension of 8 MB", _chunked(b"1;" + b"a" * 8_000_000), 400, 413)
_case("chunk extensions on every chunk", _chunked((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 3000), 400, 413)
_case("chunk size overflows", _chunked(b"fffffffffffffffff\r\nx\r\n0\r\n\r\n"), 400, 413)
_case("chunk size of many zeros", _chunked(b"0" * 3_000_000 + b"1\r\nx\r\n"), 400, 413)
_case("chunk size negative", _chunked(b"-1\r\nx\r\n0\r\n\r\n"), 400)
_case("chunk size with 0x", _chunked(b"0x1\r\nx\r\n0\r\n\r\n"), 400)
_case("chunk size with a space", _chunked(b"1 1\r\nx\r\n0\r\n\r\n"), 400)
_case("chunk longer than its size", _chunked(b"1\r\nxyz\r\n0\r\n\r\n"), 400)
_case("chunk ends with LF alone", _chunked(b"1\nx\n0\n\n" + SMUGGLED), 400)
_case("chunk size line ends with CR alone", _chunked(b"1\rx\r\n0\r\n\r\n"), 400)
_case("endless trailers", _chunked(b"0\r\n", b"A: b\r\n" * 1_000_000))
_case("one endless trailer", _chunked(b"0\r\nA: ", b"b" * 5_000_000))
_case("a trailer names a host", _chunked(b"0\r\nHost: evil.example\r\n\r\n"))
_case("chunks stop in the middle", _chunked(b"ff\r\nabc"), 400, ends=True)

# --- encodings -----------------------------------------------------------------------------------------------------
_case("gzip bomb", lambda: [_post(_bomb("gzip"), "Content-Encoding: gzip")], 400, 413, 415, 422)
_case("deflate bomb", lambda: [_post(_bomb("deflate"), "Content-Encoding: deflate")], 400, 413, 415, 422)
_case("gzip bomb within gzip", lambda: [_post(gzip.compress(_bomb("gzip")), "Content-Encoding: gzip")])
_case("gzip twice", lambda: [_post(gzip.compress(gzip.compress(b"x")), "Content-Encoding: gzip, gzip")])
_case("gzip in two headers", _post(b"x", "Content-Encoding: gzip", "Content-Encoding: gzip"))
_case("gzip truncated", _post(gzip.compress(bytes(10_000))[:-9], "Content-Encoding: gzip"))
_case("gzip with a wrong checksum", _post(gzip.compress(b"abc")[:-8] + bytes(8), "Content-Encoding: gzip"))
_case("thousands of gzip members", _post(gzip.compress(b"") * 5000, "Content-Encoding: gzip"))
_case("not gzip", _post(b"not gzip", "Content-Encoding: gzip"))
_case("unknown encoding", _post(b"x", "Content-Encoding: br"))

# --- lengths and smuggling -----------------------------------------------------------------------------------------
_case("length longer than the body, then the end", _post(b"x", "Content-Length: 100", length=False), 400, ends=True)
_case("length longer than the body, then silence", _post(b"x", "Content-Length: 100", length=False), 408, slow=True)
_case("length shorter than the body", _post(b"GET /", "Content-Length: 1", length=False), answers=2)
_case("length negative", _post(b"x", "Content-Length: -1", length=False), 400)
_case("length not a number", _post(b"x", "Content-Length: one", length=False), 400)
_case("length with a plus", _post(b"x", "Content-Length: +1", length=False), 400)
_case("length in hexadecimal", _post(b"x", "Content-Length: 0x1", length=False), 400)
_case("length overflows", _post(b"x", "Content-Length: 99999999999999999999999", length=False), 400, 413)
_case("length above the limit", _post(b"x", "Content-Length: 1000000000000", length=False), 413)
_case("a body above the limit is sent", lambda: [_post(bytes(70_000_000))], 413)
_case("two lengths", _post(b"x", "Content-Length: 1", "Content-Length: 2", length=False), 400)
_case("two equal lengths", _post(b"x", "Content-Length: 1", "Content-Length: 1", length=False), 400)
_case("a list of lengths", _post(b"x", "Content-Length: 1, 1", length=False), 400)
_case("length with a space inside", _post(b"x", "Content-Length: 1 1", length=False), 400)
for _name, _headers, _body in (
    ("CL.TE", ("Content-Length: 6", "Transfer-Encoding: chunked"), b"0\r\n\r\n" + SMUGGLED),
    ("TE.CL", ("Transfer-Encoding: chunked", "Content-Length: 4"), b"5c\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"),
    ("TE.TE twice", ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), b"0\r\n\r\n" + SMUGGLED),
    ("TE.TE chunked, identity", ("Transfer-Encoding: chunked, identity",), b"0\r\n\r\n" + SMUGGLED),
    ("TE xchunked", ("Transfer-Encoding: xchunked",), b"0\r\n\r\n" + SMUGGLED),
    ("TE identity", ("Transfer-Encoding: identity", "Content-Length: 1"), b"x" + SMUGGLED),
    ("TE with a vertical tab", ("Transfer-Encoding: \x0bchunked",), b"0\r\n\r\n" + SMUGGLED),
    ("TE with a space before the colon", ("Transfer-Encoding : chunked",), b"0\r\n\r\n" + SMUGGLED),
    ("TE folded", ("Transfer-Encoding:\r\n chunked", "Content-Length: 4"), b"0\r\n\r\n" + SMUGGLED),
    ("TE in quotes", ('Transfer-Encoding: "chunked"',), b"0\r\n\r\n" + SMUGGLED),
    ("length with a space before the colon", ("Content-Length : 5",), b"xxxxx" + SMUGGLED),
    ("length after a LF in a value", ("X: y\nContent-Length: 50",), SMUGGLED),
    ("TE after a CR in a value", ("X: y\rTransfer-Encoding: chunked",), b"0\r\n\r\n" + SMUGGLED),
):
    _case(f"smuggling: {_name}", _post(_body, *_headers, length=False), *REFUSED)
_case("TE in HTTP/1.0", _post(b"0\r\n\r\n", "Transfer-Encoding: chunked", length=False).replace(b"1.1", b"1.0", 1))

# --- lines and headers ---------------------------------------------------------------------------------------------
_case("lines end with LF alone", _get(b"/predict").replace(b"\r\n", b"\n"), 400)
_case("lines end with CR alone", _get(b"/predict").replace(b"\r\n", b"\r"), 400)
_case("a folded header", _get(b"/predict", b"X: a\r\n b"))
_case("NUL in a header's value", _get(b"/predict", b"X: a\0b"), 400)
_case("NUL in a header's name", _get(b"/predict", b"X\0: a"), 400)
_case("space in a header's name", _get(b"/predict", b"X Y: a"), 400)
_case("non-ASCII in a header's name", _get(b"/predict", b"X\xc3\xa9: a"), 400)
_case("a header without a name", _get(b"/predict", b": a"), 400)
_case("a header without a colon", _get(b"/predict", b"nothing"), 400)
_case("a header of 200 KB", _get(b"/predict", b"X: " + b"a" * 200_000), 431)
_case("an endless header", lambda: [b"GET / HTTP/1.1\r\nX: ", *[b"a" * 10_000] * 1000], 431)
_case("an endless header name", lambda: [b"GET / HTTP/1.1\r\n", *[b"a" * 10_000] * 1000], 431)
_case("1,000 headers", _get(b"/predict", *[b"X: a"] * 1000), 431)
_case("endless headers", lambda: [b"GET / HTTP/1.1\r\n", *[b"X: a\r\n" * 10_000] * 10], 431)
_case("a header only of the parser's bytes", _get(b"/predict", b"\xff\xfe: \xff"), 400)

# --- the request line ----------------------------------------------------------------------------------------------
_case("a URL of 20 KB", _get(b"/" + b"a" * 20_000), 414)
_case("an endless URL", lambda: [b"GET /", *[b"a" * 10_000] * 1000], 414, 431)
_case("unknown method", _get(b"/predict", method=b"FOO"))
_case("a method of 100 KB", _get(b"/predict", method=b"A" * 100_000))
_case("method in small letters", _get(b"/predict", method=b"get"))
_case("TRACE", _get(b"/predict", method=b"TRACE"))
_case("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
_case("CONNECT to a path", _get(b"/predict", method=b"CONNECT"))
_case("PUT, DELETE and PATCH are not answered", _get(b"/predict", method=b"DELETE"))
_case("HTTP/9.9", _get(b"/predict", version=b"HTTP/9.9"))
_case("HTTP/2.0", _get(b"/predict", version=b"HTTP/2.0"))
_case("HTTP/1.1 with more", _get(b"/predict", version=b"HTTP/1.1x"))
_case("HTTP/0.9", b"GET /predict\r\n", 400, 408, CLOSED, slow=True)
_case("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
_case("absolute URL", _get(b"http://evil.example/predict"))
_case("absolute URL of a file", _get(b"file:///etc/passwd"))
_case("a path without a slash", _get(b"predict"))
_case("an asterisk", _get(b"*"))
_case("an empty path", _get(b""))
_case("path traversal", _get(b"/../../../../etc/passwd"))
_case("encoded path traversal", _get(b"/%2e%2e/%2e%2e/%2e%2e/etc/passwd"))
_case("doubly encoded path traversal", _get(b"/docs/%252e%252e%252f%252e%252e%252fetc/passwd"))
_case("path traversal below static files", _get(b"/static/..%2f..%2f..%2f..%2fetc/passwd"))
_case("backslashes", _get(b"/..\\..\\..\\windows\\win.ini"))
_case("two slashes", _get(b"//evil.example/predict"))
_case("%00", _get(b"/predict%00.png"))
_case("%zz", _get(b"/%zz%"))
_case("overlong UTF-8", _get(b"/%c0%ae%c0%ae/etc/passwd"))
_case("bytes that are not ASCII", _get(b"/\xff\xfe"))
_case("control characters in the URL", _get(b"/pre\x01dict"))
_case("a space in the URL", _get(b"/pre dict"))
_case("2,000 parameters", _post(_picture(8), path="/predict?" + "&".join(["a=1"] * 2000)))
_case("a model's name is a path", _post(_picture(8), path="/predict?model=../../etc/passwd"))
_case("a version is a path", _get(b"/v2/models/..%2f..%2fetc/versions/%2e%2e"))

# --- Host and Origin -----------------------------------------------------------------------------------------------
for _name, _host in (
    ("another", "evil.example"), ("a longer", "127.0.0.1.evil.example"), ("another, with our port", "evil.example:80"),
    ("user and", "127.0.0.1@evil.example"),
    ("an encoded", "127.0.0.1%00.evil"), ("an empty", ""), ("a port for a", ":80"),
    ("another machine's address as", "169.254.169.254"), ("a broken IPv6", "[::1"), ("two of", "127.0.0.1, evil"),
    ("a path as", "127.0.0.1/evil"), ("a decimal", "2130706433"), ("a wrong port of the", "127.0.0.1:port"),
):  # fmt: skip
    _case(f"Host: {_name} host", f"GET /model HTTP/1.1\r\nHost: {_host}\r\n\r\n".encode(), 400, 421)
_case("no Host", b"GET /model HTTP/1.1\r\n\r\n", 400)
_case("two Hosts", b"GET /model HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", 400)
_case("two equal Hosts", _get(b"/model", HOST.strip()), 400)
for _origin in ("http://evil.example", "null", "https://127.0.0.1.evil.example", "file://", "x" * 1000, "127.0.0.1"):
    _case(f"Origin: {_origin[:40]}", _post(_picture(8), f"Origin: {_origin}"), 403)
_case(
    "a preflight of a stranger",
    _get(b"/predict", b"Origin: http://evil.example", b"Access-Control-Request-Method: POST", method=b"OPTIONS"),
)

# --- other protocols -----------------------------------------------------------------------------------------------
_case("WebSocket", _get(b"/predict", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
                        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))  # fmt: skip
_case("h2c", _get(b"/predict", b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk"))
_case("TLS on the plain port", bytes.fromhex("160301020001000001fc0303") + os.urandom(508), 400, CLOSED)
_case("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", 400, CLOSED)
_case("SMTP", b"EHLO evil.example\r\nMAIL FROM:<a@evil.example>\r\n", 400, CLOSED)
_case("random bytes", os.urandom(100_000).replace(b"\n", b"x"), 400, CLOSED)
_case("zeros", bytes(100_000), 400, CLOSED)
_case("only line ends", b"\r\n" * 500_000)
_case("Expect: something", _post(b"x", "Expect: something-else"))

# --- slow and silent clients ---------------------------------------------------------------------------------------
for _name, _begin, _drop, _status in (
    ("headers", b"GET / HTTP/1.1\r\n", b"X: a\r\n", 408), ("one header", b"GET / HTTP/1.1\r\nX: ", b"a", 408),
    ("body", _post(b"", "Content-Length: 100", length=False), b"x", 408), ("line ends", b"\r\n", b"\r\n", CLOSED),
    ("chunks", _post(b"", "Transfer-Encoding: chunked", length=False), b"1\r\nx\r\n", 408),
):  # fmt: skip
    _case(f"slowloris: {_name}", _dripping(_begin, _drop), _status, slow=True)
_case("silence", lambda: [], CLOSED, slow=True)
_case("the end at once", lambda: [], CLOSED, ends=True)
_case("half a request line", b"GET /pre", 400, CLOSED, ends=True)


# --- pipelines -----------------------------------------------------------------------------------------------------
_case("junk after a request", _get(b"/nothing") + b"\x16\x03\x01 junk\r\n\r\n", 404, answers=2)
_case("10,000 requests at once", _get(b"/nothing") * 10_000, 400, 404, answers=100)
_case("a request after Connection: close", _get(b"/nothing", b"Connection: close") + SMUGGLED, 404)

# --- pictures and forms --------------------------------------------------------------------------------------------
_case("an empty body", _post(b""))
_case("text as a picture", _post(b"not a picture"))
_case("a picture of one pixel", lambda: [_post(_picture(1))], 200, *REFUSED)
_case("a giant picture in a small file", lambda: [_post(_giant_png(60_000))])
_case("half a picture", lambda: [_post(_picture(100, "JPEG")[:300])])
_case("a picture with random bytes", lambda: [_post(_picture(100)[:40] + os.urandom(5000))])
_case("JSON of 100,000 levels", _post(b"[" * 100_000, "Content-Type: application/json"))
_case("JSON of 100,000 closed levels", _post(b"[" * 100_000 + b"]" * 100_000, "Content-Type: application/json"))
_case("JSON objects of 100,000 levels", _post(b'{"a":' * 100_000, "Content-Type: application/json"))
_case("JSON that is not UTF-8", _post(b'{"a": "\xff\xfe"}', "Content-Type: application/json"))
_case("JSON number of 1 MB", _post(b'{"a": ' + b"9" * 1_000_000 + b"}", "Content-Type: application/json"))
_case("JSON with NaN", _post(b'{"a": NaN}', "Content-Type: application/json"))
_FORM = "Content-Type: multipart/form-data"
_case("form without a boundary", _post(_form(1), _FORM))
_case("form with an empty boundary", _post(_form(1), f"{_FORM}; boundary="))
_case("form with another boundary", _post(_form(1), f"{_FORM}; boundary=y"))
_case("form with a boundary of 5 KB", _post(_form(1, "b" * 5000), f"{_FORM}; boundary={'b' * 5000}"))
_case("form with thousands of parts", _post(_form(20_000), f"{_FORM}; boundary=x"))
_case("form with an endless header", _post(b"--x\r\nContent-Disposition: " + b"a" * 2_000_000, f"{_FORM}; boundary=x"))
_case("form with thousands of headers", _post(b"--x\r\n" + b"A: b\r\n" * 100_000, f"{_FORM}; boundary=x"))
_case("form without an end", _post(_form(1)[:-6], f"{_FORM}; boundary=x"))
_case("form with a path as the file's name",
      _post(_form(1).replace(b"a.png", b"../../etc/passwd"), f"{_FORM}; boundary=x"))  # fmt: skip
_case("content type of 10 KB", _post(b"x", f"Content-Type: {'a' * 10_000}"))
_case("content type that does not exist", _post(b"x", "Content-Type: \xff/\xfe; =;;"))
for _value in ("-1", "0", "nan", "inf", "1e999", "x", "9" * 5000):
    _case(f"X-Request-Timeout: {_value[:10]}", _post(b"x", f"X-Request-Timeout: {_value}"))

# --- tokens --------------------------------------------------------------------------------------------------------
for _name, _token in (
    ("missing", None), ("wrong", "Bearer wrong"), ("empty", "Bearer "), ("long", "Bearer " + "a" * 20_000),
    ("one character more", f"Bearer {TOKEN}x"), ("one character less", f"Bearer {TOKEN[:-1]}"), ("alone", TOKEN),
    ("of another scheme", f"Basic {TOKEN}"), ("not ASCII", "Bearer \xff\xfe"), ("twice", f"Bearer {TOKEN}, Bearer x"),
):  # fmt: skip
    _auth = [] if _token is None else [f"Authorization: {_token}"]
    _case(f"token {_name}", _post(_picture(8), *_auth), 401, needs_token=True)
_case("token in the query", _post(_picture(8), path=f"/predict?token={TOKEN}"), 401, needs_token=True)
_case("two Authorization headers", _post(_picture(8), f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"), 401,
      needs_token=True)  # fmt: skip
_case("token in a trailer", lambda: [_post(b"", "Transfer-Encoding: chunked", length=False),
      f"0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()], 401, needs_token=True)  # fmt: skip
_case("HEAD of what needs a token", _get(b"/model", method=b"HEAD"), 401, needs_token=True)
_case("a path that looks open", _get(b"/static/../model"), 401, 404, needs_token=True)

"""Bodies of requests: read within limits and decompressed."""

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from hangtag.serving.refusals import Refusal

__all__ = ["decompressed", "read_body"]

_INLINE = 4096  # compressed bytes that are decompressed in the event loop, at most 4 MB in 10 ms


async def read_body(request: Request) -> bytes:
    """The body of a request, decompressed according to its `Content-Encoding` (gzip or deflate).

    Raises:
        Refusal: too large (413), damaged (400), or in another encoding (415). The time and the number of chunks are
            limited by `LimitedProtocol`.
        ClientDisconnect: the client has gone, or has been refused meanwhile.
    """
    most = request.app.state.server.settings.max_body
    encodings = [value for name, value in request.scope["headers"] if name == b"content-encoding"]
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _rest(request, body, most)
    elif len(body) > most:
        raise _too_large(most)
    if not encodings:
        return body
    encoding = b",".join(encodings).decode("latin-1").strip().lower()
    if len(body) <= _INLINE:
        return decompressed(body, encoding, most)
    return await asyncio.to_thread(decompressed, body, encoding, most)


async def _rest(request: Request, first: bytes, most: int) -> bytes:
    whole, is_more = bytearray(first), True
    while is_more and len(whole) <= most:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        whole += message.get("body", b"")
        is_more = message.get("more_body", False)
    if len(whole) > most:
        raise _too_large(most)
    return bytes(whole)


def decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """A body without its `Content-Encoding`; errors as of `read_body`."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refusal(
            415,
            "the Content-Encoding is not supported",
            "use gzip, deflate or none",
            {"Accept-Encoding": "gzip, deflate"},
        )
    is_gzip = encoding != "deflate"
    is_zlib = len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0  # RFC 1950; else RFC 1951
    parts: list[bytes] = []
    left = most
    try:
        while True:
            stream = zlib.decompressobj(31 if is_gzip else 15 if is_zlib else -15)
            parts.append(stream.decompress(body, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise _too_large(most)
            if not stream.eof:
                raise zlib.error("truncated")
            body = stream.unused_data
            if not body:
                return b"".join(parts)
            if not is_gzip or len(parts) > 100:  # gzip files may consist of several
                raise zlib.error("bytes after the end")
    except zlib.error:
        raise Refusal(400, f"the body is not valid {encoding}", "send it whole, or without Content-Encoding") from None


def _too_large(most: int) -> Refusal:
    return Refusal(
        413, f"the body must have at most {most:,} bytes, also after decompression", "send smaller or fewer pictures",
        {"Connection": "close"},
    )  # fmt: skip

"""Bodies of requests."""

import gzip
import zlib

import pytest

from hangtag.serving.body import decompressed
from hangtag.serving.refusals import Refusal

_RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = _RAW.compress(b"abc" * 100) + _RAW.flush()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"abc" * 100, ""),
        (b"abc" * 100, "identity"),
        (gzip.compress(b"abc" * 100, mtime=0), "gzip"),
        (gzip.compress(b"abc" * 50, mtime=0) + gzip.compress(b"abc" * 50, mtime=0), "x-gzip"),
        (zlib.compress(b"abc" * 100), "deflate"),
        (RAW_DEFLATE, "deflate"),
    ],
)
def test_bodies_are_decompressed(body: bytes, encoding: str) -> None:
    assert decompressed(body, encoding, 300) == b"abc" * 100


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(bytes(301), mtime=0), "gzip", 413),
        (gzip.compress(bytes(200), mtime=0) * 2, "gzip", 413),
        (zlib.compress(bytes(10_000_000)), "deflate", 413),
        (gzip.compress(b"abc", mtime=0)[:-1], "gzip", 400),
        (gzip.compress(b"abc", mtime=0) + b"x", "gzip", 400),
        (gzip.compress(b"", mtime=0) * 200, "gzip", 400),
        (zlib.compress(b"abc") + b"x", "deflate", 400),
        (b"", "gzip", 400),
        (b"abc", "br", 415),
        (b"abc", "gzip, gzip", 415),
    ],
)
def test_what_is_damaged_too_large_or_unknown_is_refused(body: bytes, encoding: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decompressed(body, encoding, 300)
    assert caught.value.status == status

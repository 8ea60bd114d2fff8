"""Pictures from clients -> pixels: PNG, JPEG and NPY in the thread that asks, other formats in a sandbox.

The cost of decoding a PNG or a JPEG is bounded by its size (`limited.py` says why). A decoder of another format runs in
a process of its own, `python -m hangtag.serving.decoding`, with limits on time and memory, without the server's
environment and at a lower priority. The process is used again until a picture makes it hang or crash. It is started,
not forked, because the server has threads.
"""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import PictureError
from hangtag.pictures import MAX_PIXELS, ImageSpec, Picture, decode_noting_size, decode_only

__all__ = ["decode", "end_sandboxes", "is_quick"]

_SECONDS = 10.0  # for a picture; the largest allowed takes about three on a slow core
_MEMORY = 4_000_000_000  # bytes of address space of a sandbox
_LOWER_PRIORITY = 5
_SIZES = struct.Struct(">IQ")  # bytes of JSON, and of what follows it
_QUICK_PIXELS = 500_000  # about five milliseconds
_PNG, _JPEG, _NPY = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG's size
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01, 0xFF}  # markers without a length
_MOST_SEGMENTS = 100


_idle: "list[_Sandbox]" = []
_lock = threading.Lock()


def decode(
    picture: Picture, spec: ImageSpec, most: int = MAX_PIXELS, seconds: float = _SECONDS
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """As `pictures.decode_noting_size`, in a sandbox if the format needs one.

    Raises:
        PictureError: as there, or the picture takes more time or memory than the limits.
    """
    if not isinstance(picture, bytes) or not picture or picture.startswith((_PNG, _JPEG, _NPY)) or os.name == "nt":
        return decode_noting_size(picture, spec, most)
    with _lock:
        used = _idle.pop() if _idle else None
    sandbox = used or _Sandbox()
    try:
        described, pixels = sandbox.ask({"spec": spec.to_json(), "most": most}, picture, seconds)
    except TimeoutError:
        sandbox.end()
        raise PictureError(
            f"decoding takes more than {seconds:g} s", "save it again as a PNG or a JPEG", "takes too long"
        ) from None
    except OSError:
        sandbox.end()
        if used is not None:  # it may have ended before, for another reason
            return decode(picture, spec, most, seconds)
        raise PictureError(
            "its decoder crashed, or needed more memory than the limit", "save it again as a PNG or a JPEG", "damaged"
        ) from None
    except BaseException:
        sandbox.end()
        raise
    with _lock:
        _idle.append(sandbox)
    if "error" in described:
        raise PictureError(*described["error"])
    return np.frombuffer(pixels, np.uint8).reshape(described["shape"]), tuple(described["notes"])


def end_sandboxes() -> None:
    """End the processes that are idle."""
    with _lock:
        sandboxes, _idle[:] = list(_idle), []
    for sandbox in sandboxes:
        sandbox.end()


class _Sandbox:
    """A process that decodes one picture after the other."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hangtag.serving.decoding"],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env=_environment(), start_new_session=True,  # only the server receives Ctrl-C
            )  # fmt: skip
        self.socket.settimeout(60)  # until Python and the decoders are loaded
        try:
            is_ready = bool(self.socket.recv(1))
        except OSError:
            is_ready = False
        if not is_ready:  # `ask` raises OSError then
            self.end()

    def ask(self, question: dict[str, Any], content: bytes, seconds: float) -> tuple[dict[str, Any], bytearray]:
        """Its answer; raises TimeoutError, or OSError if it ends."""
        end = time.monotonic() + seconds
        self.socket.settimeout(seconds)
        _send(self.socket, question, content)
        return _receive(self.socket, end)

    def end(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


def _send(to: socket.socket, described: dict[str, Any], content: Any) -> None:
    head = json.dumps(described).encode()
    to.sendall(_SIZES.pack(len(head), len(content)) + head)
    to.sendall(content)


def _receive(source: socket.socket, end: float | None = None) -> tuple[dict[str, Any], bytearray]:
    head, body = _SIZES.unpack(_exactly(source, _SIZES.size, end))
    described: dict[str, Any] = json.loads(_exactly(source, head, end))
    return described, _exactly(source, body, end)


def _exactly(source: socket.socket, size: int, end: float | None) -> bytearray:
    received, place = bytearray(size), 0
    view = memoryview(received)
    while place < size:
        if end is not None:
            source.settimeout(max(1e-3, end - time.monotonic()))
        count = source.recv_into(view[place:])
        if not count:
            raise ConnectionError("the other side has ended")
        place += count
    return received


def _environment() -> dict[str, str]:
    """What Python needs to find hangtag, and nothing that is secret; never the current folder."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    absolute = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(each).is_absolute()]
    kept |= {"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def _serve() -> None:
    """In the sandbox: decode what comes until the server ends."""
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS refuses limits on the address space
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.nice(_LOWER_PRIORITY)
    decode_only()
    server = socket.socket(fileno=0)
    server.settimeout(None)
    server.sendall(b"+")
    while True:
        try:
            question, content = _receive(server)
        except ConnectionError:
            return
        try:
            pixels, notes = decode_noting_size(bytes(content), ImageSpec(**question["spec"]), question["most"])
            _send(server, {"shape": pixels.shape, "notes": notes}, np.ascontiguousarray(pixels).data.cast("B"))
        except PictureError as error:
            _send(server, {"error": error.__reduce__()[1]}, b"")


def is_quick(content: bytes) -> bool:
    """Whether decoding takes a few milliseconds at most, as far as the header says: a small PNG, JPEG or NPY file.

    Nothing depends on the truth of the header but how long other pictures wait.
    """
    if content.startswith(_PNG):
        if len(content) < 24:
            return True  # damaged
        width, height = struct.unpack_from(">II", content, 16)
        return bool(width * height <= _QUICK_PIXELS)
    if content.startswith(_JPEG):
        return _jpeg_pixels(content) <= _QUICK_PIXELS
    return not content or (content.startswith(_NPY) and len(content) <= _QUICK_PIXELS)


def _jpeg_pixels(content: bytes) -> int:
    """What the first frame header of a JPEG says (ITU-T T.81, annex B); 0 if there is none."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 9 > len(content) or content[place] != 0xFF:
            return 0
        marker = content[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, place + 5)
            return int(width * height)
        place += (
            1 if marker == 0xFF else 2 if marker in _BARE else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        )
    return _QUICK_PIXELS + 1


if __name__ == "__main__":
    _serve()

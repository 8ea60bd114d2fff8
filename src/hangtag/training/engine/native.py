"""Compiling our C sources for this machine's processor on first use, and loading the library.

Without a C compiler, or with `HANGTAG_NATIVE=off`, there is no library, and callers use PyTorch instead.
"""

import ctypes
import errno
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hangtag.files import cache_home, is_full, saving

__all__ = ["library"]

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_LIBRARY = ("-shared", "-fPIC", "-pthread")
_FOR_THIS_PROCESSOR: tuple[list[str], ...] = (
    ["-march=native", "-mprefer-vector-width=512"],
    ["-march=native"],
    ["-mcpu=native"],
    [],
)
_TIMEOUT_SECONDS = 60.0


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The library compiled from a C file, or None if it cannot be compiled.

    Compiling takes about a second, once per source, compiler and processor; the user's cache keeps the result.
    """
    if os.environ.get("HANGTAG_NATIVE", "").lower() in ("off", "0", "no", "false"):
        return None
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), *_COMPILERS))), None)
    if compiler is None:
        return None
    with suppress(OSError, subprocess.SubprocessError), _no_room(cache_home("native")):
        version = _run(compiler, "--version")
        text = source.read_text(encoding="utf-8")
        inputs = [text, compiler, version, _processor(), repr((_FLAGS, _FOR_THIS_PROCESSOR))]
        key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
        return ctypes.CDLL(str(_whole(source, key) or _compile(compiler, source, key)))
    return None


@contextmanager
def _no_room(folder: Path) -> Iterator[None]:
    """A full disk is an error: with PyTorch's steps instead, a resumed training would end with other weights."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            with saving(folder):
                raise
        raise


def _whole(source: Path, key: str) -> Path | None:
    """The library compiled earlier, whose name ends with its checksum; a damaged one is deleted."""
    for file in cache_home("native").glob(f"{source.stem}-{key}-*.so"):
        if file.stem.endswith(f"-{_checksum(file)}"):
            return file
        file.unlink()
    return None


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _compile(compiler: str, source: Path, key: str) -> Path:
    """Write the library atomically, even while another process does the same."""
    home = cache_home("native")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        output = Path(folder) / f"{source.stem}.so"
        for number, flags in enumerate(_FOR_THIS_PROCESSOR, start=1):
            try:
                _run(compiler, *_FLAGS, *_LIBRARY, *flags, str(source), "-o", str(output), "-lm")
                break
            except subprocess.CalledProcessError as error:
                if os.strerror(errno.ENOSPC) in error.stderr:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                if number == len(_FOR_THIS_PROCESSOR):
                    raise
        return output.replace(home / f"{source.stem}-{key}-{_checksum(output)}.so")


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    return done.stdout


def _processor() -> str:
    """What `-march=native` depends on; a home folder shared by two machines keeps a library for each."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    relevant = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join([platform.machine(), platform.processor(), *dict.fromkeys(relevant)])

"""Files and folders that exist completely or not at all: temporary name, fsync, rename.

This module turns a full disk or a read-only folder into a `SaveError`.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hangtag.errors import SaveError, UsageError

__all__ = [
    "LOOSE",
    "MARKER",
    "append_line",
    "cache_home",
    "inside",
    "is_full",
    "is_partial",
    "make_folder",
    "make_own_folder",
    "mark_loose",
    "mark_own",
    "mode_of_new_files",
    "new_folder",
    "new_folder_whole",
    "remove_partial",
    "saving",
    "short_name",
    "user_path",
    "write_all",
    "write_bytes",
    "write_json",
    "write_new",
    "write_text",
]

MARKER = ".hangtag"
"""A file that marks the folder it is in: hangtag wrote it, so it is never read as images."""

LOOSE = ".hangtag-files"
"""A file with the names of single pictures that hangtag wrote into a folder of the user's, one on each line."""

_PARTIAL = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_home(kind: str) -> Path:
    """The folder of a cache, which may not exist yet; `XDG_CACHE_HOME` moves it."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("hangtag")) / kind


def is_full(error: OSError) -> bool:
    """Whether the disk is full or a limit on its use is reached."""
    return error.errno in _FULL


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` replaced by the home folder; unchanged if there is no such user.

    Raises:
        UsageError: the path is empty; Python would take it for the current folder.
    """
    if str(path) == "":
        raise UsageError("a path is empty", "name a file or folder; the current folder is '.'")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def inside(folder: Path, path: Path) -> bool:
    """Whether a path, after all links, lies in the folder; not if its links go round in a circle."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # before Python 3.13
        return False


def write_bytes(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a whole file, or raise `SaveError` and leave the old file unchanged.

    Args:
        sync: wait until the file would survive a power cut; unnecessary for files that are easy to recreate.
    """
    with saving(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.chmod(mode_of_new_files())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            _sync_folder(path.parent)


def write_all(handle: int, content: "bytes | memoryview", offset: int | None = None) -> None:
    """Write everything at the offset, or else at the current position; a full disk raises OSError."""
    content = memoryview(content)
    while content:
        count = os.write(handle, content) if offset is None else os.pwrite(handle, content, offset)
        content, offset = content[count:], offset if offset is None else offset + count


def write_text(path: Path, text: str) -> None:
    write_bytes(path, _encoded(text))


def write_new(path: Path, text: str) -> Path:
    """Write a text file, but replace none: a name that is taken becomes NAME-2, NAME-3, ...; returns the path.

    A file that holds this text already is left as it is.
    """
    content, stem, number = _encoded(text), path.stem, 1
    with saving(path):
        while os.path.lexists(path):
            if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
                return path
            number += 1
            path = path.with_stem(f"{stem}-{number}")
        write_bytes(path, content)
    return path


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line to a log, or raise `SaveError` and leave the log unchanged.

    A power cut can still leave a last line without its newline; readers skip it.
    """
    line = _encoded(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    with saving(path), path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they do not exist."""
    with saving(path):
        path.mkdir(parents=True, exist_ok=True)


def make_own_folder(path: Path) -> None:
    """Create a folder for what hangtag writes, and mark it, unless it is a folder of the user's that holds files."""
    with saving(path):
        own = not path.is_dir() or not any(path.iterdir())
    make_folder(path)
    if own:
        mark_own(path)


def mark_own(folder: Path) -> None:
    """Mark a folder that hangtag alone writes to."""
    write_bytes(folder / MARKER, b"hangtag wrote this folder, and does not read it as images.\n", sync=False)


def mark_loose(path: Path) -> None:
    """Mark a single picture that hangtag wrote, unless its folder or the one above is marked."""
    names = path.parent / LOOSE
    if any((folder / MARKER).exists() for folder in path.absolute().parents[:2]):
        return
    known = b""
    with saving(names):
        if names.is_file() and not names.is_symlink():
            known = names.read_bytes()
    if os.fsencode(path.name) not in known.splitlines():
        write_bytes(names, known + os.fsencode(path.name) + b"\n", sync=False)


def new_folder(path: Path) -> None:
    """Create a folder that must not exist yet, and its parents."""
    with saving(path):
        path.mkdir(parents=True)


@contextmanager
def new_folder_whole(path: Path) -> Iterator[Path]:
    """A temporary folder to fill inside the block; it is renamed to `path` when the block succeeds.

    If another process was first, its folder stays and ours is deleted.
    """
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            try:
                temporary.replace(path)
            except OSError:
                if not path.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def is_partial(path: Path) -> bool:
    """Whether its name is that of a temporary file, left by a process that was killed."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def remove_partial(folder: Path) -> None:
    """Delete the temporary files of killed processes; no process may be writing there."""
    for path in filter(is_partial, folder.glob(".*")):
        with suppress(OSError):
            path.unlink()


def _encoded(text: str) -> bytes:
    """UTF-8; bytes of a file name that are not text become escapes, from which JSON gives them back."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns an `OSError` inside the block, which writes to `path`, into a `SaveError`."""
    try:
        yield
    except FileExistsError as error:
        raise SaveError(f"{path}: already exists", "choose another name; hangtag never overwrites runs") from error
    except OSError as error:
        if is_full(error):
            hint = "the disk is full or a size limit is reached; free some space and run the command again"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            hint = "you have no write permission there; choose another place"
        else:
            hint = "check that the folder exists and is writable"
        raise SaveError(f"{path}: cannot be written: {error.strerror or error}", hint) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, if the system supports it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def mode_of_new_files() -> int:
    """The permissions of a new file, as the user's umask allows; temporary files have fewer."""
    return 0o666 & ~_umask()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def short_name(name: str, most: int = 240) -> str:
    """The start of a name that takes at most `most` bytes: most systems allow 255 in the name of a file or folder."""
    while len(name.encode("utf-8", "surrogatepass")) > most:
        name = name[:-1]
    return name

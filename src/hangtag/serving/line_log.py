"""A file of lines that several processes write at once, without ever making a request wait."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hangtag.errors import SaveError, logger

__all__ = ["LineLog"]

_PAUSE = 0.05  # seconds between writes
_MOST_LINES = 50_000  # that wait for a slow disk; more are lost
_AT_ONCE = 1000  # lines of a write


class LineLog:
    """Lines that a thread appends to a file.

    Whole lines of several processes mix, because each write appends. If the file is renamed or removed (by logrotate,
    say), the next lines go into a new one. Lines that cannot be written are counted and lost: a full disk stops no
    answer.

    Args:
        path: the file; None: standard error.
        make: the bytes of a line, without its end, from what `write` gets; called on the thread.
        lost: called for each line that is lost.
        most_bytes: a file that has grown to this size is renamed to NAME.1, which replaces an earlier one; None: never.

    Raises:
        SaveError: the file cannot be opened.
    """

    def __init__(
        self, path: Path | None, make: Callable[[object], bytes], lost: Callable[[], None],
        most_bytes: int | None = None,
    ) -> None:  # fmt: skip
        self._path, self._make, self._lost, self._most_bytes = path, make, lost, most_bytes
        self._waiting: deque[object] = deque()
        self._some, self._closing, self._said = threading.Event(), False, False
        self._begins_broken = False  # whether the file ends with a part of a line
        self._file = 2 if path is None else -1
        try:
            self._open()
        except OSError as error:
            raise SaveError(f"{path}: cannot be written: {error.strerror}", "choose another file for the log") from None
        self._thread = threading.Thread(target=self._run, name="hangtag-log", daemon=True)
        self._thread.start()

    def write(self, line: object) -> None:
        """Append a line soon; can be called on any thread."""
        if len(self._waiting) >= _MOST_LINES:
            self._lost()
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what waits, for at most two seconds, and end the thread."""
        self._closing = True
        self._some.set()
        self._thread.join(2)
        if self._path is not None and self._file >= 0 and not self._thread.is_alive():
            os.close(self._file)
            self._file = -1

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            while self._waiting:
                count = min(len(self._waiting), _AT_ONCE)
                lines = (self._made(self._waiting.popleft()) for _ in range(count))
                self._append([line for line in lines if line is not None])
            if self._closing:
                return
            time.sleep(_PAUSE)  # lines that come meanwhile are written together

    def _made(self, line: object) -> bytes | None:
        """Its bytes; None if they cannot be made, which must not end the log."""
        try:
            return self._make(line)
        except Exception:
            self._lost()
            logger.exception("a line of a log could not be made")
            return None

    def _append(self, lines: list[bytes]) -> None:
        content = b"\n".join([*lines, b""])
        start = b"\n" if self._begins_broken else b""
        written = 0
        try:
            self._open()
            while written < len(start + content):
                written += os.write(self._file, (start + content)[written:])
            self._begins_broken = False
        except OSError as error:
            done = content[: max(written - len(start), 0)]
            self._begins_broken = (self._begins_broken and not written) or (not done.endswith(b"\n") and bool(done))
            for _ in range(len(lines) - done.count(b"\n")):
                self._lost()
            self._say(error)

    def _open(self) -> None:
        """The file of that name now; renames one that is too large."""
        if self._path is None:
            return
        if self._file >= 0:
            here = os.fstat(self._file)
            with suppress(FileNotFoundError):
                is_full = self._most_bytes is not None and here.st_size >= self._most_bytes
                if os.path.samestat(here, self._path.stat()) and not (is_full and self._rename(here.st_ino)):
                    return
            os.close(self._file)
            self._file, self._begins_broken = -1, False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        self._file = os.open(self._path, flags, 0o640)  # a named pipe that nobody reads is an error at once
        os.set_blocking(self._file, True)

    def _rename(self, inode: int) -> bool:
        """Rename the full file, unless another process did so meanwhile; whether it has another name now."""
        assert self._path is not None
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX)  # until it is closed, or until the end of this function
            try:
                if self._path.stat().st_ino == inode:
                    self._path.rename(f"{self._path}.1")
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except FileNotFoundError:
            return True
        except (OSError, ModuleNotFoundError):
            return False
        return True

    def _say(self, error: OSError) -> None:
        """Once."""
        if not self._said and self._path is not None:
            self._said = True
            logger.error("%s: lines are lost: %s", self._path, error.strerror)

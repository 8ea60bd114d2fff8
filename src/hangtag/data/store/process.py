"""One worker process: started, sent its work as lines of JSON, watched for signs of life, and ended.

A worker reads pictures from strangers, so it may crash, hang or need too much memory; then only this process ends, and
a small shared file says which picture it was at. `worker.py` beside this file is such a worker.
"""

import contextlib
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hangtag.data.store.worker import STATUS
from hangtag.errors import DataError
from hangtag.files import saving

__all__ = ["Failure", "Retries", "WorkerProcess"]

_SECONDS = 20.0
"""Time limit for one picture; the largest allowed takes about three seconds on a slow core."""

_START_SECONDS = 60.0  # limit for anything else that a worker does
_MEMORY = 6_000_000_000  # bytes of address space of one worker; libraries reserve one or two billion


_TRIES = 3  # how often a picture may end a worker before it is given up
_MOST_RESTARTS = 10  # of workers that end between two pictures, in a row


class Failure(NamedTuple):
    """Why a worker ended: its row or -1, the kind of problem, the reason; whether the picture is surely the cause."""

    row: int
    kind: str
    reason: str
    certain: bool


class Retries:
    """Counts which rows ended workers: such a row is tried again alone, and given up when it has ended several.

    Args:
        module: which the workers run.
        purpose: what they do, for the message that none can start.
    """

    def __init__(self, module: str, purpose: str) -> None:
        self.module, self.purpose = module, purpose
        self.ended: Counter[int] = Counter()  # how many workers each row has ended; -1: between two rows
        self.lock = threading.Lock()

    def together(self, rows: Sequence[int]) -> int:
        """How many of the first rows may go to a worker together."""
        return max(1, next((place for place, row in enumerate(rows) if row in self.ended), len(rows)))

    def succeeded(self) -> None:
        """A worker has answered, so workers can start."""
        self.ended.pop(-1, None)

    def is_given_up(self, failure: Failure) -> bool:
        """Count a worker's end, and say whether its row has ended too many.

        Raises:
            DataError: no worker can start.
        """
        with self.lock:
            self.ended[failure.row] += _TRIES if failure.certain else 1
            count = self.ended[failure.row]
        if failure.row < 0 and count > _MOST_RESTARTS:
            raise DataError(
                f"the process that {self.purpose} did not start ({failure.reason})",
                f"check the free memory, and try: python -m {self.module} < /dev/null",
            )
        return failure.row >= 0 and count >= _TRIES


class WorkerProcess:
    """A process of its own that runs a module, such as `hangtag.data.store.worker`.

    Its first line on stdin holds the limits, and what `settings` adds.
    """

    def __init__(self, module: str, settings: dict[str, Any] | None = None) -> None:
        with saving(Path(tempfile.gettempdir())):
            self.status_file = tempfile.TemporaryFile(prefix="hangtag-")  # noqa: SIM115
            self.status_file.write(STATUS.pack(-1, 0.0, 0.0))
            self.status_file.flush()
        self.status = mmap.mmap(self.status_file.fileno(), STATUS.size)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # -P: never import from the current folder
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(), bufsize=0,
            pass_fds=[self.status_file.fileno()],
            start_new_session=True,  # only the parent process receives Ctrl-C
        )  # fmt: skip
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)  # a stopped process reads nothing
        self.place = Path()  # of what it writes
        self.to_send = b""
        self.received = b""
        self.hung = False
        limits = {"memory": _MEMORY, "status": self.status_file.fileno(), "seconds": int(10 * _SECONDS) + 1}
        self.send(limits | (settings or {}))

    def answer(self, pictures: list[list[Any]], stop: threading.Event) -> list[Any] | None:
        """What the process answers to a list of pictures; None if it died or was killed, see `failure`.

        Raises:
            SaveError: the process cannot write its results, because the disk is full.
        """
        self.send(pictures)
        assert self.process.stdin is not None and self.process.stdout is not None
        output, stdin = self.process.stdout, self.process.stdin
        seen, since = None, time.monotonic()
        while b"\n" not in self.received:
            ready, _, _ = select.select([output], [stdin] if self.to_send else [], [], 0.25)
            if ready:
                piece = os.read(output.fileno(), 1 << 16)
                if not piece:
                    return None
                self.received += piece
                continue
            self._send_some()
            if stop.is_set():
                return None
            status, now = STATUS.unpack_from(self.status, 0), time.monotonic()
            if status != seen:
                seen, since = status, now
            elif now - since > (_SECONDS if status[0] >= 0 else _START_SECONDS):
                self.hung = True
                return None
        line, _, self.received = self.received.partition(b"\n")
        answer: Any = json.loads(line)
        if isinstance(answer, dict):
            with saving(self.place):
                raise OSError(answer["errno"], answer["reason"])
        answers: list[Any] = answer
        return answers

    def failure(self) -> Failure:
        """End the process, and say what it was doing."""
        os.kill(self.process.pid, signal.SIGKILL)  # Popen.kill() would take its end, and with it the times it used
        _, code, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(code)
        row, _, cpu_before = STATUS.unpack_from(self.status, 0)
        self.end()
        if self.hung:
            busy = used.ru_utime + used.ru_stime - cpu_before > _SECONDS / 2  # not stopped, nor waiting for a disk
            return Failure(row, "takes too long", f"decoding took more than {_SECONDS:.0f} s", busy)
        code = self.process.returncode
        return Failure(row, "crashes the decoder", f"the decoding process ended with exit code {code}", False)

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process.kill()
        self.process.wait()
        self.status.close()
        self.status_file.close()

    def send(self, message: Any) -> None:
        self.to_send += (json.dumps(message) + "\n").encode()
        self._send_some()

    def _send_some(self) -> None:
        assert self.process.stdin is not None
        try:
            while self.to_send and (count := self.process.stdin.write(self.to_send)):
                self.to_send = self.to_send[count:]
        except BrokenPipeError:  # the process died; `answer` notices it
            self.to_send = b""


def _environment() -> dict[str, str]:
    """One thread per process, and only absolute entries of PYTHONPATH: Python would import from the current folder."""
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    absolute = [each for each in variables.pop("PYTHONPATH", "").split(os.pathsep) if Path(each).is_absolute()]
    return variables | ({"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {})

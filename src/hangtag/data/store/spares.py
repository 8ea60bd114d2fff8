"""Decoding processes that wait for the next reading of this program, for which none has to be started then.

Starting one takes 0.2 s, mostly to import NumPy: longer than a few hundred pictures take. Few are kept, and not for
long, because they need memory. They have closed the files of the reading before. Nothing at an address is read by one:
credentials come from the environment in which a process was started.
"""

import atexit
import os
import threading

from hangtag.data.store.process import WorkerProcess

__all__ = ["end", "keep", "take"]

_MOST = 2
_SECONDS = 20.0  # after the last reading

_lock = threading.Lock()
_waiting: list[WorkerProcess] = []
_of_parent: list[WorkerProcess] = []  # in a forked process, which may neither use nor end them
_timer: threading.Timer | None = None


def take() -> WorkerProcess | None:
    """A process that waits, if there is one."""
    with _lock:
        while _waiting:
            worker = _waiting.pop()
            if worker.process.poll() is None:
                return worker
            worker.end()
    return None


def keep(worker: WorkerProcess) -> None:
    """Let a process wait that has answered everything; one too many is ended."""
    global _timer  # noqa: PLW0603
    worker.send(None)
    with _lock:
        if len(_waiting) < _MOST and not worker.to_send:
            _waiting.append(worker)
            if _timer is not None:
                _timer.cancel()
            _timer = threading.Timer(_SECONDS, end)
            _timer.daemon = True
            _timer.start()
            return
    worker.end()


def end() -> None:
    """End all that wait."""
    with _lock:
        workers = [*_waiting]
        _waiting.clear()
    for worker in workers:
        worker.end()


def _disown() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()  # a thread of the parent may have held it
    _of_parent.extend(_waiting)
    _waiting.clear()


atexit.register(end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)

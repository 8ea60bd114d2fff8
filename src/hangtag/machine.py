"""This machine and the installed versions: processor, cores, memory, packages, and the time."""

import math
import os
import time
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hangtag.version import __version__

__all__ = ["blas_threads", "hardware", "memory_bytes", "now", "processors", "seconds_waiting_for_a_core", "versions"]

_CGROUP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # of this process, and all control groups


def hardware() -> dict[str, Any]:
    """System, processor, number of cores this process may use, memory in bytes."""
    import platform

    facts: dict[str, Any] = {"system": platform.platform(terse=True), "processor": _cpu_name(), "cores": processors()}
    return facts | ({"memory_bytes": memory_bytes()} if memory_bytes() else {})


def memory_bytes() -> int:
    """The memory of this machine, or what its container may use; 0 if the system does not say."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(min([has, *_limits("memory.max")]))
    return 0


def processors() -> int:
    """The number of processor cores this process may use: by its affinity, and by the limit of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *(max(1, math.ceil(limit)) for limit in _limits("cpu.max"))])


def _limits(name: str) -> list[float]:
    """What the control groups of this process allow (Linux, cgroup v2), as Docker, Kubernetes and systemd set it.

    Args:
        name: of the files: a number, of microseconds in a period of the following number if there are two, or "max".
    """
    found = []
    with suppress(OSError, ValueError):
        place = _CGROUPS / _CGROUP.read_text(encoding="utf-8").rpartition("0::/")[2].strip()
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError, ZeroDivisionError):  # the root has no such file, and "max" is no limit
                limit, *period = (folder / name).read_text(encoding="ascii").split()
                found.append(int(limit) / (int(period[0]) if period else 1))
    return found


def seconds_waiting_for_a_core() -> float:
    """Seconds that the running threads of this process were ready but had to wait for a core, summed over the threads.

    The kernel's run queue delay (Linux, `sched-stats.rst`). Elsewhere the load average stands in for it: the value
    grows with the clock while more programs want to run than there are cores.
    """
    tasks = Path("/proc/self/task")
    total, counted = 0, False
    for schedstat in tasks.glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
            total += int(schedstat.read_text(encoding="ascii").split()[1])
            counted = True
    if counted:
        return total / 1e9
    overloaded = hasattr(os, "getloadavg") and os.getloadavg()[0] > processors() + 0.5
    return time.monotonic() if overloaded else 0.0


def versions() -> dict[str, str]:
    """The versions of hangtag, Python and the packages that influence a result."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    import importlib.metadata  # which imports `email` and `zipfile`
    import platform

    result = {"hangtag": __version__, "python": platform.python_version()}
    for name in ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            result[name.removesuffix("-gpu")] = importlib.metadata.version(name)
    return result


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    import platform

    return platform.processor() or platform.machine()


def blas_threads(most: int | None) -> AbstractContextManager[Any]:
    """A context in which each matrix product uses at most this many threads; None: no limit.

    It holds for libraries that are loaded when it begins.
    """
    from threadpoolctl import threadpool_limits

    limited: AbstractContextManager[Any] = threadpool_limits(most, "blas")
    return limited

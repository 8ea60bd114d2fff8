"""This machine and the installed versions: processor, cores, memory, packages, and the time."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hangtag.version import __version__

__all__ = ["hardware", "now", "processors", "versions"]


def hardware() -> dict[str, Any]:
    """System, processor, number of cores this process may use, memory in bytes."""
    facts: dict[str, Any] = {"system": platform.platform(terse=True), "processor": _cpu_name(), "cores": processors()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return facts


def processors() -> int:
    """The number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The versions of hangtag, Python and the packages that influence a result."""
    result = {"hangtag": __version__, "python": platform.python_version()}
    for name in ("torch", "onnx", "onnxruntime", "numpy", "pillow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            result[name] = importlib.metadata.version(name)
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
    return platform.processor() or platform.machine()

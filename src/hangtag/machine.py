"""What a result depends on beside the data: the processor, its cores and memory, versions, and the time."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hangtag.version import __version__

__all__ = ["hardware", "now", "processors", "versions"]


def hardware() -> dict[str, Any]:
    """The hardware in words: system, processor, cores this process may use, memory in bytes."""
    found: dict[str, Any] = {"system": platform.platform(terse=True), "processor": _cpu_name(), "cores": processors()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return found


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of hangtag, Python and what decides a result."""
    found = {"hangtag": __version__, "python": platform.python_version()}
    for name in ("torch", "onnx", "onnxruntime", "numpy", "pillow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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

"""How fast a training was, how much memory it took, and how fast this machine multiplies matrices."""

import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hangtag.training.engine.loop import Epoch

__all__ = ["Speed", "matmul_gflops", "peak_memory", "speed_of"]

_SIDE = {"cpu": 1024, "cuda": 8192}  # large enough to fill the machine, small enough for many products per second


@dataclass(frozen=True)
class Speed:
    """Speed and memory of one training.

    Attributes:
        images_per_second: over the whole training, without validation.
        peak_memory_bytes: see `peak_memory`.
    """

    images_per_second: float
    peak_memory_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        memory = "" if self.peak_memory_bytes is None else f", peak memory {self.peak_memory_bytes / 1e9:.2f} GB"
        return f"{self.images_per_second:,.0f} images/s{memory}"


def speed_of(epochs: list[Epoch], batch_size: int, device: torch.device) -> Speed:
    """The speed of the epochs finished in this process."""
    seconds = sum(epoch.training_seconds for epoch in epochs)
    steps = sum(epoch.step - epoch.first_step for epoch in epochs)
    return Speed(steps * batch_size / seconds if seconds else 0.0, peak_memory(device))


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: of this process on a CPU, of its tensors on a GPU; None if unknown (Windows)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):  # unlike ru_maxrss, it does not begin with the peak of the parent process
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def matmul_gflops(
    dtype: Literal["float32", "bfloat16"], device: torch.device | str = "cpu", seconds: float = 1.0
) -> float:
    """GFLOP/s of the fastest product of two square matrices within `seconds`; at least one product is timed.

    A product of two N x N matrices counts as 2 N^3 operations. PyTorch uses its default number of threads.
    """
    device = torch.device(device)
    side = _SIDE.get(device.type, 1024)
    left, right = (torch.rand(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.mm(left, right)  # not timed: threads start, kernels are chosen
    fastest, end = float("inf"), time.perf_counter() + seconds
    while fastest == float("inf") or time.perf_counter() < end:
        _synchronise(device)
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        _synchronise(device)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * side**3 / fastest / 1e9


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

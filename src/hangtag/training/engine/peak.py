"""How fast this machine multiplies matrices at best: what the speed of a training can be compared with.

It knows nothing of networks.
"""

import time
from typing import Literal

import torch

__all__ = ["matmul_gflops"]

_SIDE = {"cpu": 1024, "cuda": 8192}  # large enough to fill the machine, small enough for many products a second


def matmul_gflops(
    dtype: Literal["float32", "bfloat16"], device: torch.device | str = "cpu", seconds: float = 1.0
) -> float:
    """Thousand million floating-point operations a second of the fastest product of two square matrices found.

    A product of two N x N matrices counts as 2 N^3 operations. PyTorch's own number of threads is used.

    Args:
        dtype: of the matrices' numbers.
        device: where.
        seconds: how long to try; at least two products are made.
    """
    device = torch.device(device)
    side = _SIDE.get(device.type, 1024)
    one, other = (torch.rand(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.mm(one, other)  # not timed: threads start, kernels are chosen
    fastest, end = float("inf"), time.perf_counter() + seconds
    while fastest == float("inf") or time.perf_counter() < end:
        _wait(device)
        began = time.perf_counter()
        torch.mm(one, other, out=out)
        _wait(device)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * side**3 / fastest / 1e9


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

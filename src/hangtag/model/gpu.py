"""Answering on an NVIDIA GPU, through ONNX Runtime's CUDA provider: whether it can, its settings and its errors."""

import contextlib
import ctypes
import importlib.util
import io
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from hangtag.errors import GpuError, HangtagError, UnknownName, UsageError

__all__ = [
    "DEVICES", "MOST_PROCESSES", "check_device", "gpus", "images_per_call", "open_session", "refused",
]  # fmt: skip

DEVICES = ("cpu", "cuda")
MOST_PROCESSES = 8
"""Processes that may share a GPU: each uses at most a tenth of its memory, beside 0.5 GB that CUDA takes for each."""

_PROVIDER = "CUDAExecutionProvider"
_CPU_INSTEAD = "or use the device cpu"
_INSTALL = f"pip install 'onnxruntime-gpu[cuda,cudnn]', {_CPU_INSTEAD}"
_LEAST_MEMORY = 1 << 30
_MOST_IMAGES, _VALUES_PER_CALL = 256, 1 << 22  # of a call: as many as workers get at once, and about 1 GB of memory
_FULL = re.compile(r"out of memory|ALLOC_FAILED|Failed to allocate memory", re.IGNORECASE)
_FAULT = re.compile(r"CUDA failure|CUDA error|CUDNN|CUBLAS", re.IGNORECASE)


def check_device(device: object) -> str:
    """The device, if it is one of `DEVICES`; else raises `UnknownName`."""
    if device not in DEVICES:
        raise UnknownName.among("device", str(device), DEVICES)
    return str(device)


def images_per_call(values: int) -> int:
    """How many images the graph gets at once on a GPU, always: missing ones are filled up with blank ones.

    A GPU's kernels are chosen by the number of images, and add up in different orders; with a constant number, the last
    digits of an answer do not depend on the images beside it.

    Args:
        values: numbers of an image, as the network sees it.

    >>> images_per_call(28 * 28), images_per_call(224 * 224 * 3)
    (256, 16)
    """
    return 1 << (min(_MOST_IMAGES, max(1, _VALUES_PER_CALL // values)).bit_length() - 1)


@cache
def _driver() -> Any:
    """NVIDIA's driver, started; None if there is none, or it finds no GPU."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


def gpus() -> int:
    """The number of NVIDIA GPUs that this process may use, by the driver."""
    count = ctypes.c_int()
    driver = _driver()
    return count.value if driver and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def _memory() -> int:
    """Bytes of the first GPU."""
    device, size = ctypes.c_int(), ctypes.c_size_t()
    _driver().cuDeviceGet(ctypes.byref(device), 0)
    _driver().cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return size.value


def open_session(content: bytes, options: Any) -> Any:
    """An ONNX Runtime session on the GPU: all digits of float32, one choice of algorithms, limited memory.

    Raises:
        UsageError: the device cannot be used.
        GpuError: the GPU fails, or has no memory left.
    """
    import onnxruntime

    why = _load_libraries()
    options.use_deterministic_compute = True
    limit = max(_LEAST_MEMORY, _memory() // (MOST_PROCESSES + 2))
    cuda = {
        "device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE depends on timings
        "gpu_mem_limit": str(limit), "arena_extend_strategy": "kSameAsRequested",
    }  # fmt: skip
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[(_PROVIDER, cuda), "CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"], enable_fallback=0,
        )  # fmt: skip
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        if problem := refused(error):
            raise problem from error
        if "Available memory" in str(error):
            raise GpuError(
                "the model does not fit into the memory that a process may use of the GPU", "use the device cpu"
            ) from error
        raise
    session.disable_fallback()  # to the CPU, when a run fails
    if _PROVIDER not in session.get_providers():
        raise _unusable(f"ONNX Runtime cannot load CUDA or cuDNN: {why or 'it does not say why'}", _INSTALL)
    return session


@cache
def _load_libraries() -> str:
    """Load the CUDA libraries, also those of Python packages; returns what is missing.

    Raises:
        UsageError: ONNX Runtime has no CUDA provider, or there is no GPU.
    """
    import onnxruntime

    if _PROVIDER not in onnxruntime.get_available_providers():
        raise _unusable(
            "the installed ONNX Runtime has no CUDA provider", f"pip uninstall onnxruntime, then {_INSTALL}"
        )
    if not gpus():
        raise _unusable("no NVIDIA GPU or no driver was found", "use the device cpu")
    onnxruntime.set_default_logger_severity(4)  # errors are raised; their log lines would only repeat them
    preload = getattr(onnxruntime, "preload_dlls", lambda **_: None)
    packages = importlib.util.find_spec("nvidia")  # which may be in another folder than ONNX Runtime
    folders = [
        each for root in ((packages and packages.submodule_search_locations) or ()) for each in Path(root).glob("*/lib")
    ]
    for folder in (*sorted(folders), None):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(Exception):
            preload(directory=folder and str(folder))
    return said.getvalue().partition("\n")[0].partition(": ")[2][:200]  # "Failed to load libcublas.so.13: ..."


def _unusable(why: str, hint: str) -> UsageError:
    return UsageError(f"device 'cuda' cannot be used: {why}", hint)


def refused(error: Exception) -> HangtagError | None:
    """The error for an exception of ONNX Runtime that is the GPU's; None if it is the graph's or the image's."""
    text = " ".join(str(error).split())
    if "cuDNN is not available" in text or "cuDNN is unavailable" in text:
        return _unusable("ONNX Runtime cannot load cuDNN", _INSTALL)
    if _FULL.search(text):
        return GpuError("the GPU has no memory left", f"end other programs that use it, use one worker, {_CPU_INSTEAD}")
    if found := _FAULT.search(text):
        return GpuError(f"the GPU failed: {text[found.start() :][:200]}", f"run the same command again, {_CPU_INSTEAD}")
    return None

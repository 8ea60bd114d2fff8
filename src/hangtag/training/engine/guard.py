"""Errors raised by custom networks or by PyTorch become one ModelError that names what failed."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hangtag.errors import HangtagError, ModelError

__all__ = ["NETWORK_CONTRACT", "custom_code", "enough_memory", "is_out_of_memory"]

NETWORK_CONTRACT = "a network must take float (N, C, H, W) and return logits (N, K)"
"""What every network must do, as a hint."""

_MAX_LENGTH = 300  # characters of the original error; some of PyTorch's run to several pages
_NO_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")  # in errors of CPUs, CUDA and its libraries


@contextmanager
def custom_code(failed: str, hint: str = NETWORK_CONTRACT) -> Iterator[None]:
    """Turn any exception from a network's own code into one ModelError.

    hangtag's own errors and out-of-memory errors pass through; `enough_memory` handles the latter.

    Args:
        failed: what failed; the original error's type and message are appended.
        hint: what to do.
    """
    try:
        yield
    except HangtagError:
        raise
    except Exception as error:  # custom code may raise anything
        if is_out_of_memory(error):
            raise
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", _MAX_LENGTH, placeholder=" ...")
        raise ModelError(f"{failed}: {reason}", f"{hint}; hangtag --debug shows where it failed") from error


@contextmanager
def enough_memory(context: str, hint: str) -> Iterator[None]:
    """Turn an out-of-memory error of any device into one ModelError.

    Args:
        context: completes the message "out of memory ...".
        hint: what to do.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"out of memory {context}", hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a CPU or GPU ran out of memory; also true for the ModelError made from such an error."""
    if isinstance(error, ModelError):
        return error.__cause__ is not None and is_out_of_memory(error.__cause__)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)

"""What networks of others, and PyTorch itself, may raise -> one ModelError that says what did not work."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hangtag.errors import HangtagError, ModelError

__all__ = ["TAKES_AND_RETURNS", "custom_code", "enough_memory", "is_out_of_memory"]

TAKES_AND_RETURNS = "it must take float (N, C, H, W) and return logits (N, K)"
"""What a network has to do, as a hint."""

_LONGEST = 300  # characters of another's error; PyTorch writes some of several pages
_NO_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")  # in errors of processors, CUDA and its libraries


@contextmanager
def custom_code(failed: str, hint: str = TAKES_AND_RETURNS) -> Iterator[None]:
    """Whatever a network's own code raises inside the block becomes one ModelError.

    Errors of ours stay as they are, and so does running out of memory: see `enough_memory`.

    Args:
        failed: what did not work; the error's kind and words follow.
        hint: what to do.
    """
    try:
        yield
    except HangtagError:
        raise
    except Exception as error:  # whatever it may be
        if is_out_of_memory(error):
            raise
        said = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST, placeholder=" ...")
        raise ModelError(f"{failed}: {said}", f"{hint}; hangtag --debug shows where it fails") from error


@contextmanager
def enough_memory(doing: str, hint: str) -> Iterator[None]:
    """Running out of memory inside the block, on any device, becomes one ModelError.

    Args:
        doing: goes on after "out of memory".
        hint: what to do.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"out of memory {doing}", hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in a processor's or on a GPU; also of the ModelError that was made of that."""
    if isinstance(error, ModelError):
        return error.__cause__ is not None and is_out_of_memory(error.__cause__)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)

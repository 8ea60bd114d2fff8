"""The callback by which long operations report progress."""

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (the current step in words, units done, units in total)."""

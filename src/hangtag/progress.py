"""How long work says how far it is; screens draw bars from it."""

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, steps or bytes done, steps or bytes in all)."""

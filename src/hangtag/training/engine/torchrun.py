"""Whether torchrun started this process, told from its environment: without PyTorch, which takes a second to import."""

import os

__all__ = ["started_by_torchrun"]


def started_by_torchrun() -> bool:
    """Whether the environment says that this process is one of several of a training."""
    named = all(os.environ.get(name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return named and os.environ.get("WORLD_SIZE", "1") != "1"

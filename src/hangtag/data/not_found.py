"""The error for a name or path that does not exist, with the nearest one that does."""

import contextlib
import difflib
from collections.abc import Iterable
from pathlib import Path

from hangtag.data.public.catalog import NAMED
from hangtag.errors import PathNotFound, UnknownName

__all__ = ["exists", "not_found"]


def exists(path: Path) -> bool:
    """Whether a path leads to something that this user may see."""
    with contextlib.suppress(OSError, ValueError):  # forbidden, a name too long, a null character
        return path.exists()
    return False


def not_found(name: str, path: Path) -> UnknownName:
    """The error for what is neither a public set nor a file nor a folder.

    Args:
        name: as the user wrote it; with a slash it is a path.
        path: the same, with `~` replaced.
    """
    if "://" in name:
        return PathNotFound(
            f"{name}: addresses are read by hangtag predict only", "download or mount the dataset, and name the folder"
        )
    if exists(path):
        return UnknownName(f"{path}: is neither a file nor a folder", "a pipe or a device cannot be read; save a file")
    if "/" not in name:
        near = _nearest(name, [*sorted(NAMED), *_names_in(Path())])
        offer = f"did you mean '{near}'? " if near else ""
        known = f"{offer}known: {', '.join(sorted(NAMED))}, or a folder, archive or table of your own"
        return PathNotFound(f"unknown dataset '{name}'", known)
    missing = next((each for each in (*reversed(path.parents), path) if not exists(each)), path)
    if missing.parent.is_file():
        return PathNotFound(f"{path}: {missing.parent} is a file, not a folder", "name the file itself")
    where = "no such file or folder" if missing == path else f"there is no folder {missing}"
    near = _nearest(missing.name, _names_in(missing.parent))
    hint = f"did you mean '{missing.parent / near}'?" if near else "check the spelling and the current folder"
    return PathNotFound(f"{path}: {where}", hint)


def _nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar name, in capital or small letters."""
    by_lower = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def _names_in(folder: Path) -> list[str]:
    """What a folder contains, without hidden files; nothing for a folder that cannot be listed."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    return []

"""Names and paths that lead nowhere -> an error that says which part of them does not, and what is most like it."""

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

from hangtag.data.public.catalog import NAMED
from hangtag.errors import UnknownName

__all__ = ["is_there", "not_found"]

_LIKE_A_SET = 0.5  # of difflib; names of public sets are few, and long
_LIKE_A_FILE = 0.6


def is_there(path: Path) -> bool:
    """Whether a path leads to something that this user may see."""
    with contextlib.suppress(OSError, ValueError):  # forbidden, a name too long, a null character
        return path.exists()
    return False


def not_found(said: str, path: Path) -> UnknownName:
    """The error for what is neither a public set nor a file or folder.

    Args:
        said: as the user wrote it.
        path: the same, with `~` replaced.
    """
    return _no_such_path(path) if "/" in said else _no_such_name(said)


def _no_such_name(said: str) -> UnknownName:
    """It may have been meant as either: the nearest of public sets and of what is in this folder."""
    known = sorted(NAMED)
    found = (_nearest(said, known, _LIKE_A_SET), _nearest(said, _names_in(Path())))
    near = max((each for each in found if each), key=lambda name: _likeness(said, name), default=None)
    offer = f"did you mean '{near}'? " if near else ""
    return UnknownName(
        f"unknown data set '{said}'",
        f"{offer}known: {', '.join(known)}, or a folder, archive or table of your own",
    )


def _no_such_path(path: Path) -> UnknownName:
    missing = next((each for each in (*reversed(path.parents), path) if not is_there(each)), path)
    if missing.parent.is_file():
        return UnknownName(f"{path}: {missing.parent} is a file, not a folder", "name the file itself")
    where = "no such file or folder" if missing == path else f"there is no folder {missing}"
    meant = _meant(path)
    offer = f"did you mean '{meant}'?" if meant else "check the spelling and the folder you are in"
    return UnknownName(f"{path}: {where}", offer)


def _meant(path: Path) -> Path | None:
    """What is there and most like this path, as far down as that can be told; None where nothing is like it."""
    found, mended = Path(), False
    for part in path.parts:
        if is_there(found / part):
            found /= part
            continue
        near = _nearest(part, _names_in(found))
        if near is None:
            break
        found, mended = found / near, True
    return found if mended else None


def _nearest(name: str, names: Sequence[str], cutoff: float = _LIKE_A_FILE) -> str | None:
    """The most similar of names, small and capital letters being alike."""
    by_small = {each.lower(): each for each in reversed(names)}
    near = difflib.get_close_matches(name.lower(), by_small, n=1, cutoff=cutoff)
    return by_small[near[0]] if near else None


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other.lower(), name.lower()).ratio()


def _names_in(folder: Path) -> list[str]:
    """What lies in a folder, without what is hidden; nothing where it cannot be looked into."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    return []

"""The paths that a table writes -> the files that are meant: also without ending, from Windows, from another machine.

A path as it is written wins. Otherwise files are searched under the root; if several fit, hangtag asks.
"""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from hangtag.data.folder_layout import Choose
from hangtag.data.parts import part_named
from hangtag.data.store.containers import is_junk
from hangtag.pictures import PICTURE_ENDINGS
from hangtag.words import amount, first_few, listed

__all__ = ["FilesBelow", "Found", "locate", "moved", "part_in_path", "plain_path", "status_of"]

_MOST_FILES = 2_000_000  # a larger folder is searched no further
_SAMPLED = 200  # rows from which it is decided where paths start
_MOST_ANSWERS = 8


class FilesBelow:
    """The files under a folder, by name; the folder is walked when the first name is looked up."""

    def __init__(self, root: str) -> None:
        self.root = root

    def named(self, tail: str) -> list[str]:
        """The files whose path ends with these folders and this name, with a picture's ending or without.

        If there are none, a number is also that of a picture with other leading zeros: 7 finds 00007.png.
        """
        folder, slash, name = tail.rpartition("/")
        exact, stems, numbers = self._names
        found = [path for path in exact.get(name, ()) if path == tail or path.endswith(f"/{tail}")]
        if found:
            return found
        short = ((path.rpartition(".")[0], path) for path in stems.get(name, ()))
        found = [path for without, path in short if without == tail or without.endswith(f"/{tail}")]
        if found or not _is_number(name):
            return found
        return [
            path
            for path in numbers.get(int(name), ())
            if not slash or f"/{path}".rpartition("/")[0].endswith(f"/{folder}")
        ]

    def plain(self, text: str) -> str:
        """A path below the folder if it leads there, with / between folders, and without the root."""
        below = os.path.abspath(self.root).rstrip("/") + "/"  # noqa: PTH100
        return plain_path(text.replace("\\", "/").removeprefix(below))

    def found(self, values: Sequence[str]) -> int:
        """How many of these paths lead to a file, after the same number of leading folders was left out of each."""
        paths = [self.plain(value) for value in values]
        start = self.start_of(paths)
        return 0 if start is None else sum(bool(self.named(_tail(path, start))) for path in paths)

    def start_of(self, values: Sequence[str]) -> int | None:
        """How many leading folders of these paths do not exist here: the fewest with which most files are found."""
        sample = values[:: max(1, len(values) // _SAMPLED)]
        folders = [value.split("/")[:-1] for value in values]
        pairs = zip(min(folders), max(folders), strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        found = [sum(bool(self.named(_tail(value, drop))) for value in sample) for drop in range(common + 1)]
        best = next((drop for drop, count in enumerate(found) if 2 * count >= len(sample)), None)
        return found.index(max(found)) if best is None and max(found) else best

    @cached_property
    def _names(self) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[int, list[str]]]:
        """The relative paths of all files by name, and those of pictures by name without ending and by number."""
        exact: dict[str, list[str]] = defaultdict(list)
        stems: dict[str, list[str]] = defaultdict(list)
        numbers: dict[int, list[str]] = defaultdict(list)
        for path in _walk(self.root):
            name = path.rpartition("/")[2]
            exact[name].append(path)
            stem, dot, _ = name.rpartition(".")
            if dot and name.lower().endswith(PICTURE_ENDINGS):
                stems[stem].append(path)
                if _is_number(stem):
                    numbers[int(stem)].append(path)
        return exact, stems, numbers


@dataclass(frozen=True)
class Found:
    """Each path's file relative to a folder (an absolute path for files elsewhere), or None; and what was decided."""

    folder: str
    names: list[str | None]
    notes: tuple[str, ...] = ()


def locate(
    values: Sequence[Any],
    root: str,
    files: FilesBelow | None,
    own: Sequence[str | None],
    where: str,
    column: str,
    choose: Choose,
) -> Found:
    """The files that a column names.

    Args:
        values: paths or names; None for a row without one.
        root: where relative paths start.
        files: where files are searched that are not at their paths; None: nowhere.
        own: a word for each row, such as its part; of several files, the one in a folder of this name is meant.
        where, column: of the table, for a question.
        choose: called if several files fit.
    """
    names = [_as_written(root, str(value)) if value is not None else None for value in values]
    missing = {
        row: files.plain(str(value)) if files is not None else ""
        for row, (value, name) in enumerate(zip(values, names, strict=True))
        if value is not None and name is None
    }
    if files is None or len(missing) <= sum(name is not None for name in names):
        return Found(root, names)
    start = files.start_of(list(missing.values()))
    if start is None:
        return Found(root, names)
    tails = {row: _tail(path, start) for row, path in missing.items()}
    options = {row: _in_own_folder(files.named(tail), own[row]) for row, tail in tails.items()}
    found = {row: paths[0] for row, paths in options.items() if paths}
    found |= _chosen(options, values, where, column, choose)
    notes = []
    padded = [row for row, path in found.items() if _stem(path) != (stem := _stem(tails[row])) and _is_number(stem)]
    if padded:
        row = padded[0]
        notes.append(
            f"the column '{column}' writes {amount(len(padded), 'number')} with other leading zeros than the files: "
            f"{values[row]} was taken for {found[row]}"
        )
    if start:
        row = next(iter(found))
        gone = str(values[row])[: -len(tails[row])].rstrip("/\\")
        notes.append(
            f"the column '{column}' names files in {gone}, which is not here; "
            f"they were found under {files.root} by the rest of their paths"
        )
    homes = {_home(path, tails[row]) for row, path in found.items()}
    if len(homes) == 1 and not any(names):
        home = next(iter(homes))
        inside = {row: path[len(home) + 1 if home else 0 :] for row, path in found.items()}
        return Found(
            f"{files.root}/{home}" if home else files.root, [inside.get(row) for row in range(len(names))], tuple(notes)
        )
    if not start:
        notes.append(f"the images of the column '{column}' are in {listed(sorted(home or '.' for home in homes))}")
    return Found(
        files.root, [found.get(row, moved(name, root, files.root)) for row, name in enumerate(names)], tuple(notes)
    )


def plain_path(text: str) -> str:
    """A path without the root and with / between its folders."""
    return "/".join(part for part in text.replace("\\", "/").split("/") if part not in ("", "."))


def moved(name: str | None, root: str, other: str) -> str | None:
    """A path that is relative to one folder, relative to another."""
    if name is None or root == other or os.path.isabs(name):  # noqa: PTH117
        return name
    return os.path.relpath(os.path.join(root, name), other)  # noqa: PTH118


def part_in_path(name: str) -> str | None:
    """The part that the outermost such folder of a path names."""
    return next((part for folder in name.split("/")[:-1] if (part := part_named(folder)) is not None), None)


def status_of(folder: str, name: str) -> os.stat_result | None:
    """Size and times of a file; None if there is no such file, or if it is a folder, pipe or device."""
    try:
        status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _as_written(root: str, text: str) -> str | None:
    """The name of an existing file, as it is written or with / for \\; None if there is none."""
    slashes = text.replace("\\", "/")
    return next((each for each in dict.fromkeys((text, slashes)) if status_of(root, each) is not None), None)


def _is_number(text: str) -> bool:
    """Whether a text is a whole number of up to 18 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def _stem(path: str) -> str:
    return os.path.splitext(path.rpartition("/")[2])[0]  # noqa: PTH122


def _tail(path: str, drop: int) -> str:
    return "/".join(path.split("/")[drop:])


def _walk(root: str) -> Iterator[str]:
    """Relative paths of the files under a folder, without hidden ones; each folder once, also with links."""
    waiting, seen, count = [""], {os.path.realpath(root)}, 0
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(f"{root}/{prefix}") as children:
                listed_children = sorted(children, key=lambda child: child.name)
        except OSError:
            continue
        for child in listed_children:
            if is_junk(child.name):
                continue
            if not child.is_dir():
                yield prefix + child.name
            elif (real := os.path.realpath(child.path)) not in seen:
                seen.add(real)
                waiting.append(f"{prefix}{child.name}/")
        count += len(listed_children)
        if count > _MOST_FILES:
            return


def _in_own_folder(paths: list[str], own: str | None) -> list[str]:
    """Of several files, those in a folder that is named like the table or the part of the row, if there are any."""
    if len(paths) < 2 or own is None:
        return paths
    kept = [path for path in paths if any(own in (folder, part_named(folder)) for folder in path.split("/")[:-1])]
    return kept or paths


def _chosen(
    fitting: dict[int, list[str]], values: Sequence[Any], where: str, column: str, choose: Choose
) -> dict[int, str]:
    """One file for each of these rows, all of one kind: the same folder and ending, as the user answers."""
    chosen: dict[int, str] = {}
    unique = [paths for paths in fitting.values() if len(paths) == 1]
    options = {row: paths for row, paths in fitting.items() if len(paths) > 1}
    while options:
        counts = Counter(_kind(path) for paths in (*options.values(), *unique) for path in paths)
        row, paths = next(iter(options.items()))
        kinds = {
            f"{kind[0] or '.'}/*{kind[1]}": kind
            for kind in sorted(dict.fromkeys(map(_kind, paths)), key=lambda kind: -counts[kind])[:_MOST_ANSWERS]
        }
        answers = [
            (text, f"{amount(counts[kind], 'file')} in {kind[0] or 'the folder itself'} with {kind[1]}")
            for text, kind in kinds.items()
        ]
        answer = choose(
            f"{where}: a name in the column '{column}' fits several files ('{values[row]}': {first_few(paths, 3)}); "
            "which are the images? (write the endings into the table, or name their folder: --root)",
            answers,
        )
        taken = {row: path for row, paths in options.items() for path in paths if _kind(path) == kinds[answer]}
        chosen |= taken
        options = {row: paths for row, paths in options.items() if row not in taken}
    return chosen


def _kind(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, os.path.splitext(name)[1]  # noqa: PTH122


def _home(path: str, tail: str) -> str:
    """The folder in which a tail starts: of a/b/1.png and b/1 it is a."""
    return "/".join(path.split("/")[: -len(tail.split("/"))])

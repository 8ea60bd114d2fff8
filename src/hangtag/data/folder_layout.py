"""Names with folders in them -> the class and part of each picture: train/cat/1.jpg is a cat to train on.

The same for a folder, a zip and a tar file. It reads nothing; where names can be read in two ways it says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hangtag.errors import DataError, UsageError
from hangtag.words import natural

__all__ = ["PART_NAMES", "PICTURE_ENDINGS", "Choose", "Layout", "is_picture_name", "layout_of"]

PART_NAMES = {
    "train": "train", "training": "train", "trainset": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip
"""Names of folders, columns' values and files that mean a part, in small letters."""

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".heic", ".heif",
)  # fmt: skip
"""Endings by which names are known to be pictures', in small letters; a picture may have any other name, too."""

Choose: TypeAlias = Callable[[str, Sequence[tuple[str, str]]], str]
"""Asked (question, ((answer, what it means), ...)), returns one of the answers, or raises."""

_NOT_PICTURES = {
    "txt", "csv", "tsv", "json", "jsonl", "md", "rst", "xml", "yaml", "yml", "toml", "ini", "cfg", "py", "ipynb", "js",
    "html", "htm", "css", "pdf", "doc", "docx", "xls", "xlsx", "log", "db", "sqlite", "npy", "npz", "pkl", "pt", "pth",
    "onnx", "h5", "mat", "parquet", "mp4", "avi", "mov", "mkv", "mp3", "wav", "sh", "exe", "lnk", "url", "sha256",
    "md5", "aae", "xmp", "zip", "tar", "gz", "tgz", "bz2", "tbz2", "xz", "txz", "7z", "rar",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How names were understood: for each its class and part (None where there are no parts), and that in words."""

    labels: tuple[str, ...]
    parts: tuple[str | None, ...]
    in_words: str


def is_picture_name(name: str) -> bool:
    """Whether a file of this name may be a picture: all but the endings of well-known other things."""
    ending = name.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    return ending not in _NOT_PICTURES


def layout_of(names: Sequence[str], where: str, choose: Choose, classes: str | None = None) -> Layout:
    """Classes and parts of pictures with these names.

    Args:
        names: relative, with /, at least one.
        where: what to call the whole in an error.
        choose: asked where folders can be read in two ways.
        classes: "top" or "leaf", answers that question in advance.

    Raises:
        DataError: the pictures lie in no folders.
        UsageError: two readings, and nobody to ask.

    >>> layout_of(["train/cat/1.png", "train/dog/1.png", "Test/cat/2.png"], "pets", choose=None).parts
    ('train', 'train', 'test')
    """
    folder_of = [name.rpartition("/")[0] for name in names]
    distinct = list(dict.fromkeys(folder_of))  # few, beside the names in them
    folders = [tuple(folder.split("/")) if folder else () for folder in distinct]
    while all(len(folder) >= 2 for folder in folders) and len({folder[0] for folder in folders}) == 1:
        if folders[0][0].lower() in PART_NAMES and len({folder[1] for folder in folders}) > 1:
            break  # only a train folder: its name is still a part
        folders = [folder[1:] for folder in folders]
    if not all(folders):
        loose = names[folder_of.index(distinct[folders.index(())])]
        raise DataError(
            f"{where}: {loose} lies in no class folder",
            "put each picture into a folder named after its class, or give a table with a label column",
        )
    if all(len(folder) == 1 and folder[0].lower() in PART_NAMES for folder in folders):
        shown = _some({folder[0] for folder in folders})
        raise DataError(
            f"{where}: its folders are parts ({shown}), and no class folders are in them",
            "put each picture into a folder named after its class, or name the table that holds the labels",
        )
    parts: list[str | None] = [None] * len(folders)
    in_words = "a folder per class"
    for place in (0, 1):  # train/cat/1.png, or cat/train/1.png
        found = [PART_NAMES.get(folder[place].lower()) if len(folder) >= 2 else None for folder in folders]
        if all(found):
            parts = list(found)
            folders = [folder[:place] + folder[place + 1 :] for folder in folders]
            in_words = f"a folder per class in {', '.join(_in_order({part for part in found if part}))}"
            break
        if place == 0 and any(found):
            named = {folder[0]: bool(part) for folder, part in zip(folders, found, strict=True)}
            raise UsageError(
                f"{where}: some folders are parts ({_some({name for name in named if named[name]})}) and some are "
                f"not ({_some({name for name in named if not named[name]})})",
                "keep either only parts (train, validation, test) or only classes at the top",
            )
    found_in = dict(zip(distinct, zip(_labels(folders, where, choose, classes), parts, strict=True), strict=True))
    return Layout(
        tuple(found_in[folder][0] for folder in folder_of), tuple(found_in[folder][1] for folder in folder_of), in_words
    )


def _labels(folders: list[tuple[str, ...]], where: str, choose: Choose, classes: str | None) -> list[str]:
    top = [folder[0] for folder in folders]
    leaf = ["/".join(folder) for folder in folders]
    mixed = {folder[0] for folder in folders if len(folder) == 1}
    if leaf == top or classes == "top" or (mixed and len(set(top)) > 1 and classes is None):
        return top
    if classes == "leaf":
        return leaf
    if len(set(top)) == 1:
        return ["/".join(folder[1:]) or folder[0] for folder in folders]
    answer = choose(
        f"{where}: folders lie inside folders; which are the classes? (--classes)",
        (
            ("top", f"the {len(set(top))} folders at the top: {_some(set(top))}"),
            ("leaf", f"the {len(set(leaf))} innermost folders: {_some(set(leaf))}"),
        ),
    )
    return top if answer == "top" else leaf


def _some(names: set[str]) -> str:
    chosen = sorted(names, key=natural)
    return ", ".join(chosen[:4]) + (", ..." if len(chosen) > 4 else "")


def _in_order(parts: set[str]) -> list[str]:
    return [part for part in ("train", "validation", "test") if part in parts]

"""Names with folders in them -> the class and part of each picture: train/cat/1.jpg is a cat to train on.

The rules are the same for a folder, a zip and a tar file. It reads no files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hangtag.data.labelled_images import PARTS
from hangtag.errors import DataError, UsageError
from hangtag.words import first_few, natural

__all__ = ["PART_NAMES", "PICTURE_ENDINGS", "Choose", "Layout", "is_picture_name", "layout_of"]

PART_NAMES = {
    "train": "train", "training": "train", "trainset": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip
"""Names of folders and files, and values of columns, that mean a part; in lower case."""

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".heic", ".heif",
)  # fmt: skip
"""Endings that only pictures have, in lower case; a picture may have another name, too."""

Choose: TypeAlias = Callable[[str, Sequence[tuple[str, str]]], str]
"""Called with (question, ((answer, its meaning), ...)); returns one of the answers, or raises an error."""

_NOT_PICTURES = {
    "txt", "csv", "tsv", "json", "jsonl", "md", "rst", "xml", "yaml", "yml", "toml", "ini", "cfg", "py", "ipynb", "js",
    "html", "htm", "css", "pdf", "doc", "docx", "xls", "xlsx", "log", "db", "sqlite", "npy", "npz", "pkl", "pt", "pth",
    "onnx", "h5", "mat", "parquet", "mp4", "avi", "mov", "mkv", "mp3", "wav", "sh", "exe", "lnk", "url", "sha256",
    "md5", "aae", "xmp", "zip", "tar", "gz", "tgz", "bz2", "tbz2", "xz", "txz", "7z", "rar",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The class and part of each name (None for undivided data), and a description in a few words."""

    labels: tuple[str, ...]
    parts: tuple[str | None, ...]
    description: str


def is_picture_name(name: str) -> bool:
    """Whether a file of this name may be a picture: its ending is not that of a well-known other format."""
    ending = name.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    return ending not in _NOT_PICTURES


def layout_of(names: Sequence[str], where: str, choose: Choose, classes: str | None = None) -> Layout:
    """Classes and parts of pictures with these names.

    Args:
        names: relative, with /, at least one.
        where: the name of the whole, for errors.
        choose: called if the folders can be read in two ways.
        classes: "top" or "leaf", answers that question in advance.

    Raises:
        DataError: the pictures are not in class folders.
        UsageError: the folders can be read in two ways, and `choose` cannot decide.

    >>> layout_of(["train/cat/1.png", "train/dog/1.png", "Test/cat/2.png"], "pets", choose=None).parts
    ('train', 'train', 'test')
    """
    folder_of = [name.rpartition("/")[0] for name in names]
    distinct = list(dict.fromkeys(folder_of))  # far fewer than names
    folders = _without_common_top([tuple(folder.split("/")) if folder else () for folder in distinct])
    if not all(folders):
        loose = names[folder_of.index(distinct[folders.index(())])]
        raise DataError(
            f"{where}: {loose} is not in a class folder",
            "put each image into a folder named after its class, or give a table with a label column",
        )
    if all(len(folder) == 1 and folder[0].lower() in PART_NAMES for folder in folders):
        raise DataError(
            f"{where}: the folders of its parts ({_some({folder[0] for folder in folders})}) contain no class folders",
            "put each image into a folder named after its class, or name the table that holds the labels",
        )
    folders, parts = _split_off_parts(folders, where)
    inside = ", ".join(part for part in PARTS if part in parts)
    read_as = dict(zip(distinct, zip(_labels(folders, where, choose, classes), parts, strict=True), strict=True))
    return Layout(
        tuple(read_as[folder][0] for folder in folder_of),
        tuple(read_as[folder][1] for folder in folder_of),
        f"one folder per class in {inside}" if inside else "one folder per class",
    )


def _without_common_top(folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Without the folders that contain all others; a lone train folder stays, because its name is a part."""
    while all(len(folder) >= 2 for folder in folders) and len({folder[0] for folder in folders}) == 1:
        if folders[0][0].lower() in PART_NAMES and len({folder[1] for folder in folders}) > 1:
            break
        folders = [folder[1:] for folder in folders]
    return folders


def _split_off_parts(folders: list[tuple[str, ...]], where: str) -> tuple[list[tuple[str, ...]], list[str | None]]:
    """The folders without the level that names parts, and the part of each: train/cat/1.png or cat/train/1.png."""
    for level in (0, 1):
        parts = [PART_NAMES.get(folder[level].lower()) if len(folder) >= 2 else None for folder in folders]
        if all(parts):
            return [folder[:level] + folder[level + 1 :] for folder in folders], parts
        if level == 0 and any(parts):
            named = {folder[0]: part is not None for folder, part in zip(folders, parts, strict=True)}
            raise UsageError(
                f"{where}: some folders are parts ({_some({name for name in named if named[name]})}) and some are "
                f"not ({_some({name for name in named if not named[name]})})",
                "at the top level, keep only parts (train, validation, test) or only classes",
            )
    return folders, [None] * len(folders)


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
        f"{where}: the folders are nested; which ones are the classes? (--classes)",
        (
            ("top", f"the {len(set(top))} folders at the top: {_some(set(top))}"),
            ("leaf", f"the {len(set(leaf))} innermost folders: {_some(set(leaf))}"),
        ),
    )
    return top if answer == "top" else leaf


def _some(names: set[str]) -> str:
    return first_few(sorted(names, key=natural), 4)

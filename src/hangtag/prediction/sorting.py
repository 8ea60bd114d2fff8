"""Classified pictures -> a folder for each label, as copies or links; those that are not sure have a folder, too."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag.data.labelled_images import folder_names
from hangtag.data.picture_list import PictureList
from hangtag.data.store.containers import Container, Folder, Sample
from hangtag.errors import SaveError, UsageError
from hangtag.files import make_own_folder, saving, short_name
from hangtag.model.predictor import Answer
from hangtag.pictures import PICTURE_ENDINGS
from hangtag.words import bytes_in_words

__all__ = ["NOT_SURE", "Sorter", "check_sortable"]

NOT_SURE = "not sure"
"""The folder of pictures of whose label the model is not sure."""

_STARTS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif",
           b"MM\0*": ".tif", b"RIFF": ".webp"}  # fmt: skip


def check_sortable(folder: Path) -> None:
    """Raise UsageError unless the folder is empty or does not exist."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is not an empty folder", "name a new folder; hangtag overwrites no pictures")


class Sorter:
    """Puts pictures into the folder of their label. Pictures of the same name get a number.

    Args:
        folder: new or empty.
        class_names: all labels; their folders are named so that every system can have them.
        link: make symbolic links to files instead of copies. Pictures in archives and tables are always copied.
        pictures: those that will be sorted, to see whether there is room for copies.

    Raises:
        UsageError: the folder is not empty.
        SaveError: the disk has no room for copies.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], link: bool, pictures: PictureList) -> None:
        check_sortable(folder)
        *names, not_sure = folder_names([*class_names, NOT_SURE])
        self.folders = {label: folder / name for label, name in zip(class_names, names, strict=True)}
        self.not_sure = folder / not_sure
        self.folder, self.link = folder, link
        self.taken: set[tuple[str, str]] = set()  # folder and name, in small letters
        make_own_folder(folder)
        if not link:
            self._check_room(pictures)

    def put(self, sample: Sample, container: Container, answer: Answer) -> Path | None:
        """Copy or link one picture; where it is now, or None if it has no answer.

        Raises:
            SaveError: the disk is full, or the picture is gone.
        """
        if answer.label is None:
            return None
        folder = self.not_sure if answer.sure is False else self.folders[answer.label]
        with saving(folder):
            folder.mkdir(exist_ok=True)
        if isinstance(container, Folder):
            source = Path(container.root, sample.key)
            target = self._free(folder, source.name)
            with saving(target):
                if self.link:
                    target.symlink_to(source.absolute())
                else:
                    shutil.copy2(source, target)
            return target
        content = container.content(sample.key)
        name = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "-", sample.name.rpartition("/")[2]).strip(" .") or "image"
        target = self._free(folder, name if name.lower().endswith(PICTURE_ENDINGS) else name + _ending_of(content))
        with saving(target):
            target.write_bytes(content)
        return target

    def _free(self, folder: Path, name: str) -> Path:
        """A path in the folder that no picture has: name.jpg, name (2).jpg, ..."""
        stem, ending = os.path.splitext(name)  # noqa: PTH122
        stem, ending = short_name(stem, 220), short_name(ending, 20)
        number, free = 1, stem + ending
        while (folder.name, free.lower()) in self.taken or os.path.lexists(folder / free):
            number += 1
            free = f"{stem} ({number}){ending}"
        self.taken.add((folder.name, free.lower()))
        return folder / free

    def _check_room(self, pictures: PictureList) -> None:
        size = sum(_size_of(pictures.containers[each.container], each.key) for each in pictures.samples)
        with saving(self.folder):
            free = shutil.disk_usage(self.folder).free
        if size > free:
            raise SaveError(
                f"{self.folder}: the disk is full: the copies take {bytes_in_words(size)}, and "
                f"{bytes_in_words(free)} are free",
                "make links instead: --link, or choose a folder on another disk",
            )


def _size_of(container: Container, key: Any) -> int:
    """Bytes of a file; 0 for anything else, which is unpacked only later."""
    try:
        return Path(container.root, key).stat().st_size if isinstance(container, Folder) else 0
    except (OSError, TypeError, ValueError):
        return 0


def _ending_of(content: bytes) -> str:
    if content[4:8] == b"ftyp":
        return ".avif" if b"avif" in content[8:32] else ".heic"
    return next((ending for start, ending in _STARTS.items() if content.startswith(start)), ".img")

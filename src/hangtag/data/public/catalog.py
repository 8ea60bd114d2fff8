"""The public data sets in `catalog.json`: their content, where to find them, and the checksums of their files.

Every checksum is SHA-256 and published by others: those of MNIST's content in many places; those of KMNIST and of the
archives of EMNIST and CIFAR by TensorFlow Datasets (`url_checksums/`); those of the files in EMNIST's archive by Connor
Olding's script `mnists`, which agrees with TensorFlow Datasets on MNIST; those of the files in CIFAR's archives by
torchvision-ruby. The classes of EMNIST Balanced are those of emnist-balanced-mapping.txt: a small letter has a class
of its own only if it looks unlike its capital.

The file is JSON because Python reads TOML a hundred times slower, at the start of every command.

`datasets.py` finds and reads them.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NAMED", "Archive", "DataFile", "NamedSet"]


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its name without .gz and the number of its items.

    Attributes:
        sha256: checksum of its decompressed content; empty if not published.
        packed_sha256: checksum of the .gz file that its authors distribute; empty if `sha256` is known.
    """

    name: str
    items: int
    sha256: str = ""
    packed_sha256: str = ""


@dataclass(frozen=True)
class Archive:
    """The one file in which a data set is distributed.

    Attributes:
        folder: the folder inside the archive that holds the files, with a slash; a prefix of their names.
        ending: a suffix of their names.
        note: what the archive holds, for those who download it by hand.
    """

    name: str
    sha256: str
    folder: str
    note: str
    ending: str = ""


@dataclass(frozen=True)
class NamedSet:
    """A public data set, with everything needed to find, check and read it.

    Its items are those of the files `images` in their order, the training part first. There are three kinds: IDX
    files of images and of labels; CIFAR's records, each with label bytes and then the red, green and blue pixels
    (`label_bytes`); and no files, for a data set that scikit-learn contains.

    Attributes:
        what: a description of its images that completes "these are ...".
        shape: of one image: (height, width) or (height, width, 3).
        train: number of training items; the others are for testing.
        home: the page of its authors.
        fingerprint: of all images and labels (`datasets.fingerprint`); empty if unknown.
        first_label: the number of the first class in the files.
        transposed: whether images are stored column by column.
        label_bytes: number of bytes before each image in files that hold both; the last is the label.
        balanced: whether each part has the same number of images of every class.
    """

    name: str
    title: str
    what: str
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    train: int
    home: str
    images: tuple[DataFile, ...] = ()
    labels: tuple[DataFile, ...] = ()
    fingerprint: str = ""
    mirrors: tuple[str, ...] = ()
    archive: Archive | None = None
    first_label: int = 0
    transposed: bool = False
    label_bytes: int = 0
    balanced: bool = False
    debian_package: str = ""
    debian_folder: Path | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        return (*self.images, *self.labels)

    @property
    def items(self) -> int:
        return sum(file.items for file in self.images)

    @property
    def pixels(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape)

    @property
    def parts(self) -> dict[str, slice]:
        """The slices of training and test items; empty if the authors did not divide the data set."""
        return {"train": slice(0, self.train), "test": slice(self.train, self.items)} if self.files else {}

    @property
    def downloads(self) -> tuple[str, ...]:
        """The names of the files to download."""
        return (self.archive.name,) if self.archive else tuple(f"{file.name}.gz" for file in self.files)


def _dataset(name: str, entry: dict[str, Any]) -> NamedSet:
    tuples = {key: tuple(entry.get(key, ())) for key in ("class_names", "shape", "mirrors")}
    files = {key: tuple(DataFile(**file) for file in entry.get(key, ())) for key in ("images", "labels")}
    archive = {"archive": Archive(**entry["archive"])} if "archive" in entry else {}
    folder = {"debian_folder": Path(entry["debian_folder"])} if "debian_folder" in entry else {}
    return NamedSet(name, **{**entry, **tuples, **files, **archive, **folder})


_TABLE = json.loads(Path(__file__).with_name("catalog.json").read_text(encoding="utf-8"))
NAMED = {name: _dataset(name, entry) for name, entry in _TABLE.items()}
"""Public data sets by name."""

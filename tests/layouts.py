"""Random layouts of data sets with known truth: the pictures, labels and parts that a reader must find in them.

Each picture carries a number in its pixels, so that it is recognised in whatever was read. A layout is a combination of
conventions drawn at random; its seed makes it again. `Draw` draws each choice by random numbers of its own: one choice
can be made plain without a change of the others, which is how a failing layout is made smaller.

Layouts that occur in published data sets are in `known_layouts.py`.
"""

import csv
import gzip
import io
import json
import random
import re
import struct
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")
Files = dict[str, bytes]
Columns = dict[str, list[Any]]

DARK, LIGHT = 40, 215
GRID = 4  # blocks to a side, a bit each: 12 of the number and 4 to check it
NUMBERS = 4096


class Draw:
    """The choices of one layout.

    Args:
        seed: of all choices.
        plain: the choices for which the first option is taken.
    """

    def __init__(self, seed: str, plain: Iterable[str] = ()) -> None:
        self.seed, self.plain = seed, frozenset(plain)
        self.made: dict[str, str] = {}

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def pick(self, name: str, options: Sequence[T]) -> T:
        place = 0 if name in self.plain else self.random(name).randrange(len(options))
        if place:
            self.made[name] = repr(options[place])[:60]
        else:
            self.made.pop(name, None)
        return options[place]

    def chance(self, name: str, share: float) -> bool:
        drawn = name not in self.plain and self.random(name).random() < share
        if drawn:
            self.made[name] = "yes"
        return drawn


# --- pictures --------------------------------------------------------------------------------------------------


def picture(code: int, height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    """(height, width) uint8 with the number in 4 by 4 blocks; the sides are multiples of 4."""
    bits = code | _check(code) << 12
    blocks = np.array([LIGHT if bits >> place & 1 else DARK for place in range(GRID * GRID)], np.uint8)
    return np.kron(blocks.reshape(GRID, GRID), np.ones((height // GRID, width // GRID), np.uint8))


def code_of(image: NDArray[np.uint8], lossless: bool = True) -> int | None:
    """The number in an image that was read, or None if it has none, or if its grey levels were changed."""
    grey = image.astype(float).mean(axis=2) if image.ndim == 3 else image.astype(float)
    height, width = grey.shape
    if height % GRID or width % GRID:
        return None
    blocks = grey.reshape(GRID, height // GRID, GRID, width // GRID).mean(axis=(1, 3)).ravel()
    light = blocks > (DARK + LIGHT) / 2
    if lossless and np.abs(blocks - np.where(light, LIGHT, DARK)).max() > 8:
        return None
    bits = sum(int(bit) << place for place, bit in enumerate(light))
    code = bits % NUMBERS
    return code if bits >> 12 == _check(code) else None


def _check(code: int) -> int:
    return (code * 40503 >> 7 ^ code >> 3) & 15


def encoded(pixels: NDArray[np.uint8], ending: str = ".png", mode: str = "L") -> bytes:
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(ending.lstrip(".").lower(), ending.lstrip(".").upper())
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **({"quality": 95} if kind in ("JPG", "JPEG") else {}))
    return buffer.getvalue()


# --- truth -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A picture, by its number, with its class and part."""

    code: int
    label: str
    part: str | None = None


@dataclass
class Layout:
    """What is given to `hangtag.read`, and what must come out.

    Attributes:
        truth: the pictures with their classes and parts.
        also: other readings that are right, too.
        said: for each thing that is left out or decided: words, one of which a note must contain.
        doubtful: whether there are two readings, so that a refusal is right.
        skipped: names that must be among the skipped files.
        files: the name of each picture's file, by number, where it has one.
        lossless: whether grey levels must be kept.
        table: whether the skipped names are rows of a table, which a reader of class folders beside it may not see.
    """

    what: Any
    truth: list[Example]
    options: dict[str, Any] = field(default_factory=dict)
    also: list[list[Example]] = field(default_factory=list)
    said: list[tuple[str, ...]] = field(default_factory=list)
    doubtful: bool = False
    skipped: list[str] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)
    lossless: bool = True
    table: bool = False


def without_parts(examples: Iterable[Example]) -> list[Example]:
    return [replace(each, part=None) for each in examples]


def canonical(label: str) -> str:
    """A class name without what may change in reading: the Unicode form, spaces at the ends, .0, and tabs."""
    name = unicodedata.normalize("NFC", label).strip().replace("\t", r"\t")
    return re.sub(r"^(-?\d+)\.0+$", r"\1", name)


@dataclass
class Content:
    """The pictures of a layout before they are laid out.

    Attributes:
        spell: how the class names are written in files, in contrast to `Example.label`.
    """

    examples: list[Example]
    classes: list[str]
    parts: tuple[str | None, ...]
    height: int
    width: int
    ending: str
    mode: str
    spell: Callable[[str], str] = str

    @property
    def lossless(self) -> bool:
        return self.ending.lower() not in (".jpg", ".jpeg", "mixed")

    def ending_of(self, example: Example) -> str:
        return (".png", ".jpg", ".bmp", ".PNG")[example.code % 4] if self.ending == "mixed" else self.ending

    def pixels(self, example: Example) -> NDArray[np.uint8]:
        return picture(example.code, self.height, self.width)

    def bytes_of(self, example: Example) -> bytes:
        return encoded(self.pixels(example), self.ending_of(example), self.mode)

    def number(self, example: Example) -> int:
        return self.classes.index(example.label)

    def extra(self, place: int) -> Example:
        """A picture that is in no truth."""
        taken = {each.code for each in self.examples}
        return Example([code for code in range(1, NUMBERS) if code not in taken][place * 37], "")

    def bytes_of_extra(self, place: int) -> bytes:
        """A PNG file of such a picture, of the same size as the others."""
        return encoded(self.pixels(self.extra(place)))


NAMES: tuple[tuple[str, ...], ...] = (
    ("cat", "dog", "bird", "fish", "ant"),
    ("Cat", "Dog", "Bird", "Fish", "Ant"),
    ("red panda", "T-shirt (blue)", "half & half", "it's", "100% wool"),
    ("café", "thé", "crème brûlée", "Zürich", "Ångström"),
    ("0", "1", "2", "3", "4"),
    ("class 1", "class 2", "class 10", "class 11", "class 20"),
    ("01", "02", "10", "003", "20"),
    ("+1", "-1", "+2", "-2", "+3"),
    ("_other", "~rest", "#7", "!no", "=x"),
    (".net", ".5mm", "..x", "a.b", "c."),
    ("고양이", "개", "새", "물고기", "개미"),
    ("😀", "🐶", "👩‍🔬", "🇩🇪", "❤️"),
    ("x" * 120, "x" * 119 + "y", "z" * 100, "w" * 90, "v" * 80),
    ("0.5", "1.5", "2.5", "10.5", "-0.5"),
    ("NA", "EU", "AS", "nan", "None"),
    ("yes", "no", "true", "false", "null"),
    ("train", "bus", "car", "tram", "test pilot"),
    ("valid", "invalid", "expired", "void", "lost"),
    ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    ("Апельсин", "яблоко", "груша", "лимон", "слива"),
    ("images", "photos", "drawings", "maps", "masks"),
    ("cat;tabby", "cat,black", 'the "dog"', "a\tb", "x|y"),
    ("A", "B", "C", "D", "E"),
    ("left", "right", "up", "down", "stop"),
)

ENDINGS = (".png", ".png", ".png", ".jpg", ".JPG", ".jpeg", ".PNG", ".bmp", ".tif", ".gif", "mixed")
PARTS: tuple[tuple[str | None, ...], ...] = (
    (None,), (None,), ("train", "test"), ("train", "test"), ("train", "validation", "test"),
    ("train", "validation", "test"), ("train", "validation"), ("train",),
)  # fmt: skip


def content(
    draw: Draw,
    parts: Sequence[tuple[str | None, ...]] = PARTS,
    names: Sequence[tuple[str, ...]] = NAMES,
    least: int = 2,
) -> Content:
    """Two to five classes, two to four pictures of each in each part."""
    dice = draw.random("content")
    classes = list(draw.pick("class names", names))[: draw.pick("classes", (2, 3, 3, 4, 5))]
    divided = draw.pick("parts", parts)
    codes = iter(dice.sample(range(1, NUMBERS), 200))
    examples = [
        Example(next(codes), label, part)
        for part in divided
        for label in classes
        for _ in range(dice.randint(least, 4))
    ]
    if len(divided) > 1 and draw.chance("a class is missing in the last part", 0.1):
        examples = [each for each in examples if each.part != divided[-1] or each.label != classes[0]]
    height, width = draw.pick("size", ((8, 8), (8, 8), (12, 12), (16, 16), (8, 12), (16, 12)))
    decomposed = draw.chance("names in NFD", 0.3)
    return Content(
        examples, classes, divided, height, width, draw.pick("ending", ENDINGS), draw.pick("mode", ("L", "L", "RGB")),
        lambda name: unicodedata.normalize("NFD", name) if decomposed else name,
    )  # fmt: skip


def file_names(draw: Draw, data: Content, per_folder: bool) -> dict[int, str]:
    """A file name for each picture, unique in all or, per folder, in its class and part."""
    scheme = draw.pick(
        "file names",
        ("{n}", "{n:05d}", "IMG_{n}", "img ({n})", "{label}_{n}", "n{code:04d}_{n}", "été {n}", "a.b.{n}", "{code}",
         "photo-{n} - Copy", "DSC0{n}_edited", "{n}_mask_free", "scan #{n}", "{n}%20x"),
    )  # fmt: skip
    numbers: Counter[tuple[str, str | None]] = Counter()
    names = {}
    for place, each in enumerate(data.examples, 1):
        folder = (each.label, each.part)
        numbers[folder] += 1
        n = numbers[folder] if per_folder else place
        label = re.sub(r"[^\w]", "", each.label)[:20]
        names[each.code] = scheme.format(n=n, label=label, code=each.code) + data.ending_of(each)
    return names


# --- writing ---------------------------------------------------------------------------------------------------


def write(root: Path, files: Files) -> None:
    """Write the files; a name that ends with / is an empty folder."""
    for name, content_of in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of)


def archived(draw: Draw, root: Path, files: Files) -> Path:
    """The files as an archive, as some tool would write it."""
    root.mkdir(parents=True, exist_ok=True)
    top = draw.pick("folders around", ("", "photos/", "photos/photos/", "archive/data/"))
    named = {top + name: content_of for name, content_of in files.items()}
    if draw.chance("folder entries", 0.3):
        folders = {f"{'/'.join(name.split('/')[:end])}/" for name in named for end in range(1, name.count("/") + 1)}
        named = dict.fromkeys(sorted(folders), b"") | named
    if draw.chance("members of a Mac", 0.3):
        junk = {f"__MACOSX/{name.rpartition('/')[0]}/._{name.rpartition('/')[2]}": b"\0\5\x16\7" * 9 for name in files}
        named |= junk | {f"{top}.DS_Store": b"\0\0\0\1Bud1"}
    kind = draw.pick("archive", ("zip", "zip", "zip", "tar", "tar.gz", "tar.xz", "zip of old names", "backslashes"))
    if kind.startswith("tar"):
        path = root / f"photos.{kind}"
        dotted = "./" if draw.chance("names begin with ./", 0.3) else ""
        way = draw.pick("tar format", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        with tarfile.open(path, "w" + kind[3:].replace(".", ":"), format=way) as tar:  # type: ignore[call-overload]
            for name, content_of in named.items():
                member = tarfile.TarInfo(dotted + name.rstrip("/"))
                member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                member.size = len(content_of)
                tar.addfile(member, io.BytesIO(content_of))
        return path
    path = root / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content_of in named.items():
            packed.writestr(name, content_of)
    if kind == "zip of old names":  # UTF-8 without the flag that says so, as macOS writes it
        path.write_bytes(_without_utf8_flag(path.read_bytes()))
    elif kind == "backslashes":  # as old .NET wrote it
        raw = path.read_bytes()
        for name in sorted(named, key=len, reverse=True):
            raw = raw.replace(name.encode(), name.encode().replace(b"/", b"\\"))
        path.write_bytes(raw)
    return path


def _without_utf8_flag(raw: bytes) -> bytes:
    changed = bytearray(raw)
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := raw.find(signature, at + 1)) >= 0:
            (flags,) = struct.unpack_from("<H", changed, at + place)
            struct.pack_into("<H", changed, at + place, flags & ~0x800)
    return bytes(changed)


def noise(draw: Draw, data: Content, files: Files) -> tuple[Files, list[str]]:
    """Files that belong to no class, and the names of broken pictures among them."""
    made: Files = {}
    folders = sorted({name.rpartition("/")[0] for name in files if "/" in name})
    some = folders[len(folders) // 2] + "/" if folders else ""
    odd = data.bytes_of_extra(1)
    about = b"These are pictures of things. They may be used by anyone.\n" * 3
    options: dict[str, Files] = {
        "a readme": {"README.md": about},
        "a licence": {"LICENSE": about},
        "requirements": {"requirements.txt": b"numpy\nhangtag\n"},
        "a Mac's files": {f"{folder}/.DS_Store": b"\0\0\0\1Bud1" for folder in folders}
        | {".DS_Store": b"\0\0\0\1Bud1"},
        "a Mac's doubles": {f"{some}._{each}.png": b"\0\5\x16\7" * 9 for each in range(3)},
        "Windows' files": {f"{some}Thumbs.db": b"\xd0\xcf\x11\xe0" * 9, f"{some}desktop.ini": b"[x]\n"},
        "checkpoints of a notebook": {f"{some}.ipynb_checkpoints/1-checkpoint.png": odd},
        "checkpoints at the top": {".ipynb_checkpoints/1-checkpoint.png": odd},
        "thumbnails": {".thumbnails/1.png": odd, f"{some}@eaDir/1.png/SYNOPHOTO_THUMB_M.png": odd},
        "a deleted photo": {f"{some}.trashed-1690000000-1.png": odd},
        "a history": {".git/config": b"[core]\n", ".git/objects/aa/bb": b"x\x9c"},
        "an empty folder": {"nothing/": b""},
        "an empty class": {f"{folders[0].rpartition('/')[0]}/nothing/".lstrip("/"): b""} if folders else {},
        "a table of results": {"results.csv": b"epoch,loss,accuracy\n1,2.0,0.5\n2,1.0,0.6\n3,1.0,0.7\n4,1.0,0.8\n"},
        "a submission": {"sample_submission.csv": b"id,label\n9001,0\n9002,0\n9003,0\n"},
        "class names": {"classes.txt": "\n".join(data.classes).encode()},
        "a side car": {f"{name}.json": b"{}" for name in list(files)[:2]},
        "a script": {"prepare.py": b"import os\n", "run.sh": b"#!/bin/sh\n", "Makefile": b"all:\n\ttrue\n"},
        "other files": {"paper.pdf": b"%PDF-1.4", "model.h5": b"\x89HDF", f"{some}clip.mp4": b"\0\0\0\x18ftypmp42"},
        "a file _DS_Store": {f"{some}_DS_Store": b"\0\0\0\1Bud1"},
        "a file without ending": {f"{some}notes": about},
        "settings": {"data.yaml": b"nc: 2\n", "config.json": b'{"a": 1}', "dataset_infos.json": b"{}"},
    }
    for name, extra in options.items():
        if draw.chance(f"noise: {name}", 0.05):
            made |= extra
    broken = []
    if some and draw.chance("noise: a broken picture", 0.08):
        name = f"{some}broken{data.ending if data.ending != 'mixed' else '.png'}"
        made[name] = draw.pick("noise: how broken", (b"", b"\x89PNG\r\n\x1a\nnothing", encoded(picture(5))[:40]))
        broken.append(name.rpartition("/")[2])
    return {name: made[name] for name in made if name not in files}, broken


# --- folders and archives --------------------------------------------------------------------------------------

FOLDERS = (
    ("train", "val", "test"), ("train", "valid", "test"), ("train", "validation", "test"), ("train", "dev", "test"),
    ("Train", "Val", "Test"), ("TRAIN", "VALID", "TEST"), ("Training", "Validation", "Testing"),
    ("training_set", "validation_set", "test_set"), ("train_set", "val_set", "test_set"),
    ("trainset", "valset", "testset"), ("training", "validation", "test"),
    ("Training_Set", "Validation_Set", "Test_Set"),
    ("train_images", "val_images", "test_images"), ("training-images", "validation-images", "test-images"),
    ("Training Data", "Validation Data", "Testing Data"), ("train_data", "val_data", "test_data"),
    ("data_train", "data_val", "data_test"), ("train/images", "val/images", "test/images"),
    ("images/train", "images/val", "images/test"), ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
    ("train/train", "valid/valid", "test/test"), ("Train/Train", "Validation/Validation", "Test/Test"),
    ("pets_train/pets_train", "pets_val/pets_val", "pets_test/pets_test"), ("TrainSet", "ValSet", "TestSet"),
    ("trainingSet/trainingSet", "validationSet/validationSet", "testSet/testSet"), ("train2017", "val2017", "test2017"),
    ("01_train", "02_val", "03_test"), ("split=train", "split=validation", "split=test"), ("train1", "val1", "test1"),
    ("rps-train", "rps-validation", "rps-test"), ("rps", "rps-validation-set", "rps-test-set"),
    ("horse-or-human", "validation-horse-or-human", "test-horse-or-human"), ("tr", "va", "te"), ("trn", "vld", "tst"),
    ("train", "eval", "test"), ("train", "val", "holdout"), ("imgs/TRAIN", "imgs/VAL", "imgs/TEST"),
    ("train_dir", "val_dir", "test_dir"), ("for training", "for validation", "for test"),
    ("train.new", "val.new", "test.new"),
)  # fmt: skip
_NUMBER = {"train": 0, "validation": 1, "test": 2}
_UNCOMMON = {"rps", "horse-or-human", "tr", "trn"}
_AROUND = ("", "", "", "photos/", "data/raw/", "archive (1)/", "pictures/pictures/")


def in_folder(top: str, name: str) -> str:
    return f"{top}/{name}" if top else name


def folders(draw: Draw, root: Path) -> Layout:
    """A folder or an archive with a folder for each class."""
    data = content(draw)
    spelled = {label: data.spell(label).replace("/", "-") for label in data.classes}
    names = file_names(draw, data, per_folder=True)
    scheme = draw.pick("folders of the parts", FOLDERS)
    class_first = draw.chance("class folders contain the parts", 0.15)
    deeper = draw.chance("folders inside the classes", 0.08)
    around = draw.pick("around", _AROUND)
    files: Files = {}
    for each in data.examples:
        part = scheme[_NUMBER[each.part]] if each.part else ""
        class_folder = spelled[each.label]
        if deeper:
            class_folder += f"/session{1 + each.code % 2}"
        inside = in_folder(class_folder, part) if class_first else in_folder(part, class_folder)
        files[f"{around}{inside}/{names[each.code]}"] = data.bytes_of(each)
    layout = Layout(None, data.examples, files=names, lossless=data.lossless)
    layout.doubtful = deeper or bool(data.parts[0] and (scheme[0] in _UNCOMMON or (class_first and "/" in scheme[0])))
    if data.parts == ("train",):
        layout.also.append(without_parts(data.examples))
    if scheme[1] == "eval":  # for validation or for testing
        layout.doubtful |= "test" in data.parts
        layout.also.append(
            [replace(each, part="test") if each.part == "validation" else each for each in data.examples]
        )
    doubtful_names = {"train", "valid", "images", "photos", "masks"} | ({".net"} if class_first or deeper else set())
    layout.doubtful |= bool(doubtful_names & set(data.classes))
    extra, broken = noise(draw, data, files)
    layout.skipped = broken
    unlabelled = scheme[2] not in ("te", "test.new") and "test" not in data.parts
    if unlabelled and draw.chance("an unlabelled test folder", 0.06):
        extra |= {f"{around}{scheme[2]}/{number}.png": data.bytes_of_extra(number) for number in (1, 2, 3)}
        layout.said.append(("test", "tst", "te/", scheme[2].lower()))
        layout.doubtful = layout.doubtful or not data.parts[0]
        layout.also += [[replace(each, part="train") for each in data.examples]] if not data.parts[0] else []
    if draw.chance("a picture at the top", 0.03):
        extra |= {f"{around}banner.png": data.bytes_of_extra(9)}
        layout.said.append(("banner", "class folder"))
        layout.doubtful = True
    if draw.chance("a copy of everything inside", 0.02):
        copied = {
            f"{around}{scheme[0].split('/')[0] if data.parts[0] else 'copy'} 2/{name}": each
            for name, each in files.items()
        }
        extra |= copied
        layout.said.append(("copy", " 2"))
        layout.doubtful = True
    return _packed(draw, root, layout, files | extra)


def _packed(draw: Draw, root: Path, layout: Layout, files: Files) -> Layout:
    if draw.chance("packed", 0.35):
        layout.what = archived(draw, root, {name: each for name, each in files.items() if not name.endswith("/")})
    else:
        layout.what = root / draw.pick("folder", ("photos", "my data", "données", "train"))
        write(layout.what, files)
        if draw.chance("path as text", 0.3):
            layout.what = str(layout.what)
    return layout


def nested(draw: Draw, root: Path) -> Layout:
    """Classes in groups of classes: which level is meant is asked, or said by an option."""
    data = content(draw)
    groups = ("wild", "tame")
    names = file_names(draw, data, per_folder=True)
    scheme = draw.pick("folders of the parts", FOLDERS[:12])
    level = draw.pick("classes", (None, "top", "leaf"))
    files: Files = {}
    truth = []
    for each in data.examples:
        group = groups[data.number(each) % 2]
        part = scheme[_NUMBER[each.part]] if each.part else ""
        files[f"{in_folder(part, group)}/{data.spell(each.label)}/{names[each.code]}"] = data.bytes_of(each)
        truth.append(replace(each, label=group if level == "top" else f"{group}/{each.label}"))
    layout = Layout(None, truth, files=names, lossless=data.lossless, doubtful=level is None)
    layout.options = {"classes": level} if level else {}
    if {"train", "valid", "images", "photos", "masks", ".net"} & set(data.classes):  # .net may be hidden
        layout.doubtful = True
    if data.parts == ("train",):
        layout.also.append(without_parts(truth))
    if level is None:  # only a refusal is right
        layout.truth, layout.also = [], []
    return _packed(draw, root, layout, files)


def looking_alike(draw: Draw, root: Path) -> Layout:
    """Two spellings of one class: joined, or kept apart, but not in silence; NFC and NFD are one class."""
    one, other, same = draw.pick(
        "spellings",
        (("Cat", "cat", False), ("café", unicodedata.normalize("NFD", "café"), True), ("cat", "cat ", True),
         ("cat", "cat\u200b", True), ("cat", "ｃat", False), ("1", "1.0", True), ("1", "01", False),
         ("T-Shirt", "T-shirt", False), ("red panda", "red  panda", False), ("red_panda", "red panda", False),
         ("straße", "STRASSE", False), ("cat", "cat\u00a0", True), ("a", "а", False)),
    )  # fmt: skip
    data = content(draw, names=((one, other, "dog", "bird", "fish"),), parts=((None,), ("train", "test")), least=3)
    data.classes = data.classes[:3]
    names = file_names(draw, data, per_folder=True)
    joined = [replace(each, label=one if each.label == other else each.label) for each in data.examples]
    layout = Layout(None, joined, files=names, lossless=data.lossless, doubtful=not same)
    if not same:
        layout.also = [
            data.examples,
            [replace(each, label=other if each.label == one else each.label) for each in joined],
        ]
        layout.said = [(one.lower(), other.strip().lower(), "alike", "join", "spell")]
    if len({canonical(each.label) for each in joined}) < 2:
        layout.doubtful = True
    form = draw.pick("form", ("folder", "csv", "jsonl", "list", "frame"))
    root = root / "alike"
    files = {
        f"{each.part or ''}/{each.label}/{names[each.code]}".lstrip("/"): data.bytes_of(each) for each in data.examples
    }
    write(root, files)
    if form == "folder":
        layout.what = root
        return layout
    paths = [f"{each.part or ''}/{each.label}/{names[each.code]}".lstrip("/") for each in data.examples]
    labels = [each.label for each in data.examples]
    columns: Columns = {"image": paths, "label": labels}
    if data.parts[0]:
        columns["split"] = [each.part for each in data.examples]
    if form in ("csv", "jsonl"):
        layout.what = root / f"labels.{form}"
        layout.what.write_bytes(written(columns, form))
    elif form == "frame":
        layout.what, layout.options = pandas.DataFrame(columns), {"root": root}
    else:
        layout.what = [(root / path, label) for path, label in zip(paths, labels, strict=True)]
        layout.truth, layout.also = without_parts(layout.truth), [without_parts(each) for each in layout.also]
    return layout


# --- tables ----------------------------------------------------------------------------------------------------

IMAGE_COLUMNS = (
    "image", "path", "file", "filename", "file_name", "image_path", "Filename", "img", "image_name", "filepaths",
    "image_id", "id", "ID", "Image", "Path", "Image Index", "file name", "imgpath", "img_path", "fname", "name",
    "photo", "id_code", "img_id", "picture", "bild", "images", "ImageID", "image_file", "relative_path",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "category", "target", "y", "labels", "Class", "Label", "class_name", "ClassId", "species",
    "breed", "diagnosis", "dx", "emotion", "tag", "Category", "label_name", "class_id", "klasse", "expected",
    "Finding Labels",
)  # fmt: skip
PART_COLUMNS = (
    "split", "subset", "phase", "set", "partition", "Usage", "data set", "dataset", "Split", "data_split", "part",
    "split_name", "train_test", "mode", "purpose", "stage", "usage", "SET", "dataset_split", "train/test", "evaluation",
)  # fmt: skip
PART_VALUES = (
    ("train", "val", "test"), ("train", "valid", "test"), ("train", "validation", "test"), ("Train", "Val", "Test"),
    ("TRAIN", "DEV", "TEST"), ("Training", "Validation", "Testing"), ("training", "validation", "test"),
    ("train_set", "val_set", "test_set"), (" train", "val ", "test "), ("Training", "PublicTest", "PrivateTest"),
    ("trn", "vld", "tst"), ("tr", "va", "te"), (0, 1, 2), ("a", "b", "c"), ("train", "eval", "test"),
    ("learn", "tune", "judge"), ("train", "val", "holdout"),
)  # fmt: skip
FORMATS = (
    "csv", "csv", "csv", "semicolon", "tab", "tsv", "json", "jsonl", "parquet", "bom", "crlf", "quoted", "utf-16",
    "cp1252", "columns.json", "blank lines", "pipe", "comma space", "sep=",
)  # fmt: skip
_REFUSABLE = ("utf-16", "cp1252", "columns.json", "pipe", "sep=")
_SUFFIX = {"tsv": ".tsv", "json": ".json", "jsonl": ".jsonl", "parquet": ".parquet", "columns.json": ".json"}
_UNKNOWN_IMAGES = ("id", "name", "bild", "ID", "images")


def written(columns: Columns, form: str) -> bytes:
    """The columns as a table file."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if form == "parquet":
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
        return bytes(buffer.getvalue())
    if form == "json":
        return json.dumps(rows).encode()
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if form == "columns.json":
        return str(pandas.DataFrame(columns).to_json()).encode()
    separator = {"semicolon": ";", "sep=": ";", "tab": "\t", "tsv": "\t", "pipe": "|"}.get(form, ",")
    buffer_text = io.StringIO()
    table = csv.writer(
        buffer_text, delimiter=separator, lineterminator="\r\n" if form in ("crlf", "utf-16", "sep=") else "\n",
        quoting=csv.QUOTE_ALL if form == "quoted" else csv.QUOTE_MINIMAL,
    )  # fmt: skip
    table.writerow(columns)
    table.writerows(["" if value is None else value for value in row.values()] for row in rows)
    text = buffer_text.getvalue()
    if form == "blank lines":
        text = text.replace("\n", "\n\n", 3) + "\n\n"
    if form == "comma space" and '"' not in text:
        text = text.replace(",", ", ")
    if form == "sep=":
        text = "sep=;\r\n" + text
    encoding = {"bom": "utf-8-sig", "utf-16": "utf-16", "cp1252": "cp1252", "semicolon": "utf-8-sig"}.get(form, "utf-8")
    return text.encode(encoding, "replace")


def others(draw: Draw, rows: int) -> tuple[Columns, bool, list[tuple[str, ...]]]:
    """Columns that are neither pictures, labels nor parts; whether one could be labels; what must be said."""
    dice = draw.random("values")
    options: Columns = {
        "": list(range(rows)),
        "Unnamed: 0": list(range(100, 100 + rows)),
        "width": [8] * rows,
        "height": [8 if row % 3 else 12 for row in range(rows)],
        "url": [f"http://example.org/{row}.png" for row in range(rows)],
        "score": [dice.random() for _ in range(rows)],
        "bbox": [f"[{row}, 0, 8, 8]" for row in range(rows)],
        "patient": [f"p{row // 2}" for row in range(rows)],
        "age": [dice.choice((30, 40, 50)) for _ in range(rows)],
        "sex": [dice.choice(("M", "F")) for _ in range(rows)],
        "caption": [f"a thing, number {row},\nseen from above" for row in range(rows)],
        "md5": [f"{dice.getrandbits(128):032x}" for _ in range(rows)],
        "source": [dice.choice(("web", "phone")) for _ in range(rows)],
        "date": [f"2024-05-{1 + row % 28:02d}" for row in range(rows)],
        "license": ["CC0"] * rows,
        "notes": [None] * rows,
        "fold": [row % 3 for row in range(rows)],
        "is_train_camera": [row % 2 for row in range(rows)],
    }
    chosen = {name: values for name, values in options.items() if draw.chance(f"column {name!r}", 0.07)}
    said: list[tuple[str, ...]] = [("fold",)] if "fold" in chosen else []
    return chosen, bool(chosen.keys() & {"height", "age", "sex", "source", "fold", "is_train_camera", "patient"}), said


def table(draw: Draw, root: Path) -> Layout:
    """One table, and its pictures somewhere."""
    data = content(draw)
    root = root / "photos"
    names = file_names(draw, data, per_folder=False)
    layout = Layout(None, data.examples, files=names, lossless=data.lossless, table=True)
    files, values = _placed(draw, data, names, root, layout)
    columns: Columns = {}
    image_column = draw.pick("image column", IMAGE_COLUMNS)
    columns[image_column] = values
    label_column, plain_labels = _add_labels(draw, data, columns, layout)
    _add_parts(draw, data, columns, layout)
    extra, plausible, said = others(draw, len(values))
    extra = {name: each for name, each in extra.items() if name not in columns}
    columns |= extra
    layout.said += said
    known = (
        "label",
        "class",
        "category",
        "target",
        "y",
        "labels",
        "Class",
        "Label",
        "class_name",
        "species",
        "Category",
    )
    if plausible and label_column not in known:
        layout.doubtful = True
        if plain_labels and draw.chance("label column named", 0.5):
            layout.options["label_column"] = label_column
    if draw.chance("image column named", 0.1):
        layout.options["image_column"] = image_column
    form = draw.pick("format", FORMATS)
    if form == "blank lines" and any("\n" in str(value) for each in columns.values() for value in each):
        form = "csv"
    layout.doubtful = layout.doubtful or form in _REFUSABLE
    if form == "cp1252" and not all(_fits(str(value), "cp1252") for each in columns.values() for value in each):
        form = "csv"
    if form in ("comma space", "columns.json") and any(value is None for each in columns.values() for value in each):
        form = "csv"
    if form == "parquet":
        columns = {name or "__index_level_0__": _one_type(each) for name, each in columns.items()}
    order = list(columns)
    if draw.chance("columns in another order", 0.4):
        draw.random("order").shuffle(order)
    rows = list(range(len(values)))
    if draw.chance("rows in another order", 0.5):
        draw.random("rows").shuffle(rows)
    columns = {name: [columns[name][row] for row in rows] for name in order}
    stem = draw.pick("table", ("labels", "metadata", "annotations", "data", "index", "Bilder 2024", "GroundTruth"))
    files[f"{stem}{_SUFFIX.get(form, '.csv')}"] = written(columns, form)
    noisy, _ = noise(draw, Content([], data.classes, (None,), 8, 8, ".png", "L"), {})
    files |= {name: each for name, each in noisy.items() if name not in files}
    write(root, files)
    layout.what = root / f"{stem}{_SUFFIX.get(form, '.csv')}"
    if draw.chance("the folder is named", 0.35):
        layout.what = root
        layout.doubtful = layout.doubtful or stem in ("Bilder 2024", "GroundTruth") or form == "columns.json"
        layout.said.append((stem.lower(), "a table with"))
        layout.doubtful |= any("/" in name and name.count("/") == 1 for name in files)  # folders, or the table
        _pack(draw, root, layout, files, form)
    return layout


def _pack(draw: Draw, root: Path, layout: Layout, files: Files, form: str) -> None:
    """Sometimes, the folder of a table becomes an archive."""
    elsewhere = draw.made.get("place") in ("root", "absolute")
    if form != "parquet" and not elsewhere and draw.chance("packed", 0.4):
        layout.what = archived(draw, root.parent / "packed", files)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) < 2 else [None if value is None else str(value) for value in values]


PLACES = (
    "beside", "images/ in the path", "images/", "class folders in the path", "class folders", "several folders",
    "part folders in the path", "part folders", "root", "./", "backslashes", "other machine", "Windows machine",
    "absolute",
)  # fmt: skip


def _placed(draw: Draw, data: Content, names: dict[int, str], root: Path, layout: Layout) -> tuple[Files, list[Any]]:
    """The pictures' files, and how the table names them."""
    place = draw.pick("place", PLACES)
    bare = draw.chance("names without ending", 0.25)
    files: Files = {}
    values: list[Any] = []
    deep = draw.pick("folder of the pictures", ("images", "img", "data/pics", "train_images", "Pictures"))
    for number, each in enumerate(data.examples):
        name = names[each.code]
        folder = {
            "beside": "", "class folders": data.spell(each.label), "class folders in the path": data.spell(each.label),
            "several folders": f"pics_part_{1 + number % 2}",
            "part folders": each.part or "pics", "part folders in the path": each.part or "pics",
        }.get(place, deep)  # fmt: skip
        folder = re.sub(r"[\t\"|]", "", folder)
        path = in_folder(folder, name)
        files[path] = data.bytes_of(each)
        written_as = {
            "images/": name, "class folders": name, "several folders": name, "part folders": name, "root": name,
            "./": f"./{path}", "backslashes": path.replace("/", "\\"), "other machine": f"/home/alice/set/{path}",
            "Windows machine": f"C:\\Users\\Bob\\set\\{path}".replace("/", "\\"), "absolute": str(root / path),
        }.get(place, path)  # fmt: skip
        values.append(written_as.removesuffix(data.ending_of(each)) if bare else written_as)
    if place == "root":
        layout.options["root"] = root / deep
    if bare and data.ending == "mixed":
        layout.doubtful = True
    if bare and any("." in Path(str(value)).name for value in values):
        layout.doubtful = True  # a.b.1 without ending
    if place.startswith("part folders") and data.parts[0] is None:
        layout.also.append([replace(each, part="train") for each in data.examples])
    if place.startswith("class folders") and (
        draw.made.get("class names") and {".net", "valid", "train"} & set(data.classes)
    ):
        layout.doubtful = True
    if draw.chance("a missing picture", 0.08) and len(data.examples) > 5:
        gone = data.examples[-1]
        if sum(each.label == gone.label for each in data.examples) > 1:
            where = next(
                path for path in files if path.endswith(names[gone.code]) and files[path] == data.bytes_of(gone)
            )
            del files[where]
            layout.truth = data.examples[:-1]
            layout.also = [[e for e in each if e.code != gone.code] for each in layout.also]
            layout.skipped.append(names[gone.code].removesuffix(data.ending_of(gone)))
    if draw.chance("masks beside", 0.04) and data.ending in (".jpg", ".JPG", ".jpeg") and bare:
        files |= {
            in_folder(path.rpartition("/")[0], Path(path).stem + ".png"): data.bytes_of_extra(place_of)
            for place_of, path in enumerate(list(files), 40)
        }
        layout.doubtful = True
        layout.truth, layout.also = [], []
    return files, values


def _add_labels(draw: Draw, data: Content, columns: Columns, layout: Layout) -> tuple[str, bool]:
    """Adds the labels; the name of their column, and whether it is a single one."""
    name = draw.pick("label column", LABEL_COLUMNS)
    name = name if name not in columns else "label"
    kind = draw.pick("labels", ("names", "names", "names", "numbers", "whole floats", "both", "one-hot"))
    spelled = [data.spell(each.label) for each in data.examples]
    numbers: list[Any] = [data.number(each) for each in data.examples]
    in_numbers = {each.code: str(number) for each, number in zip(data.examples, numbers, strict=True)}
    if kind == "names":
        columns[name] = spelled
    elif kind == "one-hot" and not set(data.classes) & {"train", "valid", "images", *columns}:
        as_float = draw.chance("one-hot floats", 0.5)
        for number, label in enumerate(data.classes):
            column = [number == each for each in numbers]
            columns[data.spell(label)] = [float(value) if as_float else int(value) for value in column]
        return "", False
    elif kind == "both":
        columns[f"{name}_id" if f"{name}_id" not in columns else "number"] = numbers
        columns[name] = spelled
        layout.also += [
            [replace(each, label=in_numbers[each.code]) for each in reading] for reading in [layout.truth, *layout.also]
        ]
    else:
        columns[name] = [float(number) for number in numbers] if kind == "whole floats" else numbers
        layout.truth = [replace(each, label=in_numbers[each.code]) for each in layout.truth]
        layout.also = [[replace(each, label=in_numbers[each.code]) for each in reading] for reading in layout.also]
    if kind in ("names", "numbers") and draw.chance("a row without a label", 0.06) and layout.truth:
        gone = layout.truth[0]
        if sum(each.label == gone.label for each in layout.truth) > 1:
            row = next(row for row, each in enumerate(data.examples) if each.code == gone.code)
            columns[name] = [None if place == row else value for place, value in enumerate(columns[name])]
            layout.truth = layout.truth[1:]
            layout.also = [[each for each in reading if each.code != gone.code] for reading in layout.also]
            layout.said.append(("no label", "without a label"))
    return name, True


def _add_parts(draw: Draw, data: Content, columns: Columns, layout: Layout) -> None:
    if data.parts[0] is None:
        return
    name = draw.pick("part column", PART_COLUMNS)
    name = name if name not in columns else "split"
    values = draw.pick("part values", PART_VALUES)
    flags = draw.pick("flags", ("", "", "", "is_valid", "is_test", "is_train"))
    if flags and len(data.parts) == 2:
        second = {"is_valid": "validation", "is_test": "test", "is_train": data.parts[1]}[flags]
        yes, no = draw.pick("flag values", ((True, False), (1, 0), ("True", "False"), ("yes", "no"), ("TRUE", "FALSE")))
        columns[flags] = [
            yes if (each.part == "train") == (flags == "is_train") else no for each in data.examples
        ]  # fmt: skip
        rename = {"train": "train", data.parts[1]: second}
        layout.truth = [replace(each, part=rename[each.part]) for each in layout.truth]
        layout.also = [[replace(each, part=rename.get(each.part, each.part)) for each in one] for one in layout.also]
        if flags == "is_train":  # what is not for training is for validation or for testing
            swapped = "test" if data.parts[1] == "validation" else "validation"
            layout.also.append(
                [replace(each, part="train" if each.part == "train" else swapped) for each in layout.truth]
            )
            layout.doubtful = True
        return
    columns[name] = [values[_NUMBER[str(each.part)]] for each in data.examples]
    if values[1] == "PublicTest":
        layout.also += [[replace(each, part=each.part if each.part == "train" else "test") for each in one] for one in
                        [layout.truth, *layout.also]]  # fmt: skip
    if (
        values[1] == "eval"
        or values[0] not in ("train", "Train", "TRAIN", "Training", "training", "train_set", " train")
        or values[2] == "holdout"
    ):
        layout.doubtful = True
    if data.parts == ("train",):
        layout.also += [without_parts(each) for each in [layout.truth, *layout.also]]
        layout.doubtful = True
    if draw.chance("a row without a part", 0.06) and len(layout.truth) > 4:
        row = next(row for row, each in enumerate(data.examples) if each.code == layout.truth[-1].code)
        columns[name] = [None if place == row else value for place, value in enumerate(columns[name])]
        code = data.examples[row].code
        layout.also += [
            [replace(each, part="train") if each.code == code else each for each in layout.truth],
            [each for each in layout.truth if each.code != code],
        ]
        layout.said.append(("without a part", "no part", "blank", "empty", name.lower()))
        layout.doubtful = True


TABLE_NAMES = (
    ("train", "val", "test"), ("train", "valid", "test"), ("Train", "Validation", "Test"), ("train", "dev", "test"),
    ("train_labels", "val_labels", "test_labels"), ("labels_train", "labels_val", "labels_test"),
    ("training", "validation", "testing"), ("Training_set", "Validation_set", "Testing_set"),
    ("train_annotations", "val_annotations", "test_annotations"), ("fmnist_train", "fmnist_val", "fmnist_test"),
    ("train_metadata", "val_metadata", "test_metadata"), ("train_df", "val_df", "test_df"),
)  # fmt: skip


def tables_by_part(draw: Draw, root: Path) -> Layout:
    """A table for each part: train.csv and test.csv side by side, or metadata.csv in each part's folder."""
    data = content(draw, parts=[each for each in PARTS if len(each) > 1])
    root = root / "photos"
    names = file_names(draw, data, per_folder=False)
    image_column = draw.pick("image column", ("file_name", "image", "filename", "path", "id"))
    label_column = draw.pick("label column", ("label", "class", "target", "diagnosis"))
    form = draw.pick("format", ("csv", "jsonl", "csv", "parquet", "semicolon", "json"))
    suffix = _SUFFIX.get(form, ".csv")
    inside = draw.pick("tables in the parts' folders", (False, True, False))
    stems = draw.pick("tables", TABLE_NAMES)
    stem = draw.pick("table", ("metadata", "labels", "_annotations", "metadata"))
    scheme = draw.pick("folders of the parts", FOLDERS[:20])
    shared = draw.chance("one folder for all pictures", 0.4)
    restart = not inside and not shared and draw.chance("names begin again", 0.3)
    in_path = draw.chance("folders in the path", 0.5)
    layout = Layout(root, data.examples, lossless=data.lossless)
    files: Files = {}
    for part in data.parts:
        number = _NUMBER[str(part)]
        own = [each for each in data.examples if each.part == part]
        values = []
        for place, each in enumerate(own, 1):
            name = f"{place}{data.ending_of(each)}" if restart else names[each.code]
            layout.files[each.code] = name
            folder = scheme[number] if inside or not shared else "images"
            files[f"{folder}/{name}"] = data.bytes_of(each)
            values.append(name if inside or not in_path else f"{folder}/{name}")
        rows: Columns = {image_column: values, label_column: [data.spell(each.label) for each in own]}
        files[f"{scheme[number]}/{stem}{suffix}" if inside else f"{stems[number]}{suffix}"] = written(rows, form)
    if inside and stem == "_annotations":
        layout.doubtful = True
    extra, _ = noise(draw, Content([], data.classes, (None,), 8, 8, ".png", "L"), {})
    files |= {name: each for name, each in extra.items() if name not in files}
    write(root, files)
    _pack(draw, root, layout, files, form)
    if layout.what == root and not inside and draw.chance("one table is named", 0.15):
        layout.what = root / f"{stems[0]}{suffix}"
        layout.also += [[each for each in data.examples if each.part == "train"]]
        layout.also += [without_parts(layout.also[0])]
    return layout


def pixel_table(draw: Draw, root: Path) -> Layout:
    """Grey levels in a table's columns, or as text in one column."""
    data = content(draw, names=NAMES[:6])
    data.height = data.width = 8
    root = root / "pixels"
    numbers = draw.chance("numbers", 0.6)
    truth = [replace(each, label=str(data.number(each))) for each in data.examples] if numbers else data.examples
    labels = [data.number(each) if numbers else each.label for each in data.examples]
    form = draw.pick(
        "form",
        (
            "pixel1",
            "pixel0",
            "1x1",
            "pixels",
            "pixel0000 at the end",
            "no header",
            "numbers",
            "p_0",
            "rgb",
            "pixels, spaced",
        ),
    )
    label_column = draw.pick("label column", ("label", "emotion", "class", "target", "Label", "digit"))
    usage = draw.pick("part column", ("Usage", "split"))
    layout = Layout(None, truth, doubtful=form in ("no header", "numbers", "p_0", "rgb") or label_column == "digit")
    columns: Columns = {label_column: labels}
    pixels = [data.pixels(each).ravel().tolist() for each in data.examples]
    if form == "rgb":
        pixels = [np.repeat(each, 3).tolist() for each in pixels]
    if form.startswith("pixels"):
        columns["pixels"] = [" ".join(map(str, each)) for each in pixels]
    else:
        names = {
            "pixel1": [f"pixel{n + 1}" for n in range(64)], "1x1": [f"{n // 8 + 1}x{n % 8 + 1}" for n in range(64)],
            "pixel0000 at the end": [f"pixel{n:04d}" for n in range(64)], "numbers": [str(n) for n in range(64)],
            "p_0": [f"p_{n}" for n in range(64)], "rgb": [f"pixel{n:04d}" for n in range(192)],
        }.get(form, [f"pixel{n}" for n in range(64)])  # fmt: skip
        columns |= {name: [each[place] for each in pixels] for place, name in enumerate(names)}
    if form == "pixel0000 at the end":
        columns[label_column] = columns.pop(label_column)
    if data.parts[0] is None or data.parts == ("train",):
        layout.truth = without_parts(truth)
    elif draw.chance("a table for each part", 0.5) or form == "no header":
        stems = draw.pick(
            "tables", (("train", "val", "test"), ("mnist_train", "mnist_val", "mnist_test"), *TABLE_NAMES[:2])
        )
        for part in data.parts:
            own = [row for row, each in enumerate(data.examples) if each.part == part]
            one = {name: [values[row] for row in own] for name, values in columns.items()}
            text = written(one, "csv")
            write(root, {f"{stems[_NUMBER[str(part)]]}.csv": text.split(b"\n", 1)[1] if form == "no header" else text})
        layout.what = root
        return layout
    else:
        fer = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
        if usage == "Usage":
            layout.also.append([replace(each, part=each.part if each.part == "train" else "test") for each in truth])
        columns[usage] = [fer[str(each.part)] if usage == "Usage" else each.part for each in data.examples]
    text = written(columns, "csv")
    write(root, {"labels.csv": text.split(b"\n", 1)[1] if form == "no header" else text})
    layout.what = root / "labels.csv"
    if form == "no header" and usage in columns:
        layout.doubtful = True
    return layout


# --- data-set hubs ---------------------------------------------------------------------------------------------


def hub(draw: Draw, root: Path) -> Layout:
    """Parquet files by configuration and split, as data-set hubs write them."""
    data = content(draw)
    root = root / "hub"
    image_column = draw.pick("image column", ("image", "img", "picture", "jpg"))
    label_column = draw.pick("label column", ("label", "labels", "fine_label", "class", "cls"))
    kind = draw.pick("labels", ("ClassLabel", "ClassLabel", "names", "numbers"))
    where = draw.pick("place", ("data/{part}-{n:05d}-of-{of:05d}", "default/{part}/{n:04d}", "{part}", "{part}/{n:04d}",
                                "{part}-{n:05d}-of-{of:05d}", "plain_text/{part}-{n:05d}-of-{of:05d}"))  # fmt: skip
    written_as = draw.pick("pictures", ("struct", "struct", "bytes"))
    unlabelled = kind != "names" and draw.chance("a label -1", 0.15)
    second = draw.chance("a second configuration", 0.08)
    coarse = draw.chance("a coarse label", 0.1)
    odd_parts = draw.chance("a split of another name", 0.06)
    words = draw.pick(
        "splits", (("train", "validation", "test"), ("train", "val", "test"), ("training", "validation", "test"))
    )
    layout = Layout(root, list(data.examples), lossless=data.lossless)
    if len(data.parts) == 1:
        layout.truth = without_parts(data.examples)
        layout.also = [[replace(each, part="train") for each in data.examples]]
    if kind == "numbers":
        rename = {each.code: str(data.number(each)) for each in data.examples}
        layout.truth = [replace(each, label=rename[each.code]) for each in layout.truth]
        layout.also = [[replace(each, label=rename[each.code]) for each in one] for one in layout.also]
    if coarse:  # which of the two is meant is asked or said
        layout.options = {"label_column": label_column} if draw.chance("label column named", 0.5) else {}
        if not layout.options:
            layout.doubtful = True
            layout.said.append(("coarse",))
    files: Files = {}
    for part in data.parts:
        own = [each for each in data.examples if each.part == part]
        shards = 2 if len(own) > 6 and "{n" in where and draw.chance(f"two files of {part}", 0.4) else 1
        word = words[_NUMBER[str(part)]] if part else "train"
        for n in range(shards):
            few = own[n::shards]
            extra = [data.extra(3 + n)] if unlabelled else []
            name = where.format(part=word, n=n, of=shards)
            files[f"{name}.parquet"] = hub_file(
                data, [*few, *extra], image_column, label_column, kind, written_as, coarse
            )
    if unlabelled:
        layout.said.append(("no label", "without a label", "-1", "unlabelled"))
    if second:
        name = where.format(part="train", n=0, of=1)
        other = [replace(data.extra(20 + n), label=data.classes[n % 2]) for n in range(6)]
        files = {f"config_a/{name}": each for name, each in files.items()}
        files[f"config_b/{name}.parquet"] = hub_file(data, other, image_column, label_column, kind, written_as, coarse)
        layout.doubtful, layout.truth, layout.also = True, [], []
    if odd_parts:
        other = [replace(data.extra(20 + n), label=data.classes[n % 2]) for n in range(6)]
        odd = where.format(part=draw.pick("odd split", ("extra", "unlabeled", "corrupted")), n=0, of=1)
        files[f"{odd}.parquet"] = hub_file(data, other, image_column, label_column, kind, written_as, coarse)
        layout.said.append(("extra", "unlabeled", "corrupted"))
        layout.doubtful = True
    files |= {"README.md": b"---\nlicense: mit\n---\n", ".gitattributes": b"*.parquet filter=lfs\n"}
    if draw.chance("infos", 0.2):
        files["dataset_infos.json"] = b'{"default": {}}'
    write(root, files)
    return layout


def hub_file(
    data: Content,
    examples: Sequence[Example],
    image_column: str,
    label_column: str,
    kind: str,
    written_as: str,
    coarse: bool,
) -> bytes:
    """One Parquet file; an example without a class has the label -1."""
    images = pyarrow.array([data.bytes_of(each) for each in examples], pyarrow.binary())
    if written_as == "struct":
        paths = pyarrow.array([f"{place}.png" for place, _ in enumerate(examples)])
        images = pyarrow.StructArray.from_arrays([images, paths], ["bytes", "path"])
    if kind == "names":
        labels = pyarrow.array([data.spell(each.label) for each in examples])
    else:
        labels = pyarrow.array([data.number(each) if each.label else -1 for each in examples], pyarrow.int64())
    columns = {image_column: images, label_column: labels}
    features: dict[str, Any] = {image_column: {"_type": "Image"}}
    if kind == "ClassLabel":
        features[label_column] = {"names": [data.spell(each) for each in data.classes], "_type": "ClassLabel"}
    if coarse:
        columns["coarse_label"] = pyarrow.array([place % 2 for place in range(len(examples))], pyarrow.int64())
    table_of = pyarrow.table(columns)
    if written_as == "struct" or kind == "ClassLabel":
        table_of = table_of.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table_of, buffer, row_group_size=5)
    return buffer.getvalue()


# --- arrays ----------------------------------------------------------------------------------------------------

ARRAY_NAMES = (
    ("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"), ("{}_data", "{}_labels"),
    ("images_{}", "labels_{}"), ("{}_imgs", "{}_targets"), ("X_{}", "Y_{}"), ("{}_X", "{}_Y"), ("{}_image", "{}_label"),
)  # fmt: skip
WHOLE_NAMES = (
    ("x", "y"), ("X", "y"), ("images", "labels"), ("data", "labels"), ("data", "target"), ("image", "label"),
    ("X", "Y"),
    ("images", "targets"), ("arr_0", "arr_1"), ("imgs", "classes"), ("features", "labels"), ("pixels", "label"),
)  # fmt: skip
_ASKED_ARRAYS = ("imgs", "{}_imgs", "arr_0", "features", "pixels")


def arrays(draw: Draw, root: Path) -> Layout:  # noqa: PLR0912
    """Arrays in .npz, .npy or IDX files, or in memory."""
    data = content(draw, names=NAMES[:6])
    form = draw.pick("form", ("npz", "npz", "npy", "npy, named", "idx", "idx.gz", "memory", "packed npz"))
    if form == "memory":
        data.examples, data.parts = without_parts(data.examples), (None,)
    if form.startswith("idx"):
        data.parts = tuple(part for part in data.parts if part != "validation")
        data.examples = [each for each in data.examples if each.part != "validation"]
    layout = Layout(None, data.examples, doubtful=False)
    kind = draw.pick(
        "labels", ("numbers", "numbers", "names", "column", "one-hot", "whole floats", "from 1", "bytes", "bytes8")
    )
    if form.startswith("idx"):
        kind = draw.pick("IDX labels", ("numbers", "from 1"))
    first = 1 if kind == "from 1" else 0
    if kind not in ("names", "bytes"):
        layout.truth = [replace(each, label=str(data.number(each) + first)) for each in data.examples]
    if data.parts == ("train",):
        layout.also.append(without_parts(layout.truth))
    shape = draw.pick("shape", ("HW", "HW", "HW1", "HWC", "CHW", "1HW", "flat"))
    values = draw.pick("values", ("uint8", "uint8", "uint8", "int64", "float 0-1", "float 0-255", "uint16", "bool"))
    if form.startswith("idx"):
        shape, values = "HW", "uint8"
    layout.doubtful |= shape == "flat" or values not in ("uint8", "int64")
    layout.lossless = not values.startswith("float 0-1") and values != "bool"
    whole, divided = draw.pick("array names", WHOLE_NAMES), draw.pick("array names by part", ARRAY_NAMES)
    words = draw.pick(
        "part words", (("train", "val", "test"), ("train", "valid", "test"), ("train", "validation", "test"))
    )
    made: dict[str, NDArray[Any]] = {}
    for part in data.parts:
        own = [each for each in data.examples if each.part == part]
        one, other = [each.format(words[_NUMBER[part]]) for each in divided] if part else whole
        layout.doubtful |= (divided if part else whole)[0] in _ASKED_ARRAYS
        made[one] = _images(data, own, shape, values)
        made[other] = _labels(data, own, kind)
    if draw.chance("an array of names", 0.15) and form.endswith("npz"):
        made["class_names"] = np.array(data.classes)
        if kind not in ("names", "bytes") and first == 0:
            name_of = {each.code: each.label for each in data.examples}
            layout.also += [[replace(each, label=name_of[each.code]) for each in layout.truth]]
            layout.also += [without_parts(layout.also[-1])] if data.parts == ("train",) else []
    if draw.chance("another array", 0.15) and form.endswith("npz"):
        made["mean"] = np.zeros(3)
    if draw.chance("an array of ids", 0.1) and form.endswith("npz"):
        made["ids"] = np.arange(len(data.examples))
    root.mkdir(parents=True, exist_ok=True)
    if form.endswith("npz"):
        layout.what = root / "data.npz"
        save: Callable[..., None] = np.savez_compressed if form == "packed npz" else np.savez
        save(layout.what, **made)
    elif form.startswith("npy"):
        for name, each in made.items():
            np.save(root / f"{name}.npy", each)
        layout.what = root if form == "npy" else root / f"{next(iter(made))}.npy"
        if form == "npy, named" and draw.chance("another pair beside", 0.3) and "x" not in made and "X" not in made:
            np.save(root / "x.npy", np.zeros((4, 8, 8), np.uint8))
            np.save(root / "y.npy", np.arange(4) % 2)
            layout.said, layout.doubtful = [], True
        if form == "npy, named" and data.parts[0] and len(data.parts) > 1:
            own = [each for each in layout.truth if each.part == "train"]
            layout.also += [own, without_parts(own)]
    elif form.startswith("idx"):
        _write_idx(draw, root, made, data.parts, form.endswith("gz"))
        layout.what = root
    else:
        layout.what = tuple(made.values())
        if draw.chance("labels as a list", 0.4):
            layout.what = (layout.what[0], layout.what[1].tolist())
    return layout


def _images(data: Content, examples: Sequence[Example], shape: str, values: str) -> NDArray[Any]:
    stack = np.stack([data.pixels(each) for each in examples])
    stack = {
        "HW1": stack[..., None], "1HW": stack[:, None], "HWC": np.repeat(stack[..., None], 3, 3),
        "CHW": np.repeat(stack[:, None], 3, 1), "flat": stack.reshape(len(stack), -1),
    }.get(shape, stack)  # fmt: skip
    if values == "float 0-1":
        return stack.astype(np.float32) / 255
    if values == "bool":
        return np.asarray(stack > 127)
    return stack.astype({"float 0-255": np.float64, "int64": np.int64, "uint16": np.uint16}.get(values, np.uint8))


def _labels(data: Content, examples: Sequence[Example], kind: str) -> NDArray[Any]:
    numbers = np.array([data.number(each) for each in examples])
    if kind == "one-hot":
        return np.asarray(np.eye(len(data.classes))[numbers])
    if kind in ("names", "bytes"):
        names = np.array([each.label for each in examples])
        return np.char.encode(names, "utf-8") if kind == "bytes" else names
    return {
        "column": numbers[:, None], "whole floats": numbers.astype(float), "from 1": numbers + 1,
        "bytes8": numbers.astype(np.uint8),
    }.get(kind, numbers)  # fmt: skip


def _write_idx(
    draw: Draw, root: Path, made: dict[str, NDArray[Any]], parts: Sequence[str | None], packed: bool
) -> None:
    before = draw.pick("IDX prefix", ("", "", "emnist-letters-"))
    dot = draw.pick("IDX names", ("-idx", ".idx"))
    test = draw.pick("IDX test", ("t10k", "test"))
    stacks = list(made.values())
    for place, part in enumerate(parts):
        word = "" if part is None else f"{test if part == 'test' else 'train'}-"
        for array, kind, rank in ((stacks[2 * place], "images", 3), (stacks[2 * place + 1], "labels", 1)):
            raw = (
                struct.pack(">4B", 0, 0, 8, rank)
                + struct.pack(f">{rank}I", *array.shape)
                + array.astype(np.uint8).tobytes()
            )
            name = f"{before}{word}{kind}{dot}{rank}-ubyte"
            (root / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(raw) if packed else raw)


# --- memory ----------------------------------------------------------------------------------------------------


def memory(draw: Draw, root: Path) -> Layout:  # noqa: PLR0912
    """Objects of Python: lists of pairs, frames, mappings."""
    data = content(draw)
    root = root / "pictures"
    names = file_names(draw, data, per_folder=False)
    write(root, {names[each.code]: data.bytes_of(each) for each in data.examples})
    kind = draw.pick(
        "pictures", ("str", "Path", "bytes", "PIL", "array", "array HW1", "array RGB", "struct", "relative", "BytesIO")
    )
    pictures: list[Any] = []
    for each in data.examples:
        path = root / names[each.code]
        with Image.open(path) as opened:
            opened.load()
            pixels = np.asarray(opened.convert("L"))
            pictures.append({
                "str": str(path), "Path": path, "bytes": path.read_bytes(), "PIL": opened.copy(), "array": pixels,
                "array HW1": pixels[..., None], "array RGB": np.repeat(pixels[..., None], 3, 2), "relative": path.name,
                "struct": {"bytes": path.read_bytes(), "path": path.name}, "BytesIO": io.BytesIO(path.read_bytes()),
            }[kind])  # fmt: skip
    form = draw.pick(
        "form",
        ("pairs", "pairs", "lists", "frame", "frame", "mapping", "arrow", "tuple", "dicts", "two lists", "swapped"),
    )
    labels_as = draw.pick(
        "labels", ("names", "names", "numbers", "NumPy numbers", "whole floats", "categories", "bools")
    )
    numbers = [data.number(each) for each in data.examples]
    layout = Layout(
        None, data.examples, lossless=data.lossless, files=names if kind in ("str", "Path", "relative") else {}
    )
    layout.doubtful = kind in ("BytesIO", "struct") or form in ("dicts", "two lists", "swapped", "arrow")
    labels: list[Any] = [data.spell(each.label) for each in data.examples]
    if labels_as == "bools" and len(data.classes) == 2:
        labels = [number == 1 for number in numbers]
        layout.truth = [replace(each, label=str(data.number(each) == 1)) for each in data.examples]
        layout.also = [[replace(each, label=str(data.number(each))) for each in data.examples]]
    elif labels_as in ("numbers", "NumPy numbers", "whole floats"):
        labels = [{"NumPy numbers": np.int64(n), "whole floats": float(n)}.get(labels_as, n) for n in numbers]
        layout.truth = [replace(each, label=str(data.number(each))) for each in data.examples]
    if kind == "relative":
        layout.options["root"] = root
    if form in ("pairs", "lists", "tuple", "two lists", "swapped"):
        layout.truth = without_parts(layout.truth)
        layout.also = [without_parts(each) for each in layout.also]
        pairs = [(one, other) for one, other in zip(pictures, labels, strict=True)]
        if form == "swapped":
            pairs = [(other, one) for one, other in pairs]
        layout.what = {
            "lists": [list(each) for each in pairs],
            "tuple": tuple(pairs),
            "two lists": (pictures, labels),
        }.get(form, pairs)
        if kind == "relative":
            layout.doubtful = True
        return layout
    image_column = draw.pick("image column", ("image", "path", "img", "file"))
    columns: dict[str, Any] = {image_column: pictures}
    label_column = draw.pick("label column", ("label", "class", "target", "animal"))
    columns[label_column] = labels
    if data.parts[0]:
        name = draw.pick("part column", PART_COLUMNS[:8])
        words = draw.pick("part values", PART_VALUES[:7])
        columns[name] = [words[_NUMBER[str(each.part)]] for each in data.examples]
        if data.parts == ("train",):
            layout.also += [without_parts(each) for each in [layout.truth, *layout.also]]
    extra, plausible, said = others(draw, len(labels))
    columns |= {name: values for name, values in extra.items() if name not in columns}
    layout.said += said
    layout.doubtful |= plausible and label_column == "animal"
    if form == "dicts":
        layout.what = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    elif form == "arrow":
        layout.doubtful = True
        try:
            layout.what = pyarrow.table(columns)
        except (pyarrow.ArrowException, TypeError):
            layout.what = columns
    elif form == "frame":
        objects = {image_column: pandas.Series(pictures, dtype=object)}  # a list of arrays is not one array
        frame = pandas.DataFrame(columns | objects)
        if labels_as == "categories":
            frame[label_column] = frame[label_column].astype("category")
        if draw.chance("another index", 0.3):
            frame.index = range(100, 100 + len(frame))
        layout.what = frame.sample(frac=1, random_state=1) if draw.chance("shuffled frame", 0.3) else frame
    else:
        layout.what = columns
    return layout


# --- checking -------------------------------------------------------------------------------------------------------


@contextmanager
def kept_workers() -> Iterator[list[Any]]:
    """Decoding processes serve many layouts, because starting one takes longer than reading a small layout.

    Yields those that wait for the next layout; they may be ended at any time.
    """
    from hangtag.data.store import pool

    idle: list[Any] = []
    before = pool.Pool.start, pool.Pool.acquire, pool.Pool.__exit__

    def start(self: Any) -> None:
        pass

    def acquire(self: Any) -> Any:
        return idle.pop() if idle else before[1](self)

    def leave(self: Any, *error: object) -> None:
        idle.extend(self.idle)
        self.idle = []

    pool.Pool.start, pool.Pool.acquire, pool.Pool.__exit__ = start, acquire, leave  # type: ignore[method-assign]
    try:
        yield idle
    finally:
        pool.Pool.start, pool.Pool.acquire, pool.Pool.__exit__ = before  # type: ignore[method-assign]
        while idle:
            idle.pop().end()


@dataclass
class Outcome:
    """What came of one layout.

    Attributes:
        kind: "right"; "refused", "noted" (another reading, with a note); "wrong", "unsaid" (something left out without
            a note), "crash".
        doubtful: whether the layout has two readings.
    """

    kind: str
    detail: str = ""
    doubtful: bool = False


SILENT = ("wrong", "unsaid", "crash")


def checked(read: Callable[..., Any], error: type[Exception], layout: Layout) -> Outcome:
    """Read a layout and compare what came with its truth."""
    try:
        data = read(layout.what, **layout.options)
    except error as refusal:
        hint = getattr(refusal, "hint", "")
        text = f"{type(refusal).__name__}: {refusal}"
        return Outcome("refused" if hint else "crash", text, layout.doubtful)
    except Exception as problem:
        return Outcome("crash", f"{type(problem).__name__}: {problem}", layout.doubtful)
    return Outcome(*_compared(data, layout), layout.doubtful)


def _compared(data: Any, layout: Layout) -> tuple[str, str]:
    part_of: dict[int, str] = {}
    for part in data.parts:
        part_of |= dict.fromkeys(data.positions(part).tolist(), part)
    found: Counter[tuple[int, str, str | None]] = Counter()
    for place, image in enumerate(data.images):
        code = code_of(np.asarray(image), layout.lossless)
        label = data.class_names[data.labels[place]]
        if label != unicodedata.normalize("NFC", label):
            return "wrong", f"the class {label!a} is not in NFC"
        found[code if code is not None else -1, canonical(label), part_of.get(place)] += 1
        name = unicodedata.normalize("NFC", data.names[place]) if len(data.names) else ""
        expected = unicodedata.normalize("NFC", layout.files.get(code or 0, ""))
        if expected not in name and name and not name.startswith("row "):
            return "wrong", f"the picture {expected} is called {name}"
    readings = [_reading(each) for each in [layout.truth, *layout.also] if each]
    skipped = [f"{each.name}: {each.kind}: {each.reason}" for each in data.source.skipped]
    notes = [*data.source.notes, *skipped]
    read_as = data.source.description.partition(":")[0]  # without the names of classes and parts
    text = unicodedata.normalize("NFC", " ".join([read_as, *notes]).lower())
    if found not in readings:
        about = f"{_difference(found, readings[0]) if readings else data.source.description}; notes: {notes}"
        named = any(found <= each and (each - found).total() <= len(skipped) for each in readings)
        honest = [note for note in data.source.notes if not note.startswith(("images are resized", "skipped"))]
        unread = any("not read; to use a table" in note for note in honest)  # then nobody asks what is in the table
        honest = honest if unread or all(any(word in text for word in words) for words in layout.said) else []
        return ("noted" if named or (layout.doubtful and honest) else "wrong"), about
    for name in layout.skipped:
        as_folders = isinstance(layout.what, Path) and "folder per class" in data.source.description
        if name.lower() not in text and "row " not in text and not (as_folders and layout.table):
            return "unsaid", f"{name} is not among the skipped files; notes: {notes}"
    for words in layout.said:
        if not any(word in text for word in words):
            return "unsaid", f"no note contains {' or '.join(words)}; notes: {notes}"
    return "right", ""


def _reading(examples: Sequence[Example]) -> Counter[tuple[int, str, str | None]]:
    return Counter((each.code, canonical(each.label), each.part) for each in examples)


def _difference(got: Counter[Any], right: Counter[Any]) -> str:
    missing, extra = right - got, got - right
    return f"missing {sum(missing.values())}: {list(missing)[:2]}; instead {sum(extra.values())}: {list(extra)[:2]}"

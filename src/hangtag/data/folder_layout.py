"""Names with folders in them -> the class and part of each picture: train/cat/1.jpg is a cat to train on.

The rules are the same for a folder, a zip and a tar file. It reads no files.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hangtag.data.class_names import clean_name
from hangtag.data.labelled_images import PARTS
from hangtag.data.parts import BESIDE_PARTS, PART_NAMES, part_of_folder, parts_in, words_of
from hangtag.errors import DataError, UsageError
from hangtag.pictures import PICTURE_ENDINGS
from hangtag.words import amount, first_few, natural

__all__ = ["CLASSES", "Choose", "Layout", "is_picture_name", "layout_of", "refuse"]

CLASSES = ("top", "leaf", "name", "file", "parts")
"""Where the classes are: in the outermost folders, the innermost folders with their path or without it, the names of
files, or only in the folders that are parts."""

Choose: TypeAlias = Callable[[str, Sequence[tuple[str, str]]], str]
"""Called with (question, ((answer, its meaning), ...)); returns one of the answers, or raises an error."""

_UNLABELLED = {"pred", "preds", "predict", "prediction", "predictions", "unlabelled", "unlabeled", "inference"}
"""Words in the names of folders beside parts whose pictures have no classes."""

_MOST_LOOSE = 0.1  # of the pictures may lie beside the class folders; if more do, the folders are not all classes
_MASK_WORDS = {
    "mask", "masks", "seg", "segmentation", "segmentations", "groundtruth", "gt", "truth", "trimap", "trimaps",
    "annotation", "annotations", "label", "labels",
}  # fmt: skip
"""Words in the names of folders that hold masks, if a folder of images is beside them."""

_IMAGE_WORDS = {
    "image", "images", "img", "imgs", "rgb", "jpeg", "jpg", "png", "photo", "photos", "picture", "pictures", "camera",
}  # fmt: skip
_MASKS = ("mask", "seg", "gt", "truth", "trimap", "annotation", "label")
_MASK = re.compile(r"[\s._-]+(?:mask|segmentation|seg|gt)(?:[\s._-]*[0-9]+)?$", re.IGNORECASE)
_AT_END = re.compile(r"[\s._-]*\(?[0-9]+\)?$")

_NAME_CLASSES = "put each image into a folder named after its class, or name the table that holds the labels"

_NOT_PICTURES = {
    "txt", "csv", "tsv", "json", "jsonl", "md", "rst", "xml", "yaml", "yml", "toml", "ini", "cfg", "py", "ipynb", "js",
    "html", "htm", "css", "pdf", "doc", "docx", "xls", "xlsx", "log", "db", "sqlite", "npy", "npz", "pkl", "pt", "pth",
    "onnx", "h5", "mat", "parquet", "mp4", "avi", "mov", "mkv", "mp3", "wav", "sh", "exe", "lnk", "url", "sha256",
    "md5", "aae", "xmp", "arrow", "feather", "tfrecord", "tfrecords", "hdf5", "pickle",
    "joblib", "ckpt", "safetensors", "mdb", "zip", "tar", "gz", "tgz", "bz2", "tbz2", "xz", "txz", "7z", "rar",
    "pq", "crc", "_success", "_metadata", "_common_metadata",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The class and part of each name, and a description in a few words.

    Attributes:
        labels: None for a picture without a class, which is left out.
        parts: None for undivided data.
        notes: what was decided, in sentences.
    """

    labels: tuple[str | None, ...]
    parts: tuple[str | None, ...]
    description: str
    notes: tuple[str, ...] = ()


_Folder: TypeAlias = tuple[str, ...]
_Found: TypeAlias = "dict[_Folder, tuple[str | None, _Folder | None]]"
"""The part of each folder, and the folders that name its class; None for pictures without a class."""


def refuse(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """Raise an error that names every choice, because nobody can be asked the question.

    Raises:
        UsageError: always.
    """
    choices = "; or ".join(f"'{answer}': {meaning}" for answer, meaning in answers)
    raise UsageError(f"{question} {choices}", "choose one of them")


def is_picture_name(name: str) -> bool:
    """Whether a file of this name may be a picture: its ending is not that of a well-known other format."""
    ending = name.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    return ending not in _NOT_PICTURES


def _parts_of(names: Iterable[str]) -> dict[str, str | None]:
    """The part that each folder is, also of folders that differ in it alone, such as pets_train and pets_test."""
    own = {name: words_of(clean_name(name), numbers=True) for name in names}
    named = {name: parts_in(words) for name, words in own.items()}
    rest = {name: tuple(word for word in words if word not in PART_NAMES) for name, words in own.items()}
    alike: dict[tuple[str, ...], set[str]] = {}
    for name, parts in named.items():
        alike.setdefault(rest[name], set()).update(parts if len(parts) == 1 else ())
    numbered = len({part_of_folder(name, True) for name in own} - {None}) > 1
    part_of = {
        name: min(named[name])
        if len(named[name]) == 1 and len(alike[rest[name]]) > 1
        else part_of_folder(name, numbered)
        for name in own
    }
    tests = {rest[name]: name for name, parts in named.items() if parts == {"test"}}
    if {("public",), ("private",)} <= tests.keys():  # as in FER2013: PublicTest validates, PrivateTest tests
        early = "test" if "validation" in part_of.values() else "validation"
        part_of |= {tests["public",]: early, tests["private",]: "test"}
    return part_of


def layout_of(names: Sequence[str], where: str, choose: Choose, classes: str | None = None) -> Layout:
    """Classes and parts of pictures with these names.

    Args:
        names: relative, with /, at least one.
        where: the name of the whole, for errors.
        choose: called if the folders can be read in two ways.
        classes: one of `CLASSES`, answers that question in advance.

    Raises:
        DataError: the pictures are not in class folders.
        UsageError: the folders can be read in two ways, and `choose` cannot decide.

    >>> layout_of(["train/cat/1.png", "train/dog/1.png", "Test/cat/2.png"], "pets", choose=None).parts
    ('train', 'train', 'test')
    """
    masks = _masks_among(names)
    if masks:
        return _without(masks, names, where, choose, classes)
    folder_of = [name.rpartition("/")[0] for name in names]
    counts = Counter(folder_of)  # far fewer than names
    folders = dict(
        zip(counts, _without_common_top([tuple(each.split("/")) if each else () for each in counts]), strict=True)
    )
    found, classes = _split_off_parts(list(folders.values()), where, choose, classes)
    parts = [found[folders[each]][0] for each in folder_of]
    labels, notes = _labels_of_files(names, found, where, choose, classes), list[str]()
    description = "classes in file names"
    if labels is None:
        _refuse_loose(names, folder_of, folders, where)
        read_as, notes = _labels(found, where, choose, classes)
        labels = [read_as[folders[each]] for each in folder_of]
        description = "one folder per class"
    notes += _notes_on_several(folders, found)
    if not any(parts):
        notes += _notes_on_file_names(names)
    used = {part for part, label in zip(parts, labels, strict=True) if label is not None}
    inside = ", ".join(part for part in PARTS if part in used)
    left_out = Counter(folder for folder, label in zip(folder_of, labels, strict=True) if label is None)
    notes += [
        f"{amount(count, 'image')} in {folder or 'the top folder'} without a class left out; "
        "hangtag predict classifies them"
        for folder, count in left_out.most_common(3)
    ]
    like_parts = {
        label for label in set(labels) if label and PART_NAMES.keys() & set(re.split(r"[\W\d_]+", label.lower()))
    }
    if like_parts and not inside:
        notes.append(f"folders whose names contain the name of a part are read as classes: {_some(like_parts)}")
    hidden = {label for label in set(labels) if label and label.startswith(".")}
    if hidden:
        notes.append(f"folders whose names begin with a dot are read as classes: {_some(hidden)}")
    description = f"{description} in {inside}" if inside else description
    return Layout(tuple(labels), tuple(parts), description, tuple(notes))


def _without_common_top(folders: list[_Folder]) -> list[_Folder]:
    """Without the folders that contain all others; a lone train folder stays, because its name is a part."""
    while all(folders) and len({folder[0] for folder in folders}) == 1 and any(len(folder) > 1 for folder in folders):
        inner = {folder[1] for folder in folders if len(folder) > 1}
        if part_of_folder(folders[0][0]) and (len(inner) > 1 or any(len(folder) == 1 for folder in folders)):
            break
        folders = [folder[1:] for folder in folders]
    return folders


def _split_off_parts(
    folders: list[_Folder], where: str, choose: Choose, classes: str | None
) -> tuple[_Found, str | None]:
    """The part of each folder, which may be named at any depth: train/cat, cat/train, set/data/train/train/cat.

    Returns:
        Also where the classes are, if that is known now.
    """
    part = _parts_of({name for folder in folders for name in folder})
    at = {folder: next((i for i, name in enumerate(folder) if part[name]), None) for folder in folders}
    above = [folder for folder, i in at.items() if i is not None and i < len(folder) - 1]
    below = [folder for folder, i in at.items() if i is not None and 0 < i == len(folder) - 1]
    bare = [folder for folder, i in at.items() if i == 0 and len(folder) == 1]
    others = [folder for folder, i in at.items() if i is None and folder]
    if classes == "file" or (bare and len(bare) == sum(map(bool, folders))):
        return {folder: (None if i is None else part[folder[i]], None) for folder, i in at.items()}, classes
    undivided: _Found = {folder: (None, folder or None) for folder in folders}
    if not above and not below:
        loose: list[_Folder] = [folder for folder in folders if len(folder) == 1 and _is_set_apart(folder[0])]
        others = [folder for folder in others if folder not in loose]
        enough = len({folder[0] for folder in others}) > 1
        if loose and enough and _hold_no_class(loose, others, where, choose, classes):
            for each in loose:
                undivided[each] = (None, None)
            return undivided, None
        if classes == "parts":
            raise UsageError(
                f"{where}: --classes parts does not apply: no folder of classes is inside a part such as train",
                "leave it out",
            )
        return undivided, classes
    unlabelled = [each for each in others if any(_UNLABELLED & set(re.split(r"[\W\d_]+", n.lower())) for n in each)]
    if len(others) > len(unlabelled):
        odd = _some({"/".join(folder[:1]) for folder in others if folder not in unlabelled})
        named = _some({folder[i] for folder, i in at.items() if i is not None})
        classes = classes or choose(
            f"{where}: some folders are parts ({named}) and some are not ({odd}); how are they read? (--classes)",
            [("parts", f"only the parts; {odd} left out"), ("top", "all folders at the top are classes")],
        )
        if classes != "parts":
            return undivided, classes
    pairs = {(folder[: at[folder]], part[folder[at[folder] or 0]]) for folder in above}
    tops, several = {top for top, _ in pairs}, {each for _, each in pairs}
    containers = len(pairs) == len(tops) == len(several) > 1  # such as a/train/cat and b/test/cat
    doubled: dict[_Folder, bool] = {}  # such as seg_train/seg_train/cat
    for folder in above:
        i = at[folder] or 0
        again = len(folder) > i + 2 and part[folder[i + 1]] == part[folder[i]]
        doubled[folder[: i + 1]] = again and doubled.get(folder[: i + 1], True)
    children = Counter(folder[: (at[folder] or 0) + 1] for folder in above)
    found: _Found = dict.fromkeys(folders, (None, None))
    for folder, place in at.items():
        if place is not None:
            rest = folder[place + 1 + doubled.get(folder[: place + 1], False) :]
            own = [name for name in rest if part[name] != part[folder[place]]]
            if children[folder[: place + 1]] == 1 and set(map(str.lower, own)) <= BESIDE_PARTS:
                rest = ()  # test/test or test/images without class folders
            whole = rest if containers else (*folder[:place], *rest)
            found[folder] = part[folder[place]], (whole or None) if rest or not above else None
    return found, None if classes == "parts" else classes


def _notes_on_several(folders: dict[str, _Folder], found: _Found) -> list[str]:
    """Notes on folders of different names that are the same part, such as test and eval."""
    names: dict[str, set[str]] = {}
    for folder in folders.values():
        part, rest = found[folder]
        if part is not None and rest is not None:
            outermost = next(name for name in folder if name not in rest or part_of_folder(name))
            names.setdefault(part, set()).add(clean_name(outermost).lower())
    return [f"the folders {_some(own)} are read as one {part} part" for part, own in names.items() if len(own) > 1]


def _masks_among(names: Sequence[str]) -> set[str]:
    """Images named like the mask of another, such as a_mask.png beside a.png, or masks/a.png beside images/a.png."""
    if not any(word in "\n".join(names).lower() for word in _MASKS):
        return set()
    folders = {name.rpartition("/")[0] for name in names}
    inside: dict[str, set[str]] = {}  # the names of the folders in each folder
    for folder in folders:
        for end in (*_ends(folder), len(folder)):
            above, _, own = folder[:end].rpartition("/")
            inside.setdefault(above, set()).add(own)
    of_masks = {f"{above}/{own}".lstrip("/") for above, each in inside.items() for own in _mask_folders(each)}
    below = {folder for folder in folders if any(folder[:end] in of_masks for end in (*_ends(folder), len(folder)))}
    found = {name for name in names if name.rpartition("/")[0] in below} if below else set[str]()
    stems = {name.rpartition(".")[0] for name in names}
    for name in names:
        stem = name.rpartition(".")[0]
        if _MASK.search(stem) and _MASK.sub("", stem) in stems:
            found.add(name)
    return found


def _without(masks: set[str], names: Sequence[str], where: str, choose: Choose, classes: str | None) -> Layout:
    """The layout of the other images; masks have no class."""
    others = [name for name in names if name not in masks]
    layout = layout_of(others, where, choose, classes)
    known = dict(zip(others, zip(layout.labels, layout.parts, strict=True), strict=True))
    labels, parts = zip(*(known.get(name, (None, None)) for name in names), strict=True)
    if len(set(labels) - {None}) < 2:
        raise DataError(
            f"{where}: no class folders: {first_few(sorted(masks), 1)} and the like are read as masks of other images",
            _NAME_CLASSES,
        )
    note = f"{amount(len(masks), 'image')} left out as masks of other images: {first_few(sorted(masks), 2)}"
    return Layout(labels, parts, layout.description, (*layout.notes, f"{note}; rename them if they are images"))


def _ends(name: str) -> list[int]:
    """Where each folder above a file ends in its name."""
    return [place for place, character in enumerate(name) if character == "/"]


def _mask_folders(names: set[str]) -> set[str]:
    """The folders of masks among those in one folder, if the others are all of images."""
    masks = {name for name in names if _MASK_WORDS & set(words_of(name))}
    images = [set(words_of(name)) for name in names - masks]
    return masks if images and all(words and words <= _IMAGE_WORDS for words in images) else set()


def _notes_on_file_names(names: Sequence[str]) -> list[str]:
    """A note on undivided images whose names all begin with a part, such as cat/train_1.png and cat/test_1.png."""
    firsts: set[str] = set()
    for name in names:
        first = (words_of(name.rpartition("/")[2], numbers=True) or [""])[0]
        if first not in PART_NAMES:
            return []
        firsts.add(PART_NAMES[first])
    said = f"the names of the images begin with {' and '.join(sorted(firsts))}, which was not used as a split"
    return [f"{said}; move them into folders of these names to use it"] if len(firsts) > 1 else []


def _is_set_apart(name: str) -> bool:
    """Whether a folder is named like a part for testing or validation: test, or rps-test-set, but not test tubes."""
    words = words_of(clean_name(name), numbers=True)
    parts = parts_in(words)
    at_end = bool(words) and words[-1] in PART_NAMES
    whole = part_of_folder(name) is not None or at_end or bool(BESIDE_PARTS & set(words))
    return whole and len(parts) == 1 and "train" not in parts


def _hold_no_class(
    loose: list[_Folder], others: list[_Folder], where: str, choose: Choose, classes: str | None
) -> bool:
    """Whether undivided folders named like parts hold pictures without a class."""
    named, classes_beside = (_some({folder[0] for folder in folders}) for folders in (loose, others))
    classes = classes or choose(
        f"{where}: {named} beside the folders {classes_beside}: does it hold images without a class? (--classes)",
        [("parts", f"yes: {named} left out"), ("top", "no: all folders at the top are classes")],
    )
    return classes == "parts"


def _labels(
    found: _Found, where: str, choose: Choose, classes: str | None
) -> tuple[dict[_Folder, str | None], list[str]]:
    """The class of each folder, and notes."""
    rests = list(dict.fromkeys(rest for _, rest in found.values() if rest))
    shared = 0
    while all(len(rest) > shared + 1 for rest in rests) and len({rest[shared] for rest in rests}) == 1:
        shared += 1
    inner = [rest[shared:] for rest in rests]
    while all(len(rest) > 1 for rest in inner) and len({rest[-1] for rest in inner}) == 1:  # cat/images, dog/images
        inner = [rest[:-1] for rest in inner]
    class_folders = dict(zip(rests, inner, strict=True))
    ways: dict[str, Callable[[_Folder], str]] = {"top": lambda f: f[0], "leaf": "/".join, "name": lambda f: f[-1]}
    nested = [folder for folder in inner if len(folder) > 1]
    way, notes = classes or "top", []
    if nested and classes is None:
        direct = {folder[0] for folder in inner if len(folder) == 1}
        if all(folder[0] in direct and folder[-1] not in direct for folder in nested):
            notes.append(
                f"images in folders inside a class folder belong to that class: {_some(map('/'.join, nested))}"
            )
        else:
            way = _ask(inner, ways, where, choose)
    return {folder: ways[way](class_folders[rest]) if rest else None for folder, (_, rest) in found.items()}, notes


def _ask(folders: Iterable[_Folder], ways: dict[str, Callable[[_Folder], str]], where: str, choose: Choose) -> str:
    meanings = {"top": "folders at the top", "leaf": "innermost folders", "name": "names of the innermost folders"}
    names = {way: {name(folder) for folder in folders} for way, name in ways.items()}
    if len(names["name"]) == len(names["leaf"]):
        del names["name"]  # the same classes
    return choose(
        f"{where}: the folders are nested; which ones are the classes? (--classes)",
        [(way, f"the {len(own):,} {meanings[way]}: {_some(own)}") for way, own in names.items()],
    )


def _labels_of_files(
    names: Sequence[str], found: _Found, where: str, choose: Choose, classes: str | None
) -> list[str | None] | None:
    """Classes at the beginning of file names, as in cat.123.jpg; None for a name that is only a number.

    Returns:
        None if the folders name the classes.

    Raises:
        DataError: neither do.
    """
    folders = {rest for _, rest in found.values() if rest}
    if classes != "file" and (len(folders) > 1 or (folders and classes is not None)):
        return None
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in names]
    labels = [_AT_END.sub("", stem) or None if _AT_END.search(stem) else None for stem in stems]
    counts = Counter(label for label in labels if label)
    plausible = len(counts) > 1 and 2 * len(counts) <= counts.total() and 2 * counts.total() >= len(names)
    if classes == "file":
        return labels
    if plausible and classes is None:
        shown = [f"{label} ({count:,})" for label, count in counts.most_common(4)]
        question = f"{where}: there are no class folders; do the names of the files name the classes? (--classes file)"
        if choose(question, [("file", f"yes: {first_few(shown, 3)}"), ("stop", "no: stop here")]) == "file":
            return labels
    if folders:
        return None
    parts = {name.split("/")[-2] for name in names if "/" in name}
    raise DataError(
        f"{where}: the folders of its parts ({_some(parts)}) contain no class folders"
        if any(part for part, _ in found.values())
        else f"{where}: {names[0]} is not in a class folder",
        _NAME_CLASSES,
    )


def _refuse_loose(names: Sequence[str], folder_of: Sequence[str], folders: dict[str, _Folder], where: str) -> None:
    """Raises DataError if too many pictures lie beside the class folders."""
    if all(folders.values()):
        return
    loose = [name for name, folder in zip(names, folder_of, strict=True) if not folders[folder]]
    pictures = [name for name in loose if name.lower().endswith(PICTURE_ENDINGS)]
    if any(name.lower().endswith(PICTURE_ENDINGS) for name in names):
        loose = pictures  # not LICENSE
    if len(loose) > _MOST_LOOSE * len(names):
        more = f", nor are {len(loose) - 1:,} others" if len(loose) > 1 else ""
        raise DataError(f"{where}: {loose[0]} is not in a class folder{more}", _NAME_CLASSES)


def _some(names: Iterable[str]) -> str:
    return first_few(sorted(names, key=natural), 4)

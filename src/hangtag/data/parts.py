"""Words that name a part of divided data -> train, validation or test: "Training", "val_set", "PrivateTest"."""

import re
from collections.abc import Iterable

from hangtag.data.class_names import clean_name

__all__ = [
    "BESIDE_PARTS", "PART_NAMES", "part_in_file_name", "part_named", "part_of_folder", "parts_in", "words_of",
]  # fmt: skip

PART_NAMES = {
    **dict.fromkeys(("train", "training", "trainset", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "valset", "validation", "validate", "vld", "dev", "devel"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "tst", "tests", "eval", "evaluation", "holdout", "heldout"), "test"),
}
"""Names of folders and files, and values of columns, that mean a part; in lower case."""

BESIDE_PARTS = {
    "set", "data", "dataset", "images", "image", "imgs", "img", "pictures", "pics", "photos", "samples", "examples",
    "seg", "split", "folder", "files", "raw", "cropped", "resized",
}  # fmt: skip
"""Words that may stand beside a part in the name of a folder: training_set, seg_train, train_images."""

_FILLERS = BESIDE_PARTS | {
    "sets", "part", "subset", "partition", "phase", "fold", "only", "is", "in", "for", "use", "used", "my", "the",
    "public", "private", "final", "official", "new",
}  # fmt: skip
"""Words that may stand beside a part in a cell, or in the name of a column or of a folder beside a table."""

_HOLD_OUT = re.compile(r"(hold|held)[\s_.-]?out", re.IGNORECASE)


def part_of_folder(name: str, numbered: bool = False) -> str | None:
    """The part that a folder of this name is; None for other names, because they may be those of classes.

    Args:
        numbered: also accept numbers in the name, as in train2017.

    >>> [part_of_folder(name) for name in ("seg_train", "Testing images", "hold-out", "training shoes", "val2017")]
    ['train', 'test', 'test', None, None]
    """
    for text in (clean_name(name), clean_name(name).lower()):  # with words in camel case, and without
        words = words_of(text, numbers=True)
        others = [word for word in words if word not in PART_NAMES and word not in BESIDE_PARTS]
        if len(parts := parts_in(words)) == 1 and all(numbered and word.isdigit() for word in others):
            return parts.pop()
    return None


def part_named(text: str) -> str | None:
    """The part that a text names, such as a value of a column; None if it says anything else.

    >>> part_named("Training"), part_named("val_set"), part_named("PrivateTest"), part_named("extra")
    ('train', 'validation', 'test', None)
    """
    named = [_word(word) for word in words_of(text) if word not in _FILLERS]
    return named[0] if len(set(named)) == 1 else None


def part_in_file_name(stem: str) -> str | None:
    """The part that one word of a table's name means; None if no word does, or if two words differ.

    >>> part_in_file_name("ISIC_2019_Training_GroundTruth"), part_in_file_name("train_test_split")
    ('train', None)
    """
    named = {part for word in words_of(stem) if (part := _word(word)) is not None}
    return named.pop() if len(named) == 1 else None


def parts_in(words: Iterable[str]) -> set[str]:
    """The parts that are among these words of a name."""
    return {PART_NAMES[word] for word in words if word in PART_NAMES}


def words_of(text: str, numbers: bool = False) -> list[str]:
    """The words of a name in lower case, with or without its numbers.

    >>> words_of("trainLabels_2"), words_of("val2017", numbers=True)
    (['train', 'labels'], ['val', '2017'])
    """
    text = _HOLD_OUT.sub(r"\1out", text)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+", text)
    return [word.lower() for word in words if numbers or not word.isdigit()]


def _word(word: str) -> str | None:
    return PART_NAMES.get(word) or PART_NAMES.get(word.removesuffix("set"))

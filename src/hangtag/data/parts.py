"""Words that name a part of divided data -> train, validation or test: "Training", "val_set", "PrivateTest"."""

import re

__all__ = ["PART_NAMES", "part_in_file_name", "part_named", "words_of"]

PART_NAMES = {
    **dict.fromkeys(("train", "training", "trainset", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "valset", "validation", "validate", "vld", "dev", "devel"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "tst", "tests", "eval", "evaluation", "holdout", "heldout"), "test"),
}
"""Names of folders and files, and values of columns, that mean a part; in lower case."""

_FILLERS = {
    "set", "sets", "split", "data", "dataset", "part", "subset", "partition", "images", "image", "img", "imgs",
    "pictures", "photos", "samples", "examples", "phase", "fold", "only", "hold", "held", "out", "is", "in", "for",
    "use", "used", "my", "the", "public", "private", "final", "official", "seg", "new",
}  # fmt: skip


def part_named(text: str) -> str | None:
    """The part that a text names, such as a value of a column; None if it says anything else.

    >>> part_named("Training"), part_named("val_set"), part_named("PrivateTest"), part_named("extra")
    ('train', 'validation', 'test', None)
    """
    words = words_of(text)
    if "".join(words) in ("holdout", "heldout"):
        return "test"
    named = [_word(word) for word in words if word not in _FILLERS]
    return named[0] if len(set(named)) == 1 else None


def part_in_file_name(stem: str) -> str | None:
    """The part that one word of a table's name means; None if no word does, or if two words differ.

    >>> part_in_file_name("ISIC_2019_Training_GroundTruth"), part_in_file_name("train_test_split")
    ('train', None)
    """
    named = {part for word in words_of(stem) if (part := _word(word)) is not None}
    return named.pop() if len(named) == 1 else None


def words_of(text: str, numbers: bool = False) -> list[str]:
    """The words of a name in lower case, with or without its numbers.

    >>> words_of("trainLabels_2"), words_of("val2017", numbers=True)
    (['train', 'labels'], ['val', '2017'])
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+", text)
    return [word.lower() for word in words if numbers or not word.isdigit()]


def _word(word: str) -> str | None:
    return PART_NAMES.get(word) or PART_NAMES.get(word.removesuffix("set"))

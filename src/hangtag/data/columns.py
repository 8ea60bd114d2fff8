"""The columns of a table -> which hold the images, the labels and the split, recognised or named by the user.

Where two readings are possible, hangtag asks; notes name what looks like a split or a group and is not used.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import Any

from hangtag.data.folder_layout import Choose, refuse
from hangtag.data.labelled_images import PARTS
from hangtag.data.parts import part_named, words_of
from hangtag.data.table_paths import status_of
from hangtag.data.tables import Table, plain_value
from hangtag.errors import DataError, UnknownName, UsageError
from hangtag.pictures import PICTURE_ENDINGS
from hangtag.words import amount, first_few, listed

__all__ = [
    "Columns",
    "Division",
    "division_of",
    "find_columns",
    "find_image_column",
    "gives_split",
    "groups_in_several",
    "label_names",
    "no_labels",
    "notes_on_shared_groups",
    "notes_on_unused",
    "said_parts",
]

_LABELS = (
    "label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "species", "y",
    "emotion", "diagnosis", "dx", "breed", "classid", "class_id", "label_id", "category_id", "cls",
)  # fmt: skip
_IMAGES = (
    "image", "img", "picture", "photo", "path", "file", "filename", "file_name", "image_path", "filepath", "x",
    "image_id", "id", "pixels",
)  # fmt: skip
_ID_WORDS = {"id", "ids", "image", "img", "file", "name", "photo", "picture", "path", "sample", "code", "number", "nr"}
"""Words in the name of a column of numbers that may be names of files."""
_GROUPS = {
    "patient", "subject", "person", "participant", "individual", "identity", "lesion", "specimen", "video", "clip",
    "scene", "sequence", "session", "study", "series", "case", "writer", "author", "user",
}  # fmt: skip
_BOXES = {"bbox", "xmin", "ymin", "xmax", "ymax", "x_min", "y_min", "x_max", "y_max", "x1", "y1", "x2", "y2"}
_SPLITS = {"split", "splits", "subset", "partition", "usage"}
_MAYBE_SPLITS = {"phase", "fold", "folds", "kfold", "set", "part", "stage", "mode"}
_FLAGS = {"is", "in", "for", "use", "used"}
_SHORT = {"tr": "train", "va": "validation", "vl": "validation", "te": "test", "ts": "test"}
_TRUE, _FALSE = {"true", "1", "yes", "t", "y"}, {"false", "0", "no", "f", "n"}
_LOOKED_AT = 200  # rows
_MOSTLY = 0.9
_MOST_CLASSES = 1000  # a column with more different values is not taken for labels, unless it is named
_MOST_AMOUNTS = 50  # different fractions that may be classes, such as sizes
_MOST_PARTS = 20  # a column with more different values is not taken for a split


@dataclass(frozen=True)
class Columns:
    """The names of the columns; the label is None for a table without labels."""

    image: str
    label: str | None


@dataclass(frozen=True)
class Division:
    """How a table divides its rows.

    Attributes:
        parts: the part of each row, None for a row that belongs to none and is left out; or None for undivided data.
        columns: the columns that were used.
        notes: what was decided, in sentences.
    """

    parts: list[str | None] | None = None
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# --- the split -------------------------------------------------------------------------------------------------


def division_of(table: Table, choose: Choose, split: str | None = None, skip: Sequence[str | None] = ()) -> Division:
    """The part of each row, by a column or by the name of the table's file.

    Args:
        split: the user's choice: a column, COLUMN=VALUE (these rows are the test part, all others are for training),
            or "none".
        skip: columns with another purpose.

    Raises:
        UnknownName: there is no such column or value.
        UsageError: columns contradict each other or have unknown values, and `choose` cannot decide.
    """
    found = _division_named(table, split) if split is not None else _division_found(table, choose, skip)
    if table.part is None or split is not None or (found.parts is not None and not table.part):
        return found
    if found.parts is None:
        count = amount(table.rows, "image")
        said = f"{table.where}: {count} left out, because the table's name does not name a part (train, ...)"
        return Division([table.part or None] * table.rows, (), found.notes if table.part else (*found.notes, said))
    rank = {part: place for place, part in enumerate((*PARTS, None))}
    later = [max(part, table.part, key=rank.__getitem__) for part in found.parts]
    notes = found.notes
    if moved := sum(one != other for one, other in zip(found.parts, later, strict=True)):
        said = f"{table.where} is named after {table.part}, so {amount(moved, 'image')} of earlier parts became"
        notes += (f"{said} {table.part}; to use the column alone: --split-column {found.columns[0]}",)
    return Division(later, found.columns, notes)


def gives_split(tables: Sequence[Table]) -> bool:
    """Whether a table divides its rows, or seems to but needs an answer."""
    try:
        return any(division_of(table, refuse).parts is not None for table in tables)
    except UsageError:
        return True


def said_parts(parts: Sequence[str | None], values: Sequence[Any] | None = None) -> str:
    """The number of rows of each part, with the values that stand for it: "16 train, 8 validation (dev)"."""
    counts = Counter(parts)
    said = []
    for part in PARTS:
        if counts[part]:
            named = {str(value).strip() for value, own in zip(values or (), parts, strict=False) if own == part}
            others = sorted(name for name in named if name.lower() != part)
            said.append(f"{counts[part]:,} {part}{f' ({first_few(others)})' if others else ''}")
    return ", ".join(said)


def _division_named(table: Table, split: str) -> Division:
    if split == "none" and split not in table.columns:
        return Division()
    if split in table.columns:
        found = _by_text(table, split) or _by_flags(table, [split]) or _by_numbers(table, split)
        if found is None:
            values = first_few(_distinct(table.columns[split]))
            raise UsageError(
                f"{table.where}: the values of column {split} name no parts: {values}",
                f"name the value of the test images: --split-column {split}=VALUE",
            )
        return found
    name = next((each for each in table.columns if split.startswith(f"{each}=")), None)
    if name is None:
        raise UnknownName.among(f"column of {table.where}:", split.partition("=")[0], list(table.columns))
    known = _distinct(table.columns[name], table.rows)
    wanted = split[len(name) + 1 :].strip()
    tested = {wanted} if wanted in known else {each.strip() for each in wanted.split(",")}
    if unknown := sorted(tested - set(known)):
        raise UnknownName.among(f"value of column {name}:", unknown[0], known)
    texts = [_text(value) for value in table.columns[name]]
    parts = [None if text is None else "test" if text in tested else "train" for text in texts]
    return Division(parts, (name,), tuple(_said(f"the column '{name}'", parts, table.columns[name])))


def _division_found(table: Table, choose: Choose, skip: Sequence[str | None]) -> Division:
    names = [name for name in table.columns if name not in skip]
    flags = [name for name in names if _FLAGS & set(words_of(name)) and part_named(name) and _is_flag(table, name)]
    found = [each for name in names if name not in flags and (each := _by_text(table, name, name.lower() in _LABELS))]
    if flags and (by_flags := _by_flags(table, flags)):
        found.append(by_flags)
    if found:
        different = [each for place, each in enumerate(found) if each.parts not in [one.parts for one in found[:place]]]
        if len(different) == 1:
            return different[0]
        answers = [
            (each.columns[0], f"column {listed(each.columns)}: {said_parts(each.parts or ())}") for each in different
        ]
        answer = choose(f"{table.where}: which column gives the split? (--split-column)", answers)
        return next(each for each in different if each.columns[0] == answer)
    return _unclear(table, names, choose)


def _unclear(table: Table, names: Sequence[str], choose: Choose) -> Division:
    """What to do with columns that are named like a split but whose values name no parts."""
    notes = []
    for name in names:
        words = set(words_of(name))
        values = _distinct(table.columns[name])
        if (part := part_named(name)) and len(values) == 2 and _is_flag(table, name):
            answers = [("none", "no"), (name, f"yes: {part} where it is true")]
            question = f"{table.where}: does the column '{name}' give the split? (--split-column)"
            return _division_named(table, choose(question, answers))
        sure = bool(words & _SPLITS) or {"train", "test"} <= words
        if not (sure or words & _MAYBE_SPLITS) or not 1 <= len(values) <= _MOST_PARTS:
            continue
        if sure and len(values) > 1:
            answers = [("none", "no split: all images are for training")]
            if (numbered := _by_numbers(table, name)) is not None:
                answers.append((name, f"0 is train, 1 is validation, 2 is test: {said_parts(numbered.parts or ())}"))
            answers += [(f"{name}={value}", f"images with {value} are the test part") for value in values]
            question = f"{table.where}: does the column '{name}' give a split? (--split-column)"
            return _division_named(table, choose(question, answers))
        notes.append(
            f"the column '{name}' ({first_few(values)}) was not used as a split; "
            f"to test on some of its values: --split-column {name}=VALUE"
        )
    return Division(notes=tuple(notes))


def _by_text(table: Table, name: str, is_label: bool = False) -> Division | None:
    """The parts that a column's values name; None if it is not a split."""
    known = _distinct(table.columns[name])
    like_split = bool(set(words_of(name)) & (_SPLITS | _MAYBE_SPLITS))
    part_of = {value: part for value in known if (part := part_named(value)) is not None}
    if like_split and not part_of and set(map(str.lower, known)) <= _SHORT.keys():
        part_of = {value: _SHORT[value.lower()] for value in known}
    if not part_of or len(known) > _MOST_PARTS or is_label:
        return None
    if not like_split and any(character.isdigit() for value in part_of for character in value):
        return None  # names of images, such as Train_17
    if not like_split and len(part_of) < len(known) and len(set(part_of.values())) < 2:
        return None
    tests = [value for value, part in part_of.items() if part == "test"]
    early = [value for value in tests if {"public", "eval", "evaluation"} & set(words_of(value))]
    if "validation" not in part_of.values() and 0 < len(early) < len(tests):
        part_of |= dict.fromkeys(early, "validation")  # as in FER2013: PublicTest validates, PrivateTest tests
    texts = [_text(value) for value in table.columns[name]]
    parts = [None if text is None else part_of.get(text) for text in texts]
    return Division(parts, (name,), tuple(_said(f"the column '{name}'", parts, table.columns[name])))


def _by_flags(table: Table, names: Sequence[str]) -> Division | None:
    """The parts that columns such as is_valid and is_test give together; None for other columns."""
    if not all(_is_flag(table, name) and part_named(name) for name in names):
        return None
    parts: list[str | None] = []
    for row in range(table.rows):
        claims = {str(part_named(name)): _bit(table.columns[name][row]) for name in names}
        claimed = {part for part, bit in claims.items() if bit} - {"train"}
        if len(claimed) > 1 or None in claims.values() or (claimed and claims.get("train")):
            parts.append(None)
        else:
            rest = "train" if claims.get("train", True) else _other_part(claims)
            parts.append(next(iter(claimed), rest))
    many = "s" if len(names) > 1 else ""
    said = _said(f"the column{many} {listed([repr(name) for name in names])}", parts)
    return Division(parts, tuple(names), tuple(said))


def _other_part(claims: dict[str, int | None]) -> str | None:
    """What is not for training, where columns say no more: for testing, unless there is a column for that."""
    return "test" if "test" not in claims else "validation" if "validation" not in claims else None


def _by_numbers(table: Table, name: str) -> Division | None:
    """0 train, 1 validation, 2 test, as CelebA numbers them; None for other values."""
    if set(_distinct(table.columns[name])) != {"0", "1", "2"}:
        return None
    parts = [None if (text := _text(value)) is None else PARTS[int(text)] for value in table.columns[name]]
    return Division(parts, (name,), tuple(_said(f"the column '{name}'", parts, table.columns[name])))


def _said(what: str, parts: Sequence[str | None], values: Sequence[Any] | None = None) -> list[str]:
    verb = "give" if what.startswith("the columns") else "gives"
    notes = [f"{what} {verb} the split: {said_parts(parts, values)}; to read all as one part: --split-column none"]
    if left_out := sum(part is None for part in parts):
        unknown = Counter(_text(value) or "blank" for value, part in zip(values or (), parts, strict=False) if not part)
        named = f" ({first_few(list(unknown))})" if unknown else ""
        notes.append(
            f"{amount(left_out, 'image')} left out: their values{named} name no part; correct the table to use them"
        )
    return notes


def _is_flag(table: Table, name: str) -> bool:
    known = {value.lower() for value in _distinct(table.columns[name])}
    return bool(known) and known <= _TRUE | _FALSE


def _bit(value: Any) -> int | None:
    text = (_text(value) or "").lower()
    return 1 if text in _TRUE else 0 if text in _FALSE else None


def _text(value: Any) -> str | None:
    plain = plain_value(value)
    if isinstance(plain, str) and plain.endswith(".0") and plain[:-2].isdigit():
        plain = plain[:-2]
    return None if plain is None else str(plain)


def _distinct(values: Sequence[Any], most: int = _MOST_PARTS) -> list[str]:
    """The different values as texts in the order of their first rows, without blanks; at most one more than `most`."""
    known: dict[str, None] = {}
    for value in values:
        if isinstance(value, (bytes, list, dict)) or getattr(value, "ndim", 0) > 0 or isinstance(value, PathLike):
            return []
        text = _text(value)
        if text is not None:
            known[text] = None
            if len(known) > most:
                break
    return list(known)


# --- images and labels -----------------------------------------------------------------------------------------


def find_columns(
    table: Table, choose: Choose, image: str | None = None, label: str | None = None, split: Sequence[str] = ()
) -> Columns:
    """The columns of the images and labels; columns of zeros and ones, one for each class, become one column.

    Args:
        image, label: the user's choices; the label may be several columns of zeros and ones, separated by commas.
        split: the columns that give the split.

    Raises:
        UnknownName: a column that the user named does not exist.
        DataError: no column contains images.
        UsageError: two columns are equally plausible, and `choose` cannot decide.
    """
    every = [*table.columns, *table.parquet]
    several = [name.strip() for name in label.split(",")] if label is not None and label not in every else []
    for name in several if len(several) > 1 else [label]:
        _check_name(table, name)
    image = find_image_column(table, choose, image, {label, *several, *split})
    if len(several) > 1:
        return Columns(image, _joined(table, several))
    return Columns(image, label if label is not None else _label_column(table, choose, {image, *split}))


def find_image_column(table: Table, choose: Choose, image: str | None = None, taken: Iterable[Any] = ()) -> str:
    """The column of the images: the user's choice, or one that is not taken and holds pictures or names files.

    Raises:
        UnknownName, DataError, UsageError: as `find_columns`.
    """
    _check_name(table, image)
    if image is not None:
        return image
    others = [name for name in (*table.columns, *table.parquet) if name not in set(taken)]
    images = [name for name in others if name in table.parquet or _holds_pictures(table.columns[name])]
    images = images or [name for name in others if _names_files(table, name)]
    likely = [name for name in images if name.lower() not in _LABELS and not _holds_addresses(table, name)]
    return _choose_column(likely or images, _IMAGES, "images", "--image-column", table, choose)


def _check_name(table: Table, name: str | None) -> None:
    every = [*table.columns, *table.parquet]
    if name is not None and name not in every:
        raise UnknownName.among(f"column of {table.where}:", name, every)


def label_names(
    table: Table, column: str, parts: Sequence[str | None] | None = None, elsewhere: Iterable[Any] = ()
) -> list[str | None]:
    """The label of each row as a name, or None for a row without a label.

    Args:
        parts: the part of each row.
        elsewhere: the labels in the tables of other parts.

    A label of -1 means none in Parquet tables that number classes from 0, in tables that name their classes, and where
    the test part has no other label and no other part has it.

    Raises:
        DataError: no row has a label, labels mix names and numbers, or a number has no name.
    """
    _refuse_several(table, column)
    values = [plain_value(value) for value in table.columns[column]]
    names_of = dict(enumerate(table.class_names.get(column, ())))
    numbers = {value for value in chain(values, elsewhere) if isinstance(value, int)}
    in_hub = table.is_parquet and (0 in numbers or len(numbers) > 2) and min(numbers) == -1
    if names_of or in_hub or _hidden(values, parts or ()):
        values = [None if isinstance(value, (int, str)) and value in (-1, "-1") else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        raise _empty(table, column)
    if len(kinds) > 1 or not kinds <= {str, int}:
        first = {type(value).__name__: value for value in reversed(values) if value is not None}
        examples = ", ".join(f"{kind} ({value!r})" for kind, value in sorted(first.items()))
        raise DataError(
            f"{table.where}: labels in column {column} must be all names or all whole numbers, got {examples}",
            "convert them, or name another column: --label-column",
        )
    known = {value for value in values if value is not None}
    if _are_amounts(values) and (len(known) > _MOST_AMOUNTS or 3 * len(known) > len(values)):
        longest = max(known, key=len)
        raise DataError(
            f"{table.where}: labels in column {column} are amounts, such as {longest}",
            "hangtag learns classes; if they are classes, give them names such as 'size 0.5', or name another column: "
            "--label-column",
        )
    unnamed = sorted({value for value in values if value is not None} - names_of.keys()) if kinds == {int} else []
    if names_of and unnamed:
        raise DataError(
            f"{table.where}: label {unnamed[0]} in column {column} is not one of its {len(names_of)} class names",
            "correct the labels or the names",
        )
    return [None if value is None else names_of.get(value, str(value)) for value in values]


def _refuse_several(table: Table, column: str) -> None:
    """Raises DataError if a cell of a column of labels is a list of several."""
    if several := [value for value in table.columns[column] if isinstance(value, (list, tuple)) and len(value) > 1]:
        raise DataError(
            f"{table.where}: {amount(len(several), 'row')} of column {column} {'has' if len(several) == 1 else 'have'} "
            f"several labels, such as {str(several[0])[:80]}",
            "hangtag learns one class for each image; keep one label in each row, or name another column: "
            "--label-column",
        )


def _are_amounts(values: Sequence[Any]) -> bool:
    """Whether all are texts of numbers, and some of fractions."""
    try:
        numbers = [_number(value) for value in values if value is not None]
    except ValueError:
        return False
    return not all(number.is_integer() for number in numbers if math.isfinite(number))


def _number(value: Any) -> float:
    """The number that a text is, also with a decimal comma; ValueError for other texts."""
    if not isinstance(value, str):
        raise ValueError
    return float(value.replace(",", "."))


def no_labels(table: Table) -> DataError:
    """The error for a table without labels."""
    empty = [name for name in table.columns if name.lower() in _LABELS]
    if empty:
        return _empty(table, empty[0])
    columns = first_few([*table.columns, *table.parquet], 20)
    return DataError(
        f"{table.where}: no column contains labels; its columns are {columns}", "name one: --label-column NAME"
    )


def _empty(table: Table, column: str) -> DataError:
    return DataError(f"{table.where}: column {column} is empty", "fill it, or name another: --label-column")


def groups_in_several(groups: Sequence[Any], parts: Sequence[str | None]) -> list[str]:
    """The groups whose images are in several parts, in the order in which they appear."""
    first: dict[Any, str] = {}
    pairs = [(group, part) for group, part in zip(groups, parts, strict=False) if group is not None and part]
    return list(dict.fromkeys(str(group) for group, part in pairs if first.setdefault(group, part) != part))


def notes_on_shared_groups(tables: Sequence[Table], used: Sequence[str | None]) -> list[str]:
    """What looks like a group, is not used, and has the same values in tables of several parts, in sentences."""
    notes = []
    for name in tables[0].columns:
        if name not in used and _GROUPS & set(words_of(name)) and all(name in table.columns for table in tables):
            rows = [(_text(value), table.part) for table in tables for value in table.columns[name]]
            shared = groups_in_several(*zip(*rows, strict=True)) if rows else []
            if shared:
                notes.append(
                    f"{amount(len(shared), 'value')} of the column '{name}' {'is' if len(shared) == 1 else 'are'} in "
                    f"tables of several parts: {first_few(shared)}; if they name groups, results look too good"
                )
    return notes


def notes_on_unused(
    table: Table, label: str, used: Sequence[str | None], parts: Sequence[str | None] = ()
) -> list[str]:
    """What looks like a group, a label, a box or an image and is not used, in sentences.

    Args:
        parts: the part of each row, to name groups that are in several; empty for undivided data.
    """
    notes, unused = [], []
    for name in [*table.columns, *table.parquet]:
        if name == label or name in used:
            continue
        values = table.columns.get(name, ())
        texts = [text for value in values if not _is_picture(value) and (text := _text(value)) is not None]
        if _GROUPS & set(words_of(name)) and 1 < len(set(texts)) < len(texts):
            shared = len(groups_in_several([*map(_text, values)], parts))
            several = f"; {shared:,} in several parts" if shared else ""
            notes.append(
                f"the column '{name}' may name groups ({len(set(texts)):,} in {len(texts):,} images{several}); "
                f"to keep each on one side of the split: --group-by {name}"
            )
        elif (
            name in table.parquet
            or _holds_labels(values)
            or 1 < len(set(texts)) <= len(texts) // 2  # such as fractions that are classes
            or _looks_like_paths(values)
            or _marks_some(values, texts)
        ):
            unused.append(name)
    doubles = [name for name in (label, *unused) if name in table.columns]
    kept = _without_doubles(table, doubles)
    unused = [name for name in unused if name in kept or name not in doubles]
    boxes = [name for name in table.columns if name.lower() in _BOXES and name not in used]
    if len(boxes) > 3 or "bbox" in boxes:
        notes.append(f"{listed(boxes)} are not used: the whole image is learned, not what is inside a box")
    return notes + ([f"columns not used: {first_few(unused, 8)}"] if unused else [])


def _marks_some(values: Sequence[Any], texts: Sequence[str]) -> bool:
    """Whether a column has one value in some rows and none in the others."""
    return len(set(texts)) == 1 and len(texts) < len(values) and not isinstance(values[0], (bytes, list, dict))


def _hidden(values: Sequence[Any], parts: Sequence[str | None]) -> bool:
    """Whether -1 stands for "no label": it is the label of all images of the test part, and of no others."""
    tested = [part == "test" for part in parts]
    return any(tested) and any(
        tested == [isinstance(value, type(minus)) and value == minus for value in values] for minus in (-1, "-1")
    )


def _label_column(table: Table, choose: Choose, taken: set[str]) -> str | None:
    others = [name for name in table.columns if name not in taken]
    others = [name for name in others if not (_SPLITS | _MAYBE_SPLITS) & set(words_of(name))] or others
    named = [name for name in others if name.lower() in _LABELS and not _is_empty(table.columns[name])]
    classes = [name for name in others if part_named(name) is None and _is_flag(table, name)]
    if not named and len(classes) > 1 and _one_each(table, classes):
        rest = [name for name in others if name not in classes and _holds_labels(table.columns[name])]
        if not rest:
            return _joined(table, classes)
        answers = [(",".join(classes), f"a column for each class: {first_few(classes)}")]
        answers += [(name, f"column {name}: {_examples(table, name)}") for name in rest]
        answer = choose(f"{table.where}: which columns contain the labels? (--label-column)", answers)
        return _joined(table, classes) if answer == answers[0][0] else answer
    labels = _without_doubles(table, named or [name for name in others if _holds_labels(table.columns[name])])
    return _choose_column(labels, (), "labels", "--label-column", table, choose) if labels else None


def _one_each(table: Table, names: Sequence[str]) -> bool:
    """Whether exactly one of these columns is 1 in each row; blank rows do not count."""
    bits = zip(*([_bit(value) for value in table.columns[name]] for name in names), strict=True)
    return all(sum(bit or 0 for bit in row) == 1 for row in bits if any(bit is not None for bit in row))


def _joined(table: Table, names: Sequence[str]) -> str:
    """One column of class names, instead of a column of zeros and ones for each class.

    Raises:
        DataError: a row has several classes or none.
    """
    for name in names:
        if not _is_flag(table, name):
            raise DataError(f"{table.where}: column {name} must contain only 0 and 1", "name one column of labels")
    labels: list[str | None] = []
    for number, row in enumerate(zip(*(table.columns[name] for name in names), strict=True), 1):
        own = [name for name, value in zip(names, row, strict=True) if _bit(value)]
        if len(own) > 1 or (not own and any(_bit(value) is not None for value in row)):
            raise DataError(
                f"{table.where}: row {number} has {amount(len(own), 'class')}: {listed(own) if own else 'all are 0'}",
                "hangtag learns one class for each image; remove these rows or name one column",
            )
        labels.append(own[0] if own else None)
    column = ", ".join(names)
    table.columns = {name: values for name, values in table.columns.items() if name not in names} | {column: labels}
    table.notes.append(f"the columns {first_few(names)} are one class each")
    return column


def _choose_column(
    names: list[str], preferred: Sequence[str], content: str, option: str, table: Table, choose: Choose
) -> str:
    if not names:
        columns = first_few([*table.columns, *table.parquet], 20)
        raise DataError(
            f"{table.where}: no column contains {content}; its columns are {columns}", f"name one: {option} NAME"
        )
    best = [name for name in names if name.lower() in preferred]
    for only in (names, best):
        if len(only) == 1:
            return only[0]
    answers = [(name, f"column {name}: {_examples(table, name)}") for name in names]
    return choose(f"{table.where}: which column contains the {content}? ({option})", answers)


def _examples(table: Table, name: str) -> str:
    if name in table.parquet:
        return "bytes"
    return ", ".join(value[:40] for value in list(dict.fromkeys(map(str, table.columns[name][:_LOOKED_AT])))[:3])


def _without_doubles(table: Table, names: list[str]) -> list[str]:
    """Of columns with the same content (a number and a name for each class) the one with names."""
    kept: list[str] = []
    texts = {name: any(isinstance(v, str) and not v.isdigit() for v in table.columns[name]) for name in names}
    for name in sorted(names, key=lambda each: (bool(_GROUPS & set(words_of(each))), not texts[each])):
        values = list(map(str, table.columns[name]))
        same = any(
            len(set(zip(values, map(str, table.columns[other]), strict=True)))
            == len(set(values))
            == len(set(map(str, table.columns[other])))
            for other in kept
        )
        if not same:
            kept.append(name)
    return [name for name in names if name in kept]


def _holds_pictures(values: Sequence[Any]) -> bool:
    few = [value for value in values[:_LOOKED_AT] if plain_value(value) is not None]
    return bool(few) and (all(_is_picture(value) for value in few) or _looks_like_paths(few))


def _names_files(table: Table, name: str) -> bool:
    """Whether a column names files without their endings; searches the folders below the table."""
    values = [value for value in table.columns[name][:_LOOKED_AT] if plain_value(value) is not None]
    if not values or not all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values):
        return False
    if all(str(value).isdigit() for value in values) and not _ID_WORDS & set(words_of(name)):
        return False  # such as the epochs of a training
    if name.lower() not in _IMAGES and 2 * len(set(values)) <= len(
        values
    ):  # a few names that happen to be those of files
        return False
    found = sum(status_of(table.root, str(value)) is not None for value in values)
    if 2 * found < len(values) and table.files is not None:
        found = table.files.found([str(value) for value in values])
    return 2 * found >= len(values)


def _holds_addresses(table: Table, name: str) -> bool:
    """Whether a column holds addresses of the web."""
    return str(next(iter(table.columns.get(name, ())), "")).startswith(("http://", "https://"))


def _looks_like_paths(values: Sequence[Any]) -> bool:
    texts = [value for value in values[:_LOOKED_AT] if plain_value(value) is not None]
    named = sum(isinstance(text, str) and text.lower().endswith(PICTURE_ENDINGS) for text in texts)
    return bool(texts) and named >= _MOSTLY * len(texts)


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes) or isinstance(value.get("path"), str)
    return (
        isinstance(value, (bytes, PathLike))
        or (hasattr(value, "shape") and getattr(value, "ndim", 0) > 1)
        or (hasattr(value, "convert") and hasattr(value, "getexif"))
    )


def _holds_labels(values: Sequence[Any]) -> bool:
    plain = [plain_value(value) for value in values]
    if any(not isinstance(value, (str, int)) and value is not None for value in plain):
        return False
    known = {value for value in plain if value is not None}
    if _are_amounts(list(known)):
        return False
    names = any(isinstance(value, str) and not value.isdigit() for value in known)
    most = 2 * len(values) // 3 if names else len(values) // 2
    return 2 <= len(known) <= min(_MOST_CLASSES, max(2, most))


def _is_empty(values: Sequence[Any]) -> bool:
    return all(plain_value(value) is None for value in values)

"""The tables of a folder -> the ways to read them: one table, or several that are a part each (train.csv, test.csv)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hangtag.data.parts import part_in_file_name, part_named, words_of
from hangtag.data.table_paths import part_in_path
from hangtag.data.tables import TABLE_ENDINGS
from hangtag.words import listed

__all__ = [
    "TableReading",
    "are_class_folders",
    "is_parquet",
    "missing_shards",
    "parquet_readings",
    "readings_of",
    "split_lists",
    "tables_beside",
    "unread_note",
]

_KNOWN = {"labels", "label", "metadata", "train", "data", "annotations", "index", "classes", "_classes", "images"}
_NOT_LABELS = {"submission", "decisions", "findings", "skipped"}  # hangtag's own tables, and answers to be filled in
_SETTINGS = {"config", "info", "infos", "dict", "state", "package", "settings", "map", "mapping"}  # of JSON files
_CONTAINERS = {"images", "image", "img", "imgs", "pictures", "photos", "data", "jpg", "jpeg", "png", "files"}
_LISTS = (".txt", ".mat")
_SPLITS = {"split", "splits", "partition", "partitions", "folds"}
_SHARD = re.compile(r"(|.*[^0-9])([0-9]{3,8})-of-([0-9]{3,8})(.*)")
_MOST_SHARDS = 100_000  # that are looked for
_SHARDS = {"part", "batch", "chunk", "shard", "volume"}


@dataclass(frozen=True)
class TableReading:
    """One way to read a folder: its tables as (files, part); the answer that chooses it."""

    answer: str
    tables: tuple[tuple[tuple[str, ...], str | None], ...]

    @property
    def files(self) -> list[str]:
        return [name for names, _ in self.tables for name in names]


def readings_of(names: Iterable[str], deeply: bool = True) -> list[TableReading]:
    """The ways to read the text tables among these files, those nearest to the top.

    Args:
        deeply: also search folders that are not parts.

    >>> [reading.tables for reading in readings_of(["train.csv", "test.csv", "images/1.png"])]
    [((('train.csv',), 'train'), (('test.csv',), 'test'))]
    """
    names = list(names)
    top = len(names) if deeply else _top(names)
    tables = [name for name in names if _may_be_table(name) and _depth(name) <= top]
    if any(map(is_json, tables)):  # 1.json beside 1.jpg describes this picture
        pictured = {name.rpartition(".")[0] for name in names if not is_json(name)}
        tables = [name for name in tables if not is_json(name) or name.rpartition(".")[0] not in pictured]
    for depth in sorted({_depth(name) for name in tables}):
        here = [name for name in tables if _depth(name) == depth]
        part_of = {name: part for name in here if (part := _part_of(name)) is not None}
        known = [name for name in here if name not in part_of and Path(name).stem.lower() in _KNOWN]
        if part_of or known:
            return _readings_by_part(part_of) + [_reading_of_one(name) for name in known]
    others = [name for name in tables if _depth(name) == min(map(_depth, tables))]
    return [_reading_of_one(name) for name in ([name for name in others if not is_json(name)] or others)]


def parquet_readings(names: Iterable[str]) -> list[TableReading]:
    """The ways to read Parquet files as dataset hubs lay them out: one for each configuration, all its parts."""
    by_config: dict[str, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if is_parquet(name):
            folders = [folder for folder in name.split("/")[:-1] if part_named(folder) is None and folder != "data"]
            by_config["/".join(folders)][_part_of(name)].append(name)
    for config in sorted(by_config):
        above = config.rpartition("/")[0]
        if "/" in config and not any(by_config[config]) and any(by_config.get(above, ())):
            by_config[above][None] += by_config.pop(config)[None]  # beside the folders of the parts
    readings = []
    for config, by_part in by_config.items():
        divided = any(by_part)
        tables = tuple((tuple(files), part or ("" if divided else None)) for part, files in by_part.items())
        readings.append(TableReading(config or ".", tables))
    return readings


def missing_shards(names: Iterable[str]) -> list[str]:
    """The files that are missing among those numbered as train-00000-of-00003.parquet.

    >>> missing_shards(["train-00000-of-00002.parquet"])
    ['train-00001-of-00002.parquet']
    """
    families: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for name in names:
        if found := _SHARD.fullmatch(name):
            before, number, of, after = found.groups()
            families[before, of, after].add(int(number))
    return [
        f"{before}{number:0{len(of)}}-of-{of}{after}"
        for (before, of, after), own in families.items()
        for number in range(min(int(of), _MOST_SHARDS))
        if number not in own
    ]


def is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def are_class_folders(names: Iterable[str]) -> bool:
    """Whether these folders of pictures may be classes: two or more that are not parts, shards or just "images"."""
    folders = {tuple(name.split("/")[:-1]) for name in names if "/" in name}
    while folders and all(folders) and len({folder[0] for folder in folders}) == 1:
        folders = {folder[1:] for folder in folders}  # a folder that contains all others
    tops = {folder[0] for folder in folders if folder}
    if len(tops) < 2 or all(all(map(_is_no_class, folder)) for folder in folders):
        return False
    words = {tuple(words_of(top)) for top in tops}
    return len(words) > 1 or not _SHARDS & set(next(iter(words)))


def tables_beside(names: Iterable[str], used: Sequence[str]) -> list[str]:
    """The tables near the top that are not among those that were read."""
    names = list(names)
    tables = [name for name in names if name.lower().endswith(TABLE_ENDINGS) and not _is_settings(name)]
    most = max([_top(names), *map(_depth, used)])
    return [name for name in tables if name not in used and _depth(name) <= most]


def _top(names: Sequence[str]) -> int:
    """The number of folders that contain all others."""
    above = 0
    while all(name.count("/") > above for name in names) and len({name.split("/")[above] for name in names}) == 1:
        above += 1
    return above


def split_lists(names: Iterable[str], used: Sequence[str] = ()) -> list[str]:
    """Files that are named like the list of a split, such as train_test_split.txt, and were not read."""
    lists = [name for name in names if name not in used and name.lower().endswith((*TABLE_ENDINGS, *_LISTS))]
    return [name for name in lists if any(map(part_named, words := words_of(Path(name).stem))) or _SPLITS & set(words)]


def unread_note(names: Sequence[str], what_to_do: str = "name it") -> str:
    """A sentence on tables that were not read."""
    many = len(names) > 1
    return f"{listed(list(names[:5]))} {'were' if many else 'was'} not read; to use a table, {what_to_do}"


def _readings_by_part(part_of: dict[str, str]) -> list[TableReading]:
    if len(set(part_of.values())) == len(part_of):
        return [_reading_of(part_of)] if part_of else []
    families: dict[object, dict[str, str]] = defaultdict(dict)
    for name, part in part_of.items():
        path = Path(name)
        folders = tuple(folder for folder in path.parts[:-1] if part_named(folder) is None)
        families[folders, tuple(word for word in words_of(path.stem) if part_named(word) is None)][name] = part
    readings = []
    for family in families.values():
        whole = len(set(family.values())) == len(family)
        readings += [_reading_of(family)] if whole else [_reading_of({name: part}) for name, part in family.items()]
    return readings


def _reading_of_one(name: str) -> TableReading:
    return TableReading(name, (((name,), None),))


def _reading_of(part_of: dict[str, str]) -> TableReading:
    alone = len(part_of) == 1
    tables = tuple(((name,), None if alone and part == "train" else part) for name, part in part_of.items())
    return TableReading(" + ".join(part_of), tables)


def _part_of(name: str) -> str | None:
    return part_in_file_name(Path(name).stem) or part_in_path(name)


def _may_be_table(name: str) -> bool:
    lower, stem = name.lower(), Path(name).stem
    words = set(words_of(stem))
    if not lower.endswith(TABLE_ENDINGS) or words & _NOT_LABELS or (is_json(name) and words & _SETTINGS):
        return False
    return not is_parquet(name) or stem.lower() in _KNOWN or _part_of(name) is not None


def _is_settings(name: str) -> bool:
    """Whether a .json file describes one other file or the whole, such as 1.png.json or config.json."""
    stem = Path(name).stem
    return is_json(name) and ("." in stem or bool(_SETTINGS & set(words_of(stem))))


def _depth(name: str) -> int:
    """The number of folders above a file that are not parts."""
    return sum(part_named(folder) is None for folder in name.split("/")[:-1])


def _is_no_class(folder: str) -> bool:
    words = set(words_of(folder))
    return part_named(folder) is not None or (bool(words) and words <= _CONTAINERS | _SHARDS)

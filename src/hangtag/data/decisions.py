"""What a person decided about single pictures: keep, drop, or another label, in a small CSV.

Originals are never touched. Columns `name` and `decision`; others, such as those that `hangtag audit` writes, are
ignored.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError, UnknownName, UsageError
from hangtag.words import amount

__all__ = ["apply_decisions", "name_of", "read_decisions"]

_KEEP, _DROP, _RELABEL = "keep", "drop", "relabel:"


def name_of(data: LabelledImages, position: int) -> str:
    """What a picture is called in findings and decisions: its file's name, else its number."""
    return data.names[position] if len(data.names) else f"image {position}"


def read_decisions(path: Path) -> dict[str, str]:
    """The decision about each picture that has one; rows without a decision say nothing.

    Raises:
        DataError: the file cannot be read as such a table.
        UsageError: a decision that is none of keep, drop and relabel, or two different ones about one picture.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"name", "decision"} <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: has no columns 'name' and 'decision'", "one row for each picture")
            rows = [(number, row["name"], (row["decision"] or "").strip()) for number, row in enumerate(reader, 2)]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", "hangtag audit DATA writes one to fill in") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}", "save it as CSV in UTF-8") from error
    found: dict[str, str] = {}
    for number, name, decision in rows:
        if not decision:
            continue
        if decision not in (_KEEP, _DROP) and not decision.startswith(_RELABEL):
            raise UsageError(f"{path}, row {number}: {decision!r}", "decide keep, drop, or relabel: CLASS")
        if found.get(name, decision) != decision:
            raise UsageError(f"{path}: two decisions about {name}: {found[name]}; {decision}", "keep one of them")
        found[name] = decision
    return found


def apply_decisions(data: LabelledImages, path: Path) -> LabelledImages:
    """The data as decided: dropped pictures left out, labels changed.

    Raises:
        UsageError: a picture or class that is not there.
        DataError: nothing is left of all but one class.
    """
    decisions = read_decisions(path)
    names = {name_of(data, position): position for position in range(len(data))}
    unknown = [name for name in decisions if name not in names]
    if unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise UsageError(f"{path}: there is no picture {unknown[0]}{more} in {data.name}", "are they about other data?")
    labels, stays = data.labels.copy(), np.ones(len(data), bool)
    for name, decision in decisions.items():
        if decision == _DROP:
            stays[names[name]] = False
        elif decision.startswith(_RELABEL):
            wanted = decision.removeprefix(_RELABEL).strip()
            if wanted not in data.class_names:
                raise UnknownName.among("class", wanted, data.class_names)
            labels[names[name]] = data.class_names.index(wanted)
    if len(np.unique(labels[stays])) < 2:
        raise DataError(f"{path}: leaves pictures of fewer than two classes", "drop fewer")
    dropped, changed = int((~stays).sum()), int((labels[stays] != data.labels[stays]).sum())
    left, parts = replace(data, labels=labels), dict(data.parts)
    if dropped:
        number = np.cumsum(stays) - 1
        left = left.take(np.flatnonzero(stays), data.name)
        for name in parts:
            kept = data.positions(name)
            parts[name] = number[kept[stays[kept]]]
    note = f"by {path.name}: {amount(dropped, 'picture')} dropped, {amount(changed, 'label')} changed"
    return replace(left, parts=parts, notes=(*data.notes, note))

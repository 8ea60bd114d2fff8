"""Decisions about single pictures, in a small CSV: keep, drop, or another label.

The files themselves are never changed. The columns are `name` and `decision`; others, such as those that
`hangtag audit` writes, are ignored.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from hangtag.data.class_names import matching_class
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError, DataNotFound, UnknownName, UsageError
from hangtag.words import amount, from_csv

__all__ = ["apply_decisions", "name_of", "read_decisions"]

_KEEP, _DROP, _RELABEL = "keep", "drop", "relabel:"


def name_of(data: LabelledImages, position: int) -> str:
    """The name of a picture in findings and decisions: its file's name, else its number."""
    return data.names[position] if len(data.names) else f"image {position}"


def read_decisions(path: Path) -> dict[str, str]:
    """The decision about each picture, by its name; rows without a decision are ignored.

    Raises:
        DataError: the file cannot be read as such a table.
        UsageError: a decision is not keep, drop or relabel, or two decisions about one picture differ.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"name", "decision"} <= set(reader.fieldnames or ()):
                raise DataError(f"{path} must have the columns 'name' and 'decision'", "write one row for each image")
            rows = [
                (number, from_csv(row["name"] or ""), (row["decision"] or "").strip())
                for number, row in enumerate(reader, 2)
            ]
    except FileNotFoundError:
        raise DataNotFound(f"{path}: no such file", "hangtag audit DATA creates one to fill in") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", "save it as CSV in UTF-8") from error
    decisions: dict[str, str] = {}
    for number, name, decision in rows:
        if not decision:
            continue
        if decision not in (_KEEP, _DROP) and not decision.startswith(_RELABEL):
            raise UsageError(
                f"{path}, row {number}: {decision!r} is not a decision", "write keep, drop, or relabel: CLASS"
            )
        if decisions.setdefault(name, decision) != decision:
            both = f"{decisions[name]}; {decision}"
            raise UsageError(f"{path}: two decisions about {name}: {both}", "keep one of them")
    return decisions


def apply_decisions(data: LabelledImages, path: Path) -> LabelledImages:
    """The data without dropped pictures, and with changed labels.

    Raises:
        UsageError: a picture or class does not exist.
        DataError: fewer than two classes are left.
    """
    decisions = read_decisions(path)
    names: dict[str, list[int]] = {}
    for position in range(len(data)):
        names.setdefault(name_of(data, position), []).append(position)
    unknown = [name for name in decisions if name not in names]
    if unknown:
        more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        raise UsageError(
            f"{path}: {data.name} has no image named {unknown[0]}{more}", "check that the decisions are for this data"
        )
    labels, stays = data.labels.copy(), np.ones(len(data), bool)
    for name, decision in decisions.items():
        if decision == _DROP:
            stays[names[name]] = False
        elif decision.startswith(_RELABEL):
            wanted = decision.removeprefix(_RELABEL).strip()
            found = matching_class(wanted, data.class_names)
            if found is None:
                raise UnknownName.among("class", wanted, data.class_names)
            labels[names[name]] = data.class_names.index(found)
    if len(np.unique(labels[stays])) < 2:
        raise DataError(f"{path} leaves fewer than two classes", "drop fewer images")
    dropped, changed = int((~stays).sum()), int((labels[stays] != data.labels[stays]).sum())
    left, parts = replace(data, labels=labels), dict(data.parts)
    if dropped:
        number = np.cumsum(stays) - 1
        left = left.take(np.flatnonzero(stays), data.name)
        for name in parts:
            positions = data.positions(name)
            parts[name] = number[positions[stays[positions]]]
    note = f"{path.name}: {amount(dropped, 'image')} dropped, {amount(changed, 'label')} changed"
    return replace(left, parts=parts, source=replace(left.source, notes=(*data.source.notes, note)))

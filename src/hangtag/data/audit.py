"""What is wrong with pictures and labels -> findings, each with what, where, how sure. It never edits a file.

Same and nearly the same pictures, labels that the pictures do not support, pictures with nothing on them, classes too
small, parts that differ. It draws nothing; `audit_page.py` does.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hangtag.data.decisions import name_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.near_duplicates import Pairs, groups_of, near_pairs
from hangtag.data.picture_facts import COLOUR_FILE
from hangtag.files import make_folder, write_json, write_text
from hangtag.pictures import Images
from hangtag.progress import Progress
from hangtag.words import amount

__all__ = ["KINDS", "Audit", "Finding", "LabelErrorFinder", "LabelErrors", "audit", "write_audit"]

KINDS = {
    "leak": "the same picture in training and test",
    "contradiction": "the same picture with different labels",
    "suspect label": "the label is probably wrong",
    "unreadable": "files that cannot be read",
    "duplicate": "the same picture more than once",
    "shift": "training and test pictures differ",
    "small class": "classes with few pictures",
    "blank": "nothing on it",
    "dark": "almost black",
    "tiny": "far smaller than the others",
    "odd aspect": "proportions unlike the others",
    "odd colours": "a colour mode unlike the others",
}
"""Every kind of finding, the most important first."""

_TODO = {
    "leak": "take {} out of the test part (also in training)",
    "contradiction": "decide the label of {} (two labels)",
    "suspect label": "look at {}, surest first",
    "unreadable": "replace {} (cannot be read)",
    "duplicate": "drop {} (there more than once)",
    "shift": "find out why test pictures differ from training pictures, in {}",
    "small class": "add pictures to {}",
    "blank": "drop {} (nothing on it)",
    "dark": "look at {}, almost black",
    "tiny": "replace {}",
    "odd aspect": "look at {} of odd proportions",
    "odd colours": "look at {} of another colour mode",
}
_NOUNS = {
    "suspect label": "suspect label", "unreadable": "file", "shift": "respect", "small class": "small class",
    "tiny": "tiny picture",
}  # fmt: skip
_BLANK = 2.0  # grey levels of standard deviation
_DARK = 12.0  # of the brightest twentieth of a picture; and few of its set are that dark
_FEW = 10  # images of a class
_UNEVEN = 0.1  # of the median class
_TINY = 32.0  # pixels of the shorter side
_FAR = 3.0  # times another size or proportion
_MODES = {
    "L": "grey", "1": "black and white", "LA": "half-transparent grey", "I;16": "16-bit grey", "I": "32-bit grey",
    "F": "floating point", "P": "palette", "RGB": "colour", "RGBA": "half-transparent colour", "CMYK": "CMYK",
}  # fmt: skip
_AT_A_TIME = 16 << 20  # pixels
_CELLS = 12  # a side, by which pictures are compared that look alike
_SOME = 0.05  # share of the pictures; what more have is not odd
_RARE = 0.02  # share of a colour mode that is odd
_SHIFTED = 0.1  # Kolmogorov-Smirnov distance that matters
_SURE = 0.001  # chance of such a distance between like parts, at most


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        name: of the picture, file, class or part.
        says: in a sentence.
        certainty: 0 to 1.
        position: of the picture among the data; None where it is not about one.
        others: positions of pictures to look at beside it, or in its stead.
        suggestion: a decision to take over or not: "drop", "relabel: X", or "".
    """

    kind: str
    name: str
    message: str
    certainty: float
    position: int | None = None
    others: tuple[int, ...] = ()
    suggestion: str = ""

    def to_json(self, data: LabelledImages) -> dict[str, Any]:
        return {
            "kind": self.kind, "name": self.name, "message": self.message, "certainty": round(self.certainty, 4),
            "position": self.position, "beside": [name_of(data, other) for other in self.others],
            "suggestion": self.suggestion,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Audit:
    """All findings, the most important and surest first."""

    data: LabelledImages
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """How many of each kind there are, kinds in order of importance."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data.name, "images": len(self.data), "fingerprint": self.data.fingerprint,
            "counts": self.counts(), "first": self.first(),
            "findings": [each.to_json(self.data) for each in self.findings],
        }  # fmt: skip

    def first(self, most: int = 5) -> list[str]:
        """What to do first, in sentences, each with the first one or two that it is about."""
        steps = []
        for kind, number in list(self.counts().items())[:most]:
            names = [finding.name for finding in self.findings if finding.kind == kind][:2]
            more = ", ..." if number > len(names) else ""
            todo = _TODO[kind].format(amount(number, _NOUNS.get(kind, "picture")))
            steps.append(f"{todo}: {', '.join(names)}{more}")
        return steps


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """What out-of-fold predictions say about labels.

    Attributes:
        positions: (M,) of the images whose labels are probably wrong, the most suspect first.
        quality: (N,) the probability of the given label; small is suspect.
        suggested: (N,) the most probable class.
        probabilities: (N, K) float32, out of fold; all 1/K for images in no fold.
        accuracy: how often the out-of-fold predictions agree with the labels; 0 where nothing was judged.
        left_out: names of classes with too few images to be judged.
    """

    positions: NDArray[np.int64]
    quality: NDArray[np.float64]
    suggested: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    accuracy: float
    left_out: tuple[str, ...]


LabelErrorFinder: TypeAlias = Callable[[LabelledImages, NDArray[np.int64], Progress | None], LabelErrors]
"""Called with (data, the group of each image, progress); images of one group are equal or nearly so."""


def audit(
    data: LabelledImages, find_label_errors: LabelErrorFinder | None = None, progress: Progress | None = None
) -> Audit:
    """Look for what is wrong with labelled images.

    Args:
        judge_labels: finds labels that are probably wrong (`suspects.label_judge`); None looks for everything else.
    """
    pairs = _with_equal(data, near_pairs(data.images, progress))
    findings = [
        *_unreadable(data),
        *_duplicates(data, pairs),
        *_small_classes(data),
        *_shift(data),
        *_pixels(data),
        *_files(data),
    ]
    if find_label_errors is not None:
        found = find_label_errors(data, groups_of(len(data), pairs), progress)
        findings = [_judged(data, each, found) for each in findings]
        known = [each for each in findings if each.kind in ("contradiction", "blank")]
        findings += _suspects(data, found, {place for each in known for place in (each.position, *each.others)})
    importance = {kind: place for place, kind in enumerate(KINDS)}
    return Audit(data, tuple(sorted(findings, key=lambda each: (importance[each.kind], -each.certainty, each.name))))


def write_audit(found: Audit, folder: Path) -> list[Path]:
    """findings.csv, findings.json, and decisions.csv to fill in, which is never overwritten once it is there."""
    make_folder(folder)
    rows = [each.to_json(found.data) for each in found.findings]
    paths = [folder / "findings.csv", folder / "findings.json"]
    columns = ["kind", "name", "message", "certainty", "suggestion", "beside"]
    lines = [[*(row[column] for column in columns[:-1]), "; ".join(row["beside"])] for row in rows]
    write_text(paths[0], _csv(columns, lines))
    write_json(paths[1], found.to_json())
    decisions = folder / "decisions.csv"
    if not decisions.exists():
        about = [each for each in found.findings if each.position is not None]
        once = {each.name: each for each in reversed(about)}
        lines = [[each.name, "", each.suggestion, each.kind, each.message] for each in about if once[each.name] is each]
        write_text(decisions, _csv(["name", "decision", "suggestion", "kind", "message"], lines))
        paths.append(decisions)
    return paths


# --- kinds of findings -----------------------------------------------------------------------------------------


def _unreadable(data: LabelledImages) -> list[Finding]:
    return [Finding("unreadable", each.name, each.reason, 1.0) for each in data.skipped]


def _with_equal(data: LabelledImages, near: Pairs) -> Pairs:
    """Pairs of equal pictures, each with the first of its kind, before the nearly equal ones."""
    _, firsts, kind = np.unique(data.contents, axis=0, return_index=True, return_inverse=True)
    first = firsts[kind.reshape(-1)]
    again = np.flatnonzero(first != np.arange(len(data)))
    return Pairs(
        np.concatenate([first[again], near.first]).astype(np.int64),
        np.concatenate([again, near.second]).astype(np.int64),
        np.concatenate([np.ones(len(again)), np.minimum(near.certainty, 0.9999)]),
    )


def _duplicates(data: LabelledImages, pairs: Pairs) -> list[Finding]:
    part_of = _part_of(data)
    area = _areas(data)
    found: dict[int, Finding] = {}
    for a, b, certainty in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.certainty.tolist(), strict=True):
        first, second = (a, b) if (part_of[a], area[b], a) <= (part_of[b], area[a], b) else (b, a)
        same = "the same picture as" if certainty == 1 else "nearly the same picture as"
        one, other = (data.class_names[data.labels[each]] for each in (first, second))
        message = f"{same} {name_of(data, first)}"
        if part_of[first] != part_of[second]:
            parts = list(data.parts)
            message += f", which is in {parts[part_of[first]]}, this one in {parts[part_of[second]]}"
            kind = "leak"
        else:
            kind = "contradiction" if one != other else "duplicate"
        if one != other:
            message += f"; there it is {one}, here {other}"
        suggestion = "" if kind == "contradiction" else "drop"
        if second not in found or (kind != "duplicate" and found[second].kind == "duplicate"):
            found[second] = Finding(kind, name_of(data, second), message, certainty, second, (first,), suggestion)
    return list(found.values())


def _areas(data: LabelledImages) -> list[int]:
    """Of each picture's file, in pixels; the same for all where nothing is known about files."""
    if data.facts is None:
        return [0] * len(data)
    found: list[int] = (data.facts["height"].astype(np.int64) * data.facts["width"]).tolist()
    return found


def _suspects(data: LabelledImages, found: LabelErrors, known: set[int | None]) -> list[Finding]:
    findings = []
    small = _small(data)
    for position in found.positions.tolist():
        if position in known:
            continue
        label, other = int(data.labels[position]), int(found.suggested[position])
        given, better = data.class_names[label], data.class_names[other]
        if given == better:
            continue
        share = float(found.probabilities[position, other])
        message = f"labelled {given}; networks that never saw it say {better} ({share:.0%})"
        others = (*_most_like(data, small, position, other), *_most_like(data, small, position, label))
        certainty = float(1 - found.quality[position]) * found.accuracy  # the networks err, too
        name = name_of(data, position)
        findings.append(Finding("suspect label", name, message, certainty, position, others, f"relabel: {better}"))
    return findings


def _judged(data: LabelledImages, finding: Finding, found: LabelErrors) -> Finding:
    """The finding with what networks say of it: which of two labels of the same picture, and what they cannot judge."""
    if finding.kind == "small class" and finding.name in found.left_out:
        return replace(finding, message=f"{finding.message}; too few to check their labels")
    if finding.kind != "contradiction" or finding.position is None:
        return finding
    this, other = finding.position, finding.others[0]
    believed = found.probabilities[[this, other]].mean(axis=0)
    mine, its = believed[data.labels[this]], believed[data.labels[other]]
    if mine == its:
        return finding
    if mine > its:
        this, other = other, this
    wrong, right = (data.class_names[data.labels[each]] for each in (this, other))
    nearly = "nearly " if finding.message.startswith("nearly") else ""
    message = f"{nearly}the same picture as {name_of(data, other)}; there it is {right}, here {wrong}; "
    message += f"networks that never saw them say {right} ({max(mine, its):.0%}; {wrong} {min(mine, its):.0%})"
    return replace(
        finding,
        name=name_of(data, this),
        message=message,
        position=this,
        others=(other,),
        suggestion=f"relabel: {right}",
    )


def _small(data: LabelledImages) -> NDArray[np.float32]:
    """(N, 144) or fewer: each picture as the grey levels of some cells, without its brightness and contrast."""
    edges = [np.linspace(0, side, min(side, _CELLS) + 1).astype(int) for side in data.images.shape[1:3]]
    found = []
    for rows in _some_rows(data):
        grey = rows.astype(np.float32) if rows.ndim == 3 else rows.mean(axis=3, dtype=np.float32)
        for axis, edge in enumerate(edges, 1):
            grey = np.add.reduceat(grey, edge[:-1], axis=axis)
        cells = (grey / np.outer(np.diff(edges[0]), np.diff(edges[1]))).reshape(len(rows), -1)
        cells -= cells.mean(axis=1, keepdims=True)
        found.append(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6))
    return np.concatenate(found)


def _most_like(data: LabelledImages, small: NDArray[np.float32], position: int, label: int) -> tuple[int, ...]:
    """The picture of this class that looks most like the one at a position; none where the class has no other."""
    members = np.flatnonzero((data.labels == label) & (np.arange(len(data)) != position))
    return (int(members[(small[members] @ small[position]).argmax()]),) if len(members) else ()


def _some_rows(data: LabelledImages) -> Iterator[Images]:
    """All images, some at a time."""
    count = max(1, _AT_A_TIME // int(np.prod(data.images.shape[1:])))
    for start in range(0, len(data), count):
        yield data.images[start : start + count]


def _small_classes(data: LabelledImages) -> list[Finding]:
    counts = data.counts("train" if "train" in data.parts else None)
    typical = float(np.median(counts))
    findings = []
    for label, (name, count) in enumerate(zip(data.class_names, counts.tolist(), strict=True)):
        if count < _FEW or count < _UNEVEN * typical:
            message = f"{amount(count, 'picture')} to train on; half of the classes have {typical:,.0f} or more"
            members = tuple(np.flatnonzero(data.labels == label)[:3].tolist())
            findings.append(Finding("small class", name, message, 1.0, others=members))
    return findings


def _shift(data: LabelledImages) -> list[Finding]:
    """Whether test pictures differ from training pictures in simple measures (two-sample Kolmogorov-Smirnov test)."""
    if not {"train", "test"} <= data.parts.keys():
        return []
    from scipy.stats import ks_2samp

    train, test = data.positions("train"), data.positions("test")
    findings = []
    for what, values in _measures(data).items():
        result = ks_2samp(values[train], values[test])
        if result.statistic > _SHIFTED and result.pvalue < _SURE:
            before, after = float(np.median(values[train])), float(np.median(values[test]))
            message = f"{what}: the median is {before:.3g} in training, {after:.3g} in test"
            usual = tuple(
                int(rows[np.abs(values[rows] - middle).argmin()]) for rows, middle in ((train, before), (test, after))
            )
            findings.append(Finding("shift", what, message, float(1 - result.pvalue), others=usual))
    shares = [np.bincount(data.labels[rows], minlength=len(data.class_names)) / len(rows) for rows in (train, test)]
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if distance > _SHIFTED:
        most = int(np.abs(shares[0] - shares[1]).argmax())
        message = (
            f"classes: {data.class_names[most]} is {shares[0][most]:.0%} of training and {shares[1][most]:.0%} of test"
        )
        findings.append(Finding("shift", "classes", message, min(1.0, distance)))
    return findings


def _measures(data: LabelledImages) -> dict[str, NDArray[np.float64]]:
    mean, spread, _ = _levels(data)
    measures = {"brightness": mean, "contrast": spread}
    if data.facts is not None:
        measures |= {"height": data.facts["height"].astype(float), "width": data.facts["width"].astype(float)}
    return measures


def _levels(data: LabelledImages) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(N,) each: mean and standard deviation of the grey levels, and the level of the brightest twentieth."""
    found = []
    for rows in _some_rows(data):
        flat = rows.reshape(len(rows), -1)
        found.append((flat.mean(axis=1), flat.std(axis=1), np.quantile(flat, 0.95, axis=1)))
    mean, spread, bright = (np.concatenate(each) for each in zip(*found, strict=True))
    return mean, spread, bright


def _pixels(data: LabelledImages) -> list[Finding]:
    _, spread, bright = _levels(data)
    findings = []
    for position in np.flatnonzero(spread < _BLANK).tolist():
        name = name_of(data, position)
        findings.append(Finding("blank", name, "all of it has one colour", 1.0, position, (), "drop"))
    dark = (bright < _DARK) & (spread >= _BLANK)
    if dark.mean() < _RARE:
        for position in np.flatnonzero(dark).tolist():
            message = f"its brightest parts have grey level {bright[position]:.0f} of 255"
            findings.append(Finding("dark", name_of(data, position), message, 0.9, position))
    return findings


def _files(data: LabelledImages) -> list[Finding]:
    if data.facts is None or not len(data):
        return []
    height, width = data.facts["height"].astype(float), data.facts["width"].astype(float)
    least, aspect = np.minimum(height, width), width / height
    typical, usual = float(np.median(least)), float(np.median(aspect))
    findings = []
    for position in np.flatnonzero(least < min(_TINY, typical / _FAR)).tolist():
        message = f"{width[position]:.0f}x{height[position]:.0f} pixels; half of the others have {typical:.0f} or more"
        findings.append(Finding("tiny", name_of(data, position), message, 0.9, position))
    odd = np.maximum(aspect / usual, usual / aspect) > _FAR
    for position in np.flatnonzero(odd).tolist() if odd.mean() < _SOME else ():
        size = f"{width[position]:.0f}x{height[position]:.0f} pixels"
        message = f"{size}, {aspect[position]:.2g} times as wide as high; usual is {usual:.2g}"
        findings.append(Finding("odd aspect", name_of(data, position), message, 0.8, position))
    return findings + _odd_colours(data, data.facts)


def _odd_colours(data: LabelledImages, facts: NDArray[Any]) -> list[Finding]:
    """Files of a mode that few have: grey among colour, CMYK, 16 bits."""
    if not (facts["kind"] == b"").any():
        modes = np.array([kind.decode().rpartition(" ")[2] for kind in facts["kind"].tolist()])
    else:
        modes = np.where(facts["flags"] & COLOUR_FILE, "RGB", "L")
    names, of, counts = np.unique(modes, return_inverse=True, return_counts=True)
    usual = _MODES.get(str(names[counts.argmax()]), str(names[counts.argmax()]))
    findings = []
    for position in np.flatnonzero((counts / len(data))[of] < _RARE).tolist():
        mode = _MODES.get(str(modes[position]), str(modes[position]))
        message = f"its file is {mode}; {min(0.99, counts.max() / len(data)):.0%} are {usual}"
        findings.append(Finding("odd colours", name_of(data, position), message, 0.7, position))
    return findings


def _part_of(data: LabelledImages) -> list[int]:
    part = np.zeros(len(data), np.int64)
    for number, name in enumerate(data.parts):
        part[data.parts[name]] = number
    found: list[int] = part.tolist()
    return found


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue().encode("utf-8", "replace").decode()

"""Finds problems in pictures and labels: what, where, how certain. It never changes a file.

It looks for equal and nearly equal pictures, labels that the pictures do not support, pictures that show nothing,
classes that are too small, and parts that differ. `reports/audit_page.py` draws the page.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hangtag.data.decisions import name_of, read_decisions
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.near_duplicates import Pairs, groups_of, near_pairs
from hangtag.data.picture_facts import COLOUR_FILE
from hangtag.errors import HangtagError
from hangtag.files import make_own_folder, write_json, write_text
from hangtag.pictures import Images
from hangtag.progress import Progress
from hangtag.significance import hypergeometric_tail, kolmogorov_smirnov
from hangtag.words import amount, csv_text, in_percent

__all__ = ["KINDS", "Audit", "Finding", "LabelErrorFinder", "LabelErrors", "audit", "write_audit"]

KINDS = {
    "leak": "identical or nearly identical images in different parts",
    "conflicting label": "identical or nearly identical images with different labels",
    "suspect label": "labels that may be wrong",
    "unreadable": "files that cannot be read",
    "duplicate": "identical or nearly identical images",
    "shift": "training and test images differ",
    "small class": "classes with few images",
    "blank": "images of a single colour",
    "dark": "almost black images",
    "tiny": "images far smaller than the others",
    "odd aspect ratio": "proportions unlike those of the other images",
    "odd colour mode": "a colour mode unlike that of the other images",
}
"""The kinds of findings, the most important first."""

_TODO = {
    "leak": ("drop {} (also in another part)", "image"),
    "conflicting label": ("decide which label is right for {}", "image"),
    "suspect label": ("check {}, the most suspect first", "label"),
    "unreadable": ("replace {} that cannot be read", "file"),
    "duplicate": ("drop {}", "duplicate image"),
    "shift": ("find out why test images differ from training images in {}", "measure"),
    "small class": ("add images to {}", "small class"),
    "blank": ("drop {} of a single colour", "image"),
    "dark": ("check {}", "almost black image"),
    "tiny": ("replace {}", "tiny image"),
    "odd aspect ratio": ("check {} with unusual proportions", "image"),
    "odd colour mode": ("check {} with an unusual colour mode", "image"),
}
_BLANK = 2.0  # grey levels of standard deviation
_DARK = 12.0  # grey level of the brightest twentieth of a picture; only if few pictures are that dark
_FEW = 10  # images of a class
_UNEVEN = 0.1  # of the median class
_TINY = 32.0  # pixels of the shorter side
_FAR = 3.0  # factor between sizes or proportions
_MODES = {
    "L": "grey", "1": "black and white", "LA": "grey with transparency", "I;16": "16-bit grey", "I": "32-bit grey",
    "F": "floating point", "P": "palette", "RGB": "colour", "RGBA": "colour with transparency", "CMYK": "CMYK",
}  # fmt: skip
_PIXELS_AT_ONCE = 16 << 20
_CELLS = 12  # per side, by which pictures are compared for similarity
_ODD = 0.05  # the largest share of pictures whose proportions are odd
_RARE = 0.02  # the largest share of pictures that are dark, or whose colour mode is odd
_SHIFTED = 0.1  # the smallest Kolmogorov-Smirnov distance that matters
_CHANCE = 0.001  # the largest p-value of such a distance


@dataclass(frozen=True)
class Finding:
    """One problem that the audit found.

    Attributes:
        kind: one of `KINDS`.
        name: the picture, file, class or measure that has the problem.
        message: a description of the problem.
        certainty: from 0 to 1.
        position: the picture's position in the data; None if the problem is not that of a single picture.
        others: positions of pictures to compare it with, or of examples.
        suggestion: a possible decision: "drop", "relabel: X", or "".
    """

    kind: str
    name: str
    message: str
    certainty: float
    position: int | None = None
    others: tuple[int, ...] = ()
    suggestion: str = ""

    def __repr__(self) -> str:
        return f"<Finding {self.kind}: {self.name}: {self.message}>"

    def to_json(self, data: LabelledImages) -> dict[str, Any]:
        return {
            "kind": self.kind, "name": self.name, "message": self.message, "certainty": round(self.certainty, 4),
            "position": self.position, "compare_with": [name_of(data, other) for other in self.others],
            "suggestion": self.suggestion,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Audit:
    """All findings, the most important and most certain first.

    Attributes:
        labels_checked: how far labels could be judged, in a sentence.
        labels_judged: whether they could.
    """

    data: LabelledImages
    findings: tuple[Finding, ...]
    labels_checked: str = ""
    labels_judged: bool = False

    @property
    def nothing_found(self) -> str:
        """What can be said if there are no findings."""
        return "no problems found" if self.labels_judged else "no problems found; labels were not judged"

    def __str__(self) -> str:
        found = ", ".join(f"{kind} {count:,}" for kind, count in self.counts().items())
        return f"{self.data.name}: {amount(len(self.findings), 'finding')}{f' ({found})' if found else ''}"

    def __repr__(self) -> str:
        return f"<Audit of {self}>"

    def _repr_html_(self) -> str:
        from hangtag.html import render

        rows = [(kind, f"{count:,}", KINDS[kind]) for kind, count in self.counts().items()]
        notes = [*self.first(), self.labels_checked]
        values = {"title": str(self), "head": ["kind", "findings", ""], "rows": rows, "notes": notes, "words": True}
        return render("notebook_table.html", values)

    def counts(self) -> dict[str, int]:
        """The number of findings of each kind, in order of importance."""
        numbers = Counter(finding.kind for finding in self.findings)
        return {kind: numbers[kind] for kind in KINDS if numbers[kind]}

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data.name, "images": len(self.data), "fingerprint": self.data.fingerprint,
            "counts": self.counts(), "first": self.first(), "labels_checked": self.labels_checked,
            "findings": [each.to_json(self.data) for each in self.findings],
        }  # fmt: skip

    def first(self, most: int = 5) -> list[str]:
        """What to do first, as sentences, each with one or two examples."""
        steps = []
        for kind, number in list(self.counts().items())[:most]:
            names = [finding.name for finding in self.findings if finding.kind == kind][:2]
            more = ", ..." if number > len(names) else ""
            todo, noun = _TODO[kind]
            steps.append(f"{todo.format(amount(number, noun))}: {', '.join(names)}{more}")
        return steps


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Labels compared with out-of-fold predictions.

    Attributes:
        positions: (M,) of the images whose labels are suspect, the most suspect first.
        wrong: (N,) the probability that the label is wrong; 0 for images that were not judged.
        suggested: (N,) index of the most probable class.
        probabilities: (N, K) float32, out of sample; 1/K for images that were not judged.
        agreement: the share of out-of-sample predictions that agree with the labels; 0 without predictions.
        left_out: names of the classes with too few images to judge.
        judged: whether a model agreed with the labels often enough to judge any.
        convincing: whether it is almost certain that there are wrong labels; if not, suspects are only worth a look.
    """

    positions: NDArray[np.int64]
    wrong: NDArray[np.float64]
    suggested: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    agreement: float
    left_out: tuple[str, ...]
    judged: bool = False
    convincing: bool = False


LabelErrorFinder: TypeAlias = Callable[[LabelledImages, NDArray[np.int64], Progress | None], LabelErrors]
"""Called with (data, the group of each image, progress); images of one group are equal or nearly so."""


def audit(
    data: LabelledImages, find_label_errors: LabelErrorFinder | None = None, progress: Progress | None = None
) -> Audit:
    """Search labelled images for problems.

    Args:
        find_label_errors: finds labels that are probably wrong (`label_errors.label_error_finder`); None leaves these
            out.
    """
    pairs = _with_equal(data, near_pairs(data.images, progress))
    levels = _levels(data)
    findings = [Finding("unreadable", each.name, each.reason, 1.0) for each in data.source.skipped]
    findings += [*_duplicates(data, pairs), *_small_classes(data), *_shift(data, levels)]
    findings += [*_pixels(data, levels), *_files(data)]
    labels_checked, labels_judged = "Labels were not checked.", False
    if find_label_errors is not None:
        errors = find_label_errors(data, groups_of(len(data), pairs), progress)
        findings = [_with_predictions(data, each, errors) for each in findings]
        known = [each for each in findings if each.kind in ("conflicting label", "blank")]
        findings += _suspect_labels(data, errors, {place for each in known for place in (each.position, *each.others)})
        labels_checked, labels_judged = _how_checked(data, errors), errors.judged
    importance = {kind: place for place, kind in enumerate(KINDS)}
    findings = sorted(findings, key=lambda each: (importance[each.kind], -each.certainty, each.name))
    return Audit(data, tuple(findings), labels_checked, labels_judged)


def write_audit(result: Audit, folder: Path) -> list[Path]:
    """Write findings.csv, findings.json and decisions.csv to fill in; returns what was written.

    A decisions.csv in which somebody has decided about an image is kept.
    """
    make_own_folder(folder)
    rows = [each.to_json(result.data) for each in result.findings]
    paths = [folder / "findings.csv", folder / "findings.json"]
    columns = ["kind", "name", "message", "certainty", "suggestion", "compare_with"]
    lines = [[*(row[column] for column in columns[:-1]), "; ".join(row["compare_with"])] for row in rows]
    write_text(paths[0], csv_text(columns, lines))
    write_json(paths[1], result.to_json())
    decisions = folder / "decisions.csv"
    if not _has_decisions(decisions):
        about = [each for each in result.findings if each.position is not None]
        once = {each.name: each for each in reversed(about)}
        lines = [[each.name, "", each.suggestion, each.kind, each.message] for each in about if once[each.name] is each]
        write_text(decisions, csv_text(["name", "decision", "suggestion", "kind", "message"], lines))
        paths.append(decisions)
    return paths


def _has_decisions(path: Path) -> bool:
    """Whether somebody has decided about an image in this file, or it cannot be read."""
    try:
        return path.exists() and bool(read_decisions(path))
    except HangtagError:
        return True


# --- kinds of findings -----------------------------------------------------------------------------------------


class _Levels(NamedTuple):
    """(N,) each: mean and standard deviation of the grey levels, and the level of the brightest twentieth."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    bright: NDArray[np.float64]


def _with_equal(data: LabelledImages, near: Pairs) -> Pairs:
    """Pairs of equal pictures, each with the first one like it, then the nearly equal ones with a certainty below 1."""
    _, firsts, content = np.unique(data.contents, axis=0, return_index=True, return_inverse=True)
    first = firsts[content.reshape(-1)]
    repeated = np.flatnonzero(first != np.arange(len(data)))
    return Pairs(
        np.concatenate([first[repeated], near.first]).astype(np.int64),
        np.concatenate([repeated, near.second]).astype(np.int64),
        np.concatenate([np.ones(len(repeated)), np.minimum(near.certainty, 0.9999)]),
    )


def _duplicates(data: LabelledImages, pairs: Pairs) -> list[Finding]:
    part_of = np.zeros(len(data), np.int64)
    for number, name in enumerate(data.parts):
        part_of[data.parts[name]] = number
    area = np.zeros(len(data), np.int64)
    if data.picture_facts is not None:
        area = data.picture_facts["height"].astype(np.int64) * data.picture_facts["width"]
    findings: dict[int, Finding] = {}
    for a, b, certainty in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.certainty.tolist(), strict=True):
        first, second = (a, b) if (part_of[a], area[b], a) <= (part_of[b], area[a], b) else (b, a)
        one, other = (data.class_names[data.labels[each]] for each in (first, second))
        message = _same_as(data, first, certainty)
        if part_of[first] != part_of[second]:
            parts = list(data.parts)
            message += f", which is in {parts[part_of[first]]}; this one is in {parts[part_of[second]]}"
            kind = "leak"
        else:
            kind = "conflicting label" if one != other else "duplicate"
        if one != other:
            message += f"; labelled {one} there and {other} here"
        suggestion = "" if kind == "conflicting label" else "drop"
        if second not in findings or (kind != "duplicate" and findings[second].kind == "duplicate"):
            findings[second] = Finding(kind, name_of(data, second), message, certainty, second, (first,), suggestion)
    return list(findings.values())


def _same_as(data: LabelledImages, position: int, certainty: float) -> str:
    name = name_of(data, position)
    return f"identical to {name}" if certainty == 1 else f"nearly identical to {name} (edges correlate {certainty:.2f})"


def _suspect_labels(data: LabelledImages, errors: LabelErrors, known: set[int | None]) -> list[Finding]:
    findings = []
    small = _small(data)
    for position in errors.positions.tolist():
        label, other = int(data.labels[position]), int(errors.suggested[position])
        if position in known or label == other:
            continue
        given, better = data.class_names[label], data.class_names[other]
        certainty = float(errors.wrong[position])
        verdict = "the label is probably wrong" if errors.convincing and certainty >= 0.5 else "worth a look"
        message = f"labelled {given}; models not trained on it predict {better}; {verdict}"
        others = (*_most_like(data, small, position, other), *_most_like(data, small, position, label))
        name = name_of(data, position)
        findings.append(Finding("suspect label", name, message, certainty, position, others, f"relabel: {better}"))
    return findings


def _how_checked(data: LabelledImages, errors: LabelErrors) -> str:
    agreed = f"Models that had not seen an image agreed with {in_percent(errors.agreement)} of the labels"
    if not errors.agreement:
        return "There are too few different images of each class to judge labels."
    if not errors.judged:
        return f"No model could be trained well enough on these {amount(len(data), 'image')} to judge labels. {agreed}."
    if errors.agreement == 1:
        return f"{agreed}."
    if not len(errors.positions):
        return f"{agreed}; where they disagreed, the models may be wrong as well as the labels."
    if not errors.convincing:
        return f"{agreed}; there are signs of wrong labels, but they may be chance."
    return f"{agreed}; their disagreement cannot be explained without wrong labels."


def _with_predictions(data: LabelledImages, finding: Finding, errors: LabelErrors) -> Finding:
    """The finding with the networks' predictions: the right one of two labels, and which classes were not checked."""
    if finding.kind == "small class" and finding.name in errors.left_out:
        return replace(finding, message=f"{finding.message}; too few to check the labels")
    if finding.kind != "conflicting label" or finding.position is None:
        return finding
    this, other = finding.position, finding.others[0]
    probability = errors.probabilities[[this, other]].mean(axis=0)
    this_share, other_share = probability[data.labels[this]], probability[data.labels[other]]
    if not errors.judged or max(this_share, other_share) <= 0.5:
        return finding
    if this_share > other_share:
        this, other = other, this
    wrong, right = (data.class_names[data.labels[each]] for each in (this, other))
    shares = [in_percent(float(each)) for each in sorted((this_share, other_share))]
    message = f"{_same_as(data, other, finding.certainty)}; labelled {right} there and {wrong} here; models not "
    message += f"trained on them predict {right} ({shares[1]}; {wrong} {shares[0]})"
    name, suggestion = name_of(data, this), f"relabel: {right}"
    return replace(finding, name=name, message=message, position=this, others=(other,), suggestion=suggestion)


def _small(data: LabelledImages) -> NDArray[np.float32]:
    """(N, 144) or fewer: the grey levels of each picture in a grid of cells, with mean 0 and length 1."""
    edges = [np.linspace(0, side, min(side, _CELLS) + 1).astype(int) for side in data.images.shape[1:3]]
    small = []
    for rows in _some_rows(data):
        grey = rows.astype(np.float32) if rows.ndim == 3 else rows.mean(axis=3, dtype=np.float32)
        for axis, edge in enumerate(edges, 1):
            grey = np.add.reduceat(grey, edge[:-1], axis=axis)
        cells = (grey / np.outer(np.diff(edges[0]), np.diff(edges[1]))).reshape(len(rows), -1)
        cells -= cells.mean(axis=1, keepdims=True)
        small.append(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6))
    return np.concatenate(small)


def _most_like(data: LabelledImages, small: NDArray[np.float32], position: int, label: int) -> tuple[int, ...]:
    """The position of the most similar picture of a class, as a tuple; empty if the class has no other picture."""
    members = np.flatnonzero((data.labels == label) & (np.arange(len(data)) != position))
    return (int(members[(small[members] @ small[position]).argmax()]),) if len(members) else ()


def _some_rows(data: LabelledImages) -> Iterator[Images]:
    """All images, in blocks."""
    count = max(1, _PIXELS_AT_ONCE // int(np.prod(data.images.shape[1:])))
    for start in range(0, len(data), count):
        yield data.images[start : start + count]


def _small_classes(data: LabelledImages) -> list[Finding]:
    counts = data.counts("train" if "train" in data.parts else None)
    typical = float(np.median(counts))
    findings = []
    for label, (name, count) in enumerate(zip(data.class_names, counts.tolist(), strict=True)):
        if count < _FEW or count < _UNEVEN * typical:
            message = f"only {amount(count, 'training image')}; half of the classes have {typical:,.0f} or more"
            members = tuple(np.flatnonzero(data.labels == label)[:3].tolist())
            findings.append(Finding("small class", name, message, 1.0, others=members))
    return findings


def _shift(data: LabelledImages, levels: _Levels) -> list[Finding]:
    """Differences between training and test pictures in simple measures (two-sample Kolmogorov-Smirnov test)."""
    if not {"train", "test"} <= data.parts.keys():
        return []
    train, test = data.positions("train"), data.positions("test")
    if not len(train) or not len(test):
        return []
    measures = {"brightness": levels.mean, "contrast": levels.spread}
    if data.picture_facts is not None:
        measures |= {side: data.picture_facts[side].astype(float) for side in ("height", "width")}
    findings = []
    for measure, values in measures.items():
        distance, p = kolmogorov_smirnov(values[train], values[test])
        if distance > _SHIFTED and p < _CHANCE:
            before, after = float(np.median(values[train])), float(np.median(values[test]))
            message = f"{measure}: the median is {before:.3g} in training and {after:.3g} in test"
            usual = tuple(
                int(rows[np.abs(values[rows] - middle).argmin()]) for rows, middle in ((train, before), (test, after))
            )
            findings.append(Finding("shift", measure, message, 1 - p, others=usual))
    shares = [np.bincount(data.labels[rows], minlength=len(data.class_names)) / len(rows) for rows in (train, test)]
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    most = int(np.abs(shares[0] - shares[1]).argmax())
    p = _chance_of_share(data.labels[train] == most, data.labels[test] == most) * len(data.class_names)
    if distance > _SHIFTED and p < _CHANCE:
        message = (
            f"classes: {data.class_names[most]} is {shares[0][most]:.0%} of training and {shares[1][most]:.0%} of test"
        )
        findings.append(Finding("shift", "classes", message, 1 - p))
    return findings


def _chance_of_share(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    """The two-sided p-value of the numbers of images of a class in two parts (Fisher's exact test)."""
    more, other = (test, train) if test.mean() > train.mean() else (train, test)
    marked = int(more.sum() + other.sum())
    return min(1.0, 2 * hypergeometric_tail(int(more.sum()), len(more) + len(other), marked, len(more)))


def _levels(data: LabelledImages) -> _Levels:
    levels = []
    for rows in _some_rows(data):
        flat = rows.reshape(len(rows), -1)
        levels.append((flat.mean(axis=1), flat.std(axis=1), np.quantile(flat, 0.95, axis=1)))
    return _Levels(*(np.concatenate(each) for each in zip(*levels, strict=True)))


def _pixels(data: LabelledImages, levels: _Levels) -> list[Finding]:
    findings = [
        Finding("blank", name_of(data, position), "a single colour", 1.0, position, (), "drop")
        for position in np.flatnonzero(levels.spread < _BLANK).tolist()
    ]
    dark = (levels.bright < _DARK) & (levels.spread >= _BLANK)
    if dark.mean() < _RARE:
        for position in np.flatnonzero(dark).tolist():
            message = f"its brightest parts have grey level {levels.bright[position]:.0f} of 255"
            findings.append(Finding("dark", name_of(data, position), message, 0.9, position))
    return findings


def _files(data: LabelledImages) -> list[Finding]:
    facts = data.picture_facts
    if facts is None or not len(data):
        return []
    height, width = facts["height"].astype(float), facts["width"].astype(float)
    least, aspect = np.minimum(height, width), width / height
    typical, usual = float(np.median(least)), float(np.median(aspect))
    findings = []
    for position in np.flatnonzero(least < min(_TINY, typical / _FAR)).tolist():
        message = f"{width[position]:.0f}x{height[position]:.0f} pixels; the median shorter side is {typical:.0f}"
        findings.append(Finding("tiny", name_of(data, position), message, 0.9, position))
    odd = np.maximum(aspect / usual, usual / aspect) > _FAR
    for position in np.flatnonzero(odd).tolist() if odd.mean() < _ODD else ():
        size = f"{width[position]:.0f}x{height[position]:.0f} pixels"
        message = f"{size}, {aspect[position]:.2g} times as wide as high; the median is {usual:.2g}"
        findings.append(Finding("odd aspect ratio", name_of(data, position), message, 0.8, position))
    return findings + _odd_colour_modes(data, facts)


def _odd_colour_modes(data: LabelledImages, facts: NDArray[Any]) -> list[Finding]:
    """Files of a rare colour mode: grey among colour, CMYK, 16 bits."""
    modes = facts["mode"].astype(str)
    if (modes == "").any():  # arrays, not files
        modes = np.where(facts["flags"] & COLOUR_FILE, "RGB", "L")
    names, of, counts = np.unique(modes, return_inverse=True, return_counts=True)
    usual = _MODES.get(str(names[counts.argmax()]), str(names[counts.argmax()]))
    findings = []
    for position in np.flatnonzero((counts / len(data))[of] < _RARE).tolist():
        mode = _MODES.get(str(modes[position]), str(modes[position]))
        message = (
            f"its colour mode is {mode}; for {min(0.99, counts.max() / len(data)):.0%} of the images it is {usual}"
        )
        findings.append(Finding("odd colour mode", name_of(data, position), message, 0.7, position))
    return findings

"""Data in words: a sentence on how it was read, notes on what was decided, and what was set aside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.choose_size import Size, dark, deep
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.picture_facts import CARRIES_COLOUR, COLOUR_FILE, NO_CLASS, Skipped
from hangtag.levels import range_in_words
from hangtag.pictures import Change, ImageSpec
from hangtag.words import amount, first_few, visible

__all__ = ["counted", "notes_on", "notes_on_copies", "notes_on_parts", "sentence_on"]

_VISIBLE, _MUCH = 1.02, 1.1  # factors by which proportions change
_FEW_COLOURED = 0.01  # of the images


def sentence_on(data: LabelledImages, kind: str, facts: NDArray[Any]) -> str:
    """How the data was read, and what it contains, as a sentence.

    Args:
        kind: the form of the data, in a few words.
        facts: (N,) of `picture_facts.FACTS`.
    """
    parts = ", ".join(f"{name} {size:,}" for name, size in data.sizes().items())
    area = facts["height"].astype(np.int64) * facts["width"]
    small, large = facts[int(area.argmin())], facts[int(area.argmax())]
    sizes = f"{small['width']}x{small['height']}"
    if area.min() != area.max():
        sizes += f" to {large['width']}x{large['height']}"
    is_colour, shows_colour = data.spec.channels == 3, (facts["flags"] & CARRIES_COLOUR).any()
    files = "colour" if is_colour else "grey"
    if is_colour != shows_colour:
        files = "grey images in three channels" if is_colour else "colours converted to grey"
    elif not is_colour and (facts["flags"] & COLOUR_FILE).any():
        files = "grey images in colour files"
    classes = f"{len(data.class_names)} classes ({first_few(data.class_names)})"
    contents = [f"{len(data):,} images", classes, *([parts] if parts else []), sizes, files]
    return f"Read as {kind}: {', '.join(contents)}"


def notes_on(
    spec: ImageSpec, facts: NDArray[Any], unreadable: set[str], skipped: Sequence[Skipped], size: Size
) -> list[str]:
    """What was done to pictures while reading them, as sentences.

    Args:
        spec: the size and colours they were brought to.
        facts: (N,) of `picture_facts.FACTS`.
        unreadable: classes without a readable picture.
        skipped: what was set aside.
        size: the user's choices.
    """
    notes = []
    if (facts["height"] != spec.height).any() or (facts["width"] != spec.width).any():
        notes.append(f"images are resized to {spec}: {_proportions(spec, facts)}")
    notes += _colours(spec, facts, size) + _levels(spec, facts)
    changes = {
        Change.TRANSPARENT: f"transparency was filled with grey level {spec.background}",
        Change.ANIMATED: "the first frame of an animation was used",
        Change.SEVERAL: "the file contains several images; the main one was used",
    }
    for change, text in changes.items():
        if count := int((facts["flags"] & int(change) > 0).sum()):
            notes.append(f"{amount(count, 'image')}: {text}")
    if unreadable:
        notes.append(f"classes without a readable image were left out: {first_few(sorted(unreadable))}")
    others = [each for each in skipped if each.kind != NO_CLASS]  # these have notes of their own
    if others:
        notes.append(f"skipped {amount(len(others), 'file')}: {counted(others)}")
    return notes


def notes_on_parts(class_names: Sequence[str], labels: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """Which classes have no image in the training or test part, as sentences.

    Args:
        labels: the labels in each part; empty for undivided data.
    """
    missing = {
        part: np.setdiff1d(np.arange(len(class_names)), labels[part]) for part in ("train", "test") & labels.keys()
    }
    words = {"train": "training", "test": "test"}
    return [
        f"{amount(len(missing[part]), 'class')} without {words[part]} images: "
        f"{first_few([class_names[number] for number in missing[part]])}"
        for part in words
        if len(missing.get(part, ())) and "train" in labels
    ]


def notes_on_copies(
    contents: NDArray[np.uint64], labels: NDArray[np.int64], parts: NDArray[Any], names: Sequence[str] = ()
) -> list[str]:
    """Which images are in several parts or in several classes, as sentences.

    Args:
        contents: (N, 2), equal for equal images.
        labels, parts: (N,) numbers of classes and parts.
        names: N names, or none.
    """
    keys = contents[:, 0] ^ (contents[:, 1] << np.uint64(1))
    _, firsts, same = np.unique(keys, return_index=True, return_inverse=True)
    first = firsts[same.reshape(-1)]  # (N,) the first image that is equal
    notes = []
    for values, where in ((labels, "classes"), (parts, "parts")):
        differs = np.unique(first[values != values[first]])
        if len(differs):
            copies = np.flatnonzero(first == differs[0]).tolist() if len(names) else []
            shown = first_few(list(dict.fromkeys(visible(names[row]) for row in copies)), 3)
            many = "one image is" if len(differs) == 1 else f"{len(differs):,} images are each"
            notes.append(f"{many} in several {where}{f': {shown}' if shown else ''}; hangtag audit lists them")
    return notes


def counted(skipped: Sequence[Skipped]) -> str:
    """How many were set aside, for each kind of reason."""
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(each.kind for each in skipped).most_common())


def _proportions(spec: ImageSpec, facts: NDArray[Any]) -> str:
    """What resizing does to the proportions of pictures; only what happens to some of them is named."""
    sizes = np.stack([facts["height"], facts["width"]], axis=1).astype(float)  # (N, 2)
    ratios = np.array([spec.height, spec.width]) / sizes
    if spec.fit != "squash":
        whole = (
            np.rint(sizes * ratios.min(axis=1, keepdims=True))
            if spec.fit == "pad"
            else np.rint(np.array([spec.height, spec.width]) / ratios.max(axis=1, keepdims=True))
        )
        differs = whole < ((spec.height, spec.width) if spec.fit == "pad" else sizes)
        done = f"margins are filled with grey level {spec.background}" if spec.fit == "pad" else "edges are cut off"
        return f"proportions are kept and {done}" if differs.any() else "proportions are kept"
    change = ratios.max(axis=1) / ratios.min(axis=1)
    changed = int((change > _VISIBLE).sum())
    if not changed:
        return "proportions are kept"
    of = "proportions" if changed == len(change) else f"the proportions of {changed:,} of {len(change):,} images"
    worst = float(change.max())
    by = f"{100 * (worst - 1):.0f}%" if worst < 2 else f"a factor of {worst:.1f}"
    return f"{of} change by up to {by}{'; --fit pad keeps them' if worst > _MUCH else ''}"


def _colours(spec: ImageSpec, facts: NDArray[Any], size: Size) -> list[str]:
    """What was decided about colours, and how to decide otherwise."""
    coloured = int((facts["flags"] & CARRIES_COLOUR > 0).sum())
    free = size.spec is None
    if spec.channels == 1 and coloured:
        keep = " (--colour keeps them)" if free else ""
        return [f"{amount(coloured, 'image')}: colours were converted to grey{keep}"]
    if spec.channels == 1 and free and size.colour is None and (facts["flags"] & COLOUR_FILE).any():
        return ["colour files show only grey, so images are read as grey (--colour keeps three channels)"]
    if spec.channels == 3 and free and size.colour is None and coloured < _FEW_COLOURED * len(facts):
        return [f"only {coloured:,} of {len(facts):,} images show colours (--grey reads all as grey, which is faster)"]
    return []


def _levels(spec: ImageSpec, facts: NDArray[Any]) -> list[str]:
    """The scale of pixels of more than 8 bits."""
    notes = []
    for is_float in (False, True):
        which = deep(facts, is_float)
        levels = spec.levels(is_float)[0]
        if not which.any() or levels is None or (levels.black, levels.white, is_float) == (0, 255, False):
            continue
        values = facts["values"][which]
        kind = "floating-point pixel values" if is_float else "pixel values"
        bits = " of 16 bits" if all(mode.endswith(b"16") for mode in np.unique(facts["mode"][which])) else ""
        has = f"{range_in_words(values[:, 0].min(), values[:, 1].max())}{bits}"
        notes.append(f"{amount(len(values), 'image')}: {kind} range from {has}; {levels}, for all images alike")
        if almost := int(dark(values, levels).sum()):
            notes.append(f"{amount(almost, 'image')}: values span less than one grey level of this scale")
    kinds = [levels for levels in (spec.integers, spec.floats) if levels is not None and not levels.is_usual]
    eight = int((facts["flags"] & int(Change.DEEP) == 0).sum())
    if kinds and eight:
        trained = range_in_words(kinds[0].low, kinds[0].high)
        notes.append(f"{amount(eight, 'image')} with 8 bits; the model's training images had values from {trained}")
    return notes

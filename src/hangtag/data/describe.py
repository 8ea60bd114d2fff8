"""Data in words: a sentence on how it was read, notes on what was decided, and what was set aside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.picture_facts import COLOUR_FILE, NO_CLASS, Skipped
from hangtag.pictures import Change, ImageSpec
from hangtag.words import amount, first_few

__all__ = ["counted", "notes_on", "notes_on_parts", "sentence_on"]


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
    files = "colour" if data.spec.channels == 3 else "grey"
    if files == "grey" and (facts["flags"] & COLOUR_FILE).any():
        files = "grey images in colour files"
    classes = f"{len(data.class_names)} classes ({first_few(data.class_names)})"
    contents = [f"{len(data):,} images", classes, *([parts] if parts else []), sizes, files]
    return f"Read as {kind}: {', '.join(contents)}"


def notes_on(spec: ImageSpec, facts: NDArray[Any], unreadable: set[str], skipped: Sequence[Skipped]) -> list[str]:
    """What was done to pictures while reading them, as sentences.

    Args:
        spec: the size and colours they were brought to.
        facts: (N,) of `picture_facts.FACTS`.
        unreadable: classes without a readable picture.
        skipped: what was set aside.
    """
    notes = []
    if (facts["height"] != spec.height).any() or (facts["width"] != spec.width).any():
        ways = {
            "squash": "proportions may change",
            "pad": f"proportions are kept and margins are filled with grey level {spec.background}",
            "crop": "proportions are kept and edges are cut off",
        }
        notes.append(f"images are resized to {spec}: {ways[spec.fit]}")
    changes = {
        Change.TRANSPARENT: f"transparency was filled with grey level {spec.background}",
        Change.ANIMATED: "the first frame of an animation was used",
        Change.SEVERAL: "the file contains several images; the main one was used",
        Change.DEEP: "16-bit or float pixels were scaled to 8 bits",
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


def counted(skipped: Sequence[Skipped]) -> str:
    """How many were set aside, for each kind of reason."""
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(each.kind for each in skipped).most_common())

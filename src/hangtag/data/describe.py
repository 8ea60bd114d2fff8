"""How data was understood, in words: one sentence, notes on what had to be decided, and what was set aside."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.picture_facts import COLOUR_FILE, Skipped
from hangtag.pictures import Change, ImageSpec
from hangtag.words import amount

__all__ = ["counted", "notes_on", "sentence_on"]


def sentence_on(data: LabelledImages, kind: str, facts: NDArray[Any]) -> str:
    """What the data is, as a sentence.

    Args:
        kind: how it was understood, in a few words.
        facts: (N,) of `decoder.FACTS`.
    """
    shown = ", ".join(data.class_names[:5]) + (", ..." if len(data.class_names) > 5 else "")
    parts = ", ".join(f"{name} {size:,}" for name, size in data.sizes().items())
    area = facts["height"].astype(np.int64) * facts["width"]
    small, large = facts[int(area.argmin())], facts[int(area.argmax())]
    sizes = f"{small['width']}x{small['height']}"
    if area.min() != area.max():
        sizes += f" to {large['width']}x{large['height']}"
    files = "colour" if data.spec.channels == 3 else "grey"
    if files == "grey" and (facts["flags"] & COLOUR_FILE).any():
        files = "colour files without colours"
    return (
        f"I understood your data as {kind}: {len(data):,} images, {len(data.class_names)} classes ({shown}), "
        + (f"{parts}, " if parts else "")
        + f"{sizes}, {files}"
    )


def notes_on(spec: ImageSpec, facts: NDArray[Any], gone: set[str], skipped: Sequence[Skipped]) -> list[str]:
    """What happened to pictures, as sentences.

    Args:
        spec: what they were brought to.
        facts: (N,) of `decoder.FACTS`.
        gone: classes of which no picture can be read.
        skipped: what was set aside.
    """
    notes = []
    if (facts["height"] != spec.height).any() or (facts["width"] != spec.width).any():
        ways = {
            "squash": "proportions change a little",
            "pad": f"proportions kept, the rest filled with grey level {spec.background}",
            "crop": "proportions kept, edges cut off",
        }
        notes.append(f"pictures become {spec}: {ways[spec.fit]}")
    changes = {
        Change.TRANSPARENT: f"transparency was filled with grey level {spec.background}",
        Change.ANIMATED: "animated: the first frame was used",
        Change.SEVERAL: "the file holds several pictures; the main one was used",
        Change.DEEP: "16-bit or float pixels were scaled to 8 bits",
    }
    for change, text in changes.items():
        if count := int((facts["flags"] & int(change) > 0).sum()):
            notes.append(f"{amount(count, 'picture')}: {text}")
    if gone:
        notes.append(f"no picture of {', '.join(sorted(gone)[:5])} can be read; not a class any more")
    if skipped:
        notes.append(f"set aside {amount(len(skipped), 'file')}: {counted(skipped)}")
    return notes


def counted(skipped: Sequence[Skipped]) -> str:
    """How many were set aside for which kind of reason."""
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(each.kind for each in skipped).most_common())

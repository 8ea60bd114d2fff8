"""How data was understood, in words: one sentence, notes on what had to be decided, and what was set aside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.picture_facts import COLOUR_FILE
from hangtag.data.store.containers import Skipped
from hangtag.pictures import ImageSpec
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


def notes_on(
    spec: ImageSpec, facts: NDArray[Any], changed: Mapping[str, int], gone: set[str], skipped: Sequence[Skipped]
) -> list[str]:
    """What happened to pictures, as sentences.

    Args:
        spec: what they were brought to.
        facts: (N,) of `decoder.FACTS`.
        changed: how many had to be changed in which way.
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
    notes += [f"{amount(count, 'picture')}: {note}" for note, count in changed.items() if note != "as before"]
    if gone:
        notes.append(f"no picture of {', '.join(sorted(gone)[:5])} can be read; not a class any more")
    if skipped:
        notes.append(f"set aside {amount(len(skipped), 'file')}: {counted(skipped)}")
    return notes


def counted(skipped: Sequence[Skipped]) -> str:
    """How many were set aside for which kind of reason."""
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(each.kind for each in skipped).most_common())

"""An audit as one offline HTML page: what to do first, then the images of each kind of finding, to decide about.

Decisions are made by buttons or keys (`templates/audit.js`), remembered by the browser, and saved as decisions.csv.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.data.audit import KINDS, Audit, Finding
from hangtag.data.decisions import name_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public.datasets import NAMED
from hangtag.files import write_text
from hangtag.html import render, script, thumbnail
from hangtag.words import in_percent

__all__ = ["write_audit_page"]

_THUMBNAIL = 192  # pixels of the longer side
_MOST_CARDS = 2000  # findings of each kind


def write_audit_page(audit: Audit, path: Path) -> Path:
    """Write the page and return its path.

    Raises:
        SaveError: it cannot be written.
    """
    kinds = [_kind(audit.data, kind, [each for each in audit.findings if each.kind == kind]) for kind in audit.counts()]
    content, digest = script("audit.js")
    values: dict[str, object] = {
        "data": audit.data,
        "fingerprint": audit.data.fingerprint,
        "source": shlex.quote(audit.data.name if audit.data.name in NAMED else audit.data.source.origin),
        "total": len(audit.findings),
        "steps": list(zip([kind["id"] for kind in kinds], audit.first(), strict=False)),
        "nothing_found": audit.nothing_found[:1].upper() + audit.nothing_found[1:],
        "labels_checked": audit.labels_checked,
        "to_decide": len({card["name"] for kind in kinds for card in kind["cards"] if card["decidable"]}),
        "kinds": kinds,
        "script": content,
        "script_hash": digest,
    }
    write_text(path, render("audit.html", values))
    return path


def _kind(data: LabelledImages, kind: str, findings: Sequence[Finding]) -> dict[str, Any]:
    shown = findings[:_MOST_CARDS]
    note = f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}."
    if kind == "suspect label":
        note += " The other images are the most similar one of the suggested class and of the current class."
    if len(shown) < len(findings):
        note += f" The first {len(shown):,} are shown; all are in findings.csv."
    return {
        "id": kind.replace(" ", "-"),
        "title": f"{kind[0].upper()}{kind[1:]}: {len(findings):,}",
        "note": note,
        "has_pictures": all(each.position is not None or each.others for each in findings),
        "cards": [_card(data, each) for each in shown],
    }


def _card(data: LabelledImages, finding: Finding) -> dict[str, Any]:
    """The image and those to compare it with; if it is about no single image, some examples."""
    subject = [] if finding.position is None else [finding.position]
    return {
        "name": finding.name,
        "shown_name": finding.name,
        "decidable": finding.position is not None,
        "message": finding.message,
        "suggested": finding.suggestion.removeprefix("relabel: ") if finding.suggestion.startswith("relabel: ") else "",
        "chance": in_percent(finding.certainty) if finding.kind == "suspect label" else "",
        "images": [_image(data, each, each in subject) for each in (*subject, *finding.others)],
    }


def _image(data: LabelledImages, position: int, is_subject: bool) -> dict[str, Any]:
    """An image as the model sees it, but in its own proportions if it was squashed for the model."""
    size = None
    if data.picture_facts is not None:
        size = int(data.picture_facts["width"][position]), int(data.picture_facts["height"][position])
    return {
        "picture": thumbnail(np.asarray(data.images[position]), _THUMBNAIL),
        "label": data.class_names[data.labels[position]],
        "name": name_of(data, position),
        "size": size,
        "ratio": f"{size[0]}/{size[1]}" if size and data.spec.fit == "squash" else "",
        "is_subject": is_subject,
    }

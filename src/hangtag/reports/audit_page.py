"""An audit as one offline HTML page: what to do first, then the images of each kind of finding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.data.audit import KINDS, Audit, Finding
from hangtag.data.decisions import name_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.files import write_text
from hangtag.reports.html import render, thumbnail

__all__ = ["write_audit_page"]

_THUMBNAIL = 112  # pixels of the longer side
_SHOWN = 84  # pixels of the longer side on the page
_MOST_PICTURES, _MOST_ROWS = 60, 200  # findings of each kind, with and without pictures


def write_audit_page(audit: Audit, path: Path) -> Path:
    """Write the page and return its path.

    Raises:
        SaveError: it cannot be written.
    """
    kinds = [_kind(audit.data, kind, [each for each in audit.findings if each.kind == kind]) for kind in audit.counts()]
    values: dict[str, object] = {
        "data": audit.data,
        "total": len(audit.findings),
        "steps": list(zip([kind["id"] for kind in kinds], audit.first(), strict=False)),
        "kinds": kinds,
    }
    write_text(path, render("audit.html", values))
    return path


def _kind(data: LabelledImages, kind: str, findings: Sequence[Finding]) -> dict[str, Any]:
    has_pictures = all(each.position is not None or each.others for each in findings)
    shown = findings[: _MOST_PICTURES if has_pictures else _MOST_ROWS]
    note = f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}. Most certain first"
    note += f"; the first {len(shown)} are shown, all are in findings.csv." if len(shown) < len(findings) else "."
    return {
        "id": kind.replace(" ", "-"),
        "title": f"{kind[0].upper()}{kind[1:]}: {len(findings):,}",
        "note": note,
        "has_pictures": has_pictures,
        "cards": [_card(data, each) for each in shown],
    }


def _card(data: LabelledImages, finding: Finding) -> dict[str, Any]:
    """The image and those to compare it with; if it is about no single image, some examples."""
    subject = [] if finding.position is None else [finding.position]
    return {
        "name": finding.name,
        "message": finding.message,
        "suggestion": finding.suggestion,
        "certainty": f"{finding.certainty if finding.certainty == 1 else min(finding.certainty, 0.99):.0%}",
        "images": [_image(data, each, each in subject) for each in (*subject, *finding.others)],
    }


def _image(data: LabelledImages, position: int, is_subject: bool) -> dict[str, Any]:
    """An image as the model sees it, but in its own proportions if it was squashed for the model."""
    size = shown_size = None
    if data.picture_facts is not None:
        size = int(data.picture_facts["width"][position]), int(data.picture_facts["height"][position])
        if data.spec.fit == "squash":
            shown_size = [round(max(2, side * _SHOWN / max(size))) for side in size]
    return {
        "picture": thumbnail(np.asarray(data.images[position]), _THUMBNAIL),
        "label": data.class_names[data.labels[position]],
        "name": name_of(data, position),
        "size": size,
        "shown_size": shown_size,
        "is_subject": is_subject,
    }

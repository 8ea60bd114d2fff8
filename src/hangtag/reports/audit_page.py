"""An audit as one offline HTML page: what to do first, then the pictures of each kind of finding, side by side."""

from pathlib import Path

import numpy as np

from hangtag.data.audit import KINDS, Audit, Finding
from hangtag.data.decisions import name_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.files import write_text
from hangtag.reports.html import document, escaped, section, table, thumbnail

__all__ = ["write_page"]

_THUMB = 112  # pixels of the longer side
_SHOWN = 84  # pixels of the longer side on the page
_MOST = 60  # pictures of each kind
_MOST_ROWS = 200  # of findings without pictures
_ORDER = "Surest first"


def write_page(found: Audit, path: Path) -> Path:
    """Write the page and return its path.

    Raises:
        SaveError: it cannot be written.
    """
    data, counts = found.data, found.counts()
    sections = [_headline(found)]
    for kind in counts:
        findings = [each for each in found.findings if each.kind == kind]
        pictured = all(each.position is not None or each.others for each in findings)
        shown = findings[: _MOST if pictured else _MOST_ROWS]
        title = f"{kind[0].upper()}{kind[1:]}: {counts[kind]:,}"
        note = f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}. {_ORDER}"
        note += f"; the first {len(shown)}, all are in findings.csv." if len(shown) < len(findings) else "."
        if pictured:
            body = f'<div class="cards">{"".join(_card(data, each) for each in shown)}</div>'
        else:
            body = table(("what", "why"), [(escaped(each.name), escaped(each.message)) for each in shown], "words")
        sections.append(f'<a id="{_anchor(kind)}"></a>{section(escaped(title), body, escaped(note))}')
    write_text(path, document(f"audit of {data.name}", "".join(sections)))
    return path


def _headline(found: Audit) -> str:
    data = found.data
    steps = "".join(
        f'<li><a href="#{_anchor(kind)}">{escaped(step)}</a></li>'
        for kind, step in zip(found.counts(), found.first(), strict=False)
    )
    todo = f'<ol class="steps">{steps}</ol>' if steps else "<p>Nothing was found.</p>"
    return (
        f'<p class="kicker">audit of {escaped(data.name)}: {len(data):,} pictures, {len(data.class_names)} classes</p>'
        f"<h1>{len(found.findings):,} findings</h1>{todo}"
        '<p class="note">Nothing was changed. Write keep, drop or relabel: CLASS into decisions.csv beside this page, '
        "then train with --decisions. A suspect label is a guess by networks, not a fact: beside it stands the picture "
        "most like it of the class they suggest, then of the class it has.</p>"
    )


def _card(data: LabelledImages, finding: Finding) -> str:
    """The picture and those to compare it with; for what is about no single picture, its name and some examples."""
    this = [] if finding.position is None else [finding.position]
    pictures = "".join(_pictured(data, each, "this" if each in this else "") for each in (*this, *finding.others))
    head = "" if this else f"<b>{escaped(finding.name)}</b>: "
    message = (
        head + escaped(finding.message) + (f"; <b>{escaped(finding.suggestion)}?</b>" if finding.suggestion else "")
    )
    return (
        f'<figure class="card"><div class="pair">{pictures}</div>'
        f'<figcaption class="note">{message} ({_sure(finding.certainty)} sure)</figcaption></figure>\n'
    )


def _pictured(data: LabelledImages, position: int, role: str) -> str:
    size = ""
    if data.picture_facts is not None:
        size = f", {data.picture_facts['width'][position]}x{data.picture_facts['height'][position]}"
    return (
        f'<figure class="{role}">{_picture(data, position)}<figcaption><b>'
        f"{escaped(data.class_names[data.labels[position]])}</b>{size}<br>{escaped(name_of(data, position))}"
        "</figcaption></figure>"
    )


def _anchor(kind: str) -> str:
    return kind.replace(" ", "-")


def _sure(certainty: float) -> str:
    return f"{certainty:.0%}" if certainty == 1 else f"{min(certainty, 0.99):.0%}"


def _picture(data: LabelledImages, position: int) -> str:
    """As the model sees it; one that was squashed for the model in its own proportions."""
    picture = thumbnail(np.asarray(data.images[position]), _THUMB)
    if data.picture_facts is None or data.spec.fit != "squash":
        return picture
    width, height = int(data.picture_facts["width"][position]), int(data.picture_facts["height"][position])
    scale = _SHOWN / max(width, height)
    sides = f"width:{max(2, width * scale):.0f}px;height:{max(2, height * scale):.0f}px;object-fit:fill"
    return picture.replace("<img ", f'<img style="{sides}" ', 1)

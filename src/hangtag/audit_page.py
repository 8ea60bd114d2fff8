"""An audit as one offline HTML page: what to do first, then the pictures of each kind of finding, side by side."""

from pathlib import Path

import numpy as np

from hangtag.audit import KINDS, Audit, Finding
from hangtag.decisions import name_of
from hangtag.files import write_text
from hangtag.labelled import LabelledImages
from hangtag.page import document, escaped, section, table, thumbnail

__all__ = ["write_page"]

_THUMB = 112  # pixels of the longer side
_MOST = 60  # pictures of each kind
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
        pictured = [each for each in findings if each.position is not None]
        shown = pictured[:_MOST]
        title = f"{kind[0].upper()}{kind[1:]}: {counts[kind]:,}"
        note = f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}. {_ORDER}"
        note += f"; the first {len(shown)}, all are in findings.csv." if len(shown) < len(pictured) else "."
        if shown:
            body = f'<div class="cards">{"".join(_card(data, each) for each in shown)}</div>'
        else:
            body = table(
                ("what", "why"), [(escaped(each.name), escaped(each.says)) for each in findings[:200]], "words"
            )
        sections.append(section(escaped(title), body, escaped(note)))
    write_text(path, document(f"audit of {data.name}", "".join(sections)))
    return path


def _headline(found: Audit) -> str:
    data = found.data
    steps = "".join(f"<li>{escaped(step)}</li>" for step in found.first())
    todo = f'<ol class="steps">{steps}</ol>' if steps else "<p>Nothing was found.</p>"
    return (
        f'<p class="kicker">audit of {escaped(data.name)}: {len(data):,} pictures, {len(data.class_names)} classes</p>'
        f"<h1>{len(found.findings):,} findings</h1>{todo}"
        '<p class="note">Nothing was changed. Write keep, drop or relabel: CLASS into decisions.csv beside this page, '
        "then train with --decisions. A suspect label is a guess by networks, not a fact.</p>"
    )


def _card(data: LabelledImages, finding: Finding) -> str:
    assert finding.position is not None
    pictures = "".join(
        f"<figure>{_picture(data, each)}<figcaption>{escaped(name_of(data, each))}<br>"
        f"{escaped(data.class_names[data.labels[each]])}</figcaption></figure>"
        for each in (finding.position, *finding.others)
    )
    says = escaped(finding.says) + (f" <b>{escaped(finding.suggestion)}?</b>" if finding.suggestion else "")
    return (
        f'<figure class="card"><div class="pair">{pictures}</div>'
        f'<figcaption class="note">{says}, {_sure(finding.certainty)} sure</figcaption></figure>\n'
    )


def _sure(certainty: float) -> str:
    return f"{certainty:.0%}" if certainty == 1 else f"{min(certainty, 0.99):.0%}"


def _picture(data: LabelledImages, position: int) -> str:
    return thumbnail(np.asarray(data.images[position]), _THUMB)

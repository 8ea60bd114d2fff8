"""The pages of an audit and of a comparison: what they say, and that names are text."""

from pathlib import Path

import numpy as np

import toys
from hangtag.data.audit import Audit, Finding
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.comparison import compare
from hangtag.reports.audit_page import write_audit_page
from hangtag.reports.compare_page import write_comparison
from hangtag.reports.html import is_light_on_black

NAMES = ("<script>bar</script>", 'dot" onload="x', "edge & 'co'")


def data(count: int = 60) -> LabelledImages:
    images, labels = toys.shapes(count)
    return LabelledImages(images, labels, NAMES)


def test_a_comparison_shows_the_images_on_which_only_one_model_is_correct(tmp_path: Path) -> None:
    set_of = data()
    first = np.full((60, 3), 0.05, np.float32)
    first[np.arange(60), set_of.labels] = 0.9
    second = first.copy()
    second[:20] = first[:20][:, [1, 2, 0]]
    found = compare(("<b>one", "two"), set_of.labels, first, second)

    page = write_comparison(found, set_of, first, second, tmp_path / "c.html").read_text(encoding="utf-8")

    assert "<h1>The models differ in accuracy</h1>" in page
    assert "Only two is correct: 0" in page and "Only &lt;b&gt;one is correct: 20" in page
    assert "60 of 60" in page and "40 of 60" in page
    assert page.count("<figure") == 20
    assert "<script" not in page and ' onload="' not in page and "<b>one" not in page


def test_an_audit_shows_the_images_of_each_kind_of_finding(tmp_path: Path) -> None:
    findings = (
        Finding("suspect label", "<i>3", "looks like <b>dot", 0.999, 3, (4, 5), "relabel: dot"),
        Finding("unreadable", "bad.png", "not an <em>image", 1.0),
    )

    page = write_audit_page(Audit(data(), findings), tmp_path / "a.html").read_text(encoding="utf-8")

    assert "<h1>2 findings</h1>" in page
    assert page.count("<img") == 3 and page.count('<figure class="this">') == 1
    assert "looks like &lt;b&gt;dot; <b>relabel: dot?</b> (99% certain)" in page
    assert "not an &lt;em&gt;image" in page
    assert "<script" not in page and ' onload="' not in page


def test_only_grey_images_with_a_black_border_are_light_on_black() -> None:
    black = np.zeros((4, 4), np.uint8)

    assert is_light_on_black([black, black, black + 255])
    assert not is_light_on_black([black + 255])
    assert not is_light_on_black(np.zeros((2, 4, 4, 3), np.uint8))

"""The pages of an audit and of a comparison: what they say, and that names are text."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from hangtag.data.audit import Audit, Finding
from hangtag.data.decisions import apply_decisions, read_decisions
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.comparison import compare_probabilities
from hangtag.html import is_light_on_black
from hangtag.reports.audit_page import write_audit_page
from hangtag.reports.compare_page import write_comparison

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = ("<script>bar</script>", 'dot" onload="x', "edge & 'co'")


def data(count: int = 60) -> LabelledImages:
    images, labels = toys.shapes(count)
    return LabelledImages(images, labels, NAMES)


def in_browser(page: Path, steps: str, width: int = 1100) -> dict[str, Any]:
    """What JavaScript reports after it used a page in a real browser. Its policy must permit the page's own script."""
    helpers = """
        const pressed = (key) => new KeyboardEvent("keydown", { key, bubbles: true });
        const press = (key) => document.activeElement.dispatchEvent(pressed(key));
        const report = (value) => parent.postMessage(JSON.stringify(value), "*");
    """
    script = f"{helpers} (async () => {{ {steps} }})().catch((error) => report({{ error: String(error) }}));"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8")
    assert "script-src 'sha256-" in text
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</body>", f"<script>{script}</script></body>"
    )
    used = page.with_name("used.html")
    used.write_text(text, encoding="utf-8")
    frame = page.with_name("frame.html")  # a window cannot be as narrow as a phone, a frame can
    frame.write_text(
        "<script>onmessage = (message) => { document.title = message.data; };</script>"
        f'<iframe style="width:{width}px;height:900px;border:0" src="used.html"></iframe>'
    )
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000"]
    command += ["--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    assert title, shown[:500]
    said: dict[str, Any] = json.loads(html.unescape(title[1]))
    assert "error" not in said, said
    return said


def test_a_comparison_shows_the_images_on_which_only_one_model_is_correct(tmp_path: Path) -> None:
    set_of = data()
    first = np.full((60, 3), 0.05, np.float32)
    first[np.arange(60), set_of.labels] = 0.9
    second = first.copy()
    second[:20] = first[:20][:, [1, 2, 0]]
    found = compare_probabilities(("<b>one", "two"), set_of.labels, first, second)

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
    assert "looks like &lt;b&gt;dot (probability of an error: &gt;99%)" in page
    assert "not an &lt;em&gt;image" in page and "0 of 1 decided" in page
    assert page.count("<script") == 1 and ' onload="' not in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_decisions_made_with_keys_and_buttons_are_saved_as_decisions_can_be_read(tmp_path: Path) -> None:
    images, labels = toys.shapes(6)
    names = ["=1+1.png", "-2.png", 'a, "b".png', "'=3.png", "two\nlines.png", "f.png"]
    named = LabelledImages(images, labels, ("a b", "=dot", "c"), names=names)
    findings = [Finding("suspect label", name, "?", 0.6, n, (), "relabel: =dot") for n, name in enumerate(names)]
    page = write_audit_page(Audit(named, tuple(findings)), tmp_path / "audit.html")

    said = in_browser(page, """
        press("n"); press("r"); press("D"); press("x"); press("k"); press("k"); press("u");
        const cards = document.querySelectorAll(".decide");
        cards[3].querySelector("[value=drop]").click();
        const other = cards[4].querySelector("input");
        other.value = "no class"; other.dispatchEvent(new Event("change", { bubbles: true }));
        other.value = "c"; other.dispatchEvent(new Event("change", { bubbles: true }));
        const at = document.activeElement.dataset.name, progress = document.getElementById("progress").textContent;
        let blob; URL.createObjectURL = (given) => { blob = given; return "data:,"; };
        press("s");
        report({ at, progress, csv: await blob.text(), kept: localStorage.length, state: cards[0].dataset.decision });
    """)  # fmt: skip

    (tmp_path / "decisions.csv").write_text(said["csv"], encoding="utf-8", newline="")
    wanted = {names[0]: "relabel: =dot", names[1]: "drop", names[2]: "keep", names[3]: "drop", names[4]: "relabel: c"}
    assert read_decisions(tmp_path / "decisions.csv") == wanted
    assert said["progress"] == "5 of 6 decided" and said["at"] == "f.png" and said["state"] == "relabel"
    assert said["kept"] == 1
    assert not any(line.lstrip('"')[:1] in tuple("=-+@") for line in said["csv"].splitlines())
    decided = apply_decisions(named, tmp_path / "decisions.csv")
    assert decided.names == ["=1+1.png", names[2], names[4], "f.png"] and decided.labels[[0, 2]].tolist() == [1, 2]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_sticks_out_of_the_page_of_an_audit(width: int, tmp_path: Path) -> None:
    long = "a-very-long-name" * 12 + ".png"
    named = LabelledImages(*toys.shapes(6), (long, "b", "c"), names=[f"{n}{long}" for n in range(6)])
    findings = (
        Finding("suspect label", named.names[0], f"labelled {long}", 0.6, 0, (1, 2), f"relabel: {long}"),
        Finding("small class", long, "only 2", 1.0, None, (3,)),
        Finding("unreadable", long, long, 1.0),
    )
    page = write_audit_page(Audit(named, findings), tmp_path / "audit.html")

    said = in_browser(page, "report({ inside: innerWidth, wide: document.documentElement.scrollWidth });", width)

    assert said["inside"] == width and said["wide"] <= width


def test_only_grey_images_with_a_black_border_are_light_on_black() -> None:
    black = np.zeros((4, 4), np.uint8)

    assert is_light_on_black([black, black, black + 255])
    assert not is_light_on_black([black + 255])
    assert not is_light_on_black(np.zeros((2, 4, 4, 3), np.uint8))

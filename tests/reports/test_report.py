"""The report, through the page a reader gets: its sentences, that it is offline and safe, and what it rejects."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hangtag
import toys
from hangtag import html
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from hangtag.evaluation.guarantee_report import measure_guarantees
from hangtag.evaluation.judge import Judgement
from hangtag.evaluation.metrics import evaluate
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.slices import Slice
from hangtag.evaluation.stress_test import Stress, StressResult
from hangtag.model.calibration import Calibrator
from hangtag.model.guarantees import Guarantees, fit_guarantees
from hangtag.model.predictor import load
from hangtag.pictures import Images
from hangtag.reports import figures
from hangtag.reports.report import write_other_report, write_report, write_report_and_pictures

HISTORY = [
    {"number": 1, "loss": 0.9, "accuracy": 0.7, "val_loss": 0.8, "val_accuracy": 0.72, "finished": True},
    {"number": 2, "loss": 0.5, "accuracy": 0.9, "val_loss": 0.7, "val_accuracy": 0.75, "finished": True},
]


def judged(names: tuple[str, ...], count: int = 300) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and probabilities: right on 8 of 10; class 0 is taken for class 1."""
    labels = np.arange(count, dtype=np.int64) % len(names)
    predicted = labels.copy()
    first = np.flatnonzero(labels == 0)
    predicted[first[: count // 5]] = 1
    rows = np.full((count, len(names)), 0.1 / (len(names) - 1), np.float32)
    rows[np.arange(count), predicted] = 0.9
    return labels, rows


def taught(names: tuple[str, ...]) -> Guarantees:
    """By 200 held-out pictures, answered as the judged ones are."""
    labels, rows = judged(names, max(200, len(names)))
    return fit_guarantees(rows, labels, Calibrator.none(len(names)), names, has_ood_score=True)


def finished_run(folder: Path, names: tuple[str, ...] = toys.CLASSES, count: int = 300, **config: Any) -> Run:
    labels, rows = judged(names, count)
    run = Run(folder)
    folder.mkdir(parents=True)
    strange = np.linspace(0, 1, count).astype(np.float32)
    kept = measure_guarantees(
        {"probabilities": rows, "uncalibrated": rows, "ood_score": strange}, labels, taught(names)
    )
    run.write_metrics({"part": "test", **evaluate(rows, labels, names, 0.9).to_json(), "guarantees": kept.to_json()})
    data = {
        "name": "shapes",
        "fingerprint": "f" * 64,
        "image": {"background": 0},
        "counts": {"train": [9] * len(names)},
    }
    model = {"bytes": 410_000, "fingerprint": "abc123def456"}
    recipe = toys.quick_recipe().to_json()
    run.write_config({"status": "finished", "recipe": recipe, "data": data, "model": model, **config})
    for epoch in HISTORY:
        run.add_epoch(epoch)
    return run


def page_of(run: Run, names: tuple[str, ...] = toys.CLASSES, count: int = 300, images: Images | None = None) -> str:
    labels, rows = judged(names, count)
    path = write_report(run, toys.shapes(count)[0] if images is None else images, labels, rows)
    assert path == run.report
    return path.read_text(encoding="utf-8")


def words_of(page: str) -> str:
    """The page as read: no tags, no style, single spaces."""
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("&nbsp;", " ").split())


class Tags(HTMLParser):
    """Collects tags and attributes, and whether every tag is closed."""

    void = ("meta", "link", "img", "br", "line", "rect", "circle", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.void or (tag == "rect" and self.get_starttag_text()[-2:] != "/>"):  # type: ignore[index]
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_the_first_sentence_says_how_good_it_is(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))

    assert "80.0% of test images classified correctly (95% interval 75.1% to 84.1%)" in words_of(page)
    assert "Measured on 300 test images of 3 classes" in words_of(page)


def test_few_images_are_counts_not_percentages(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run", count=30), count=30)

    assert "24 of 30 test images classified correctly (95% interval 63% to 90%)" in words_of(page)
    assert "Too few images to judge" in words_of(page)


def test_it_says_where_it_fails_and_what_to_do(tmp_path: Path) -> None:
    words = words_of(page_of(finished_run(tmp_path / "run")))

    assert (
        "Lowest recall: bar 40.0% (30.9% to 49.8%) . Try more, and more varied, training images of this class." in words
    )
    assert "Most frequent confusion: bar was classified as dot 60 times: 60 of 60 mistakes." in words
    assert "For 100% of images, the probability of the answer was at least 90%. Of these answers, 80.0% were" in words
    assert "hangtag train shapes --recipe fast" in words
    pretrained = {**toys.quick_recipe().to_json(), "backbone": "efficientnet-lite0"}
    assert "--recipe fast" not in words_of(page_of(finished_run(tmp_path / "pretrained", recipe=pretrained)))


def test_sections_come_in_the_order_in_which_they_matter(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))

    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Can its answers be trusted?",
        "Use the model",
        "Example answers",
        "Results by class",
        "Confusion matrix",
        "Most confident mistakes",
        "Robustness",
        "What to fix first",
        "How this was measured",
        "How it was trained",
        "Training data",
        "Provenance",
    ]


def test_the_examples_mistakes_and_curves_are_there(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))

    assert page.count('<div class="beside">') == 15
    assert page.count('<span class="wrong">✗ dot 90%</span><span class="said">true: bar</span>') == 12
    assert page.count("<polyline") == 6
    assert "training, last 0.5" in words_of(page)
    assert "validation, last 75%" in words_of(page)
    assert "Such a gap suggests overfitting" in words_of(page)


def test_a_report_without_mistakes_gives_the_error_rate_they_leave_possible(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    images, labels = toys.shapes(300)
    rows = np.eye(3, dtype=np.float32)[labels]
    run.write_metrics({"part": "test", **evaluate(rows, labels, toys.CLASSES, 1.0).to_json()})

    words = words_of(write_report(run, images, labels, rows).read_text(encoding="utf-8"))

    assert "100% of test images classified correctly" in words
    assert "No mistakes on 300 test images. With this many images, the true error rate may still be up to 1.3%" in words


def test_validation_images_and_an_early_stop_are_not_hidden(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", status="stopped early")
    run.write_metrics({**run.metrics(), "part": "validation"})

    words = words_of(page_of(run))

    assert "Measured on 300 validation images" in words
    assert "There is no test split" in words
    assert "stopped early" in words


def test_how_to_use_it_names_this_run(tmp_path: Path) -> None:
    kept, elsewhere = finished_run(tmp_path / "runs" / "my shapes"), finished_run(tmp_path / "other")

    assert "<code>hangtag predict &#39;my shapes&#39; photo.png</code>" in page_of(kept)
    assert f"hangtag predict {tmp_path / 'other'} photo.png" in page_of(elsewhere)
    assert f"hangtag.load(&#34;{tmp_path / 'other'}&#34;)" in page_of(elsewhere)


def test_names_are_text_never_markup(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", 'a" onload="x', "鞋 & 'socks'")

    page = page_of(finished_run(tmp_path / "<b>", names, status="<i>odd</i>"), names)

    tags = tags_of(page)
    assert not {"script", "b onload"} & {tag for tag, _, _ in tags.attributes}
    assert not [name for _, name, _ in tags.attributes if name.startswith("on")]
    assert "<script" not in page
    assert "<i>odd" not in page
    assert "鞋 &amp; &#39;socks&#39;" in page


def test_no_template_switches_escaping_off() -> None:
    templates = list((Path(html.__file__).parent / "templates").glob("*.html"))

    assert len(templates) > 5
    assert not [
        path.name for path in templates if re.search(r"\| *safe\b|autoescape", path.read_text(encoding="utf-8"))
    ]


def test_the_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))

    addresses = [value for _, name, value in tags_of(page).attributes if name in ("src", "href", "srcset", "action")]
    assert addresses
    assert all(value.startswith("data:") for value in addresses)
    assert not re.search(r"https?:|url\(|@import", page)
    assert "default-src 'none'" in page


def test_every_tag_is_closed(tmp_path: Path) -> None:
    assert tags_of(page_of(finished_run(tmp_path / "run"))).open == []


def test_the_page_suits_phones_paper_and_dark_screens(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))

    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media screen and (max-width:" in page
    assert "@media print" in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("classes", [2, 25, 1000])
def test_any_number_of_classes_stays_under_3_megabytes(tmp_path: Path, classes: int) -> None:
    names = tuple(f"class {index} with a long name of its own" for index in range(classes))
    count = 2 * classes + 20
    images = np.random.default_rng(0).integers(0, 256, (count, 200, 300, 3), dtype=np.uint8)

    page = page_of(finished_run(tmp_path / "run", names, count), names, count, images)

    assert len(page.encode()) < 3_000_000
    assert page.count("<h2>") == 12


def test_guarantees_are_shown_next_to_what_was_measured(tmp_path: Path) -> None:
    words = words_of(page_of(finished_run(tmp_path / "run")))

    assert "Prediction sets" in words and "95% 100% (98.7% to 100%)" in words
    assert "Accuracy by share of images answered" in words
    assert "The model flagged 5.0% of images (95% interval 3.1% to 8.1%) as unfamiliar." in words
    assert "The test images have been evaluated once for this run" in words


def test_images_that_set_the_thresholds_do_not_pass_for_a_test(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    assert "which set none of them" in words_of(page_of(run))

    run.write_metrics({**run.metrics(), "part": "validation"})

    assert "the same validation images set the thresholds" in words_of(page_of(run))


def test_a_run_of_an_older_version_has_a_report_without_guarantees(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.write_metrics({name: value for name, value in run.metrics().items() if name != "guarantees"})

    assert "Can its answers be trusted" not in page_of(run)


def test_robustness_and_the_effect_of_decisions_are_reported(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", test_opened=["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"])
    clean = StressResult("none", 0, 0.8, 0.1, 0.7, 0.9, 0.5, 0.05)
    cells = tuple(
        StressResult(name, severity, 0.5, 0.1, None, None, None, None)
        for name in CORRUPTIONS
        for severity in SEVERITIES
    )
    weak = Slice("camera", "<old>", 40, 20, 0.5, (0.35, 0.65), 0.85, 0.001)
    run.write_stress(Stress(300, clean, cells, (weak,), 300, 0).to_json())
    labels, rows = judged(toys.CLASSES)
    run.write_metrics({**run.metrics(), "before_decisions": evaluate(rows, labels, toys.CLASSES).to_json()})

    page = page_of(run)

    tags_of(page)
    words = words_of(page)
    assert "camera: &lt;old&gt; 20 of 40 (35% to 65%) 85.0% 40" in words
    assert "80.0% of original images and, on average over 15 corruptions at 5 severities, on 50.0% of" in words
    assert "evaluated 2 times for this run (last: 2026-01-01 00:00, 2026-01-02 00:00, UTC)" in words
    assert "80.0% (75.1% to 84.1%) on the test split as distributed, before your decisions" in words


def test_a_bare_run_still_has_a_report(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.write_config({})
    (run.path / "history.jsonl").unlink()

    assert "80.0% of test images" in words_of(page_of(run))


def test_an_incomplete_run_or_arrays_that_do_not_match_are_rejected(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    images, _ = toys.shapes(300)
    labels, rows = judged(toys.CLASSES)

    with pytest.raises(UsageError, match="must match"):
        write_report(run, images[:5], labels, rows)
    with pytest.raises(UsageError, match="must match"):
        write_report(run, images, labels, rows[:, :2])
    run.write_metrics({"accuracy": 1})
    with pytest.raises(RunError, match=r"metrics\.json is invalid"):
        write_report(run, images, labels, rows)
    (run.path / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"no metrics\.json"):
        write_report(run, images, labels, rows)
    assert not run.report.exists()


COMFORT = (
    "no sign of overfitting",
    "show no miscalibration",
    "A person could check the others",
    "is significantly worse than the rest.",
    "no class is below the target by more than chance.",
)


@pytest.mark.parametrize("count", [6, 19, 150])
def test_a_report_on_few_images_gives_no_comfort(tmp_path: Path, count: int) -> None:
    run = finished_run(tmp_path / "run", count=count)

    words = words_of(page_of(run, count=count))

    assert [phrase for phrase in COMFORT if phrase in words] == []
    assert "% of test images" not in words or count >= 100


def test_a_report_on_many_images_may_give_some(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", count=3000)
    words = words_of(page_of(run, count=3000))

    assert "A person could check the others" in words or "probability of the answer was at least" in words
    assert "may be too small to show it" not in words


def test_every_tile_has_its_count_or_interval(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))
    tiles = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", page[: page.index("</header>")])

    assert len(tiles) >= 4
    assert [name for name, value in tiles if " of " not in value and name != "model file"] == []


@pytest.mark.parametrize(("training", "right", "suggests"), [(0.99, 240, True), (0.8, 240, False), (0.99, 100, False)])
def test_only_a_gap_of_a_model_that_learned_something_is_overfitting(
    tmp_path: Path, training: float, right: int, suggests: bool
) -> None:
    run = finished_run(tmp_path / "run")
    images, labels = toys.shapes(300)
    rows = np.eye(3, dtype=np.float32)[np.where(np.arange(300) < right, labels, (labels + 1) % 3)]
    run.write_metrics({"part": "test", **evaluate(rows, labels, toys.CLASSES, training).to_json()})

    words = words_of(write_report(run, images, labels, rows).read_text(encoding="utf-8"))

    assert ("suggests overfitting" in words) == suggests
    assert ("points higher on the training images" in words) == suggests


def test_a_report_on_other_data_says_so_and_counts_strangers(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    images, labels = toys.shapes(300)
    model = load(toys.toy_model())
    strange = LabelledImages(images, (labels + 1).astype(np.int64), ("ring", *toys.CLASSES[:3]), "my photos")
    strange = dataclasses.replace(strange, labels=np.where(labels == 0, 0, labels).astype(np.int64))
    judged = hangtag.evaluate(model, strange)

    page = write_other_report(run, judged, tmp_path / "other.html")
    words = words_of(page.read_text(encoding="utf-8"))

    assert "200 images of 2 classes of my photos, which is not the data of this run" in words
    assert "Not counted: 100 images of classes that the model does not know: ring (100)" in words
    for phrase in ("test images", "validation images also", "took no part in training", "suggests overfitting"):
        assert phrase not in words
    assert not run.report.exists()


def test_false_numbers_in_a_strangers_metrics_are_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    images, _ = toys.shapes(300)
    labels, rows = judged(toys.CLASSES)
    true = run.metrics()
    twins = [{**row, "name": "twin"} for row in true["classes"]]
    shorter = {**true["guarantees"], "answered": [1.0]}
    nothing = [[0] * 3] * 3
    for change in (
        {"images": 0}, {"confusion": nothing, "images": 0}, {"accuracy": 5.0}, {"training_accuracy": -1e300},
        {"classes": twins}, {"guarantees": shorter}, {"part": 5}, {"notes": [5]},
    ):  # fmt: skip
        run.write_metrics({**true, **change})
        with pytest.raises(RunError, match=r"metrics\.json is invalid"):
            write_report(run, images, labels, rows)


def test_counts_of_other_classes_are_left_out_and_notes_are_shown_as_text(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", data={"name": "x", "fingerprint": "f", "counts": {"train": [1, 2]}})
    run.write_metrics({**run.metrics(), "notes": ["<b>only 3 images</b>"]})

    page = page_of(run)

    assert "Note: &lt;b&gt;only 3 images&lt;/b&gt;." in page


def test_mistakes_are_named_by_their_files(tmp_path: Path) -> None:
    run, (labels, rows) = finished_run(tmp_path / "run"), judged(toys.CLASSES)
    files = [f"bar/in/<b>{number}\x1b.png" for number in range(300)]
    data = LabelledImages(toys.shapes(300)[0], labels, toys.CLASSES, names=files)
    guarantees = measure_guarantees({"probabilities": rows}, labels, Guarantees.none(len(toys.CLASSES), "none"))
    judgement = Judgement("test", data, {"probabilities": rows}, evaluate(rows, labels, toys.CLASSES), guarantees)

    page = write_report(run, data.images, labels, rows, judgement).read_text()

    first = int(np.flatnonzero(rows.argmax(axis=1) != labels)[0])
    name = f"&lt;b&gt;{first}\\x1b.png"
    assert f'<span class="note" title="bar/in/{name}">{name}</span>' in page
    assert "counted from 0" not in words_of(page)


def test_figures_are_drawn_again_only_if_they_would_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (labels, rows) = finished_run(tmp_path / "run"), judged(toys.CLASSES)
    data = LabelledImages(toys.shapes(300)[0], labels, toys.CLASSES, parts={"train": slice(0, 200)})
    guarantees = measure_guarantees({"probabilities": rows}, labels, Guarantees.none(len(toys.CLASSES), "none"))
    judgement = Judgement("test", data, {"probabilities": rows}, evaluate(rows, labels, toys.CLASSES), guarantees)
    drawn: list[str] = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda figure, path: (save(figure, path), drawn.append(path.name)))

    def figures_drawn(judgement: Judgement) -> int:
        drawn.clear()
        write_report_and_pictures(run, data, judgement)
        return len(drawn)

    assert figures_drawn(judgement) == 6
    grid = run.figures / "2-grid.png"
    content = grid.read_bytes()
    assert figures_drawn(judgement) == 0
    for change in (grid.unlink, lambda: grid.write_bytes(content[:-1])):
        change()
        assert figures_drawn(judgement) == 6
        assert grid.read_bytes() == content
    other = dataclasses.replace(judgement, outputs={"probabilities": rows[::-1].copy()})
    assert figures_drawn(other) == 6

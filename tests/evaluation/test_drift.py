"""Drift: no alarm without one, an alarm with one, and files as the server and `hangtag predict --out` write them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hangtag.data.table_writer import TableWriter
from hangtag.errors import DataError, RunError, UsageError
from hangtag.evaluation.drift import LEAST, Answers, compare, read_answers, reference_of
from hangtag.evaluation.metrics import Share, difference_interval
from hangtag.evaluation.run_folder import REFERENCE, Run
from hangtag.model.doctor import Repair
from hangtag.model.predictor import Answer
from hangtag.prediction.table import columns, row_of
from hangtag.reports.drift_page import write_drift_page

NAMES = ("bar", "dot", "edge")
MODEL: Any = SimpleNamespace(class_names=NAMES, fingerprint="0123456789ab")


def answers(count: int, seed: int, strange: float = 0.0, mix: tuple[float, ...] = (0.4, 0.3, 0.3)) -> Answers:
    """Answers whose confidence depends on the label; a share of them is to strange pictures."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, count, p=mix)
    shares = random.beta(np.array([20, 8, 4])[labels], 1)
    scores = np.where(random.random(count) < strange, random.uniform(0.9, 1, count), random.random(count))
    times = 1.7e9 + np.arange(count) * 3600.0
    return Answers(labels, shares, scores, (shares > 0.8).astype(np.int64), times)


REFERENCE_ANSWERS = answers(5000, 0)


def verdicts(count: int, draws: int, **rest: Any) -> list[str]:
    return [
        compare(MODEL, REFERENCE_ANSWERS, "test", answers(count, 1 + seed, **rest)).verdict for seed in range(draws)
    ]


def test_false_alarms_are_rare() -> None:
    found = verdicts(300, 100)

    assert found.count("no drift") >= 90


def test_strange_pictures_are_a_drift() -> None:
    assert set(verdicts(300, 5, strange=0.4)) == {"drift"}


def test_a_few_strange_pictures_are_found() -> None:
    found = verdicts(1000, 20, strange=0.1)

    assert found.count("drift") >= 18, "half of them are counted as unfamiliar: 9.5% instead of 5%"


def test_another_mix_of_labels_alone_is_no_drift() -> None:
    found = verdicts(400, 30, mix=(0.1, 0.2, 0.7))

    assert found.count("label mix") >= 27, "although confidence depends on the label"


def test_too_few_answers_are_not_tested() -> None:
    found = compare(MODEL, REFERENCE_ANSWERS, "test", answers(LEAST - 1, 1, strange=1.0))

    assert (found.verdict, found.tests, found.has_drifted) == ("too few answers", (), False)
    assert f"{LEAST}" in found.summary


def test_labels_that_the_reference_never_gave_are_compared() -> None:
    reference = answers(500, 0, mix=(0.5, 0.5, 0.0))

    assert compare(MODEL, reference, "test", answers(200, 1)).verdict in ("label mix", "drift")
    assert compare(MODEL, reference, "test", answers(200, 1, mix=(0.0, 0.0, 1.0))).verdict == "drift"


def test_windows_show_when_it_began(tmp_path: Path) -> None:
    before, after = answers(200, 1), answers(200, 2, strange=1.0)
    parts = {name: np.concatenate([getattr(before, name), getattr(after, name)]) for name in list(vars(before))[:4]}
    found = compare(MODEL, REFERENCE_ANSWERS, "test", Answers(**parts, times=1.7e9 + np.arange(400) * 3600.0))
    shares = [window.unfamiliar.share for window in found.windows]
    page = write_drift_page(found, "toy", tmp_path / "drift.html").read_text()

    assert 10 < len(shares) <= 24
    assert max(share or 0 for share in shares[:5]) < 0.3 < min(share or 0 for share in shares[-5:])
    assert sum(window.answers for window in found.windows) == 400
    assert "The pictures have drifted" in page
    assert page.count("<svg") == 4


def test_a_page_escapes_names_and_needs_no_times(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(class_names=("<script>", "dot", "edge"), fingerprint="0123456789ab")
    sample = answers(100, 1)
    some = Answers(sample.labels, sample.probabilities, np.full(100, np.nan), np.full(100, -1), np.full(100, np.nan))
    found = compare(model, REFERENCE_ANSWERS, "test", some)
    page = write_drift_page(found, "<b>", tmp_path / "drift.html").read_text()

    assert "<script>" not in page
    assert "<b>:" not in page
    assert found.unfamiliar is None
    assert [test.of for test in found.tests] == ["confidence", "labels"]


def test_answers_are_read_alike_from_every_kind_of_file(tmp_path: Path) -> None:
    repair = Repair("inverted", "dark on light", 0.97, 0.2)
    given = [
        Answer("dot", 0.75, (("dot", 0.75),), (), MODEL.fingerprint, ood_score=0.5, sure=True),
        Answer("edge", 0.5, (("edge", 0.5),), (), MODEL.fingerprint, ood_score=0.2, sure=False, repairs=(repair,)),
        Answer("bar", 0.9, (("bar", 0.9),), (), "another"),
        Answer(None, None, (), (), MODEL.fingerprint, error="unreadable"),
    ]
    for ending in (".csv", ".jsonl", ".parquet"):
        path = tmp_path / f"answers{ending}"
        with TableWriter(path, columns(1, 3)) as table:
            for answer in given:
                table.write(row_of("a.png", answer))
        found = read_answers([path], MODEL)

        assert found.labels.tolist() == [1, 2]
        assert found.probabilities.tolist() == [0.75, 0.5]
        assert found.ood_scores.tolist() == pytest.approx([0.5, 0.97], abs=1e-6), "before the repair"
        assert found.sure.tolist() == [1, 0]
        assert (found.others, found.unusable) == (1, 1)


def test_a_log_may_have_torn_lines_and_several_files(tmp_path: Path) -> None:
    line = {"time": "2026-11-20T10:00:00Z", "label": "dot", "probability": 0.5, "model": MODEL.fingerprint}
    good = json.dumps({**line, "repairs": [{"name": "inverted", "before": 0.9}], "top": []})
    (tmp_path / "a.jsonl").write_text(f'{good}\n{good[:30]}\n\n[1]\n{{"label": "no such", "probability": 1}}\n{good}')
    (tmp_path / "a.jsonl.1").write_text(good + "\n")
    found = read_answers([tmp_path / "a.jsonl", tmp_path / "a.jsonl.1"], MODEL)

    assert len(found) == 3
    assert found.unusable == 3
    assert found.ood_scores.tolist() == [0.9] * 3
    assert found.times.tolist() == [datetime(2026, 11, 20, 10, tzinfo=UTC).timestamp()] * 3


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"label": "dot", "probability": 0.5, "model": "another"}\n', "other versions: another"), ("", "no line")],
)
def test_files_without_an_answer_of_this_model_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)

    with pytest.raises(UsageError, match=words):
        read_answers([tmp_path / "a.jsonl"], MODEL)


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,score\nx,1\n")

    with pytest.raises(DataError, match="has no column 'label'"):
        read_answers([tmp_path / "a.csv"], MODEL)
    with pytest.raises(DataError, match="cannot be read"):
        read_answers([tmp_path / "missing.jsonl"], MODEL)


def test_a_damaged_reference_is_an_error(tmp_path: Path) -> None:
    (tmp_path / REFERENCE).write_bytes(b"PK nonsense")

    with pytest.raises(RunError, match="damaged"):
        reference_of(Run(tmp_path), MODEL)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    one, two = Share.counted(np.arange(80) < 48), Share.counted(np.arange(70) < 56)
    found = difference_interval(one, two)

    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4), "56/70 - 48/80, table II of Newcombe (1998)"


@pytest.mark.parametrize(
    "odd",
    [
        '"repairs": 5', '"repairs": true', '"repairs": {"before": [1]}', '"repairs": [{"before": 1e300}]',
        '"ood_score": 1' + "0" * 400, '"time": "0001-01-01T00:00:00+14:00"', '"time": "9999-12-31T23:59:59-14:00"',
        '"time": 1e300', '"sure": [1]',
    ],
)  # fmt: skip
def test_odd_values_of_a_line_count_as_unknown(odd: str, tmp_path: Path) -> None:
    usual = f'"label": "{MODEL.class_names[0]}", "probability": 0.5, "time": "2026-01-01T00:00:00Z"'
    (tmp_path / "a.jsonl").write_text("\n".join([f"{{{usual}}}"] * LEAST + [f"{{{usual}, {odd}}}"]))

    found = read_answers([tmp_path / "a.jsonl"], MODEL)

    assert len(found) == LEAST + 1
    assert str(compare(MODEL, found, "test", found)).startswith("no drift")

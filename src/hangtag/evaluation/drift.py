"""Drift: do a model's answers in use still look like its answers to the images it was judged on?

The true labels are unknown in use, so this compares distributions: of labels, and of OOD scores and confidence at the
same mix of labels. The p-values are adjusted for the number of tests (Holm, 1979, Scand. J. Stat. 6:65-70) and assume
that the pictures are independent of each other.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hangtag.data.tables import TABLE_ENDINGS, read_table
from hangtag.errors import DataError, HangtagError, SaveError, UsageError
from hangtag.evaluation.judge import Judgement, judge_own, read_again
from hangtag.evaluation.metrics import Z_95, Share, difference_interval
from hangtag.evaluation.run_folder import REFERENCE, Run
from hangtag.model.artifact import OUTPUT
from hangtag.model.guarantees import OOD_FALSE_POSITIVE_RATE, AnswerPolicy
from hangtag.model.predictor import Predictor
from hangtag.npz import Limits, read_npz, write_npz
from hangtag.serializable import Serializable
from hangtag.significance import holm, homogeneity, hypergeometric_tail, kolmogorov_smirnov
from hangtag.words import amount, first_few

__all__ = [
    "LEAST", "Answers", "Drift", "DriftTest", "LabelShare", "Spread", "Window", "compare", "read_answers",
    "reference_of", "write_reference",
]  # fmt: skip

LEAST = 50
"""Answers below which nothing is tested: even a change of a quarter of them could go unseen."""
LEVEL = 0.05
"""The probability of reporting any difference when there is no drift."""

_SMALL = 0.1  # a distance of distributions up to which a drift is called small
_MOST = 10_000  # answers that are kept as the reference
_MOST_WINDOWS = 24
_BINS = 10
_ENOUGH = 20  # reference answers of a label that stand for it
_DIGITS = 4  # of numbers that are compared: the rest may be rounding, which differs between batches
_WINDOWS = (60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
_LATEST = 10_000_000_000  # seconds since 1970: in the year 2286
_BEFORE = re.compile(r"\(OOD score ([0-9.]+) ->")
_KEPT: dict[str, type[np.generic]] = {
    "label": np.int64,
    "probability": np.float32,
    "ood_score": np.float32,
    "sure": np.int64,
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answers:
    """N answers of one model.

    Attributes:
        labels: (N,) indices of classes.
        probabilities: (N,) of these labels.
        ood_scores: (N,) before repairs; NaN if unknown.
        sure: (N,) 1, 0, or -1 if the model cannot tell.
        times: (N,) seconds since 1970; NaN where unknown.
        others: answers of other versions of the model, which are left out.
        unusable: lines without an answer of this model: damaged, or about a picture that could not be read.
    """

    labels: NDArray[np.int64]
    probabilities: Floats
    ood_scores: Floats
    sure: NDArray[np.int64]
    times: Floats
    others: int = 0
    unusable: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unfamiliar(self) -> NDArray[np.bool_]:
        """(M,) for each answer with an OOD score: whether the picture is unlike the training images."""
        return self.ood_scores[np.isfinite(self.ood_scores)] > 1 - OOD_FALSE_POSITIVE_RATE

    @property
    def not_sure(self) -> NDArray[np.bool_]:
        """(M,) for each answer of a model that can tell: whether it is not sure."""
        return np.asarray(self.sure[self.sure >= 0] == 0)


@dataclass(frozen=True)
class DriftTest:
    """One comparison of two distributions.

    Attributes:
        of: "unfamiliar", "OOD score", "confidence" or "labels".
        distance: for the share of unfamiliar pictures, the difference; for OOD scores and confidence, the largest
            difference of the cumulative shares (Kolmogorov-Smirnov); all three at the same mix of labels; for labels,
            half the sum of all differences of shares (total variation).
        p_value: the probability of such a distance without any drift.
        adjusted: the same for the smallest of all tests (Holm).
        is_significant: whether `adjusted` is below 0.05.
    """

    of: str
    distance: float
    p_value: float
    adjusted: float
    is_significant: bool


@dataclass(frozen=True)
class Spread:
    """A share among the reference answers and among those in use.

    Attributes:
        difference: of the two, with its 95% interval (Newcombe); None if one of them is unknown.
    """

    reference: Share
    now: Share
    difference: tuple[float, float, float] | None


@dataclass(frozen=True)
class LabelShare:
    """How often a label is the answer."""

    label: str
    share: Spread


@dataclass(frozen=True)
class Window:
    """The answers of some time: its beginning (ISO 8601, UTC), and the shares among them."""

    begins: str
    answers: int
    unfamiliar: Share
    not_sure: Share


@dataclass(frozen=True)
class Drift(Serializable):
    """What was found.

    Attributes:
        verdict: "no drift" (none was found), "label mix" (only the shares of labels differ), "drift" (OOD scores or
            confidence differ) or "too few answers".
        summary: the verdict in a sentence; `advice`: what follows.
        answers, reference: numbers of answers compared; `part` says which images are the reference.
        others, unusable: as `Answers`.
        model: fingerprint of the model.
        tests: empty if there are too few answers.
        unfamiliar, not_sure: shares of answers; None if the model cannot tell.
        confidence: mean probability of the labels, of the reference and now, and the 95% interval of the difference.
        labels: all labels, the largest difference first.
        detectable: the smallest distance of OOD scores or confidence that is found in half of all cases.
        windows: over time; empty without times.
        ood_bins, confidence_bins: shares of the reference and of the answers in ten equal parts from 0 to 1.
    """

    verdict: str
    summary: str
    advice: str
    answers: int
    reference: int
    part: str
    others: int
    unusable: int
    model: str
    tests: tuple[DriftTest, ...]
    unfamiliar: Spread | None
    not_sure: Spread | None
    confidence: tuple[float, float, tuple[float, float]]
    labels: tuple[LabelShare, ...]
    detectable: float
    windows: tuple[Window, ...]
    ood_bins: tuple[tuple[float, ...], tuple[float, ...]] | None
    confidence_bins: tuple[tuple[float, ...], tuple[float, ...]]

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.summary}", self.advice]
        for name, spread in (("unfamiliar", self.unfamiliar), ("not sure", self.not_sure)):
            if spread is not None and spread.difference is not None:
                by, low, high = (100 * value for value in spread.difference)
                lines.append(
                    f"{name}: {spread.now}, {spread.reference} before; {by:+.1f} points, 95% interval {low:+.1f} to "
                    f"{high:+.1f}"
                )
        for test in self.tests:
            significant = "significant" if test.is_significant else "not significant"
            lines.append(f"{test.of}: distance {test.distance:.3f}, adjusted p {test.adjusted:.2g} ({significant})")
        if self.others:
            lines.append(f"left out: {amount(self.others, 'answer')} of other models or versions")
        if self.unusable:
            lines.append(f"left out: {amount(self.unusable, 'line')} without an answer")
        return "\n".join(lines)

    @property
    def has_drifted(self) -> bool:
        """Whether OOD scores or confidence differ; a changed mix of labels alone does not count."""
        return self.verdict == "drift"


def reference_of(run: Run, model: Predictor) -> tuple[Answers, str]:
    """The model's answers to the images it was judged on, and what these are called.

    They are in the run folder; for a run of an earlier version, they are computed from the run's data and kept.

    Raises:
        RunError, DataError: they are not there, and the run's data cannot be read.
    """
    path = run.path / REFERENCE
    if not path.is_file() or not _is_of(path, model):
        try:
            judged = judge_own(run, read_again(run), model)
        except HangtagError as error:
            raise DataError(
                f"{run.path}: the answers that the model was judged by are not in the run folder, and the run's data "
                f"cannot be read: {error}",
                "run this command once where the data is; it keeps the answers in the run folder",
            ) from None
        answers = _answers_of(judged, model)
        with suppress(SaveError):
            write_reference(run, judged, model)
        return answers, judged.part
    columns = {name: Limits(kind, (_MOST,)) for name, kind in _KEPT.items()}
    rows = read_npz(path, columns, "delete the file; the next hangtag drift computes it from the run's data")
    classes = len(model.class_names)
    shares = (rows["probability"], np.nan_to_num(rows["ood_score"]))
    if (
        len({len(each) for each in rows.values()}) > 1
        or not len(rows["label"])
        or not ((rows["label"] >= 0) & (rows["label"] < classes)).all()
        or not all(((each >= 0) & (each <= 1)).all() for each in shares)
    ):
        raise DataError(f"{path}: does not belong to this model", "delete it; the next hangtag drift computes it again")
    part = "held-out"
    with suppress(HangtagError):
        part = run.metrics().get("part", part)
    return _answers(rows["label"], rows["probability"], rows["ood_score"], rows["sure"]), str(part)


def write_reference(run: Run, judged: Judgement, model: Predictor) -> None:
    """Keep the answers to at most 10,000 of the judged images in the run folder; raises SaveError."""
    answers = _answers_of(judged, model)
    kept = np.sort(np.random.default_rng(0).permutation(len(answers))[:_MOST])
    columns = (answers.labels, answers.probabilities, answers.ood_scores, answers.sure)
    pairs = zip(_KEPT.items(), columns, strict=True)
    arrays = {name: values[kept].astype(kind) for (name, kind), values in pairs}
    write_npz(run.path / REFERENCE, {**arrays, "model": np.array([int(model.fingerprint, 16)])})


def read_answers(paths: Sequence[Path], model: Predictor) -> Answers:
    """Answers from tables as `hangtag predict --out` and `hangtag serve --log-answers` write them.

    Raises:
        UsageError: the tables have no answer of this model.
        DataError: a file cannot be read or has no such columns.
    """
    index = {name: position for position, name in enumerate(model.class_names)}
    rows, others, unusable = list[tuple[int, float, float, int, float]](), 0, 0
    versions: dict[str, int] = {}
    for path in paths:
        for line in _lines(path):
            label = None if line is None or line.label is None else index.get(line.label)
            share = None if line is None else _number(line.probability)
            if line is not None and line.model is not None and line.model != model.fingerprint:
                others += 1
                versions[line.model] = versions.get(line.model, 0) + 1
            elif line is None or label is None or share is None or not 0 <= share <= 1:
                unusable += 1
            else:
                rows.append((label, share, _score_before_repairs(line), _flag(line.sure), _seconds(line.time)))
    if not rows:
        found = f"{others:,} are of other versions: {first_few(list(versions))}" if others else "no line is an answer"
        raise UsageError(
            f"{paths[0]}: has no answer of this model, {model.fingerprint}; {found}",
            "give answers of hangtag predict --out or hangtag serve --log-answers, and the run that answered",
        )
    labels, shares, scores, sure, times = zip(*rows, strict=True)
    return _answers(labels, shares, scores, sure, times, others, unusable)


def compare(model: Predictor, reference: Answers, part: str, answers: Answers) -> Drift:
    """Test whether the answers are distributed as those of the reference."""
    one, two = (np.round(each.ood_scores[np.isfinite(each.ood_scores)], _DIGITS) for each in (reference, answers))
    weights = _weights(reference.labels, answers.labels)
    found = []
    if len(answers) >= LEAST:
        if len(one) >= LEAST and len(two) >= LEAST:
            chosen = weights[np.isfinite(reference.ood_scores)]
            chosen /= chosen.sum()
            found.append(("unfamiliar", *_more_unfamiliar(reference.unfamiliar, answers.unfamiliar, chosen)))
            found.append(("OOD score", *kolmogorov_smirnov(one, two, chosen)))
        before, now = (np.round(each.probabilities, _DIGITS) for each in (reference, answers))
        found.append(("confidence", *kolmogorov_smirnov(before, now, weights)))
        classes = len(model.class_names)
        counts = np.array([np.bincount(each.labels, minlength=classes) for each in (reference, answers)])
        found.append(("labels", *homogeneity(counts)))
    adjusted = holm([p_value for _, _, p_value in found])
    tests = tuple(
        DriftTest(of, distance, p_value, float(p), bool(p < LEVEL))
        for (of, distance, p_value), p in zip(found, adjusted, strict=True)
    )
    known = 1 / float((weights**2).sum())
    size = known * len(answers) / (known + len(answers))
    detectable = min(1.0, float(np.sqrt(np.log(2 * max(len(tests), 1) / LEVEL) / 2 / size)))
    means = reference.probabilities.mean(), answers.probabilities.mean()
    error = float(sum(each.probabilities.var() / len(each) for each in (reference, answers)) ** 0.5)
    difference = float(means[1] - means[0])
    unfamiliar = _spread(reference.unfamiliar, answers.unfamiliar)
    labels = [
        LabelShare(name, spread)
        for number, name in enumerate(model.class_names)
        if (spread := _spread(reference.labels == number, answers.labels == number)) is not None
    ]
    labels.sort(key=lambda each: -abs(each.share.difference[0] if each.share.difference else 0))
    verdict, summary, advice = _verdict(tests, answers, part, unfamiliar, difference, labels, detectable)
    return Drift(
        verdict=verdict, summary=summary, advice=advice, answers=len(answers), reference=len(reference), part=part,
        others=answers.others, unusable=answers.unusable, model=model.fingerprint, tests=tests, unfamiliar=unfamiliar,
        not_sure=_spread(reference.not_sure, answers.not_sure),
        confidence=(float(means[0]), float(means[1]), (difference - Z_95 * error, difference + Z_95 * error)),
        labels=tuple(labels), detectable=detectable, windows=tuple(_windows(answers)),
        ood_bins=(_bins(one), _bins(two)) if len(one) and len(two) else None,
        confidence_bins=(_bins(reference.probabilities), _bins(answers.probabilities)),
    )  # fmt: skip


def _weights(reference: NDArray[np.int64], answers: NDArray[np.int64]) -> Floats:
    """(N,) weights of the reference that give it the answers' mix of labels, so that another mix alone is no drift.

    Labels with few reference answers count as one; if even together they are few, as the most frequent label.
    """
    classes = int(max(reference.max(), answers.max())) + 1
    counts = np.bincount(reference, minlength=classes)
    is_rare = counts < _ENOUGH
    others = classes if counts[is_rare].sum() >= _ENOUGH else int(counts.argmax())
    groups = np.where(is_rare, others, np.arange(classes))
    one, two = (np.bincount(groups[labels], minlength=classes + 1) for labels in (reference, answers))
    weights = (two / np.maximum(one, 1))[groups[reference]]
    return np.asarray(weights / weights.sum(), np.float64)


def _more_unfamiliar(reference: NDArray[np.bool_], now: NDArray[np.bool_], weights: Floats) -> tuple[float, float]:
    """The difference of the shares of unfamiliar pictures, and Fisher's one-sided exact p-value for more of them now.

    A few strange pictures among many change this share long before they change the whole distribution.
    """
    before = float(weights[reference].sum())
    size = round(1 / float((weights**2).sum()))  # Kish's effective size
    hits = int(now.sum())
    p_value = hypergeometric_tail(hits, size + len(now), round(before * size) + hits, len(now))
    return hits / len(now) - before, p_value


def _verdict(
    tests: tuple[DriftTest, ...], answers: Answers, part: str, unfamiliar: Spread | None, difference: float,
    labels: list[LabelShare], detectable: float,
) -> tuple[str, str, str]:  # fmt: skip
    """The verdict, a sentence, and advice."""
    images = f"the {part} images"
    if not tests:
        return (
            "too few answers",
            f"Too few answers to tell: {len(answers)}, and a test needs {LEAST}.",
            "Collect more answers. With 200, a change of about a tenth of them is found; with 2,000, of a thirtieth.",
        )
    moved = [test for test in tests if test.is_significant and test.of != "labels"]
    mix = next(test for test in tests if test.of == "labels")
    if moved:
        small = "slightly " if max(test.distance for test in moved) < _SMALL else ""
        what = []
        if any(test.of != "confidence" for test in moved) and unfamiliar and unfamiliar.now.share is not None:
            what.append(f"{unfamiliar.now} are unfamiliar, {unfamiliar.reference} before")
        if any(test.of == "confidence" for test in moved):
            what.append(
                f"mean confidence is {100 * abs(difference):.1f} points {'lower' if difference < 0 else 'higher'}"
            )
        return (
            "drift",
            f"The pictures differ {small}from {images}: {'; '.join(what)}.",
            "The accuracy measured there may not hold here. Look at unfamiliar pictures first, label some answers and "
            "check them with hangtag evaluate RUN DATA.",
        )
    if mix.is_significant:
        most = labels[0]
        return (
            "label mix",
            f"Only the mix of labels differs from {images}: '{most.label}' is the answer for {most.share.now}, "
            f"{most.share.reference} before.",
            "This may be a changed mix of pictures and no fault. If the true mix did not change, label some answers "
            "and check them with hangtag evaluate RUN DATA.",
        )
    return (
        "no drift",
        f"No significant difference between {amount(len(answers), 'answer')} and those for {images}.",
        f"Differences of less than about {detectable:.0%} of the answers can go unseen.",
    )


def _is_of(path: Path, model: Predictor) -> bool:
    """Whether these are the answers of this model file, not of an earlier one in the same folder."""
    found = read_npz(path, {"model": Limits(np.int64, (1,))}, "delete it; the next hangtag drift computes it again")
    return bool(found["model"].tolist() == [int(model.fingerprint, 16)])


def _answers_of(judged: Judgement, model: Predictor) -> Answers:
    verdicts = model.guarantees.decide(judged.outputs, AnswerPolicy())
    rows = judged.outputs[OUTPUT]
    scores = np.full(len(rows), np.nan) if verdicts.ood_score is None else verdicts.ood_score
    sure = np.full(len(rows), -1) if verdicts.sure is None else verdicts.sure
    return _answers(rows.argmax(axis=1), rows.max(axis=1), scores, sure)


def _answers(
    labels: Any, shares: Any, scores: Any, sure: Any, times: Any = None, others: int = 0, unusable: int = 0
) -> Answers:
    times = np.full(len(labels), np.nan) if times is None else np.asarray(times, np.float64)
    shares, scores = np.asarray(shares, np.float64), np.asarray(scores, np.float64)
    return Answers(np.asarray(labels, np.int64), shares, scores, np.asarray(sure, np.int64), times, others, unusable)


class _Line(msgspec.Struct):
    """What is used of an answer; tables of text give numbers as text."""

    label: str | None = None
    probability: Any = None
    ood_score: Any = None
    sure: Any = None
    model: str | None = None
    time: Any = None
    repairs: Any = None


def _lines(path: Path) -> Iterator[_Line | None]:
    """The answers of a table; None for a line that is not one."""
    if path.suffix.lower() in (".jsonl", ".ndjson") or path.suffix.lower() not in TABLE_ENDINGS:
        decode = msgspec.json.Decoder(_Line).decode  # a log may end with half a line, which is no reason to stop
        try:
            with path.open("rb") as file:
                for line in iter(lambda: file.readline(_LONGEST), b""):
                    if line.strip():
                        try:
                            yield decode(line)
                        except (msgspec.MsgspecError, UnicodeError, RecursionError):
                            yield None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}", "check the path") from None
        return
    table = read_table([path], texts=True)
    if missing := [name for name in ("label", "probability") if name not in table.columns]:
        raise DataError(f"{path}: has no column '{missing[0]}'", "give a table that hangtag predict --out wrote")
    names = [name for name in _Line.__struct_fields__ if name in table.columns]
    for values in zip(*(table.columns[name] for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        texts = {name: None if row.get(name) in (None, "") else str(row[name]) for name in ("label", "model")}
        yield _Line(**{**row, **texts})


_LONGEST = 1_000_000  # bytes of a line


def _number(value: Any) -> float | None:
    with suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        return number if np.isfinite(number) else None
    return None


def _flag(value: Any) -> int:
    return 1 if value in (True, "yes", "true", "True") else 0 if value in (False, "no", "false", "False") else -1


def _score_before_repairs(line: _Line) -> float:
    """The picture's OOD score; repairs make pictures more familiar, but the reference has none."""
    repairs = line.repairs if isinstance(line.repairs, list) else [line.repairs]
    for repair in repairs:
        if isinstance(repair, dict) and _number(repair.get("before")) is not None:
            return _share(repair["before"])
        if isinstance(repair, str) and (before := _BEFORE.search(repair)):
            return _share(before[1])
    return _share(line.ood_score)


def _share(value: Any) -> float:
    """The number, if it is from 0 to 1; else NaN."""
    number = _number(value)
    return np.nan if number is None or not 0 <= number <= 1 else number


def _seconds(value: Any) -> float:
    """Seconds since 1970 of a time in ISO 8601 or a date of a table; NaN if it is missing or implausible."""
    with suppress(TypeError, ValueError, OverflowError):
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return seconds if 0 <= seconds <= _LATEST else np.nan
    return np.nan


def _spread(reference: NDArray[np.bool_], now: NDArray[np.bool_]) -> Spread | None:
    if not len(reference) or not len(now):
        return None
    one, two = Share.counted(reference), Share.counted(now)
    return Spread(one, two, difference_interval(one, two))


def _bins(values: Floats) -> tuple[float, ...]:
    counts = np.histogram(values, _BINS, (0, 1))[0]
    return tuple((counts / max(counts.sum(), 1)).tolist())


def _windows(answers: Answers) -> Iterator[Window]:
    """At most 24 windows of equal length, from the first answer to the last; windows without answers are left out."""
    known = np.flatnonzero(np.isfinite(answers.times))
    if not len(known):
        return
    times = answers.times[known]
    span = float(times.max() - times.min())
    length = next((each for each in _WINDOWS if span / each < _MOST_WINDOWS - 1), span / (_MOST_WINDOWS - 1))
    numbers = np.floor(times / length).astype(np.int64)
    for number in np.unique(numbers).tolist():
        rows = known[numbers == number]
        part = _answers(answers.labels[rows], answers.probabilities[rows], answers.ood_scores[rows], answers.sure[rows])
        begins = datetime.fromtimestamp(number * length, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Window(begins, len(rows), Share.counted(part.unfamiliar), Share.counted(part.not_sure))

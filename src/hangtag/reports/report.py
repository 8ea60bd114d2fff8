"""A run -> one offline HTML page that says how good the classifier is, where it fails and what to do next.

Every number comes from the run's own files; the pictures, from the images that judged it. The page asks nothing of
the network and runs no script. It trains and evaluates nothing.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import RunError, UsageError
from hangtag.evaluation.guarantee_report import GuaranteeReport
from hangtag.evaluation.metrics import ClassResult, Evaluation, wilson
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.stress_test import Stress
from hangtag.files import make_folder, write_text
from hangtag.pictures import Images
from hangtag.reports.guarantees_section import promises_section, stress_section, trust_tiles
from hangtag.reports.html import (
    MOST_ROWS,
    chart,
    code_block,
    data_uri,
    definitions,
    dig,
    document,
    escaped,
    right_on,
    section,
    table,
    thumbnail,
)
from hangtag.words import bytes_in_words, in_percent, listed, out_of_100, percent, seconds_in_words, times

if TYPE_CHECKING:
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement

__all__ = ["write_report", "write_report_and_pictures"]

EXAMPLES, MISTAKES = 15, 12
_CELLS, _BARS = 20, 40  # most classes for a matrix in HTML, for bars
_THUMB = 96  # pixels a side
_DARK_GROUND = 16  # as in figures.py: light things on black are shown black on white
_SURE = 0.9
_FEW = 0.2  # a recall interval wider than this says little


def write_report_and_pictures(run: Run, data: "LabelledImages", judged: "Judgement") -> Path:
    """The six pictures of the lesson, for the run's own data, and its report, whose path is returned."""
    from hangtag.reports import figures

    images, labels, rows = judged.data.images, judged.data.labels, judged.probabilities
    make_folder(run.figures)
    train = data.train
    for name, figure in figures.lesson(train.images, train.labels, images, labels, rows, data.class_names).items():
        figures.save(figure, run.figures / f"{name}.png")
    return write_report(run, images, labels, rows)


def write_report(run: Run, images: Images, labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> Path:
    """Write the run's `report.html`, and return its path.

    Args:
        run: a folder with config.json and metrics.json; history.jsonl where there is one.
        images: (N, H, W) or (N, H, W, 3) uint8 that judged the run.
        labels: (N,) indices of their classes.
        probabilities: (N, K), what the model said.

    Raises:
        RunError: the folder is incomplete.
        UsageError: the arrays do not fit each other or the run.
        SaveError: the page cannot be written.
    """
    facts = _gather(run, images, labels, probabilities)
    write_text(run.report, _page(facts))
    return run.report


@dataclass(frozen=True)
class _Facts:
    """What every section may use."""

    run: Run
    config: Mapping[str, Any]
    evaluation: Evaluation
    part: str
    history: Sequence[Mapping[str, Any]]
    images: Images
    labels: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]
    guarantees: GuaranteeReport | None
    stress: Stress | None
    before_decisions: Evaluation | None

    @property
    def names(self) -> list[str]:
        return [result.name for result in self.evaluation.classes]

    @property
    def invert(self) -> bool:
        background = dig(self.config, "data", "image", "background")
        return self.images.ndim == 3 and background is not None and int(background) <= _DARK_GROUND

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        return np.array(self.evaluation.confusion, dtype=np.int64)

    @property
    def wrong(self) -> int:
        return int(self.confusion.sum() - self.confusion.trace())


def _gather(run: Run, images: Images, labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> _Facts:
    metrics = run.metrics()
    known = {field.name for field in fields(Evaluation)}
    broken = run.stress()
    try:
        evaluation = Evaluation.from_json({key: value for key, value in metrics.items() if key in known})
        kept = GuaranteeReport.from_json(metrics["guarantees"]) if metrics.get("guarantees") else None
        stress = None if broken is None else Stress.from_json(broken)
        theirs = metrics.get("before_decisions")
        before_decisions = None if theirs is None else Evaluation.from_json(theirs)
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.path}: metrics.json is not an evaluation: {error}", "judge the run again") from None
    expected = (len(labels), len(evaluation.classes))
    if len(images) != len(labels) or probabilities.shape != expected or not len(labels):
        raise UsageError(
            f"{len(images):,} images, {len(labels):,} labels, probabilities of shape {probabilities.shape} and "
            f"{len(evaluation.classes)} classes do not fit each other",
            "give the images that judged this run, with a label and a row of probabilities each",
        )
    history = run.history() if (run.path / "history.jsonl").is_file() else []
    part = str(metrics.get("part", "test"))
    return _Facts(
        run, run.config(), evaluation, part, history, images, labels, probabilities, kept, stress, before_decisions
    )


def _page(facts: _Facts) -> str:
    title = f"{dig(facts.config, 'data', 'name', default='classifier')}, {facts.run.path.name}"
    can_i_use_it = (_headline, _trust, _use, _examples)
    where_does_it_fail = (_per_class, _confusions, _mistakes, _breaks)
    how_was_this_measured = (_measured, _training, _data, _origin)
    parts = (*can_i_use_it, *where_does_it_fail, _advice, *how_was_this_measured)
    return document(title, "".join(part(facts) for part in parts))


def _headline(facts: _Facts) -> str:
    judged, config = facts.evaluation, facts.config
    low, high = judged.accuracy_interval
    images = f"{judged.images:,} {'test' if facts.part == 'test' else 'held-out'} pictures"
    baseline = int(facts.confusion.sum(axis=1).max()) / judged.images
    stopped = ""
    if config.get("status") not in (None, "finished"):
        stopped = (
            f'<p class="warning">This training is marked "{escaped(config["status"])}"; its numbers may improve.</p>'
        )
    held_out = "" if facts.part == "test" else " There is no test part; these were held out of the training pictures."
    numbers = {
        **(trust_tiles(facts.guarantees) if facts.guarantees else {}),
        "mistakes": f"{facts.wrong:,} of {judged.images:,}",
        "right by always naming the largest class": f"{percent(baseline)}",
        "model file": bytes_in_words(dig(config, "model", "bytes")),
    }
    tiles = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in numbers.items())
    return f"""<header>
<p class="kicker">{escaped(dig(config, "data", "name", default="images"))} &middot; run {escaped(facts.run.path.name)}
&middot; {escaped(str(config.get("created", ""))[:10])}</p>
<h1>{right_on(judged.accuracy, judged.images)} it had never seen
<span class="interval">(95 % interval {out_of_100(low)} to {out_of_100(high)})</span></h1>
<p>Measured on {images} of {len(judged.classes)} classes.{held_out} The interval says how far chance alone,
in which pictures were there to judge, may have moved this number.</p>
{stopped}<dl class="numbers">{tiles}</dl>
</header>
"""


def _advice(facts: _Facts) -> str:
    steps = [step for step in (_weakest(facts), _pair(facts), _sure(facts), _few(facts), _fit(facts)) if step]
    items = "".join(f"<li>{step}</li>" for step in steps)
    return section("What to fix first", f'<ol class="steps">{items}</ol>')


def _trust(facts: _Facts) -> str:
    return "" if facts.guarantees is None else promises_section(facts.guarantees, facts.names, facts.part == "test")


def _breaks(facts: _Facts) -> str:
    if facts.stress is not None:
        return stress_section(facts.stress)
    name = shlex.quote(facts.run.path.name if facts.run.path.parent.name == "runs" else str(facts.run.path))
    body = f"<p>Not tried yet. It takes a minute or two:</p>{code_block(f'hangtag stress {name}')}"
    return section("How it breaks", body)


def _measured(facts: _Facts) -> str:
    """Where the numbers come from, and how often the test pictures were looked at."""
    opened = facts.config.get("test_opened") or []
    judged = facts.evaluation
    said = [
        f"On {judged.images:,} {'test' if facts.part == 'test' else 'held-out'} pictures, with the model file itself, "
        "through ONNX Runtime: what was measured is what ships."
    ]
    if facts.part == "test":
        dates = ", ".join(str(each)[:16].replace("T", " ") for each in opened[-5:])
        said.append(
            f"The test pictures have been opened {times(max(1, len(opened)))} for this run ({dates or 'now'}, UTC). "
            "Every choice made after a look at them makes their numbers a little too good."
        )
    else:
        said.append("These pictures also watched the training and set the thresholds: the numbers flatter a little.")
    if facts.before_decisions is not None:
        low, high = facts.before_decisions.accuracy_interval
        said.append(
            f"As distributed, before your decisions about single pictures, it is right on "
            f"{out_of_100(facts.before_decisions.accuracy)} of 100 ({out_of_100(low)} to {out_of_100(high)}); "
            f"cleaned by them, on "
            f"{out_of_100(judged.accuracy)}."
        )
    intervals = (
        "Intervals of shares are Wilson's, 95&nbsp;%. They speak of chance in which pictures were there, not of "
        "other seeds (<code>hangtag train --seeds 5</code>), nor of pictures of another kind."
    )
    return section("How this was measured", f'<p>{escaped(" ".join(said))}</p><p class="note">{intervals}</p>')


def _weakest(facts: _Facts) -> str:
    if not facts.wrong:
        return (
            "<b>No mistakes.</b> Make sure that is not too good to be true: look for pictures that are in the "
            "training part and in the judged part."
        )
    found = sorted((row.recall, row.name) for row in facts.evaluation.classes if row.recall is not None)
    worst = [pair for pair in found[:3] if pair[0] < facts.evaluation.accuracy] or found[:1]
    weak = listed([f"<b>{escaped(name)}</b>" for _, name in worst])
    finds = listed([out_of_100(recall) for recall, _ in worst])
    return (
        f"Weakest on {weak}: it finds {finds} of 100 pictures of {'them' if len(worst) > 1 else 'it'}. More, and more "
        f"varied, training pictures of {'these classes' if len(worst) > 1 else 'this class'} help most."
    )


def _pair(facts: _Facts) -> str:
    off = facts.confusion - np.diag(np.diag(facts.confusion))
    both = np.triu(off + off.T)
    if both.max() < 2:
        return ""
    first, second = (int(index) for index in np.unravel_index(int(both.argmax()), both.shape))
    if off[second, first] > off[first, second]:
        first, second = second, first
    there, back = int(off[first, second]), int(off[second, first])
    reverse = f", the other way round {times(back)}" if back else ""
    return (
        f"Most often confused: <b>{escaped(facts.names[first])}</b> was taken for "
        f"<b>{escaped(facts.names[second])}</b> "
        f"{times(there)}{reverse}; together {percent((there + back) / facts.wrong)} of all mistakes. Where a person "
        "cannot tell them apart either, check the labels or merge the classes; where one can, add such pictures."
    )


def _sure(facts: _Facts) -> str:
    sure = facts.probabilities.max(axis=1) >= _SURE
    count = int(sure.sum())
    if not count:
        return ""
    hits = int((facts.predicted == facts.labels)[sure].sum())
    low, high = wilson(hits, count)
    return (
        f"On {out_of_100(count / len(sure))} of 100 pictures it was at least {_SURE:.0%} sure, and right on "
        f"{out_of_100(hits / count)} of 100 of those (95&nbsp;% interval {out_of_100(low)} to {out_of_100(high)}). "
        f"{'A person could check the others.' if count < len(sure) else ''}"
    )


def _few(facts: _Facts) -> str:
    unsure = [row for row in facts.evaluation.classes if _width(row) > _FEW]
    if not unsure:
        return ""
    fewest = sorted(unsure, key=lambda row: row.images)[:3]
    shown = listed([f"<b>{escaped(row.name)}</b> ({row.images:,})" for row in fewest])
    more = f" and {len(unsure) - 3} more classes" if len(unsure) > 3 else ""
    return f"Too few pictures to judge {shown}{more}: collect more before trusting their numbers."


def _width(row: ClassResult) -> float:
    return row.recall_interval[1] - row.recall_interval[0] if row.recall_interval else 1.0


def _fit(facts: _Facts) -> str:
    recipe, judged = facts.config.get("recipe", {}), facts.evaluation
    what = dig(facts.config, "source", "what") or dig(facts.config, "data", "name", default="DATA")
    fast = f"<code>hangtag train {escaped(shlex.quote(str(what)))} --recipe fast</code>"
    varied = recipe.get("flip") or recipe.get("shift")
    if judged.training_accuracy is None:
        return ""
    if judged.training_accuracy > judged.accuracy_interval[1]:
        gap = 100 * (judged.training_accuracy - judged.accuracy)
        remedy = "." if varied else f", and so does a network that looks for shapes: {fast}."
        return f"It does {gap:.1f} points better on the pictures it learned from. More training pictures help{remedy}"
    if judged.training_accuracy < 0.9:
        learned = f"It is right on only {out_of_100(judged.training_accuracy)} of 100 pictures it learned from"
        return f"{learned}: train longer (<code>--epochs</code>), or use another recipe or network."
    return ""


def _examples(facts: _Facts) -> str:
    cards = "".join(_card(facts, index) for index in range(min(EXAMPLES, len(facts.labels))))
    note = "The first pictures, not chosen: what the model said, how sure it was and, in brackets, what each really is."
    if len(facts.names) <= _BARS:
        note += " Bars: the probability of every class, by its number; blue is the true class, red a wrong answer."
    return section("What it says", f'<div class="cards">{cards}</div>', note)


def _card(facts: _Facts, index: int) -> str:
    said, label = int(facts.predicted[index]), int(facts.labels[index])
    kind, mark = ("right", "✓") if said == label else ("wrong", "✗")
    row = facts.probabilities[index]
    bars = _bars(row, label, facts.names) if len(row) <= _BARS else _best(row, facts.names)
    return (
        f'<figure class="card {kind}"><figcaption><b class="{kind}">{mark} {_with_share(facts.names, row, said)}</b> '
        f"({escaped(facts.names[label])})</figcaption>"
        f'<div class="beside">{_picture(facts, index)}{bars}</div></figure>\n'
    )


def _bars(probabilities: NDArray[np.floating[Any]], label: int, names: Sequence[str]) -> str:
    width, height, count = 150.0, 66.0, len(probabilities)
    step, predicted = width / count, int(probabilities.argmax())
    parts = f'<line class="axis" x1="0" x2="{width:g}" y1="{height:g}" y2="{height:g}"/>'
    for index, value in enumerate(probabilities.tolist()):
        kind = "true" if index == label else "mistaken" if index == predicted else "other"
        if value >= 0.005:
            parts += (
                f'<rect class="{kind}" x="{(index + 0.12) * step:.1f}" y="{height * (1 - value):.1f}" '
                f'width="{0.76 * step:.1f}" height="{height * value:.1f}">'
                f"<title>{_with_share(names, probabilities, index)}</title></rect>"
            )
        if count <= 12 or index % 10 == 0:
            parts += f'<text x="{(index + 0.5) * step:.1f}" y="{height + 11:g}" text-anchor="middle">{index}</text>'
    return f'<svg viewBox="0 0 {width:g} {height + 14:g}" role="img" aria-label="probabilities">{parts}</svg>'


def _best(probabilities: NDArray[np.floating[Any]], names: Sequence[str]) -> str:
    """Too many classes for bars: the three most probable ones in words."""
    best = np.argsort(-probabilities, kind="stable")[:3].tolist()
    return f'<p class="note">{"<br>".join(_with_share(names, probabilities, index) for index in best)}</p>'


def _with_share(names: Sequence[str], probabilities: NDArray[np.floating[Any]], index: int) -> str:
    """A class and how probable the model found it."""
    return escaped(f"{names[index]} {in_percent(float(probabilities[index]))}")


def _per_class(facts: _Facts) -> str:
    head = (
        "class", "found of 100 (recall)", "95 % interval", "right when said (precision)", "95 % interval", "F1",
        "pictures",
    )  # fmt: skip
    rows = [_class_row(number, row) for number, row in enumerate(facts.evaluation.classes)]
    note = (
        "Recall: how many of 100 pictures of the class it finds. Precision: of 100 times it names the class, how "
        "often it is right. F1 joins the two."
    )
    return section("Class by class", table(head, rows, "wide"), note)


def _class_row(number: int, row: ClassResult) -> list[str]:
    intervals = [
        f'<span class="interval">{out_of_100(span[0])} to {out_of_100(span[1])}</span>' if span else ""
        for span in (row.recall_interval, row.precision_interval)
    ]
    return [
        f'<span class="index">{number}</span>{escaped(row.name)}',
        _meter(row.recall),
        intervals[0],
        _meter(row.precision),
        intervals[1],
        "&ndash;" if row.f1 is None else f"{row.f1:.3f}",
        f"{row.images:,}",
    ]


def _meter(share: float | None) -> str:
    if share is None:
        return "&ndash;"
    return f'<span class="meter"><i style="width:{share:.1%}"></i></span>{out_of_100(share)}'


def _confusions(facts: _Facts) -> str:
    note = (
        "Each row is what the pictures are, each column what the model said. Blue is right, red is wrong; darker is a "
        "larger share of the row."
    )
    if len(facts.names) <= _CELLS:
        return section("What it takes for what", _matrix(facts), note)
    from hangtag.reports import figures

    png = figures.confusion(facts.confusion, facts.names).png(dots_per_inch=100)
    sheet = f'<img class="sheet" alt="confusion matrix" src="{data_uri(png)}">'
    return section("What it takes for what", sheet, note)


def _matrix(facts: _Facts) -> str:
    share = facts.confusion / np.maximum(facts.confusion.sum(axis=1, keepdims=True), 1)
    worst = max(0.2, float((share - np.diag(np.diag(share))).max()))
    head = "".join(f'<th scope="col"><span>{escaped(name)}</span></th>' for name in facts.names)
    body = ""
    for row, name in enumerate(facts.names):
        counts = zip(facts.confusion[row].tolist(), share[row].tolist(), strict=True)
        cells = "".join(_cell(count, part, row == column, worst) for column, (count, part) in enumerate(counts))
        body += f'<tr><th scope="row" class="stick name">{escaped(name)}</th>{cells}</tr>\n'
    width = f"max-width:{10 + 4.6 * len(facts.names):.0f}rem"
    table = f'<thead><tr class="across"><th></th>{head}</tr></thead><tbody>{body}</tbody>'
    return f'<div class="scroll"><table class="confusion" style="{width}">{table}</table></div>'


def _cell(count: int, share: float, hit: bool, worst: float) -> str:
    if not count:
        return '<td class="none">0</td>'
    depth = 0.1 + 0.85 * share if hit else 0.85 * (share / worst) ** 0.5
    kind = ("hit" if hit else "miss") + (" deep" if depth > 0.55 else "")
    return f'<td class="{kind}" style="--a:{depth:.2f}">{count:,}</td>'


def _mistakes(facts: _Facts) -> str:
    wrong = np.flatnonzero(facts.predicted != facts.labels)
    if not len(wrong):
        return section("Its surest mistakes", f"<p>No mistakes: right on all {len(facts.labels):,} pictures.</p>")
    surest = wrong[np.argsort(-facts.probabilities[wrong, facts.predicted[wrong]], kind="stable")][:MISTAKES]
    cards = ""
    for index in surest.tolist():
        said, label = facts.predicted[index], facts.labels[index]
        cards += (
            f'<figure class="card">{_picture(facts, index)}<figcaption><span class="wrong">✗ '
            f"{_with_share(facts.names, facts.probabilities[index], said)}</span>"
            f'<span class="said">is {escaped(facts.names[label])}</span>'
            f'<span class="note">no. {index:,}</span></figcaption></figure>\n'
        )
    note = (
        f"The {len(surest)} of {len(wrong):,} mistakes it was most sure of. Look here first for wrong labels. The "
        "number is the picture's place among those judged, counted from 0."
    )
    return section("Its surest mistakes", f'<div class="cards small">{cards}</div>', note)


def _speed(speed: Mapping[str, Any]) -> dict[str, Any]:
    """What training got out of the machine, in words."""
    if not speed:
        return {}
    memory = speed.get("peak_memory_bytes")
    return {
        "speed": f"{speed['images_per_second']:,.0f} pictures a second",
        "most memory": bytes_in_words(memory) if memory else None,
    }


def _training(facts: _Facts) -> str:
    config = facts.config
    split, network = config.get("split") or {}, config.get("network") or {}
    recipe = {
        key.replace("lr_", "learning rate ").replace("_", " "): value
        for key, value in (config.get("recipe") or {}).items()
        if value
    }
    recipe.pop("network", None)
    held_out = f", {split['validation']:,} held out to watch" if split.get("validation") else ""
    shown = {
        "network": network.get("name"),
        "parameters": network.get("parameters"),
        "trained on": f"{split['train']:,} pictures{held_out}" if split.get("train") else None,
        "seed": config.get("seed"),
        "device": config.get("device"),
        "epoch kept": config.get("kept_epoch") if (config.get("recipe") or {}).get("patience") else None,
        "seed kept": config.get("kept_seed"),
        **_speed(config.get("speed") or {}),
    }
    finished = [epoch for epoch in facts.history if epoch.get("finished", True)]
    loss = chart(finished, "loss", "Loss (lower is better)", 1, "")
    accuracy = chart(finished, "accuracy", "Accuracy (higher is better)", 100, "%")
    rate = chart(finished, "learning_rate", "Learning rate", 1, "") if len(finished) > 1 else ""
    return section(
        "How it was trained",
        f'<p>{escaped(facts.evaluation.gap_in_words)}</p><div class="charts">{loss}{accuracy}{rate}</div>'
        f'<div class="columns"><div><h3>Recipe</h3>{definitions(recipe)}</div>'
        f"<div><h3>Network</h3>{definitions(shown)}</div></div>",
    )


def _data(facts: _Facts) -> str:
    data = facts.config.get("data") or {}
    counts: Mapping[str, Sequence[int]] = data.get("counts") or {}
    parts = ", ".join(f"{count:,} {part}" for part, count in (data.get("parts") or {}).items())
    height, width = facts.images.shape[1:3]
    shown = {
        "name": data.get("name"),
        "read from": data.get("origin"),
        "pictures": parts or data.get("images"),
        "each": f"{width} × {height} pixels, {'grey' if facts.images.ndim == 3 else 'colour'}",
        "size": bytes_in_words(data.get("bytes")),
        "fingerprint": data.get("fingerprint"),
    }
    with_example = len(facts.names) <= MOST_ROWS
    rows = []
    for number, name in enumerate(facts.names):
        first = np.flatnonzero(facts.labels == number)[:1].tolist()
        examples = ["".join(_picture(facts, index) for index in first)] if with_example else []
        cells = [f"{column[number]:,}" for column in counts.values()]
        rows.append([f'<span class="index">{number}</span>{escaped(name)}', *examples, *cells])
    counted = table(("class", *(["example"] if with_example else []), *counts), rows)
    body = f'<div class="columns"><div>{definitions(shown)}</div><div>{counted}</div></div>'
    return section("What it learned from", body)


def _use(facts: _Facts) -> str:
    path = facts.run.path
    command = f"hangtag predict {shlex.quote(path.name if path.parent.name == 'runs' else str(path))} photo.png"
    python = f'import hangtag\n\ntag = hangtag.load({json.dumps(str(path), ensure_ascii=False)})\ntag("photo.png")'
    return section(
        "Use the model",
        f"<p>On the command line, for one picture or many:</p>{code_block(command)}"
        f"<p>In Python, without PyTorch:</p>{code_block(python)}"
        "<p>Elsewhere: <code>model.onnx</code> in the run's folder is all that is needed. Pixels of any size go in as "
        "uint8, probabilities come out; resizing and scaling are inside.</p>",
    )


def _origin(facts: _Facts) -> str:
    config = facts.config
    machine = dict(config.get("machine") or {})
    memory = machine.pop("memory_bytes", None)
    seconds = {f"time to {name}": seconds_in_words(value) for name, value in (config.get("seconds") or {}).items()}
    made = {"model fingerprint": dig(config, "model", "fingerprint"), "made": config.get("created"), **seconds}
    versions = definitions(config.get("versions") or {})
    body = f"<div>{definitions({**made, **machine, 'memory': bytes_in_words(memory)})}</div><div>{versions}</div>"
    return section("Where it comes from", f'<div class="columns">{body}</div>')


def _picture(facts: _Facts, index: int) -> str:
    image = np.asarray(facts.images[index])
    return thumbnail(image, _THUMB, facts.names[facts.labels[index]], facts.invert, lazy=False)

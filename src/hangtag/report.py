"""A run -> one offline HTML page that says how good the classifier is, where it fails and what to do next.

Every number comes from the run's own files; the pictures, from the images that judged it. The page asks nothing of
the network and runs no script. It trains and evaluates nothing.
"""

import base64
import html
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import RunError, UsageError
from hangtag.evaluate import ClassResult, Evaluation, wilson
from hangtag.files import write_text
from hangtag.images import Images, encode_png
from hangtag.runs import Run

__all__ = ["write_report"]

EXAMPLES, MISTAKES = 15, 12
_CELLS, _ROWS, _BARS = 20, 40, 40  # most classes for a matrix in HTML, for a table without its own scroll bar, for bars
_THUMB = 96  # pixels a side
_DARK_GROUND = 16  # as in figures.py: light things on black are shown black on white
_SURE = 0.9
_SIGNS = {"training": "●", "validation": "■"}
_FEW = 0.2  # a recall interval wider than this says little


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

    @property
    def names(self) -> list[str]:
        return [result.name for result in self.evaluation.classes]

    @property
    def invert(self) -> bool:
        background = _dig(self.config, "data", "image", "background")
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
    try:
        evaluation = Evaluation.from_json({key: value for key, value in metrics.items() if key in known})
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
    return _Facts(run, run.config(), evaluation, part, history, images, labels, probabilities)


def _page(facts: _Facts) -> str:
    style = package_files("hangtag").joinpath("report.css").read_text(encoding="utf-8")
    title = f"{_dig(facts.config, 'data', 'name', default='classifier')}, {facts.run.path.name}"
    parts = (_headline, _advice, _examples, _per_class, _confusions, _mistakes, _training, _data, _use, _origin)
    sections = "".join(part(facts) for part in parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{_e(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{sections}
</main>
</body>
</html>
"""


def _headline(facts: _Facts) -> str:
    judged, config = facts.evaluation, facts.config
    low, high = judged.accuracy_interval
    images = f"{judged.images:,} {'test' if facts.part == 'test' else 'held-out'} pictures"
    baseline = int(facts.confusion.sum(axis=1).max()) / judged.images
    stopped = ""
    if config.get("status") not in (None, "finished"):
        stopped = f'<p class="warning">This training is marked "{_e(config["status"])}"; its numbers may improve.</p>'
    held_out = "" if facts.part == "test" else " There is no test part; these were held out of the training pictures."
    numbers = {
        "pictures judged": f"{judged.images:,}",
        "mistakes": f"{facts.wrong:,}",
        "right by always naming the largest class": f"{_percent(baseline)}",
        "model file": _bytes(_dig(config, "model", "bytes")),
    }
    tiles = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in numbers.items())
    return f"""<header>
<p class="kicker">{_e(_dig(config, "data", "name", default="images"))} &middot; run {_e(facts.run.path.name)}
&middot; {_e(str(config.get("created", ""))[:10])}</p>
<h1>{_right_on(judged.accuracy, judged.images)} it had never seen
<span class="interval">(95 % interval {_hundred(low)} to {_hundred(high)})</span></h1>
<p>Measured on {images} of {len(judged.classes)} classes.{held_out} The interval says how far chance alone,
in which pictures were there to judge, may have moved this number.</p>
{stopped}<dl class="numbers">{tiles}</dl>
</header>
"""


def _advice(facts: _Facts) -> str:
    steps = [step for step in (_weakest(facts), _pair(facts), _sure(facts), _few(facts), _fit(facts)) if step]
    items = "".join(f"<li>{step}</li>" for step in steps)
    return _section("Where it fails, and what to do next", f'<ol class="steps">{items}</ol>')


def _weakest(facts: _Facts) -> str:
    if not facts.wrong:
        return (
            "<b>No mistakes.</b> Make sure that is not too good to be true: look for pictures that are in the "
            "training part and in the judged part."
        )
    found = sorted((row.recall, row.name) for row in facts.evaluation.classes if row.recall is not None)
    worst = [pair for pair in found[:3] if pair[0] < facts.evaluation.accuracy] or found[:1]
    weak = _listed([f"<b>{_e(name)}</b>" for _, name in worst])
    finds = _listed([_hundred(recall) for recall, _ in worst])
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
    reverse = f", the other way round {_times(back)}" if back else ""
    return (
        f"Most often confused: <b>{_e(facts.names[first])}</b> was taken for <b>{_e(facts.names[second])}</b> "
        f"{_times(there)}{reverse}; together {_percent((there + back) / facts.wrong)} of all mistakes. Where a person "
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
        f"On {_hundred(count / len(sure))} of 100 pictures it was at least {_SURE:.0%} sure, and right on "
        f"{_hundred(hits / count)} of 100 of those (95&nbsp;% interval {_hundred(low)} to {_hundred(high)}). "
        f"{'A person could check the others.' if count < len(sure) else ''}"
    )


def _few(facts: _Facts) -> str:
    unsure = [row for row in facts.evaluation.classes if _width(row) > _FEW]
    if not unsure:
        return ""
    fewest = sorted(unsure, key=lambda row: row.images)[:3]
    shown = _listed([f"<b>{_e(row.name)}</b> ({row.images:,})" for row in fewest])
    more = f" and {len(unsure) - 3} more classes" if len(unsure) > 3 else ""
    return f"Too few pictures to judge {shown}{more}: collect more before trusting their numbers."


def _width(row: ClassResult) -> float:
    return row.recall_interval[1] - row.recall_interval[0] if row.recall_interval else 1.0


def _fit(facts: _Facts) -> str:
    recipe, judged = facts.config.get("recipe", {}), facts.evaluation
    what = _dig(facts.config, "source", "what") or _dig(facts.config, "data", "name", default="DATA")
    fast = f"<code>hangtag train {_e(shlex.quote(str(what)))} --recipe fast</code>"
    varied = recipe.get("flip") or recipe.get("shift")
    if judged.training_accuracy is None:
        return ""
    if judged.training_accuracy > judged.accuracy_interval[1]:
        gap = 100 * (judged.training_accuracy - judged.accuracy)
        remedy = "." if varied else f", and so does a network that looks for shapes: {fast}."
        return f"It does {gap:.1f} points better on the pictures it learned from. More training pictures help{remedy}"
    if judged.training_accuracy < 0.9:
        learned = f"It is right on only {_hundred(judged.training_accuracy)} of 100 pictures it learned from"
        return f"{learned}: train longer (<code>--epochs</code>), or use another recipe or network."
    return ""


def _examples(facts: _Facts) -> str:
    cards = "".join(_card(facts, index) for index in range(min(EXAMPLES, len(facts.labels))))
    note = "The first pictures, not chosen: what the model said, how sure it was and, in brackets, what each really is."
    if len(facts.names) <= _BARS:
        note += " Bars: the probability of every class, by its number; blue is the true class, red a wrong answer."
    return _section("What it says", f'<div class="cards">{cards}</div>', note)


def _card(facts: _Facts, index: int) -> str:
    said, label = int(facts.predicted[index]), int(facts.labels[index])
    kind, mark = ("right", "✓") if said == label else ("wrong", "✗")
    sure = f"{facts.probabilities[index, said]:.0%}"
    row = facts.probabilities[index]
    bars = _bars(row, label, facts.names) if len(row) <= _BARS else _best(row, facts.names)
    return (
        f'<figure class="card {kind}"><figcaption><b class="{kind}">{mark} {_e(facts.names[said])} {sure}</b> '
        f"({_e(facts.names[label])})</figcaption>"
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
                f'width="{0.76 * step:.1f}" height="{height * value:.1f}"><title>{_e(names[index])} {value:.0%}</title>'
                "</rect>"
            )
        if count <= 12 or index % 10 == 0:
            parts += f'<text x="{(index + 0.5) * step:.1f}" y="{height + 11:g}" text-anchor="middle">{index}</text>'
    return f'<svg viewBox="0 0 {width:g} {height + 14:g}" role="img" aria-label="probabilities">{parts}</svg>'


def _best(probabilities: NDArray[np.floating[Any]], names: Sequence[str]) -> str:
    """Too many classes for bars: the three most probable ones in words."""
    best = np.argsort(-probabilities, kind="stable")[:3].tolist()
    return f'<p class="note">{"<br>".join(f"{_e(names[index])} {probabilities[index]:.0%}" for index in best)}</p>'


def _per_class(facts: _Facts) -> str:
    head = ("class", "found of 100 (recall)", "95 % interval", "right when said (precision)", "F1", "pictures")
    rows = [_class_row(number, row) for number, row in enumerate(facts.evaluation.classes)]
    note = (
        "Recall: how many of 100 pictures of the class it finds. Precision: of 100 times it names the class, how "
        "often it is right. F1 joins the two."
    )
    return _section("Class by class", _table(head, rows, "wide"), note)


def _class_row(number: int, row: ClassResult) -> list[str]:
    interval = (
        f"{_hundred(row.recall_interval[0])} to {_hundred(row.recall_interval[1])}" if row.recall_interval else ""
    )
    return [
        f'<span class="index">{number}</span>{_e(row.name)}',
        _meter(row.recall),
        f'<span class="interval">{interval}</span>',
        _meter(row.precision),
        "&ndash;" if row.f1 is None else f"{row.f1:.3f}",
        f"{row.images:,}",
    ]


def _meter(share: float | None) -> str:
    if share is None:
        return "&ndash;"
    return f'<span class="meter"><i style="width:{share:.1%}"></i></span>{_hundred(share)}'


def _confusions(facts: _Facts) -> str:
    note = (
        "Each row is what the pictures are, each column what the model said. Blue is right, red is wrong; darker is a "
        "larger share of the row."
    )
    if len(facts.names) <= _CELLS:
        return _section("What it takes for what", _matrix(facts), note)
    from hangtag import figures

    png = figures.confusion(facts.confusion, facts.names).png(dots_per_inch=100)
    sheet = f'<img class="sheet" alt="confusion matrix" src="{_data_uri(png)}">'
    return _section("What it takes for what", sheet, note)


def _matrix(facts: _Facts) -> str:
    share = facts.confusion / np.maximum(facts.confusion.sum(axis=1, keepdims=True), 1)
    worst = max(0.2, float((share - np.diag(np.diag(share))).max()))
    head = "".join(f'<th scope="col"><span>{_e(name)}</span></th>' for name in facts.names)
    body = ""
    for row, name in enumerate(facts.names):
        counts = zip(facts.confusion[row].tolist(), share[row].tolist(), strict=True)
        cells = "".join(_cell(count, part, row == column, worst) for column, (count, part) in enumerate(counts))
        body += f'<tr><th scope="row" class="stick name">{_e(name)}</th>{cells}</tr>\n'
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
        return _section("Its surest mistakes", f"<p>No mistakes: right on all {len(facts.labels):,} pictures.</p>")
    surest = wrong[np.argsort(-facts.probabilities[wrong, facts.predicted[wrong]], kind="stable")][:MISTAKES]
    cards = ""
    for index in surest.tolist():
        said, label = facts.predicted[index], facts.labels[index]
        cards += (
            f'<figure class="card">{_picture(facts, index)}<figcaption><span class="wrong">✗ {_e(facts.names[said])} '
            f'{facts.probabilities[index, said]:.0%}</span><span class="said">is {_e(facts.names[label])}</span>'
            f'<span class="note">no. {index:,}</span></figcaption></figure>\n'
        )
    note = (
        f"The {len(surest)} of {len(wrong):,} mistakes it was most sure of. Look here first for wrong labels. The "
        "number is the picture's place among those judged, counted from 0."
    )
    return _section("Its surest mistakes", f'<div class="cards small">{cards}</div>', note)


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
    }
    finished = [epoch for epoch in facts.history if epoch.get("finished", True)]
    loss = _chart(finished, "loss", "Loss (lower is better)", 1, "")
    accuracy = _chart(finished, "accuracy", "Accuracy (higher is better)", 100, "%")
    return _section(
        "How it was trained",
        f'<p>{_e(facts.evaluation.gap_in_words)}</p><div class="charts">{loss}{accuracy}</div>'
        f'<div class="columns"><div><h3>Recipe</h3>{_definitions(recipe)}</div>'
        f"<div><h3>Network</h3>{_definitions(shown)}</div></div>",
    )


def _chart(history: Sequence[Mapping[str, Any]], key: str, title: str, scale: int, unit: str) -> str:
    """After each epoch: a line for the training pictures and, where there are any, one for those held out."""
    lines = {
        kind: [(epoch["number"], scale * epoch[field]) for epoch in history if epoch.get(field) is not None]
        for kind, field in (("training", key), ("validation", f"val_{key}"))
    }
    lines = {kind: points for kind, points in lines.items() if points}
    if not lines:
        return ""
    values = [value for points in lines.values() for _, value in points]
    ticks = _ticks(min(values), max(values))
    first, last = history[0]["number"], history[-1]["number"]
    inside, keys = "", ""
    for tick in ticks:
        y = _down(tick, ticks)
        inside += f'<line class="axis" x1="44" x2="356" y1="{y:.1f}" y2="{y:.1f}"/>'
        inside += f'<text x="38" y="{y + 4:.1f}" text-anchor="end">{tick:g}{unit}</text>'
    for number in sorted({round(first + (last - first) * part / 4) for part in range(5)}):
        inside += f'<text x="{_across(number, first, last):.1f}" y="200" text-anchor="middle">{number}</text>'
    for kind, points in lines.items():
        places = [(_across(number, first, last), _down(value, ticks)) for number, value in points]
        inside += f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
        inside += "".join(_marker(kind, x, y) for x, y in (places if len(places) <= 30 else places[-1:]))
        keys += f'<span class="key {kind}">{_SIGNS[kind]} {kind}, last {points[-1][1]:.3g}{unit}</span> '
    return (
        f'<figure class="chart"><figcaption><b>{title}</b><br>{keys}</figcaption><svg viewBox="0 0 360 216" role="img" '
        f'aria-label="{title}">{inside}<text x="200" y="215" text-anchor="middle">epoch</text></svg></figure>'
    )


def _down(value: float, ticks: Sequence[float]) -> float:
    return 182 - 170 * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _across(number: float, first: float, last: float) -> float:
    return 200.0 if first == last else 56 + 288 * (number - first) / (last - first)


def _marker(kind: str, x: float, y: float) -> str:
    if kind == "training":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
    return f'<rect class="{kind}" x="{x - 2.4:.1f}" y="{y - 2.4:.1f}" width="4.8" height="4.8"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that enclose both."""
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    raw = span / 4
    size = 10.0 ** np.floor(np.log10(raw))
    step = size * min(factor for factor in (1, 2, 5, 10) if factor * size >= raw * 0.999)
    bottom, top = np.floor(low / step), np.ceil(high / step)
    return [float(round(step * number, 10)) for number in range(int(bottom), int(max(top, bottom + 1)) + 1)]


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
        "size": _bytes(data.get("bytes")),
        "fingerprint": data.get("fingerprint"),
    }
    with_example = len(facts.names) <= _ROWS
    rows = []
    for number, name in enumerate(facts.names):
        first = np.flatnonzero(facts.labels == number)[:1].tolist()
        examples = ["".join(_picture(facts, index) for index in first)] if with_example else []
        cells = [f"{column[number]:,}" for column in counts.values()]
        rows.append([f'<span class="index">{number}</span>{_e(name)}', *examples, *cells])
    table = _table(("class", *(["example"] if with_example else []), *counts), rows)
    body = f'<div class="columns"><div>{_definitions(shown)}</div><div>{table}</div></div>'
    return _section("What it learned from", body)


def _use(facts: _Facts) -> str:
    path = facts.run.path
    command = f"hangtag predict {shlex.quote(path.name if path.parent.name == 'runs' else str(path))} photo.png"
    python = f'import hangtag\n\ntag = hangtag.load({json.dumps(str(path), ensure_ascii=False)})\ntag("photo.png")'
    return _section(
        "Use the model",
        f"<p>On the command line, for one picture or many:</p>{_code(command)}"
        f"<p>In Python, without PyTorch:</p>{_code(python)}"
        "<p>Elsewhere: <code>model.onnx</code> in the run's folder is all that is needed. Pixels of any size go in as "
        "uint8, probabilities come out; resizing and scaling are inside.</p>",
    )


def _origin(facts: _Facts) -> str:
    config = facts.config
    machine = dict(config.get("machine") or {})
    memory = machine.pop("memory_bytes", None)
    seconds = {f"time to {name}": _seconds(value) for name, value in (config.get("seconds") or {}).items()}
    made = {"model fingerprint": _dig(config, "model", "fingerprint"), "made": config.get("created"), **seconds}
    versions = _definitions(config.get("versions") or {})
    body = f"<div>{_definitions({**made, **machine, 'memory': _bytes(memory)})}</div><div>{versions}</div>"
    return _section("Where it comes from", f'<div class="columns">{body}</div>')


def _section(title: str, body: str, note: str = "") -> str:
    said = f'<p class="note">{note}</p>\n' if note else ""
    return f"<section>\n<h2>{title}</h2>\n{said}{body}\n</section>\n"


def _table(head: Iterable[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; the first column names the row."""
    titles = "".join(
        f'<th scope="col"{_FIRST if not number else ""}>{_e(title)}</th>' for number, title in enumerate(head)
    )
    lines = (
        f'<tr><th scope="row"{_FIRST}>{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    tall = " tall" if len(rows) > _ROWS else ""
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll{tall}"><table class="{kind}">{body}</table></div>'


_FIRST = ' class="name stick"'


def _definitions(shown: Mapping[str, object]) -> str:
    rows = (f"<dt>{_e(key)}</dt><dd>{_e(_text(value))}</dd>" for key, value in shown.items() if value not in (None, ""))
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _code(text: str) -> str:
    return f"<pre><code>{_e(text)}</code></pre>"


def _picture(facts: _Facts, index: int) -> str:
    image = np.asarray(facts.images[index])
    step = -(-max(image.shape[:2]) // _THUMB)
    if step > 1:
        image = _shrunk(image, step)
    image = 255 - image if facts.invert else image
    pixels = " pixels" if max(image.shape[:2]) < _THUMB // 2 else ""
    alt = _e(facts.names[facts.labels[index]])
    return f'<img class="picture{pixels}" alt="{alt}" src="{_data_uri(encode_png(image))}">'


def _shrunk(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The mean of each block of step x step pixels; blocks at the edges may be smaller."""
    rows, columns = np.arange(0, image.shape[0], step), np.arange(0, image.shape[1], step)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    means = sums / sizes.reshape(sizes.shape + (1,) * (image.ndim - 2))
    small: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return small


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _right_on(share: float, images: int) -> str:
    return (
        f"Right on {round(share * images)} of {images} pictures"
        if images < 100
        else f"Right on {_hundred(share)} of 100 pictures"
    )


def _hundred(share: float) -> str:
    """A share out of 100; never rounded up to all of them."""
    digits = next((digits for digits in (1, 2, 3) if share == 1 or float(f"{100 * share:.{digits}f}") < 100), 4)
    return "100" if share == 1 else f"{100 * share:.{digits}f}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _bytes(count: object) -> str:
    if not isinstance(count, int):
        return ""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _dig(table: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """A value that may not be there, some tables deep."""
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return default if value is None else value


def _e(value: object) -> str:
    return html.escape(str(value))

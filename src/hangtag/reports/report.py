"""A run -> one offline HTML page that says how good the classifier is, where it fails and what to do next.

Its numbers are those of a judgement, or of the run's metrics.json; the pictures are the images that judged it. The page
loads nothing and runs no script, and writing it trains and evaluates nothing.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hangtag.evaluation.run_folder import Run
from hangtag.files import make_folder, write_text
from hangtag.html import MOST_CELLS, confusion_cells, curve, data_uri, heat_map, render
from hangtag.pictures import Images
from hangtag.reports.advice import advice
from hangtag.reports.facts import Facts, examples, gather_facts
from hangtag.reports.guarantees_section import guarantee_tiles, guarantee_values, stress_values
from hangtag.reports.tuning_section import tuning_values
from hangtag.version import __version__
from hangtag.words import ENOUGH, bytes_in_words, rate_with_count, seconds_in_words, visible

if TYPE_CHECKING:
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement

__all__ = ["no_figures", "write_other_report", "write_report", "write_report_and_pictures"]

_EXAMPLES, _MISTAKES = 15, 12
_DRAWN, _GRID = ".drawn", 25
"""The file beside the figures that tells whether they must be drawn again; the training images that they show."""

_OF_HEAD = ("name", "description", "backbone", "flip", "validation", "balance", "cores")  # what a recipe has for a head
_MOST_BARS, _MOST_PICTURES = 40, 40  # classes for bars, for an example of each


def write_report_and_pictures(run: Run, data: "LabelledImages", judged: "Judgement") -> Path:
    """Write the lesson's six figures for the run's own data (see `no_figures`), and its report; return its path.

    Figures that would be the same as those in the folder are not drawn again.
    """
    images, labels, rows = judged.data.images, judged.data.labels, judged.probabilities
    run.check_links()
    if not no_figures() and not _is_drawn(run.figures, shown := _shown(data, judged)):
        from hangtag.reports import figures

        make_folder(run.figures)
        train = data.train
        some, few = examples(train.labels, _GRID), examples(labels, _EXAMPLES)
        shown_images = train.images[some], train.labels[some], images[few], labels[few]
        for name, figure in figures.lesson(*shown_images, rows[few], data.class_names).items():
            figures.save(figure, run.figures / f"{name}.png")
        write_text(run.figures / _DRAWN, _seal(run.figures, shown))
    return write_report(run, images, labels, rows, judged)


def _shown(data: "LabelledImages", judged: "Judgement") -> str:
    """A hash of all that the lesson's figures depend on; empty if that includes the fonts that are installed."""
    if not all(name.isascii() for name in data.class_names):
        return ""
    drawing = Path(__file__).with_name("figures.py").read_bytes()
    digest = hashlib.sha256(drawing + repr((__version__, version("matplotlib"), data.class_names)).encode())
    few = examples(judged.data.labels, _EXAMPLES)
    for part, rows in ((data.train, examples(data.train.labels, _GRID)), (judged.data, few)):
        some = np.asarray(part.images[rows])
        digest.update(repr((some.shape, part.labels[rows].tolist())).encode() + some.tobytes())
    digest.update(np.ascontiguousarray(judged.probabilities[few]).tobytes())
    return digest.hexdigest()


def _seal(folder: Path, shown: str) -> str:
    """A hash of what figures show and of their files."""
    digest = hashlib.sha256(shown.encode())
    for path in sorted(folder.glob("*.png")):
        digest.update(repr((path.name, hashlib.sha256(path.read_bytes()).digest())).encode())
    return digest.hexdigest()


def _is_drawn(folder: Path, shown: str) -> bool:
    """Whether the figures in a folder show this, and are as they were written."""
    with suppress(OSError, ValueError):
        return bool(shown) and (folder / _DRAWN).read_text() == _seal(folder, shown)
    return False


def no_figures() -> list[str]:
    """A note on why no figures are drawn; empty if matplotlib is installed."""
    if find_spec("matplotlib") is not None:
        return []
    return ["figures were not drawn: they need 'matplotlib' (pip install 'hangtag[train]')"]


def write_other_report(run: Run, judged: "Judgement", path: Path) -> Path:
    """Write a report of the run on other data, and return its path. Arguments and errors as for `write_report`."""
    data = judged.data
    return write_report(run, data.images, data.labels, judged.probabilities, judged, path)


def write_report(
    run: Run,
    images: Images,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    judged: "Judgement | None" = None,
    path: Path | None = None,
) -> Path:
    """Write a run's report, and return its path.

    Args:
        run: a folder with config.json and metrics.json; history.jsonl is optional.
        images: (N, H, W) or (N, H, W, 3) uint8 that judged the run.
        labels: (N,) indices of their classes.
        probabilities: (N, K) output of the model.
        judged: the judgement of these images; None for the one in metrics.json.
        path: where to write a report on other data; None for the run's own data and its `report.html`.

    Raises:
        RunError: the folder is incomplete.
        UsageError: the arrays do not fit each other or the run.
        SaveError: the page cannot be written.
    """
    metrics, files = judged.to_json() if judged else None, judged.data.names if judged else ()
    facts = gather_facts(run, images, labels, probabilities, metrics, path is not None, files)
    values: dict[str, object] = {
        **vars(facts),
        "facts": facts,
        "name": facts.setting("data", "name") or "classifier",
        "enough": ENOUGH,
        "judged_on": judged.data.name if judged else "",
        "tiles": _tiles(facts),
        "guarantees": facts.guarantees and guarantee_values(facts.guarantees, facts.names),
        "examples": [_example(facts, index) for index in examples(facts.labels, _EXAMPLES).tolist()],
        "has_bars": len(facts.names) <= _MOST_BARS,
        "predictions": facts.confusion.sum(axis=0).tolist(),
        "matrix": confusion_cells(facts.confusion),
        "sheet": None if len(facts.names) <= MOST_CELLS else _sheet(facts),
        "mistakes": _mistakes(facts),
        "stress": facts.stress and stress_values(facts.stress),
        "tuning": facts.tuning and tuning_values(facts.tuning, facts.split, len(facts.names)),
        "advice": advice(facts),
        "charts": _charts(facts),
        **_commands(run),
        **_training(facts),
        **_data(facts),
        "provenance": _provenance(facts),
    }
    path = path or run.report
    write_text(path, render("report.html", values))
    return path


def _tiles(facts: Facts) -> dict[str, str]:
    return {
        **(guarantee_tiles(facts.guarantees) if facts.guarantees else {}),
        "mistakes": f"{facts.mistakes:,} of {facts.evaluation.images:,}",
        "accuracy of always naming the largest class": rate_with_count(
            int(facts.confusion.sum(axis=1).max()), facts.evaluation.images
        ),
        "model file": bytes_in_words(facts.setting("model", "bytes")),
    }


def _commands(run: Run) -> dict[str, str]:
    name = shlex.quote(run.path.name if run.path.parent.name == "runs" else str(run.path))
    path = json.dumps(str(run.path), ensure_ascii=False)
    return {
        "predict_command": f"hangtag predict {name} photo.png",
        "python_code": f'import hangtag\n\ntag = hangtag.load({path})\ntag("photo.png")',
        "stress_command": f"hangtag stress {name}",
    }


def _example(facts: Facts, index: int) -> dict[str, Any]:
    predicted, label = int(facts.predicted[index]), int(facts.labels[index])
    best = np.argsort(-facts.probabilities[index], kind="stable")[:3].tolist()
    return {
        "picture": facts.picture(index),
        "answer": facts.answer(index, predicted),
        "label": facts.names[label],
        "correct": predicted == label,
        "bars": _bars(facts, index) if len(facts.names) <= _MOST_BARS else [],
        "best": [facts.answer(index, each) for each in best],
    }


def _bars(facts: Facts, index: int) -> list[dict[str, Any]]:
    """A bar for each class in a drawing that is 150 wide, with a base line at 66."""
    row, step = facts.probabilities[index], 150 / len(facts.names)
    kinds = {int(facts.predicted[index]): "mistaken", int(facts.labels[index]): "true"}
    return [
        {
            "kind": kinds.get(number, "other"),
            "left": round((number + 0.12) * step, 1),
            "middle": round((number + 0.5) * step, 1),
            "width": round(0.76 * step, 1),
            "height": round(66 * value, 1) if value >= 0.005 else 0,
            "title": facts.answer(index, number),
            "number": number if len(row) <= 12 or number % 10 == 0 else "",
        }
        for number, value in enumerate(row.tolist())
    ]


def _sheet(facts: Facts) -> str:
    if no_figures():
        return heat_map(facts.confusion)
    from hangtag.reports import figures

    return data_uri(figures.confusion(facts.confusion, facts.names).png(dots_per_inch=100))


def _mistakes(facts: Facts) -> list[dict[str, Any]]:
    wrong = np.flatnonzero(facts.predicted != facts.labels)
    order = np.argsort(-facts.probabilities[wrong, facts.predicted[wrong]], kind="stable")
    return [
        {
            "picture": facts.picture(index),
            "answer": facts.answer(index, int(facts.predicted[index])),
            "label": facts.names[facts.labels[index]],
            "index": index,
            "file": visible(facts.files[index]) if len(facts.files) else "",
        }
        for index in wrong[order][:_MISTAKES].tolist()
    ]


def _charts(facts: Facts) -> list[dict[str, Any]]:
    if facts.setting("recipe", "backbone"):
        return []  # a head is fitted in one go
    history = [epoch for epoch in facts.history if epoch.get("finished", True)]
    charts = [
        curve(history, "loss", "Loss (lower is better)", 1, ""),
        curve(history, "accuracy", "Accuracy (higher is better)", 100, "%"),
        curve(history, "learning_rate", "Learning rate", 1, "") if len(history) > 1 else None,
    ]
    return [each for each in charts if each]


def _training(facts: Facts) -> dict[str, object]:
    config = facts.config
    split, speed, recipe = (config.get(key) or {} for key in ("split", "speed", "recipe"))
    validation = f" and {split['validation']:,} for validation" if split.get("validation") else ""
    backbone: Mapping[str, Any] = config.get("backbone") or {}
    validation = f"; {split['judged']:,} of them were held out in one fold each" if split.get("folds") else validation
    network = {
        "pretrained backbone": backbone.get("name"),
        "its licence": backbone.get("licence"),
        "SHA-256 of its weights": backbone.get("sha256"),
        "its input": _preprocessing(backbone),
        "network": facts.setting("network", "name"),
        "parameters": facts.setting("network", "parameters"),
        "training images": f"{split['train']:,}{validation}" if split.get("train") else None,
        "seed": config.get("seed"),
        "device": config.get("device"),
        "epoch kept": config.get("kept_epoch") if recipe.get("patience") else None,
        "seed kept": config.get("kept_seed"),
        "speed": f"{speed['images_per_second']:,.0f} images per second" if speed else None,
        "peak memory": bytes_in_words(speed.get("peak_memory_bytes")),
    }
    names = _OF_HEAD if recipe.get("backbone") else recipe.keys() - {"network", "given"}
    shown = {key.replace("_", " "): value for key, value in recipe.items() if value and key in names}
    return {"recipe": shown, "network": network}


def _preprocessing(backbone: Mapping[str, Any]) -> str | None:
    """What is subtracted from pixels from 0 to 255, and what they are divided by then."""
    if not backbone.get("mean") or not backbone.get("deviation"):
        return None
    mean, deviation = (
        ", ".join(f"{value:g}" for value in dict.fromkeys(backbone[key])) for key in ("mean", "deviation")
    )
    return f"(pixel - {mean}) / {deviation}"


def _data(facts: Facts) -> dict[str, object]:
    data = facts.config.get("data") or {}
    counts: Mapping[str, Sequence[int]] = {
        part: column for part, column in (data.get("counts") or {}).items() if len(column) == len(facts.names)
    }
    splits = ", ".join(f"{count:,} {split}" for split, count in (data.get("parts") or {}).items())
    height, width = facts.images.shape[1:3]
    shown = {
        "name": data.get("name"),
        "source": data.get("origin"),
        "images": splits or data.get("images"),
        "each image": f"{width} × {height} pixels, {'grey' if facts.images.ndim == 3 else 'colour'}",
        "size": bytes_in_words(data.get("bytes")),
        "fingerprint": data.get("fingerprint"),
    }
    labels = range(len(facts.names) if len(facts.names) <= _MOST_PICTURES else 0)
    firsts = [np.flatnonzero(facts.labels == label)[:1].tolist() for label in labels]
    pictures = [[facts.picture(index) for index in first] for first in firsts]
    return {"data": shown, "counts": counts, "pictures": pictures}


def _provenance(facts: Facts) -> dict[str, object]:
    seconds: Mapping[str, float] = facts.config.get("seconds") or {}
    machine = dict(facts.config.get("machine") or {})
    memory = bytes_in_words(machine.pop("memory_bytes", None))
    return {
        "model fingerprint": facts.setting("model", "fingerprint"),
        "created": facts.config.get("created"),
        **{f"time to {name}": seconds_in_words(value) for name, value in seconds.items()},
        **machine,
        "memory": memory,
    }

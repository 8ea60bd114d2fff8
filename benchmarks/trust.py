"""What the recipe `fast` promises about its answers, and whether it keeps it, on Fashion-MNIST's test images.

    python -m benchmarks.trust [--seeds 5] [--models DIR] [--json FILE]

Each seed trains in a process of its own and leaves its model.onnx in DIR, where a later call finds it. Everything is
measured on these files through ONNX Runtime. Calibration and thresholds come from each training's validation images.
The score for strange pictures was chosen among several on seed 0 and these strangers (docs/log.md): the choice, not the
threshold, has seen them. Turned clothes were chosen on training images.

Coverage: two hundred times for each model, the 10,000 test images are divided at random into 5,000 that calibrate
(probabilities and thresholds anew) and 5,000 that are judged; the covered ones should be beta-binomial (Vovk, 2012).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary
from benchmarks.strangers import strangers
from numpy.typing import NDArray
from scipy.stats import betabinom, rankdata

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.slices import groupings_of, weak_slices
from hangtag.model.artifact import OUTPUT
from hangtag.model.calibration import Calibrator, fitted_calibrator, log_softmax, measure_calibration
from hangtag.model.conformal import METHODS, calibrate
from hangtag.model.guarantees import OOD_FALSE_POSITIVE_RATE
from hangtag.model.predictor import Predictor

COVERAGES = (0.9, 0.95, 0.99)
DIVISIONS = 200


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "hangtag-trust-models")
    settings = parser.parse_args()
    data = hangtag.read("fashion-mnist")
    strange = strangers(data.test.images)
    found: list[dict[str, Any]] = []
    for seed in range(settings.seeds):
        path = settings.models / f"fast-{seed}.onnx"
        if not path.is_file():
            with alone():
                in_fresh_process(train_one, seed, path)
        tag = hangtag.load(path)
        found.append(tried(tag, data.test.images, data.test.labels, strange))
        print(f"seed {seed}: {found[-1]}", flush=True)
    found[0]["null slices"] = null_slices(data.test, found[0]["accuracy"])
    publish(describe(found, list(strange)), settings.json)


def train_one(seed: int, path: Path) -> None:
    data = hangtag.read("fashion-mnist")
    classifier = hangtag.ImageClassifier(recipe="fast", seed=seed, device="cpu").fit(data.train)
    path.parent.mkdir(parents=True, exist_ok=True)
    classifier.save(path)


def tried(
    tag: Predictor, images: NDArray[np.uint8], labels: NDArray[np.int64], strange: dict[str, NDArray[np.uint8]]
) -> dict[str, Any]:
    told = tag.outputs(images, OUTPUT, "uncalibrated", "ood_score")
    rows, score = told[OUTPUT], told["ood_score"]
    after, before = measure_calibration(rows, labels), measure_calibration(told["uncalibrated"], labels)
    right = rows.argmax(1) == labels
    surest = np.argsort(-rows.max(1), kind="stable")
    found: dict[str, Any] = {
        "calibrator": tag.guarantees.calibrator.method,
        "accuracy": float(right.mean()),
        "ece": after.ece, "ece_before": before.ece, "ece_floor": after.ece_floor,
        "nll": after.nll, "nll_before": before.nll, "brier": after.brier, "brier_before": before.brier,
        "right_of_80": float(right[surest[: int(0.8 * len(right))]].mean()),
        "ood_false_positive_rate": float((score > 1 - OOD_FALSE_POSITIVE_RATE).mean()),
    }  # fmt: skip
    for method in METHODS:
        conformal = tag.guarantees.by(method)
        assert conformal is not None
        for coverage in COVERAGES:
            inside = conformal.sets(rows, coverage)
            found[f"{method} {coverage:g} size"] = float(inside.sum(1).mean())
            found[f"{method} {coverage:g} held"] = float(inside[np.arange(len(labels)), labels].mean())
    for kind, pictures in strange.items():
        theirs = tag.outputs(pictures, "ood_score")["ood_score"]
        found[f"auroc {kind}"] = auroc(score, theirs)
        found[f"alarms {kind}"] = float((theirs > 1 - OOD_FALSE_POSITIVE_RATE).mean())
    found |= divisions(told["uncalibrated"], labels)
    return found


def auroc(ood_detector: NDArray[Any], strange: NDArray[Any]) -> float:
    """The chance that a strange picture scores higher than a familiar one; ties count half."""
    ranks = rankdata(np.concatenate([ood_detector, strange]))[len(ood_detector) :]
    return float((ranks.sum() - len(strange) * (len(strange) + 1) / 2) / (len(ood_detector) * len(strange)))


def divisions(before: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """The share of random divisions whose coverage lies in the exact band of 99.8 %, by method and coverage.

    `exact`: sets as theory has them, which may be empty. `promised`: sets as they ship, never empty, which must not
    fall under the band.
    """
    random = np.random.default_rng(0)
    n = len(labels) // 2
    m = len(labels) - n
    logs = log_softmax(np.log(np.maximum(before, 1e-38)))
    bands = {}
    for coverage in COVERAGES:
        rank = int(np.ceil((n + 1) * coverage - 1e-9))
        bands[coverage] = betabinom(m, rank, n + 1 - rank).interval(0.998)
    within = {f"{method} {coverage:g} {kind}": 0 for method in METHODS for coverage in COVERAGES for kind in _KINDS}
    for _ in range(DIVISIONS):
        order = random.permutation(len(labels))
        teaches, judges = order[:n], order[n:]
        rows = np.asarray(calibrator_of(logs[teaches], labels[teaches])(logs))
        for method in METHODS:
            fitted = calibrate(rows[teaches], labels[teaches], method)
            for coverage in COVERAGES:
                low, high = bands[coverage]
                for kind in _KINDS:
                    inside = fitted.sets(rows[judges], coverage, never_empty=kind == "promised")
                    covered = int(inside[np.arange(m), labels[judges]].sum())
                    fine = covered >= low and (covered <= high or kind == "promised")
                    within[f"{method} {coverage:g} {kind}"] += fine
    return {f"within {name}": count / DIVISIONS for name, count in within.items()}


_KINDS = ("exact", "promised")


def calibrator_of(logs: NDArray[np.float64], labels: NDArray[np.int64]) -> Calibrator:
    """The kind that training chooses at this size, without choosing it a thousand times."""
    return fitted_calibrator(logs, labels, "matrix", 1e-3)


def null_slices(test: LabelledImages, accuracy: float) -> int:
    """Groups reported as weak in a hundred trials in which mistakes fall on pictures at random."""
    random = np.random.default_rng(0)
    groupings = groupings_of(test)
    right = np.arange(len(test)) < round(accuracy * len(test))
    return sum(len(weak_slices(random.permutation(right), groupings)) for _ in range(100))


def describe(found: list[dict[str, Any]], kinds: list[str]) -> Result:
    rows, numbers = [], {}
    shown = [
        ("ECE after calibration", "ece", 4), ("ECE before", "ece_before", 4),
        ("ECE of perfect answers", "ece_floor", 4),
        ("NLL after calibration", "nll", 4), ("NLL before", "nll_before", 4),
        ("Brier score after", "brier", 4), ("Brier score before", "brier_before", 4),
        ("accuracy", "accuracy", 4), ("accuracy of the surest 80 %", "right_of_80", 4),
        ("false `unfamiliar` at 5 %", "ood_false_positive_rate", 4),
        *((f"AUROC: {kind}", f"auroc {kind}", 4) for kind in kinds),
        *((f"called unfamiliar: {kind}", f"alarms {kind}", 3) for kind in kinds),
        *((f"labels in a set, {method}, {coverage:.0%}", f"{method} {coverage:g} size", 3)
          for method in METHODS for coverage in COVERAGES),
        *((f"sets that held the label, {method}, {coverage:.0%}", f"{method} {coverage:g} held", 4)
          for method in METHODS for coverage in COVERAGES),
        *((f"divisions in the band, {method}, {coverage:.0%}, {kind}", f"within {method} {coverage:g} {kind}", 3)
          for method in METHODS for coverage in COVERAGES for kind in _KINDS),
    ]  # fmt: skip
    for name, key, digits in shown:
        values = numbers[key] = summary([one[key] for one in found])
        sd = "-" if values["sd"] is None else f"{values['sd']:.{digits}f}"
        cells = (f"{values[part]:.{digits}f}" for part in ("mean", "least", "most"))
        mean, least, most = cells
        rows.append((name, mean, sd, least, most, str(values["n"])))
    numbers["null slices"] = found[0]["null slices"]
    says = [
        f"Groups called weak in 100 trials with mistakes at random: {numbers['null slices']}.",
        f"Calibrators chosen: {', '.join(one['calibrator'] for one in found)}.",
    ]
    columns = ("quantity", "mean", "sd", "least", "most", "seeds")
    return Result("trust", "Promises of recipe `fast` on Fashion-MNIST", columns, rows, says, numbers)


if __name__ == "__main__":
    main()

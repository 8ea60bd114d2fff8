"""Whether cross-fitting keeps its promises: many small training sets, each judged on a large held-out part.

    nice python -m benchmarks.cross_fit [--draws 200] [--sizes 60 100 300] [--sets digits fashion-mnist FOLDER ...]
        [--recipe quick] [--json FILE]

Each draw takes N images from a larger set, stratified by class, trains a cross-fitted classifier on all of them, and
judges its model file on the images that were not drawn, at most 2,000 of them:

- the cross-validated accuracy that is reported, against the accuracy on the large part: their mean difference, and how
  often the 95% interval contains it;
- how many of the 95% prediction sets contain the true label;
- how many images are called unfamiliar (the target is at most 5%, in nine of ten trainings).
"""

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Result, in_fresh_process, options, publish

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import stratified
from hangtag.evaluation.judge import Judgement
from hangtag.training.classifier import Classifier

JUDGED = 2000
TARGET, LIMIT = 0.95, 0.05


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 100, 300])
    parser.add_argument("--sets", nargs="+", default=["digits", "fashion-mnist"])
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--folds", type=int, default=5)
    settings = parser.parse_args()
    found = []
    for name in settings.sets:
        for size in settings.sizes:
            of_draws = in_fresh_process(drawn, name, size, settings.draws, settings.recipe, settings.folds)
            found.append({"set": Path(name).name, "images": size, **summed(of_draws), "draws": of_draws})
            print({key: value for key, value in found[-1].items() if key != "draws"}, flush=True)
    publish(describe(found, settings.recipe, settings.folds), settings.json)


def drawn(name: str, size: int, draws: int, recipe: str, folds: int) -> list[dict[str, float]]:
    data = hangtag.read(name)
    data = data.train if data.parts else data
    return [one_draw(data, size, seed, recipe, folds) for seed in range(draws)]


def one_draw(data: LabelledImages, size: int, seed: int, recipe: str, folds: int) -> dict[str, float]:
    split = stratified(data.labels, size / len(data), seed)
    random = np.random.default_rng(seed)
    rest = random.permutation(split.train)[:JUDGED]
    train, judged = data.take(random.permutation(split.validation)), data.take(rest)
    classifier = Classifier(recipe, seed=seed, folds=folds).fit(train)
    answers = classifier.answers_of_folds_
    assert answers is not None
    reported = Judgement.of_folds(classifier.predictor_, answers, train, None).evaluation
    there = Judgement.of(classifier.predictor_, "given", judged, None, None)
    sets = next(each for each in there.guarantees.sets if each.coverage == TARGET)
    unfamiliar = there.guarantees.ood_false_positives
    low, high = reported.accuracy_interval
    return {
        "reported": reported.accuracy,
        "accuracy": there.evaluation.accuracy,
        "inside": float(low <= there.evaluation.accuracy <= high),
        "covered": float(sets.covered.share or 0.0),
        "labels": sets.size,
        "unfamiliar": float((unfamiliar.share if unfamiliar else None) or 0.0),
    }


def summed(draws: list[dict[str, float]]) -> dict[str, Any]:
    column = {name: np.array([each[name] for each in draws]) for name in draws[0]}
    difference = column["reported"] - column["accuracy"]
    return {
        "accuracy": float(column["accuracy"].mean()),
        "difference": float(difference.mean()),
        "difference_error": float(difference.std(ddof=1) / len(draws) ** 0.5),
        "inside": float(column["inside"].mean()),
        "covered": float(column["covered"].mean()),
        "labels": float(column["labels"].mean()),
        "unfamiliar": float(column["unfamiliar"].mean()),
        "unfamiliar_kept": float((column["unfamiliar"] <= LIMIT).mean()),
    }


def describe(found: list[dict[str, Any]], recipe: str, folds: int) -> Result:
    rows = [
        (
            each["set"], str(each["images"]), f"{each['accuracy']:.1%}",
            f"{100 * each['difference']:+.2f} ± {196 * each['difference_error']:.2f}", f"{each['inside']:.1%}",
            f"{each['covered']:.1%}", f"{each['labels']:.2f}", f"{each['unfamiliar']:.1%}",
            f"{each['unfamiliar_kept']:.0%}",
        )
        for each in found
    ]  # fmt: skip
    worst = max(found, key=lambda each: abs(each["difference"]))
    return Result(
        name="cross_fit",
        title=f"{folds}-fold cross-fitted '{recipe}', {len(found[0]['draws'])} draws each",
        columns=(
            "set", "images", "accuracy", "reported minus this, points", "inside the interval", "in 95% sets",
            "labels per set", "unfamiliar", "at most 5%",
        ),
        rows=rows,
        says=[
            f"The reported accuracy differs by at most {100 * abs(worst['difference']):.2f} points on average "
            f"({worst['set']}, {worst['images']} images).",
            f"95% sets contain the true label in at least {min(each['covered'] for each in found):.1%} on average.",
        ],
        numbers={"found": found},
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Whether cross-fitting keeps its promises: many small training sets, each judged on a large held-out part.

    nice python -m benchmarks.cross_fit [--draws 200] [--sizes 60 100 300] [--sets digits fashion-mnist FOLDER ...]
        [--recipe quick] [--json FILE]

Each draw takes N images from a larger set, stratified by class, trains a cross-fitted classifier on all of them, and
judges the model on the images that were not drawn, at most 2,000 of them:

- the cross-validated accuracy that is reported, against the accuracy on the large part: their mean difference, and how
  often the 95% interval contains it;
- how many of the 95% prediction sets contain the true label;
- how many images are called unfamiliar (the target is at most 5%, in nine of ten trainings).
"""

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Result, in_fresh_process, options, publish
from numpy.typing import NDArray

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public.datasets import NAMED
from hangtag.data.splits import stratified
from hangtag.evaluation.metrics import evaluate
from hangtag.model.artifact import OUTPUT
from hangtag.model.calibration import log_softmax, softmax
from hangtag.model.guarantees import AnswerPolicy
from hangtag.training.choose_recipe import PHOTO_SIDE
from hangtag.training.classifier import Classifier
from hangtag.training.cross_fit import CrossFit, Fitted
from hangtag.training.engine.inference import Features, extract_features

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
    photos = recipe == "transfer" and name not in NAMED
    data = hangtag.read(name, photos=True, photo_side=PHOTO_SIDE) if photos else hangtag.read(name)
    data = data.train if data.parts else data
    return [one_draw(data, size, seed, recipe, folds) for seed in range(draws)]


def one_draw(data: LabelledImages, size: int, seed: int, recipe: str, folds: int) -> dict[str, float]:
    split = stratified(data.labels, size / len(data), seed)
    random = np.random.default_rng(seed)
    rest = random.permutation(split.train)[:JUDGED]
    train, judged = data.take(random.permutation(split.validation)), data.take(rest)
    classifier = Classifier(recipe, seed=seed, folds=folds).fit(train)
    crossed = classifier._crossed
    assert crossed is not None
    pool, network = crossed.images, classifier.shipped_
    fitted = crossed.fitted(pool.images, extract_features(network, pool.images), pool.labels, data.class_names)
    own, answers = fitted.answers.outputs, fitted.answers
    reported = evaluate(own[OUTPUT], crossed.labels, data.class_names, folds=folds, groups=answers.groups)
    outputs = as_in_the_file(fitted, crossed, extract_features(network, judged.images), judged.images)
    there = evaluate(outputs[OUTPUT], judged.labels, data.class_names)
    in_set = fitted.guarantees.decide(outputs, AnswerPolicy(coverage=TARGET)).in_set
    assert in_set is not None
    low, high = reported.accuracy_interval
    return {
        "reported": reported.accuracy,
        "accuracy": there.accuracy,
        "inside": float(low <= there.accuracy <= high),
        "covered": float(in_set[np.arange(len(judged)), judged.labels].mean()),
        "labels": float(in_set.sum(axis=1).mean()),
        "unfamiliar": float((outputs["ood_score"] > 1 - LIMIT).mean()),
    }


def as_in_the_file(
    fitted: Fitted, crossed: CrossFit, features: Features, images: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """The outputs of the model file, which is not written; `export.verify` tests in every training that both agree."""
    outputs = {
        OUTPUT: fitted.guarantees.calibrator(log_softmax(features.logits)),
        "uncalibrated": softmax(features.logits),
        "ood_score": fitted.ood_detector.ood_score(images, features.descriptor, features.logits),
    }
    if crossed.heads is not None:
        logits = np.einsum("ne,fke->nfk", features.embedding, crossed.heads.weight) + crossed.heads.bias
        outputs["fold_uncalibrated"] = np.stack([softmax(logits[:, fold]) for fold in range(logits.shape[1])], axis=1)
    return {name: np.asarray(rows, np.float32) for name, rows in outputs.items()}


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

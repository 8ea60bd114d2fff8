"""Few photos: recipe `transfer` against training from nothing and a tuned logistic regression, and unfamiliar photos.

    python -m benchmarks.few_photos [SETS] [--only NAME ...] [--draws 3] [--json FILE]

SETS is a folder that `benchmarks/photo_sets.py` wrote; by default photo-sets/. Accuracy is from five folds of each set;
near-duplicates are on one side. Each is judged by the file that the other four folds made: `transfer`, `fast`, and as a
check a logistic regression with scaled features of the same backbone, its strength chosen in five folds.

AUROC is that of the file's `ood_score`, after training on 20 photos a class, or on three quarters of a smaller class:
the set's other photos against photos of other things.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Result, options, publish
from benchmarks.photo_sets import small_sets
from numpy.typing import NDArray

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import near_groups
from hangtag.training.engine.backbones import compute_features, find_backbone

STRANGERS = {
    "stamps": ("other", "outdoors/monuments", "outdoors/renewable"),
    "foods": ("other", "outdoors/monuments", "outdoors/renewable", "outdoors/tools"),
    "outdoors": ("other", "foods/cereals", "foods/fruits", "foods/leaves", "foods/spices"),
    "things": ("other", "foods/cereals", "foods/fruits", "foods/leaves", "foods/spices"),
    "emoji": ("other", "outdoors/fishes", "outdoors/monuments", "outdoors/renewable", "outdoors/tools"),
}
"""Folders that show other things than the classes of a set."""

Predict = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Positions to train on, positions to classify -> labels."""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("sets", type=Path, nargs="?", default=Path("photo-sets"), help="folder of photo sets")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the sets to measure; all if left out")
    parser.add_argument("--draws", type=int, default=3, help="draws of training photos for the OOD score")
    parser.add_argument("--without-fast", action="store_true", help="do not train from nothing")
    settings = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name, folder in small_sets(settings.sets).items():
        if settings.only and name not in settings.only:
            continue
        found[name] = accuracies(folder, not settings.without_fast)
        found[name]["auroc"] = aurocs(settings.sets, name, settings.draws)
        print(name, found[name], flush=True)
    publish(describe(found), settings.json)


def accuracies(folder: Path, with_fast: bool) -> dict[str, Any]:
    """Share of correct answers of each way, from five folds, and the set's size."""
    side = find_backbone().side
    photos, small = hangtag.read(folder, size=side), hangtag.read(folder)
    assert (photos.labels == small.labels).all()
    ways: dict[str, Predict] = {"transfer": trained("transfer", photos), "logistic": logistic(photos)}
    if with_fast:
        ways["fast"] = trained("fast", small, folds=0, validation=0.0)  # all images train the network, and nothing else
    right: dict[str, list[NDArray[np.bool_]]] = {way: [] for way in ways}
    for train, test in five_folds(photos):
        for way, predict in ways.items():
            right[way].append(predict(train, test) == photos.labels[test])
    shares = {way: float(np.concatenate(each).mean()) for way, each in right.items()}
    return {"images": len(photos), "classes": len(photos.class_names), "accuracy": shares}


def trained(recipe: str, data: LabelledImages, **more: Any) -> Predict:
    """What the model file says that this recipe trains."""

    def predict(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.int64]:
        classifier = hangtag.ImageClassifier(recipe, seed=0, verbose=0, **more).fit(data.take(train))
        classes: NDArray[np.int64] = classifier.predictor_.probabilities(np.asarray(data.images[test])).argmax(axis=1)
        return classes

    return predict


def logistic(data: LabelledImages) -> Predict:
    """A logistic regression on the backbone's features, as a careful user of scikit-learn would tune it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = compute_features(find_backbone(), data.images)

    def predict(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.int64]:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        strengths = {"logisticregression__C": [10.0**power for power in range(-5, 2)]}
        search = GridSearchCV(model, strengths, cv=StratifiedKFold(5, shuffle=True, random_state=0))
        labels: NDArray[np.int64] = search.fit(features[train], data.labels[train]).predict(features[test])
        return labels

    return predict


def five_folds(data: LabelledImages) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    groups = near_groups(data)
    groups = np.arange(len(data)) if groups is None else groups
    split = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(data.labels, data.labels, groups)
    return [(train, test) for train, test in split]


def aurocs(sets: Path, name: str, draws: int, each: int = 20) -> list[float]:
    """Area under the ROC curve of the file's OOD score, for each draw of training photos."""
    data = hangtag.read(sets / name, size=find_backbone().side)
    files = [file for folder in STRANGERS[name] for file in sorted((sets / folder).iterdir())]
    strangers = hangtag.read((files, [file.parent.name for file in files]), spec=data.spec).images
    found = []
    for seed in range(draws):
        random, train = np.random.default_rng(seed), []
        for label in range(len(data.class_names)):
            members = random.permutation(np.flatnonzero(data.labels == label))
            train.append(members[: min(each, len(members) * 3 // 4)])
        positions = np.sort(np.concatenate(train))
        rest = np.setdiff1d(np.arange(len(data)), positions)
        predictor = hangtag.ImageClassifier("transfer", seed=seed, verbose=0).fit(data.take(positions)).predictor_
        own, others = (
            predictor.outputs(np.asarray(images), "ood_score")["ood_score"] for images in (data.images[rest], strangers)
        )
        found.append(auroc(own, others))
    return found


def auroc(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """The probability that a positive score is above a negative one; a tie counts half."""
    more = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    return float(more)


def describe(found: dict[str, dict[str, Any]]) -> Result:
    ways = ("transfer", "logistic", "fast")
    rows = [
        (
            name, f"{each['images']} in {each['classes']}",
            *(f"{each['accuracy'][way]:.1%}" if way in each["accuracy"] else "" for way in ways),
            f"{statistics.fmean(each['auroc']):.3f}",
        )
        for name, each in found.items()
    ]  # fmt: skip
    gains = {
        way: statistics.fmean(100 * (each["accuracy"]["transfer"] - each["accuracy"][way]) for each in found.values())
        for way in ways[1:]
        if all(way in each["accuracy"] for each in found.values())
    }
    says = [f"Against {way}: {gain:+.1f} points on average over {len(found)} sets." for way, gain in gains.items()]
    return Result(
        "few_photos",
        "Few photos: accuracy from five folds, AUROC of photos of other things",
        ("set", "images in classes", "transfer", "tuned logistic regression", "fast, from nothing", "AUROC"),
        rows,
        says,
        found,
    )


if __name__ == "__main__":
    main()

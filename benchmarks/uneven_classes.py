"""What to do about uneven classes, decided on training images only.

    python -m benchmarks.uneven_classes [--seeds 3]

Of 50,000 training images of Fashion-MNIST each class keeps a share that falls from all to a hundredth; the other 10,000
training images, as many of each class, judge. Prints mean recall (balanced accuracy) for each way, over seeds.
"""

import argparse
import statistics
from dataclasses import replace

import numpy as np

import hangtag
from hangtag.data.splits import stratified
from hangtag.training.engine.recipes import find_recipe

WAYS = ("off", "weights", "sampling")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare what can be done about uneven classes.")
    parser.add_argument("--seeds", type=int, default=3)
    settings = parser.parse_args()
    data = hangtag.read("fashion-mnist").train
    split = stratified(data.labels, 1 / 6, seed=0)
    kept = uneven(data.labels, split.train)
    judges = data.take(split.validation)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for seed in range(settings.seeds):
        for way in WAYS:
            recipe = replace(find_recipe("fast", network="cnn-small", epochs=8), balance=way, validation=0.0)
            classifier = hangtag.ImageClassifier(recipe, seed=seed, device="cpu")
            judged = classifier.fit(data.take(kept)).evaluate(judges)
            recalls = [row.recall or 0.0 for row in judged.classes]
            found[way].append((statistics.fmean(recalls), min(recalls)))
            print(
                f"seed {seed} {way:<8} mean recall {found[way][-1][0]:.4f}, least {found[way][-1][1]:.4f}", flush=True
            )
    for way, values in found.items():
        means, least = zip(*values, strict=True)
        print(f"{way:<8} mean recall {statistics.fmean(means):.4f}, of the worst class {statistics.fmean(least):.4f}")


def uneven(labels: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Those positions that are left when class k keeps a share of 100 ** (-k / 9)."""
    random = np.random.default_rng(0)
    kept = []
    for index in range(10):
        members = random.permutation(positions[labels[positions] == index])
        kept.append(members[: round(len(members) * 100 ** (-index / 9))])
    return np.sort(np.concatenate(kept))


if __name__ == "__main__":
    main()

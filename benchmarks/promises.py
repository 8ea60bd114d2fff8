"""Whether the promises hold for models that learned nothing: random answers for random labels, no training.

    python -m benchmarks.promises [--draws 200] [--kinds random overconfident]

For each number of classes and of held-out images, and each kind of answers, many draws of labels and answers go through
what training does: choose a calibrator, set thresholds, decide. The sets of a draw must cover as many of 4,000 new
images as the exact beta-binomial distribution allows (Vovk, 2012): not fewer, and not more where no two scores are
equal. No answer may be sure. The p-values of all draws must be uniform; 1 in 1,000 is below 0.001 by chance.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from hangtag.model.calibration import cross_fitted, log_softmax
from hangtag.model.guarantees import AnswerPolicy, fit_guarantees

CASES = ((2, 20), (2, 100), (2, 1000), (3, 10_000), (10, 200), (10, 3000), (100, 300), (1500, 3000))
KINDS = ("constant", "few values", "random", "overconfident")
COVERAGE, NEW = 0.95, 4000


def logits(random: np.random.Generator, images: int, classes: int, kind: str) -> NDArray[np.float64]:
    """(images, classes) that know nothing about any label."""
    if kind == "constant":  # up to rounding
        rounding: NDArray[np.float64] = random.choice([0, 1e-7], size=(images, 1))
        return np.linspace(0, 0.01, classes) + rounding
    if kind == "few values":
        return random.integers(0, 3, (images, classes)).astype(np.float64)
    return random.normal(size=(images, classes)) * (12 if kind == "overconfident" else 2)


def draw(seed: int, classes: int, images: int, kind: str, new: int = NEW) -> tuple[float, float, int]:
    """The p-values of so few and of so many covered new images, and the number of sure answers."""
    random = np.random.default_rng([seed, classes, images, KINDS.index(kind)])
    labels, new_labels = random.integers(0, classes, images), random.integers(0, classes, new)
    logs, new_logs = (log_softmax(logits(random, count, classes, kind)) for count in (images, new))
    calibrator, out_of_fold = cross_fitted(logs, labels)
    rows, new_rows = (calibrator(each).astype(np.float32) for each in (logs, new_logs))
    plain, new_plain = (np.exp(each).astype(np.float32) for each in (logs, new_logs))
    names = tuple(map(str, range(classes)))
    guarantees = fit_guarantees(rows, labels, calibrator, names, False, out_of_fold, plain)
    decided = guarantees.decide({"probabilities": new_rows, "uncalibrated": new_plain}, AnswerPolicy(COVERAGE))
    assert decided.sure is not None
    rank = int(np.ceil((images + 1) * COVERAGE - 1e-9))
    if rank > images:
        return 1.0, 1.0, int(decided.sure.sum())
    sets = guarantees.conformal[0].sets(new_plain, COVERAGE, never_empty=False)
    covered = int(sets[np.arange(new), new_labels].sum())
    exact = betabinom(new, rank, images + 1 - rank)
    return float(exact.cdf(covered)), float(exact.sf(covered - 1)), int(decided.sure.sum())


def results(draws: int, kinds: Sequence[str]) -> Iterator[str]:
    for kind in kinds:
        for classes, images in CASES:
            count = max(3, draws // max(1, classes * images // 20_000))
            few, many, sure = np.array([draw(seed, classes, images, kind) for seed in range(count)]).T
            yield (
                f"{kind}, {classes:,} classes, {images:,} held-out images, {count} draws: lowest p of so few covered "
                f"{few.min():.4f}, of so many {many.min():.4f}; below 0.01: {np.mean(few < 0.01):.3f}, "
                f"{np.mean(many < 0.01):.3f}; draws with a sure answer: {int((sure > 0).sum())}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of answers")
    settings = parser.parse_args()
    for line in results(settings.draws, settings.kinds):
        print(line, flush=True)

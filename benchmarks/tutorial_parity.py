"""Is the recipe `tutorial` the lesson's training? Ten seeds of ours against twenty of the lesson's own framework.

    python -m benchmarks.tutorial_parity [--seeds 10] [--json FILE]

Each seed trains ten epochs on all 60,000 images and is judged on the 10,000 test images, on the exported file. The
reference was measured beforehand (Keras 3 on TensorFlow, 20 seeds). Accuracies agree when the means differ by at most
0.002; Welch's test (B. L. Welch, 1947, Biometrika 34:28-35) says whether chance alone would give such a difference.
"""

from dataclasses import dataclass

from benchmarks.common import Result, alone, options, publish, summary

REFERENCE_SEEDS = 20
REFERENCE = {"test accuracy": (0.8834, 0.0030), "training accuracy": (0.9106, 0.0008), "test loss": (0.336, None)}
TOLERANCE = 0.002  # of the two accuracies


@dataclass(frozen=True)
class Welch:
    """Difference of two means and the probability of one at least as large by chance."""

    difference: float
    t: float
    p: float


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    settings = parser.parse_args()
    ours: dict[str, list[float]] = {name: [] for name in REFERENCE}
    for seed in range(settings.seeds):
        for name, value in train_once(seed).items():
            ours[name].append(value)
    publish(compare(ours), settings.json)


def train_once(seed: int) -> dict[str, float]:
    """The lesson with one seed, by the public face."""
    import hangtag

    data = hangtag.read("fashion-mnist")
    with alone():
        classifier = hangtag.ImageClassifier(recipe="tutorial", seed=seed, device="cpu").fit(data.train)
        judged = classifier.evaluate(data.test)
    found = {
        "test accuracy": judged.accuracy,
        "training accuracy": classifier.history_[-1].accuracy,
        "test loss": judged.loss,
    }
    print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)
    return found


def compare(ours: dict[str, list[float]]) -> Result:
    columns = ("quantity", "hangtag mean", "sd", "n", "reference mean", "sd", "n", "difference", "Welch p")
    rows, says, numbers = [], [], {}
    for name, (mean, sd) in REFERENCE.items():
        found = summary(ours[name])
        test = welch(found["mean"], found["sd"], found["n"], mean, sd, REFERENCE_SEEDS) if sd and found["sd"] else None
        difference = found["mean"] - mean
        ours_sd = f"{found['sd']:.4f}" if found["sd"] is not None else "-"
        rows.append((
            name, f"{found['mean']:.4f}", ours_sd, str(found["n"]), f"{mean:.4f}", f"{sd:.4f}" if sd else "-",
            str(REFERENCE_SEEDS), f"{difference:+.4f}", f"{test.p:.2f}" if test else "-",
        ))  # fmt: skip
        numbers[name] = {
            "hangtag": found,
            "reference": {"mean": mean, "sd": sd, "n": REFERENCE_SEEDS},
            "difference": difference,
            "welch": vars(test) if test else None,
        }
        if name != "test loss":
            agrees = abs(difference) <= TOLERANCE
            numbers[name]["agrees"] = agrees
            verb = "agree" if agrees else "DO NOT AGREE"
            says.append(f"{name}: the means {verb} (difference {difference:+.4f}, allowed {TOLERANCE}).")
    return Result("tutorial_parity", "Recipe `tutorial` against the lesson's framework", columns, rows, says, numbers)


def welch(mean: float, sd: float, n: int, other_mean: float, other_sd: float, other_n: int) -> Welch:
    """Welch's t-test from summaries."""
    from scipy.stats import ttest_ind_from_stats

    outcome = ttest_ind_from_stats(mean, sd, n, other_mean, other_sd, other_n, equal_var=False)
    return Welch(mean - other_mean, float(outcome.statistic), float(outcome.pvalue))


if __name__ == "__main__":
    main()

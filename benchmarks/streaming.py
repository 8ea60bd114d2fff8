"""A million images that stay in their file, against 60,000 in memory: speed of training and most memory held.

    python -m benchmarks.streaming [--rounds 3] [--seconds 20] [--json FILE]

The million are Fashion-MNIST's 60,000 again and again, with a little noise, in one .npy file (784 MB) that is mapped.
Each side trains by recipe `fast` at full image size, in a process of its own, for some seconds of which the first fifth
does not count; sides take turns. Peak memory is the process's largest resident size.
"""

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary
from benchmarks.fast_recipe import peak_gb

MANY = 1_000_000


@dataclass(frozen=True)
class Streamed:
    images_per_second: float
    peak_gb: float


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    settings = parser.parse_args()
    found: dict[str, list[Streamed]] = {"memory": [], "file": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "million.npy"
        write(file)
        for number in range(settings.rounds):
            for side, path in (("memory", None), ("file", file)):
                with alone():
                    found[side].append(in_fresh_process(train_for, settings.seconds, path))
                print(f"round {number} {side}: {found[side][-1]}", flush=True)
    publish(describe(found), settings.json)


def write(file: Path) -> None:
    """A million images, 10,000 at a time."""
    import hangtag

    train = hangtag.read("fashion-mnist").train
    random = np.random.default_rng(0)
    out = np.lib.format.open_memmap(file, "w+", np.uint8, (MANY, 28, 28))
    for start in range(0, MANY, 10_000):
        part = train.images[np.arange(start, start + 10_000) % len(train)].astype(np.int16)
        out[start : start + 10_000] = np.clip(part + random.integers(-3, 4, part.shape), 0, 255)
    out.flush()
    np.save(file.with_name("labels.npy"), train.labels[np.arange(MANY) % len(train)])


def train_for(seconds: float, file: Path | None) -> Streamed:
    import hangtag
    from hangtag.training.engine.recipes import find_recipe

    train = hangtag.read("fashion-mnist").train
    images, labels = train.images, train.labels
    if file is not None:
        images, labels = np.load(file, mmap_mode="r"), np.load(file.with_name("labels.npy"))
    recipe = replace(find_recipe("fast", epochs=1000), validation=0.0)
    classifier = hangtag.ImageClassifier(recipe, device="cpu")
    end: list[float] = []

    def enough() -> bool:
        end[:] = end or [time.perf_counter() + seconds]
        return time.perf_counter() > end[0]

    moments: list[tuple[float, int]] = []
    before_epoch = 0  # steps; epochs differ in theirs, as most easy images are left out after the first
    for epoch in classifier.fit_epochs(images, labels, stop=enough):
        moments.append((time.perf_counter(), before_epoch + epoch.step))
        before_epoch += epoch.step if epoch.finished else 0
    warm = [moment for moment in moments if moment[0] >= end[0] - 0.8 * seconds]
    (first, before), (last, after) = warm[0], warm[-1]
    return Streamed((after - before) * recipe.batch_size / (last - first), peak_gb())


def describe(found: dict[str, list[Streamed]]) -> Result:
    sides = {side: [asdict(one) for one in rows] for side, rows in found.items()}
    numbers = {
        f"{side} {key}": summary([row[key] for row in rows])
        for side, rows in sides.items()
        for key in ("images_per_second", "peak_gb")
    }
    rows = [
        (
            title,
            f"{numbers[f'{side} images_per_second']['median']:,.0f}",
            f"{numbers[f'{side} peak_gb']['median']:.2f}",
            str(len(found[side])),
        )
        for side, title in (("memory", "60,000 in memory"), ("file", "1,000,000 in a file"))
    ]
    pairs = zip(found["file"], found["memory"], strict=True)
    ratio = statistics.median(one.images_per_second / other.images_per_second for one, other in pairs)
    more = numbers["file peak_gb"]["median"] - numbers["memory peak_gb"]["median"]
    notes = [
        f"From the file: {ratio:.2f} times the speed (wanted 0.85, better 0.95), {more:+.2f} GB at the peak "
        "(wanted under 0.5)."
    ]
    return Result(
        "streaming",
        "A million images in a file",
        ("images", "images/s (median)", "peak memory, GB (median)", "n"),
        rows,
        notes,
        numbers,
    )


if __name__ == "__main__":
    main()

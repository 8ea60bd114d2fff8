"""Reading a folder of 60,000 PNG files: decoding once, opening again, going through them; and memory on a large set.

    python -m benchmarks.reading [--rounds 3] [--large 100000] [--json FILE]

The files are Fashion-MNIST's training images. Beside it, in the same round: one process that opens each with Pillow and
makes a grey array of it, which is what a loader without a cache does in every epoch. The large set is 500 photos of
320x240, linked until there are so many: their rows of 96x72 colour pixels are more than fits into the memory allowed.
Peak memory is the largest resident size of the reading process plus that of its workers.
"""

import os
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary
from PIL import Image

BATCH = 256


@dataclass(frozen=True)
class Read:
    """Seconds of each thing for 60,000 pictures."""

    plain: float
    first: float
    again: float
    epoch: float


@dataclass(frozen=True)
class Large:
    pictures: int
    gigabytes: float
    seconds: float
    peak_gb: float


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=100_000)
    settings = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "clothes")
        for number in range(settings.rounds):
            with alone():
                plain = in_fresh_process(go_through, folder / "clothes")
                rounds.append(Read(plain, *in_fresh_process(read_twice, folder / "clothes", folder / "cache")))
            print(f"round {number}: {rounds[-1]}", flush=True)
            shutil.rmtree(folder / "cache")
        link(folder / "photos", settings.large)
        large = in_fresh_process(read_large, folder / "photos", folder / "cache")
        print(large, flush=True)
    publish(describe(rounds, large), settings.json)


def write(folder: Path) -> None:
    import hangtag
    from hangtag.labelled import export_folder

    export_folder(hangtag.read("fashion-mnist").train, folder)


def link(folder: Path, count: int) -> None:
    """`count` names for 500 photos in two classes."""
    random = np.random.default_rng(0)
    for number in range(500):
        path = folder / "ab"[number % 2] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)
    for number in range(500, count):
        parent = folder / "ab"[number % 2]
        (parent / f"{number:06d}.jpg").symlink_to(parent / f"{number % 500:06d}.jpg")


def go_through(folder: Path) -> float:
    """Seconds to open every file with Pillow and make an array of it, in one process."""
    files = sorted(folder.rglob("*.png"))
    began = time.perf_counter()
    for file in files:
        with Image.open(file) as opened:
            np.asarray(opened.convert("L"))
    return time.perf_counter() - began


def read_twice(folder: Path, cache: Path) -> tuple[float, float, float]:
    """Seconds to read it first, to read it again, and to go through its images in shuffled batches."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    import hangtag

    times = []
    for _ in range(2):
        began = time.perf_counter()
        data = hangtag.read(folder)
        times.append(time.perf_counter() - began)
    order = np.random.default_rng(0).permutation(len(data))
    began = time.perf_counter()
    for start in range(0, len(order), BATCH):
        np.asarray(data.images[order[start : start + BATCH]])
    return times[0], times[1], time.perf_counter() - began


def read_large(folder: Path, cache: Path) -> Large:
    os.environ["XDG_CACHE_HOME"] = str(cache)
    import hangtag
    from hangtag.decoding import _cores

    began = time.perf_counter()
    data = hangtag.read(folder, size=(72, 96))
    seconds = time.perf_counter() - began
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Large(len(data), data.images.nbytes / 1e9, seconds, (own + _cores() * workers) * 1024 / 1e9)


def describe(rounds: list[Read], large: Large) -> Result:
    values = {name: [getattr(one, name) for one in rounds] for name in ("plain", "first", "again", "epoch")}
    numbers = {name: summary(each) for name, each in values.items()}
    titles = {
        "plain": "Pillow, one process, every epoch anew",
        "first": "hangtag, first reading: decoded on all cores, checked, cached",
        "again": "hangtag, reading again",
        "epoch": "hangtag, going through the images in shuffled batches",
    }
    rows = [
        (title, f"{numbers[name]['median']:.2f}", f"{min(values[name]):.2f}-{max(values[name]):.2f}", str(len(rounds)))
        for name, title in titles.items()
    ]
    first = statistics.median(one.plain / one.first for one in rounds)
    epoch = statistics.median(one.plain / one.epoch for one in rounds)
    notes = [
        f"First reading: {first:.2f} times as fast as one process of plain Pillow (wanted 1.6, better 2.5).",
        f"From the second epoch on: {epoch:.0f} times (wanted 20, better 100).",
        f"Reading again: {numbers['again']['median']:.2f} s (wanted under 0.3, better 0.1).",
        f"A set of {large.pictures:,} photos, {large.gigabytes:.1f} GB of rows: {large.seconds:.0f} s, at most "
        f"{large.peak_gb:.2f} GB of memory in all processes together (wanted under 1.5, better 1).",
    ]
    return Result(
        "reading",
        "A folder of 60,000 pictures",
        ("what", "seconds (median)", "least-most", "n"),
        rows,
        notes,
        {**numbers, "large": asdict(large)},
    )


if __name__ == "__main__":
    main()

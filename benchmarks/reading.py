"""Reading a folder of 60,000 PNG files: decoding once, opening again, going through them; and memory on a large set.

    python -m benchmarks.reading [--rounds 5] [--large 84000] [--json FILE]

The files are Fashion-MNIST's training images. Beside it, in the same round: one process that opens each with Pillow and
makes a grey array of it, which is what a loader without a cache does in every epoch. Both as on an ordinary machine,
with Python's bytecode cache switched on.

The large set is 84,000 photos, all different: their rows of 128x96 colour pixels are more than three times the memory
that the processes may have together (`memory_limit.py`). They are read, divided into training and validation
images with a search for near duplicates, and gone through in one epoch of the lesson's network, within the limit; what
counts there is memory, and it takes no turn at the machine.
"""

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary
from benchmarks.memory_limit import Limit, limit, within
from PIL import Image

BATCH = 256
ALLOWED = 1_000_000_000  # bytes of memory for everything that reads and trains on the large set
PER_PROCESS = 5_000  # photos written by one process


@dataclass(frozen=True)
class Read:
    """Seconds of each thing for 60,000 pictures."""

    plain: float
    first: float
    again: float
    epoch: float


@dataclass(frozen=True)
class Large:
    """A set larger than memory: seconds and gigabytes held, of reading it and of the training behind it."""

    pictures: int
    gigabytes: float
    seconds: float
    peak_gb: float
    train_seconds: float
    train_peak_gb: float
    times_met: int


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=84_000)
    settings = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as ordinary_environment, for the processes to come
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
        for start in range(0, settings.large, PER_PROCESS):
            in_fresh_process(write_photos, folder / "photos", start, min(start + PER_PROCESS, settings.large))
        with limit(ALLOWED) as allowed:
            large = in_fresh_process(read_large, folder / "photos", folder / "cache", allowed)
        print(large, flush=True)
    publish(describe(rounds, large, allowed), settings.json)


def write(folder: Path) -> None:
    import hangtag
    from hangtag.data.labelled_images import export_folder

    export_folder(hangtag.read("fashion-mnist").train, folder)


def write_photos(folder: Path, start: int, stop: int) -> None:
    """Photos of 160x120 in two classes, each of its own smooth colours."""
    for number in range(start, stop):
        path = folder / "ab"[number % 2] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=85)


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


def read_large(folder: Path, cache: Path, allowed: Limit) -> Large:
    os.environ["XDG_CACHE_HOME"] = str(cache)
    with within(allowed) as memory:
        import hangtag
        from hangtag.training.engine.recipes import find_recipe

        began = time.perf_counter()
        data = hangtag.read(folder, size=(96, 128))
        seconds, peak = time.perf_counter() - began, memory.most
        memory.restart()
        began = time.perf_counter()
        recipe = replace(find_recipe("tutorial", epochs=1), validation=0.1)
        hangtag.ImageClassifier(recipe, device="cpu").fit(data)
        train_seconds = time.perf_counter() - began
    found = (len(data), data.images.nbytes / 1e9, seconds, peak / 1e9, train_seconds, memory.most / 1e9)
    return Large(*found, allowed.times_met())


def describe(rounds: list[Read], large: Large, allowed: Limit) -> Result:
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
        f"A set of {large.pictures:,} photos, {large.gigabytes:.1f} GB of rows, by processes that may have "
        f"{allowed.bytes / 1e9:.1f} GB together (held to it by {allowed.enforced_by}; at the limit {large.times_met:,} "
        f"times): read in {large.seconds:.0f} s with at most {large.peak_gb:.2f} GB that is no file's; divided and "
        f"trained on for an epoch in {large.train_seconds:.0f} s with at most {large.train_peak_gb:.2f} GB "
        "(wanted under 1.5, better 1).",
    ]
    return Result(
        "reading",
        "A folder of 60,000 pictures",
        ("what", "seconds (median)", "least-most", "n"),
        rows,
        notes,
        {**numbers, "large": {**asdict(large), "allowed_gb": allowed.bytes / 1e9, "enforced_by": allowed.enforced_by}},
    )


if __name__ == "__main__":
    main()

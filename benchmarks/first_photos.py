"""A folder of photos: from the command to the report, and one answer of the model, each from start to exit.

    python -m benchmarks.first_photos [SETS] [--photos 100] [--rounds 5] [--json FILE]

SETS is a folder that `benchmarks/photo_sets.py` wrote; by default photo-sets/. Photos of its set "outdoors", enlarged
to 3000x2000 pixels and with noise, are JPEGs of about 2 MB in four folders. In each round, `hangtag train photos`
runs with an empty cache folder and again with what it left there, and `hangtag predict` answers one of the photos.
Issue 23 asks for 60 s (better 25 s), 1.0 s (better 0.6 s) and a file of 20 MB at most, on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Others, Result, alone, options, ordinary_environment, publish, summary
from PIL import Image

SOURCE = Path(__file__).resolve().parent.parent
TRAIN, AGAIN, PREDICT = "train, first", "train, again", "predict one photo"
WIDTH, HEIGHT = 3000, 2000


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("sets", type=Path, nargs="?", default=Path("photo-sets"), help="folder of photo sets")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        folder = Path(name)
        photos = enlarged(settings.sets / "outdoors", folder / "photos", settings.photos)
        for number in range(settings.rounds):
            cache, runs = folder / f"cache{number}", [folder / f"run{number}{way}" for way in "ab"]
            with alone():
                for what, run in zip((TRAIN, AGAIN), runs, strict=True):
                    found.setdefault(what, []).append(took(folder, cache, "train", "photos", "--out", str(run)))
                found.setdefault(PREDICT, []).append(took(folder, cache, "predict", str(runs[0]), str(photos[0])))
            print(f"round {number}: { {what: each[-1] for what, each in found.items()} }", flush=True)
        size = (runs[0] / "model.onnx").stat().st_size
    publish(describe(found, size, len(photos)), settings.json)


def enlarged(source: Path, folder: Path, count: int) -> list[Path]:
    """Write `count` photos of all classes in turn, in the size and with the noise of a camera's; their paths."""
    random, classes = np.random.default_rng(0), sorted(path for path in source.iterdir() if path.is_dir())
    written = []
    for each in classes:
        (folder / each.name).mkdir(parents=True)
        for path in sorted(each.iterdir())[: -(-count // len(classes))]:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            scale = max(WIDTH / picture.width, HEIGHT / picture.height)
            picture = picture.resize((round(picture.width * scale) + 1, round(picture.height * scale) + 1))
            pixels = np.asarray(picture.crop((0, 0, WIDTH, HEIGHT))) + random.normal(0, 4, (HEIGHT, WIDTH, 1))
            written.append(folder / each.name / f"{path.stem}.jpg")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(written[-1], quality=92)
    return written


def took(folder: Path, cache: Path, *command: str) -> tuple[float, float, float]:
    """Seconds and processor seconds of one command, and the share of the machine that others used."""
    environment = ordinary_environment() | {"PYTHONPATH": str(SOURCE / "src"), "XDG_CACHE_HOME": str(cache)}
    others, began, before = Others(), time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-m", "hangtag", *command], check=True, capture_output=True, env=environment, cwd=folder
    )
    seconds, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used, others.share()


def describe(found: dict[str, list[tuple[float, float, float]]], size: int, photos: int) -> Result:
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, Any] = {"model bytes": size, "photos": photos}
    for what, each in found.items():
        seconds, processor, others = (summary(list(column)) for column in zip(*each, strict=True))
        numbers[what] = {"seconds": seconds, "processor": processor, "others": others}
        rows.append((what, f"{seconds['median']:.2f} s", f"{processor['median']:.2f} s", str(seconds["n"])))
    says = [f"{photos} photos of {WIDTH}x{HEIGHT}. The model file has {size / 1e6:.1f} MB. Medians."]
    columns = ("command", "from start to exit", "processor", "n")
    return Result("first_photos", "A folder of photos, from start to exit", columns, rows, says, numbers)


if __name__ == "__main__":
    main()

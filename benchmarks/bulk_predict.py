"""`hangtag predict FOLDER --out ...` against a plain loop of Pillow and ONNX Runtime, from start to exit.

    python -m benchmarks.bulk_predict [--photos 200] [--small 20000] [--rounds 3] [--model MODEL] [--json FILE]
    python -m benchmarks.bulk_predict --rows 1000000    (only the memory of a job of that many small pictures)

hangtag writes one table (a CSV file) or a folder of Parquet shards. Issue 25 asks for --photos 5000 --small 100000. The
peak memory is that of all processes of a command together (proportional set sizes, read every half second).

Photos are generated JPEGs of 12 megapixels with shapes, texture and noise, 3 to 6 MB each; small pictures are PNGs of
28x28. The plain loop opens one picture after the other with Pillow, runs the same model file in ONNX Runtime with its
default threads, and writes a table of labels. It comes in two forms, and the quicker one counts: Pillow resizes, or the
model file does, as hangtag's do. In each round all sides run one after the other on the same files, which are in the
disk's cache. The last column counts labels that differ from hangtag's: Pillow's resizing is not the model's, and
hangtag decodes large JPEGs at reduced size. Without MODEL, the model is the built-in network, untrained, for 64x64
colour and 28x28 grey; it is as quick as a trained one.
"""

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.common import Others, Result, alone, options, ordinary_environment, publish, summary
from PIL import Image

SOURCE = Path(__file__).resolve().parent.parent
SIDES = ("hangtag", "hangtag, shards", "loop, Pillow resizes", "loop, the model resizes")
OURS = 2  # of the sides
DIFFERENT = 12  # generated photos; the others are links to them
MOST_LINKS = 50_000  # to one file

LOOP = """
import csv, json, sys
from pathlib import Path
import numpy as np, onnxruntime
from PIL import Image

model, folder, out, resizes = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
metadata = json.loads(session.get_modelmeta().custom_metadata_map["hangtag"])
names, spec = metadata["class_names"], metadata["image"]
mode = "L" if spec["channels"] == 1 else "RGB"
with open(out, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["file", "label", "probability"])
    for path in sorted(Path(folder).iterdir()):
        picture = Image.open(path).convert(mode)
        if resizes == "Pillow":
            picture = picture.resize((spec["width"], spec["height"]), Image.BILINEAR)
        row = session.run(["probabilities"], {"images": np.asarray(picture)[None]})[0][0]
        writer.writerow([path, names[row.argmax()], row.max()])
"""


@dataclass(frozen=True)
class Took:
    """Seconds from start to exit, processor seconds, share of the machine that others used, labels, peak bytes."""

    seconds: float
    processor: float
    others: float
    labels: dict[str, str]
    memory: int


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a model file or run folder for the photos")
    parser.add_argument("--rows", type=int, help="only measure the memory of a job of this many small pictures")
    settings = parser.parse_args()
    if settings.rows:
        memory_of(settings.rows)
        return
    found: dict[str, dict[str, list[Took]]] = {}
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        place = Path(name)
        sets = {
            f"{settings.photos:,} photos": (photos(place / "photos", settings.photos), model(place, settings.model, 3)),
            f"{settings.small:,} small PNG": (small(place / "small", settings.small), model(place, None, 1)),
        }
        for number in range(settings.rounds):
            for what, (folder, file) in sets.items():
                for side in SIDES:
                    with alone():
                        took = run(side, file, folder, place / "answers.csv")
                    found.setdefault(what, {}).setdefault(side, []).append(took)
                    print(f"round {number}: {what}: {side}: {took.seconds:.2f} s, {took.processor:.2f} s of processor, "
                          f"others {took.others:.0%}", flush=True)  # fmt: skip
            publish(describe(found), settings.json)


def photos(folder: Path, count: int) -> Path:
    """JPEG files of 4000x3000 pixels: soft shapes, texture, and the noise of a sensor."""
    folder.mkdir()
    random = np.random.default_rng(0)

    def layer(height: int, width: int) -> np.ndarray:
        coarse = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        return np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC)).astype(np.int16)

    for number in range(min(count, DIFFERENT)):
        noise = random.integers(-9, 10, (3000, 4000, 1), dtype=np.int16)
        pixels = layer(6, 8) + (layer(300, 400) - 128) // 5 + (layer(1500, 2000) - 128) // 12 + noise
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
        (folder / f"{number:05d}.jpg").write_bytes(file.getvalue())
    for number in range(DIFFERENT, count):
        (folder / f"{number:05d}.jpg").hardlink_to(folder / f"{number % DIFFERENT:05d}.jpg")
    return folder


def memory_of(rows: int) -> None:
    """Print the peak memory of a job, and check that every picture has one row."""
    import pyarrow.parquet

    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        place = Path(name)
        folder = small(place / "few", 1000)
        files, many = sorted(folder.iterdir()), place / "many"
        for number in range(rows):
            below = many / f"{number // 10_000:04d}"
            if number % 10_000 == 0:
                below.mkdir(parents=True)
            if number % MOST_LINKS == 0 and number:
                files = [copied(file, number) for file in files]
            (below / f"{number:08d}.png").hardlink_to(files[number % len(files)])
        took = run("hangtag, shards", model(place, None, 1), many, place / "answers")
        names = pyarrow.parquet.read_table(place / "answers", columns=["file"])["file"].to_pylist()
        print(f"{len(names):,} rows of {len(set(names)):,} pictures in {took.seconds:.0f} s ({took.processor:.0f} s of "
              f"processor, others {took.others:.0%}); peak memory {took.memory / 1e9:.2f} GB")  # fmt: skip
        if sorted(names) != [str(path) for path in sorted(many.rglob("*.png"))]:
            raise SystemExit("rows are missing or doubled")


def copied(file: Path, number: int) -> Path:
    """A copy, for more links than a file can have."""
    copy = file.with_name(f"{file.stem[:6]}-{number}.png")
    copy.write_bytes(file.read_bytes())
    return copy


def small(folder: Path, count: int) -> Path:
    """Grey PNG files of 28x28 pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        blurred = Image.fromarray(random.integers(0, 256, (7, 7), dtype=np.uint8)).resize((28, 28))
        blurred.save(folder / f"{number:06d}.png")
    return folder


def model(folder: Path, given: Path | None, channels: int) -> Path:
    """A model file: the given one, or one of the built-in network."""
    if given is not None:
        return given / "model.onnx" if given.is_dir() else given
    from hangtag.machine import now
    from hangtag.model.artifact import Metadata
    from hangtag.pictures import ImageSpec
    from hangtag.training.engine.build import build_network
    from hangtag.training.engine.export import export_model
    from hangtag.training.engine.recipes import find_recipe

    side, classes, recipe = (64 if channels == 3 else 28), tuple("abcdefghij"), find_recipe("fast")
    spec = ImageSpec(side, side, channels)
    data = {"name": "none", "fingerprint": "0" * 64, "images": 0}
    metadata = Metadata(class_names=classes, image=spec, network=recipe.network, parameters=1, recipe=recipe.to_json(),
                        seed=0, data=data, versions={}, created=now())  # fmt: skip
    path = folder / f"{channels}.onnx"
    path.write_bytes(export_model(build_network(recipe.network, spec, len(classes), 0), metadata))
    return path


def run(side: str, file: Path, folder: Path, out: Path) -> Took:
    """One side in a process of its own, or several, until its table is written."""
    shutil.rmtree(out, ignore_errors=True)
    out.unlink(missing_ok=True)
    environment = ordinary_environment() | {"PYTHONPATH": str(SOURCE / "src")}
    shards = side == "hangtag, shards"
    if side.startswith("hangtag"):
        target = f"{out}/" if shards else str(out)
        command = ["-m", "hangtag", "predict", str(file), str(folder), "--out", target, "--top", "1"]
    else:
        command = ["-c", LOOP, str(file), str(folder), str(out), side.split()[1]]
    others, began, before = Others(), time.perf_counter(), os.times()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=environment)  # fmt: skip
    peak, used_until = 0, began
    while process.poll() is None:
        if time.perf_counter() - used_until > 0.5:
            peak, used_until = max(peak, memory_below(process.pid)), time.perf_counter()
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f"{side} ended with exit status {process.returncode}")
    seconds, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    share = others.share()
    if shards:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(out, columns=["file", "label"])
        labels = dict(zip(table["file"].to_pylist(), table["label"].to_pylist(), strict=True))
    else:
        with out.open(newline="", encoding="utf-8") as file_:
            labels = {row["file"]: row["label"] for row in csv.DictReader(file_)}
    return Took(seconds, used, share, labels, peak)


def memory_below(process: int) -> int:
    """Bytes of memory of a process and those it started, shared pages counted once."""
    total, waiting = 0, [process]
    while waiting:
        place = Path(f"/proc/{waiting.pop()}")
        try:
            waiting += [int(each) for file in place.glob("task/*/children") for each in file.read_text().split()]
            lines = (place / "smaps_rollup").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def describe(found: dict[str, dict[str, list[Took]]]) -> Result:
    rows, says, numbers = [], [], {}
    for what, sides in found.items():
        times = {side: [took.seconds for took in each] for side, each in sides.items()}
        loop = min(SIDES[OURS:], key=lambda side: min(times[side]))
        all_ratios = {
            side: [theirs / ours for theirs, ours in zip(times[loop], times[side], strict=True)]
            for side in SIDES[:OURS]
        }
        ratios = all_ratios["hangtag"]
        ours = sides["hangtag"][0].labels
        for side, each in sides.items():
            differ = sum(ours[file] != label for file, label in each[0].labels.items())
            middle, processor = summary(times[side])["median"], summary([took.processor for took in each])["median"]
            speed = f"{len(ours) / middle:,.0f}/s"
            memory = max(took.memory for took in each) / 1e6
            cells = (f"{middle:.1f} s", speed, f"{processor:.1f} s", f"{memory:,.0f} MB", str(differ))
            rows.append((what, side, *cells))
        for side, values in all_ratios.items():
            says.append(
                f"{what}: {side} is {summary(values)['median']:.2f} times as fast as the quicker loop ({loop})."
            )
        numbers[what] = {
            "seconds": {side: summary(values) for side, values in times.items()},
            "processor": {side: summary([took.processor for took in each]) for side, each in sides.items()},
            "others": {side: [took.others for took in each] for side, each in sides.items()},
            "ratio": summary(ratios),
            "ratio of shards": summary(all_ratios["hangtag, shards"]),
            "memory": {side: max(took.memory for took in each) for side, each in sides.items()},
            "loop": loop,
        }
    columns = ("pictures", "side", "from start to exit", "speed", "processor", "peak memory", "other labels")
    return Result("bulk_predict", "Many pictures, from start to exit", columns, rows, says, numbers)


if __name__ == "__main__":
    main()

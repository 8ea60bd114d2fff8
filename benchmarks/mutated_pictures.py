"""Damaged pictures by the ten thousand: none may stop a reading, crash it, or hold it up.

    python -m benchmarks.mutated_pictures [--count 20000] [--corpus FOLDER] [--json FILE]

Every file format is damaged: bits turned, bytes set, stretches cut out, doubled, filled, the file cut short. With
`--corpus` every file of a folder is read as well, such as the test images in Pillow's source. A worker that dies or
takes more than 5 s at a picture is counted; the picture is set aside, and the reading goes on.
"""

import collections
import io
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from benchmarks.common import Result, in_fresh_process, options, publish
from PIL import Image

SECONDS = 5.0
FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "avif": "AVIF",
    "ppm": "PPM",
}


@dataclass(frozen=True)
class Survived:
    files: int
    decoded: int
    reasons: dict[str, int]
    seconds: float


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--corpus", type=Path, help="also read every file of this folder")
    settings = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        damage(Path(name) / "damaged", settings.count)
        found["damaged"] = in_fresh_process(survive, Path(name) / "damaged", Path(name) / "cache")
        print(found["damaged"], flush=True)
        if settings.corpus:
            collect(settings.corpus, Path(name) / "corpus")
            found["corpus"] = in_fresh_process(survive, Path(name) / "corpus", Path(name) / "cache")
            print(found["corpus"], flush=True)
    publish(describe(found), settings.json)


def damage(folder: Path, count: int) -> None:
    """`count` damaged files and a whole one of each class."""
    random = np.random.default_rng(0)
    whole = {ending: [encoded(random, kind, grey) for grey in (False, True)] for ending, kind in FORMATS.items()}
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        (folder / label / "whole.png").write_bytes(whole["png"][0])
    endings = [*FORMATS]
    for number in range(count):
        ending = endings[number % len(endings)]
        content = mutated(whole[ending][random.integers(2)], random)
        (folder / "ab"[number % 2] / f"{number:06d}.{ending}").write_bytes(content)


def encoded(random: np.random.Generator, kind: str, grey: bool) -> bytes:
    small = random.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((50, 40), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    (image.convert("L") if grey else image).save(buffer, kind)
    return buffer.getvalue()


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """One to eight changes at random places, the beginning more often than the rest."""
    found = bytearray(content)
    for _ in range(int(random.integers(1, 9))):
        size = len(found)
        at = int(random.integers(size) if random.random() < 0.6 else random.integers(min(64, size)))
        length = int(random.integers(1, 17))
        way = int(random.integers(6))
        if way == 0:
            found[at] ^= 1 << int(random.integers(8))
        elif way == 1:
            found[at : at + length] = random.bytes(len(found[at : at + length]))
        elif way == 2:
            del found[at : at + length]
        elif way == 3:
            found[at:at] = found[at : at + length]
        elif way == 4:
            found[at : at + length] = bytes([int(random.choice([0, 255, 127]))]) * len(found[at : at + length])
        elif size > 40:
            del found[max(20, at) :]
        if not found:
            return b"\0"
    return bytes(found)


def collect(corpus: Path, folder: Path) -> None:
    """Every file of a folder, in two classes, under new names."""
    files = sorted(file for file in corpus.rglob("*") if file.is_file())
    for number, file in enumerate(files):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / f"{number:05d}-{file.stem[:40]}.png")


def survive(folder: Path, cache: Path) -> Survived:
    os.environ["XDG_CACHE_HOME"] = str(cache)
    import hangtag
    from hangtag.data.store import process

    process._SECONDS = SECONDS
    began = time.perf_counter()
    data = hangtag.read(folder, size=32)
    reasons = collections.Counter(each.kind for each in data.source.skipped)
    return Survived(
        len(data) + len(data.source.skipped), len(data), dict(reasons.most_common()), time.perf_counter() - began
    )


def describe(found: dict[str, Survived]) -> Result:
    titles = {"damaged": "damaged pictures of eight formats", "corpus": "the corpus"}
    rows = []
    for name, one in found.items():
        died = one.reasons.get("crashes the decoder", 0)
        hung = one.reasons.get("takes too long", 0)
        set_aside = one.files - one.decoded
        cells = (one.files, one.decoded, set_aside, died, hung)
        rows.append((titles[name], *(f"{cell:,}" for cell in cells), f"{one.seconds:.0f}"))
    notes = [
        "Every reading ended by itself, with a reason for each file set aside. Wanted: no crash, nothing over 5 s."
    ]
    return Result(
        "mutated_pictures",
        "Damaged pictures",
        ("files", "in all", "decoded", "set aside", "workers that died", f"over {SECONDS:.0f} s", "seconds"),
        rows,
        notes,
        {name: asdict(one) for name, one in found.items()},
    )


if __name__ == "__main__":
    main()

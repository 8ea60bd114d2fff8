"""Features of images: computed once for each content, kept in the cache, never trusted when damaged."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.data.store import cache
from hangtag.model.artifact import BackboneRecord
from hangtag.training import features
from hangtag.training.engine.backbones import Backbone, compute_features
from hangtag.training.features import cached_features

SIDE = 6


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each call of the backbone."""
    counts = list[int]()

    def counting(backbone: Backbone, images: np.ndarray, *rest: object) -> np.ndarray:
        counts.append(len(images))
        return compute_features(backbone, images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "compute_features", counting)
    return counts


def backbone(factor: float = 1.0) -> Backbone:
    """Its embedding is the left half of the first row, in red and in green."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 20]>
        network (float[N, 3, {SIDE}, {SIDE}] pixels) => (float[N, 6] embedding)
        <int64[3] start = {{0, 0, 0}}, int64[3] end = {{2, 1, 3}}, int64[3] axes = {{1, 2, 3}}, float f = {{{factor}}}>
        {{ part = Slice (pixels, start, end, axes)
           flat = Flatten (part)
           embedding = Mul (flat, f) }}""")
    record = BackboneRecord("test", "", "0" * 64, (0.0,) * 3, (255.0,) * 3)
    return Backbone("test", record, (SIDE, SIDE), model.SerializeToString(), 6, False, 0, None)


def some_images(count: int, seed: int = 0) -> LabelledImages:
    images = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return from_arrays(images, [f"class {number % 2}" for number in range(count)])


def expected(images: np.ndarray) -> np.ndarray:
    return images[:, 0, :3, :2].transpose(0, 2, 1).reshape(len(images), 6) / np.float32(255)


def test_features_are_those_of_the_backbone_and_are_computed_once(computed: list[int]) -> None:
    data = some_images(20)
    first = cached_features(backbone(), data)
    again = cached_features(backbone(), data.take(np.arange(20)[::-1].copy()))

    np.testing.assert_array_equal(first, expected(data.images))
    np.testing.assert_array_equal(again, first[::-1])
    assert computed == [20]


def test_only_new_images_are_computed_and_equal_images_once(computed: list[int]) -> None:
    cached_features(backbone(), some_images(10))
    more = np.concatenate([some_images(10).images, some_images(4, seed=1).images, some_images(4, seed=1).images])

    found = cached_features(backbone(), from_arrays(more, ["a", "b"] * 9))

    np.testing.assert_array_equal(found, expected(more))
    assert computed == [10, 4]


def test_mirrored_images_and_other_backbones_have_their_own_features(computed: list[int]) -> None:
    data = some_images(5)
    plain, mirrored = (cached_features(backbone(), data, mirrored=value) for value in (False, True))
    doubled = cached_features(backbone(2.0), data)

    np.testing.assert_array_equal(mirrored, expected(data.images[:, :, ::-1]))
    np.testing.assert_array_equal(doubled, plain * 2)
    assert computed == [5, 5, 5]


@pytest.mark.parametrize("name", ["features.npy", "contents.npy", "checksums.json"])
def test_a_damaged_entry_is_computed_again(name: str, computed: list[int]) -> None:
    data = some_images(7)
    cached_features(backbone(), data)
    (entry,) = cache.entries()
    content = bytearray((entry.path / name).read_bytes())
    content[-3] ^= 1
    (entry.path / name).write_bytes(content)

    np.testing.assert_array_equal(cached_features(backbone(), data), expected(data.images))
    assert computed == [7, 7]
    assert len(cache.entries()) == 1


def test_features_are_counted_limited_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    cached_features(backbone(), some_images(7))
    (entry,) = cache.entries()
    assert (entry.kind, entry.what) == ("features", "7 images, test")

    monkeypatch.setenv("HANGTAG_CACHE_GB", "0")
    cached_features(backbone(), some_images(3, seed=1))
    (entry,) = cache.entries()
    assert entry.what == "3 images, test"

    assert cache.clear() > 0 and cache.entries() == []


def test_what_an_interruption_leaves_is_used(computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_AT_ONCE", 4)
    data, reports = some_images(10), list[tuple[int, int]]()

    def stop_at_9(_: str, done: int, total: int) -> None:
        reports.append((done, total))
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features(backbone(), data, stop_at_9)

    np.testing.assert_array_equal(cached_features(backbone(), data), expected(data.images))
    assert (computed, reports) == ([4, 4, 2, 2], [(4, 10), (8, 10), (10, 10)])

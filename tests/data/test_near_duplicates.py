"""Nearly the same pictures are found, merely alike ones are not."""

import numpy as np
import pytest

from hangtag import mapped
from hangtag.data import near_duplicates
from hangtag.data.near_duplicates import Pairs, groups_of, near_pairs
from pictures import changed, textured


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("kind", ["jpeg", "shift", "brightness", "crop"])
def test_each_kind_of_near_duplicate_is_found_and_nothing_else(kind: str, side: int) -> None:
    images = textured(300, side)
    copies = np.stack([changed(images[position], kind) for position in range(20)])

    pairs = near_pairs(np.concatenate([images, copies]))

    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    wanted = {(position, 300 + position) for position in range(20)}
    assert len(found & wanted) >= 19 and not found - wanted


def test_other_colours_are_another_picture() -> None:
    grey = textured(100, 32)
    images = np.repeat(grey[..., None], 3, axis=3)
    red = images[:5].copy()
    red[..., 1:] //= 3
    same = np.roll(images[5:10], 1, axis=1)

    pairs = near_pairs(np.concatenate([images, red, same]))

    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == {(n, 100 + n) for n in range(5, 10)}


def test_two_clocks_at_other_times_are_two_pictures() -> None:
    y, x = np.mgrid[0:64, 0:64] - 31.5
    distance = np.hypot(y, x)
    face = np.where(distance < 30, np.where(distance > 25, 90, 220), 255).astype(np.uint8)
    six, twelve = face.copy(), face.copy()
    six[31:50, 30:33] = twelve[12:31, 30:33] = 60
    images = np.concatenate([textured(100, 64), [six, twelve, changed(six, "jpeg")]])

    pairs = near_pairs(images)

    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == {(100, 102)}


def test_blank_and_equal_images_are_in_no_pair() -> None:
    blank = np.full((50, 28, 28), 7, np.uint8)
    some = textured(30)

    pairs = near_pairs(np.concatenate([blank, some, some[:3]]))

    assert len(pairs) == 0
    assert len(near_pairs(blank)) == len(near_pairs(some[:1])) == len(near_pairs(some[:0])) == 0


def test_a_set_that_is_worked_out_in_files_and_parts_has_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = textured(300)
    images = np.concatenate([images, images[:3], *([changed(each, "shift")] for each in images[:40])])
    expected = near_pairs(images)
    monkeypatch.setattr(mapped, "_IN_MEMORY", 0)
    monkeypatch.setattr(near_duplicates, "_MOST_PAIRS", 20)
    monkeypatch.setattr(near_duplicates, "_PICTURES_AT_ONCE", 100)
    monkeypatch.setattr(near_duplicates, "_PIXELS_AT_ONCE", 50_000)
    shuffled = np.random.default_rng(0).permutation(len(images))

    found = near_pairs(mapped.MappedRows(images[shuffled], np.argsort(shuffled)))

    assert len(expected) >= 38
    np.testing.assert_array_equal(found.first, expected.first)
    np.testing.assert_array_equal(found.second, expected.second)
    np.testing.assert_allclose(found.certainty, expected.certainty, atol=1e-5)


def test_the_bound_misses_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 16)
    monkeypatch.setattr(near_duplicates, "_COLUMNS_AT_ONCE", 100)
    monkeypatch.setattr(near_duplicates, "_CHECKED_AT_ONCE", 50)
    monkeypatch.setattr(near_duplicates, "_LIKE", 0.3)
    monkeypatch.setattr(near_duplicates, "_MOST_LIKE", 1000)
    most = (0.25, 0.2)
    monkeypatch.setattr(near_duplicates, "_AWAY", most[0])
    monkeypatch.setattr(near_duplicates, "_AWAY_FROM_MIDDLE", most[1])
    small, every = textured(300).astype(np.float32), np.arange(300)
    *described, order = near_duplicates._descriptors(small, every, None)
    whole, middle = (np.c_[each.front[:, 1:], each.back].astype(np.float64) for each in described)
    place, of_middle = (each.place.reshape(8, -1)[:, :300] for each in described)
    cosines = [whole @ whole.T, whole @ middle.T]
    away = [np.linalg.norm(place[:, :, None] - each[:, None], axis=0) for each in (place, of_middle)]
    near = [cosine * (distance <= limit) for cosine, distance, limit in zip(cosines, away, most, strict=True)]

    first, second = near_duplicates._candidates(small, every, None)

    def pairs(likeness: np.ndarray) -> set[tuple[int, int]]:
        ends = order[np.argwhere((np.maximum(likeness, likeness.T) > 0.3) & ~np.eye(300, dtype=bool))]
        return {(low, high) for low, high in ends.tolist() if low < high}

    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(found) == len(first)
    assert len(pairs(np.maximum(*near))) > 100
    assert pairs(np.maximum(*near)) <= found <= pairs(np.maximum(*cosines))
    assert len(found) < len(pairs(np.maximum(*cosines)))  # far blocks are not compared


def test_a_fit_is_the_best_correlation_of_sampled_edges() -> None:
    def edges(picture: np.ndarray) -> np.ndarray:
        return np.concatenate([np.diff(picture, axis=0).ravel(), np.diff(picture, axis=1).ravel()])

    small = textured(8).astype(np.float32)
    moved, fixed = small[:4], small[4:]
    zooms = [near_duplicates._sampled(zoom) for zoom in near_duplicates._ALL_ZOOMS]

    lengths = near_duplicates._lengths(moved)
    targets = near_duplicates._edges_of(fixed)

    column = 0
    for sampled in zooms:
        found = near_duplicates._products(moved, targets, sampled, sampled)
        for place, (down, across) in enumerate((i, j) for i in sampled for j in sampled):
            for number in range(4):
                wanted = np.corrcoef(edges(down @ moved[number] @ across.T), edges(fixed[number, 2:-2, 2:-2]))[0, 1]
                assert found[number, place] / lengths[number, column] == pytest.approx(wanted, abs=2e-6)
            column += 1
    rough = near_duplicates._sampled(None)
    for place, (down, across) in enumerate((i, j) for i in rough for j in rough):
        assert lengths[0, column + place] == pytest.approx((down @ moved[0] @ across.T).std() * 24, rel=1e-5)
    assert lengths.shape == (4, column + 9)


def test_a_large_set_is_compared_within_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    images = textured(400)
    images = np.concatenate([images, *([changed(each, "jpeg")] for each in images[:40])])
    expected = near_pairs(images)
    monkeypatch.setattr(near_duplicates, "_WINDOW", 120)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 32)

    found = near_pairs(images)

    assert len(expected) == 40
    assert 36 <= len(found) <= 40
    assert {*zip(found.first, found.second, strict=True)} <= {*zip(expected.first, expected.second, strict=True)}


def test_groups_connect_pairs_and_do_not_grow_without_end() -> None:
    chain = np.arange(199)
    few = Pairs(np.array([0, 1, 5]), np.array([1, 2, 6]), np.array([0.9, 0.9, 0.9]))

    groups = groups_of(8, few)
    long = groups_of(200, Pairs(chain, chain + 1, np.linspace(1, 0.9, 199)))

    assert len({*groups[[0, 1, 2]]}) == 1 and len({*groups[[5, 6]]}) == 1
    assert len({groups[0], groups[5], groups[3], groups[7]}) == 4
    assert np.bincount(long).max() <= 50

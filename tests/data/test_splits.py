"""Held-out images: every class in its share, decided by the seed alone."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from hangtag.data import splits
from hangtag.data.folds import folds_of
from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.data.read import read
from hangtag.data.splits import BURST_NOTE, bursts, kept_together, split_of, stratified
from hangtag.errors import UsageError

a_few_labels = arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 6))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(labels=a_few_labels, fraction=st.floats(0, 0.99), seed=st.integers(0, 2**32))
def test_every_image_is_on_one_side_and_every_class_in_its_share(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> None:
    split = stratified(labels, fraction, seed)

    together = np.concatenate([split.train, split.validation])
    assert sorted(together) == list(range(len(labels)))
    assert np.all(np.diff(split.train) > 0) and np.all(np.diff(split.validation) > 0)
    assert {split.train.dtype, split.validation.dtype} == {np.dtype(np.int64)}
    for name in np.unique(labels):
        members = int((labels == name).sum())
        held_out = int((labels[split.validation] == name).sum())
        wanted = min(max(1, round(members * fraction)), members - 1) if fraction else 0
        assert held_out == wanted


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(labels=a_few_labels, seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_split(labels: NDArray[np.int64], seed: int) -> None:
    first, second = stratified(labels, 0.3, seed), stratified(labels.copy(), 0.3, seed)

    np.testing.assert_array_equal(first.validation, second.validation)


def test_another_seed_gives_another_split() -> None:
    labels = np.repeat(np.arange(5), 40)
    splits = {stratified(labels, 0.2, seed).validation.tobytes() for seed in range(20)}

    assert len(splits) == 20


@pytest.mark.parametrize("seed", range(5))
def test_pictures_in_another_order_and_groups_of_other_numbers_are_split_alike(seed: int) -> None:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (90, 8, 8), dtype=np.uint8)
    labels, groups = np.arange(90) % 3, np.arange(90) // 2
    images[10] = images[13]  # equal ones, too
    data = LabelledImages(images, labels, ("a", "b", "c"), groups=groups)
    shuffle, number = random.permutation(90), random.permutation(1000)
    other = LabelledImages(images[shuffle], labels[shuffle], ("a", "b", "c"), groups=number[groups[shuffle]])

    (_, first), (_, second) = split_of(data, 0.2, seed=0), split_of(other, 0.2, seed=0)

    assert first.fingerprint == second.fingerprint != ""
    chosen = [{data.images[at].tobytes() for at in places} for places in (first.validation, shuffle[second.validation])]
    assert chosen[0] == chosen[1]
    assert split_of(data, 0.2, seed=1)[1].fingerprint != first.fingerprint


def test_a_split_in_json_is_its_sizes() -> None:
    assert stratified(np.arange(20) % 2, 0.2, seed=0).to_json() == {"train": 16, "validation": 4}


def test_splitting_leaves_the_global_random_state_alone() -> None:
    before = repr(np.random.get_state())

    stratified(np.arange(20) % 2, 0.2, seed=0)

    assert repr(np.random.get_state()) == before


@pytest.mark.parametrize(
    ("labels", "fraction", "train", "validation"),
    [
        ([0], 0.5, [0], []),
        ([0, 1, 2], 0.9, [0, 1, 2], []),
        ([0, 0], 0.01, 1, 1),
        ([0, 0], 0.99, 1, 1),
        ([0, 0, 1], 0.5, 2, 1),
        ([0, 0, 1, 1], 0.0, [0, 1, 2, 3], []),
    ],
)
def test_tiny_classes_keep_an_image_to_train_on(
    labels: list[int], fraction: float, train: list[int] | int, validation: list[int] | int
) -> None:
    split = stratified(np.array(labels), fraction, seed=3)

    found = [
        side.tolist() if isinstance(wanted, list) else len(side)
        for side, wanted in ((split.train, train), (split.validation, validation))
    ]
    assert found == [train, validation]


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan"), float("inf")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError) as caught:
        stratified(np.array([0, 1]), fraction, seed=0)

    assert str(caught.value) == (
        f"the validation fraction must be at least 0 and below 1, got {fraction} (0.1 holds out a tenth)"
    )


def test_a_set_too_large_to_look_for_nearly_equal_pictures_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    data = from_arrays(images, np.arange(40) % 2)
    said = split_of(data, 0.2, seed=0)[1].to_json()
    assert (said["train"], said["validation"], "notes" in said) == (32, 8, False)
    monkeypatch.setattr(splits, "_MOST_COMPARED", 39)

    found = split_of(data, 0.2, seed=0)[1].to_json()

    assert found["notes"] == [
        "more than 39 images: identical images stay on one side of the split, but nearly identical ones were not "
        "searched for; if there are many, keep them together with --group-by"
    ]


@pytest.mark.parametrize("is_given", [False, True])
def test_equal_images_of_a_class_are_held_out_once(is_given: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8).repeat(25, axis=0)
    parts = {"train": np.arange(500), "validation": np.arange(500, 1000)} if is_given else {}
    data = LabelledImages(images, np.repeat(np.arange(40) % 2, 25), ("a", "b"), parts=parts)

    both, split = split_of(data, 0.25, seed=0)

    held_out = both.contents[split.validation]
    assert len(held_out) == len(np.unique(held_out, axis=0)) == (20 if is_given else 10)
    left_out = 480 if is_given else 240
    assert split.notes == (
        f"left {left_out} repeated images out of the validation images: equal images of a class count once",
    )


def test_equal_images_of_two_classes_are_both_held_out() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8).repeat(2, axis=0)
    data = LabelledImages(images, np.arange(60) % 2, ("a", "b"))

    _, split = split_of(data, 0.2, seed=0)

    assert len(split.validation) >= 10 and split.notes == ()


def photo(seconds: float | None, camera: str = "A phone") -> bytes:
    """A JPEG of noise that says when it was taken."""
    exif = Image.Exif()
    if seconds is not None:
        exif[0x0110] = camera
        whole, milliseconds = divmod(round(1000 * seconds), 1000)
        moment = f"2026:01:02 03:{whole // 60:02d}:{whole % 60:02d}"
        exif.get_ifd(0x8769).update({0x9003: moment, 0x9291: f"{milliseconds:03d}"})
    random = np.random.default_rng(None if seconds is None else round(1000 * seconds))
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_photos_of_a_burst_are_held_out_together(tmp_path: Path) -> None:
    moments = {"cat": [0, 1.5, 3.4, 9, 20, 30.5], "dog": [4, 40, 50, 60, 70, None]}
    for label, seconds in moments.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number, moment in enumerate(seconds):
            (tmp_path / "photos" / label / f"{number}.jpg").write_bytes(photo(moment))
    (tmp_path / "photos" / "cat" / "another.jpg").write_bytes(photo(0.5, "Another phone"))

    data = read(tmp_path / "photos")
    groups = kept_together(data)
    _, split = split_of(data, 0.3, seed=0)

    assert groups is not None
    of = {Path(name).stem if "cat" in name else "dog": group for name, group in zip(data.names, groups, strict=True)}
    assert of["0"] == of["1"] == of["2"]
    assert len(set(groups)) == len(data) - 2  # the other camera, and every other moment, are on their own
    assert BURST_NOTE in split.notes
    assert BURST_NOTE not in split_of(replace(data, groups=np.arange(len(data))), 0.3, seed=0)[1].notes


def test_photos_without_times_are_no_burst(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}.jpg").write_bytes(photo(None))
    (tmp_path / "a" / "odd.jpg").write_bytes(photo(1).replace(b"2026:01:02 ", b"0000:00:00 "))

    data = read(tmp_path)

    assert bursts(data) is None
    assert not any(BURST_NOTE in notes for notes in (split_of(data, 0.3, seed=0)[1].notes, folds_of(data, 2, 0).notes))

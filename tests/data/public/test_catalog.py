"""The public sets' facts agree with each other and with what their makers say."""

import re

import pytest

from hangtag.data.public.catalog import NAMED, NamedSet

WITH_FILES = [each for each in NAMED.values() if each.files]


def test_each_set_is_found_by_its_name() -> None:
    assert list(NAMED) == [
        "fashion-mnist", "mnist", "kmnist", "emnist-letters", "emnist-balanced", "cifar10", "cifar100", "digits",
    ]  # fmt: skip
    assert all(name == each.name for name, each in NAMED.items())


@pytest.mark.parametrize("each", NAMED.values(), ids=lambda each: each.name)
def test_class_names_are_distinct(each: NamedSet) -> None:
    assert len(set(each.class_names)) == len(each.class_names)
    assert all(name == name.strip() != "" for name in each.class_names)


def test_classes_are_those_of_the_makers() -> None:
    assert NAMED["mnist"].class_names == NAMED["digits"].class_names == tuple("0123456789")
    assert NAMED["kmnist"].class_names == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    assert "".join(NAMED["emnist-letters"].class_names) == "abcdefghijklmnopqrstuvwxyz"
    assert "".join(NAMED["emnist-balanced"].class_names) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
    assert (NAMED["cifar10"].class_names[0], NAMED["cifar10"].class_names[9]) == ("airplane", "truck")
    assert len(NAMED["cifar100"].class_names) == 100
    assert list(NAMED["cifar100"].class_names) == sorted(NAMED["cifar100"].class_names)


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("fashion-mnist", 60_000, 10_000), ("mnist", 60_000, 10_000), ("kmnist", 60_000, 10_000),
        ("emnist-letters", 124_800, 20_800), ("emnist-balanced", 112_800, 18_800),
        ("cifar10", 50_000, 10_000), ("cifar100", 50_000, 10_000),
    ],
)  # fmt: skip
def test_parts_have_the_published_sizes(name: str, train: int, test: int) -> None:
    each = NAMED[name]

    assert each.parts == {"train": slice(0, train), "test": slice(train, train + test)}
    assert not each.labels or sum(file.items for file in each.labels) == train + test
    if each.balanced:
        assert train % len(each.class_names) == test % len(each.class_names) == 0


def test_a_set_that_nobody_divided_has_no_parts() -> None:
    assert (NAMED["digits"].parts, NAMED["digits"].downloads) == ({}, ())


@pytest.mark.parametrize("each", WITH_FILES, ids=lambda each: each.name)
def test_every_file_and_archive_has_a_checksum_and_a_place(each: NamedSet) -> None:
    sums = [file.sha256 or file.packed_sha256 for file in each.files]
    sums += [each.archive.sha256] if each.archive else []

    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in sums)
    assert all(re.fullmatch("https?://.*/", mirror) for mirror in each.mirrors) and each.mirrors
    assert each.downloads


def test_no_two_files_share_a_checksum() -> None:
    sums = [file.sha256 or file.packed_sha256 for each in WITH_FILES for file in each.files]

    assert len(set(sums)) == len(sums)

"""mapped.py: rows of a file without the rest of it; training from a file ends with the bits of training from memory."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from hangtag.data.labelled_images import from_arrays
from hangtag.errors import SaveError
from hangtag.mapped import MappedRows, as_slice, forget, mapping_of, rows_of, scratch
from hangtag.training import classifier as classifier_module
from hangtag.training import fit_input
from hangtag.training.estimator import ImageClassifier
from toys import quick_recipe, shapes


def in_a_file(folder: Path, count: int = 300) -> np.ndarray:
    np.save(folder / "images.npy", shapes(count)[0])
    mapped: np.ndarray = np.load(folder / "images.npy", mmap_mode="r")
    return mapped


def test_rows_come_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    images, mapped = shapes(300)[0], in_a_file(tmp_path)
    wanted = np.array([250, 3, 3, 100])

    assert np.array_equal(rows_of(mapped, wanted), images[wanted])
    rows = MappedRows(mapped, wanted)
    assert (len(rows), rows.shape, rows.ndim, rows.nbytes) == (4, (4, 8, 8), 3, 256)
    assert np.array_equal(rows[1:3], images[[3, 3]])
    assert np.array_equal(rows[np.array([3, 0])], images[[100, 250]])


def test_only_positions_in_a_row_are_a_slice() -> None:
    assert as_slice(np.array([4])) == slice(4, 5) and as_slice(np.arange(3, 9)) == slice(3, 9)
    for others in ([], [3, 5], [5, 4], [3, 3], [-2, -1], [False, True]):
        positions = np.array(others)
        assert as_slice(positions) is positions


def test_a_mapped_file_is_known_through_its_views_and_only_when_read_only(tmp_path: Path) -> None:
    mapped = in_a_file(tmp_path)

    assert mapping_of(np.asarray(mapped)[10:20]) is not None
    assert mapping_of(np.array(mapped)) is None
    assert mapping_of(np.load(tmp_path / "images.npy", mmap_mode="c")) is None
    forget(mapped)
    assert np.array_equal(mapped, shapes(300)[0])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_what_was_read_is_given_back(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.ones((20_000, 64, 64), np.uint8))  # 82 MB
    mapped = np.load(tmp_path / "large.npy", mmap_mode="r")

    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = held()
    for start in range(0, 20_000, 1000):
        rows_of(mapped, np.arange(start, start + 1000))
    assert held() - before < 30e6


def test_a_large_scratch_array_lies_in_a_file_that_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small, large = scratch((3, 4)), scratch((20_000, 1000))  # 80 MB
    large[19_999] = np.arange(1000)

    assert not isinstance(small, np.memmap) and isinstance(large, np.memmap)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    np.testing.assert_array_equal(rows_of(large, np.array([19_999, 0])), [np.arange(1000), np.zeros(1000)])


def test_training_from_a_file_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = shapes(300)
    mapped = in_a_file(tmp_path)
    one = ImageClassifier(recipe=quick_recipe()).fit(from_arrays(images, labels))
    monkeypatch.setattr(fit_input, "_IN_MEMORY", 0)
    seen: list[type] = []
    inner = classifier_module.train
    monkeypatch.setattr(
        classifier_module,
        "train",
        lambda network, part, *more: (seen.append(type(part)), inner(network, part, *more))[1],
    )

    other = ImageClassifier(recipe=quick_recipe()).fit(from_arrays(mapped, labels))

    assert seen == [MappedRows]
    pairs = zip(one.network_.parameters(), other.network_.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_scratch_array_without_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to a mapped file on a full disk would end the process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, hard))
    try:
        with pytest.raises(SaveError, match="the disk is full"):
            scratch((100_000_000,), np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

"""Archives and tables from strangers: what is in them is read or named, within limits; changed files are noticed."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from hangtag.data.read import read
from hangtag.data.store import containers
from hangtag.data.store.containers import Listing, ParquetColumn, Sample, archive_listing, settle, stamp_of
from hangtag.data.store.pool import Pool
from hangtag.errors import DataError, SaveError
from hangtag.pictures import ImageSpec
from pictures import encoded, photo


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(number: int) -> bytes:
    return encoded(Image.fromarray(photo(number, 16, 16)), "x.bmp")  # all of the same length


def two_classes(first: int = 0) -> dict[str, bytes]:
    return {f"{label}/{number}.bmp": picture(first + number) for number, label in enumerate("ababab")}


def tar_file(path: Path, members: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in more:
            tar.addfile(member)
    return path


def zip_file(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return path


def folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def parquet_file(path: Path, members: dict[str, bytes]) -> Path:
    labels = [name[0] for name in members]
    table = pyarrow.table({"image": list(members.values()), "label": labels})
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    return path


FORMS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "set.tar": tar_file, "set.zip": zip_file, "set": folder, "set.parquet": parquet_file,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_content_with_the_same_size_and_times_is_noticed(form: str, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path / form, two_classes())
    files = sorted(each for each in [path, *path.rglob("*")] if each.is_file())
    before = [each.stat() for each in files]
    first = read(path)

    FORMS[form](tmp_path / form, two_classes(first=50))
    for each, status in zip(files, before, strict=True):
        os.utime(each, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert each.stat().st_size == status.st_size
    second = read(path)

    assert second.fingerprint != first.fingerprint
    assert second.fingerprint == read(FORMS[form](tmp_path / f"other {form}", two_classes(first=50))).fingerprint


def test_an_unchanged_archive_is_not_even_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar_file(tmp_path / "set.tar.gz", two_classes(), mode="w:gz")
    first = read(path)
    monkeypatch.setattr(containers, "_decompress", lambda *arguments: pytest.fail("unpacked again"))

    assert read(path).fingerprint == first.fingerprint


def test_an_archive_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar_file(tmp_path / "set.tar", two_classes())
    decode = Pool.decode

    def slow(self: Pool, *arguments: Any) -> Any:
        if arguments[1] is not None:  # after the size was chosen
            tar_file(path, two_classes(first=50))
        return decode(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "decode", slow)
        with pytest.raises(DataError, match="the file changed while it was read"):
            read(path)

    assert read(path).fingerprint == read(tar_file(tmp_path / "new.tar", two_classes(first=50))).fingerprint


def test_where_times_cannot_be_true_the_content_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    status = path.stat()
    assert (
        stamp_of(path, status) == stamp_of(path, status) == f"{status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
    )

    monkeypatch.setattr(containers.time, "time_ns", lambda: status.st_ctime_ns - 1)
    one = stamp_of(path, status)
    path.write_bytes(b"two")

    assert stamp_of(path, status) != one


def test_a_file_system_with_coarse_times_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(containers.time, "sleep", waits.append)
    monkeypatch.setattr(containers.time, "time_ns", lambda: 100_500_000_000)

    for newest in (100_000_000_000, 100_123_456_789, 98_000_000_000, 101_000_000_000):
        settle(newest)

    assert waits == [1.5]


def header(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, len(content) if size is None else size
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "end",
    [
        header(b"L", b"name") * 5000, header(b"g", b"12 a=bcdefg\n") * 5000, header(b"x", b"", 3 << 30),
        header(b"x", b"", -2048), b"no header" + bytes(503), header(b"L", b"", 10**9),
    ],
    ids=["5000 long names", "5000 pax headers", "a huge pax header", "a negative size", "no header", "a huge name"],
)  # fmt: skip
def test_a_tar_file_with_hostile_headers_is_damaged(end: bytes, tmp_path: Path) -> None:
    path = tar_file(tmp_path / "a.tar", two_classes())
    with tarfile.open(path) as tar:
        tar.getmembers()
        offset = tar.offset
    path.write_bytes(path.read_bytes()[:offset] + end + bytes(1024))

    with pytest.raises(DataError, match=r"a.tar: damaged or incomplete tar file: invalid header at byte [\d,]+"):
        read(path)


def test_links_names_and_nested_archives_in_a_tar_file(tmp_path: Path) -> None:
    kinds = {"a/hard.bmp": tarfile.LNKTYPE, "a/soft.bmp": tarfile.SYMTYPE, "a/pipe.bmp": tarfile.FIFOTYPE}
    more = [tarfile.TarInfo(name) for name in kinds]
    for member in more:
        member.type, member.linkname = kinds[member.name], "b/1.bmp"
    twice = {**two_classes(), "./b/1.bmp": picture(9), "/b/7.bmp": picture(7), "b/inner.zip": b"PK"}

    data = read(tar_file(tmp_path / "a.tar", twice, *more))

    images = dict(zip(data.names, data.images, strict=True))
    np.testing.assert_array_equal(images["a/hard.bmp"], photo(9, 16, 16))
    np.testing.assert_array_equal(images["b/1.bmp"], photo(1, 16, 16))
    np.testing.assert_array_equal(images["b/1 (2).bmp"], photo(9, 16, 16))
    assert {each.name: each.kind for each in data.source.skipped} == {
        "a/soft.bmp": "link", "a/pipe.bmp": "not a file", "/b/7.bmp": "name outside", "b/inner.zip": "archive",
    }  # fmt: skip
    assert "several members of the same name; all are read: 1 member got a new name" in data.source.notes[0]


@pytest.mark.parametrize("form", ["set.tar", "set.zip"])
def test_data_after_the_end_is_noted(form: str, tmp_path: Path) -> None:
    one, two = (FORMS[form](tmp_path / f"{name} {form}", two_classes(first)) for name, first in (("1", 0), ("2", 9)))
    (tmp_path / form).write_bytes(one.read_bytes() + two.read_bytes())

    (note,) = read(tmp_path / form).source.notes

    assert note.endswith("is it two files in one?")
    assert read(one).source.notes == ()


def test_a_zip_file_with_old_names_twice_and_with_backslashes(tmp_path: Path) -> None:
    names = {"b\\xx.bmp": "b\\Жж.bmp", "a/yyy.bmp": "a/кот.bmp"}  # of the same length in CP866
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        for number, name in enumerate([*names, "b/5.bmp", "b/5.bmp"]):
            member = zipfile.ZipInfo(name)
            member.filename = name  # ZipInfo would write a slash
            packed.writestr(member, picture(number))
    content = (tmp_path / "a.zip").read_bytes()
    for name, new in names.items():
        content = content.replace(name.encode(), new.encode("cp866"))
    (tmp_path / "a.zip").write_bytes(content)

    data = read(tmp_path / "a.zip")

    assert set(data.names) == {"b/5.bmp", "b/5 (2).bmp", "b/Жж.bmp", "a/кот.bmp"}
    for number, name in enumerate(["b/Жж.bmp", "a/кот.bmp", "b/5.bmp", "b/5 (2).bmp"]):
        np.testing.assert_array_equal(data.images[list(data.names).index(name)], photo(number, 16, 16))
    assert any("they were read as cp866" in note for note in data.source.notes)
    assert any("several members of the same name" in note for note in data.source.notes)


def test_a_zip_file_of_much_from_little_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(30):
            packed.writestr(f"{'ab'[number % 2]}/{number}.png", bytes(3_900_000))

    with pytest.raises(DataError, match="unpacks to over 200 times its size"):
        read(path)


def test_a_zip_member_that_is_longer_than_it_says_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in two_classes().items():
            packed.writestr(name, content)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as packed:
        start = packed.start_dir
    struct.pack_into("<I", content, start + 24, 100)  # the first member's size in the directory
    path.write_bytes(content)

    data = read(path)

    assert [(each.name, each.kind) for each in data.source.skipped] == [("a/0.bmp", "damaged")]


def test_a_full_disk_while_unpacking_is_not_the_archives_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_file(tmp_path / "a.tar", two_classes()).read_bytes()))

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(containers, "write_all", full)
    with pytest.raises(SaveError, match="the disk is full"):
        archive_listing(path, tmp_path / "unpacked")


def test_names_apart_do_not_meet_other_names() -> None:
    listing = Listing()
    for name in ("a/1.png", "a/1.png", "a/1 (2).png", "a/1.png", "b"):
        listing.entries.append(containers.ListedFile(name, 0, "", 0))

    listing.name_apart()

    assert [entry.name for entry in listing.entries] == ["a/1.png", "a/1 (3).png", "a/1 (2).png", "a/1 (4).png", "b"]


def test_a_large_row_group_is_read_once_and_in_bounded_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [os.urandom(400_000) for _ in range(120)]
    pyarrow.parquet.write_table(pyarrow.table({"image": contents}), tmp_path / "a.parquet", compression="none")
    column = ParquetColumn([str(tmp_path / "a.parquet")], "image", None)
    sizes: list[int] = []
    monkeypatch.setattr(column, "alive", lambda: sizes.append(column._batch.nbytes))

    for row in (0, 1, 5, 50, 119):
        assert column.content((0, 0, row)) == contents[row]

    assert max(sizes) <= 17_000_000
    assert sum(sizes) <= 1.01 * 120 * 400_000
    assert column.content((0, 0, 7)) == contents[7]  # an earlier one is found as well


def test_a_row_group_goes_to_one_process(tmp_path: Path) -> None:
    samples = [Sample(f"row {row}", 0, [0, row // 10, row % 10]) for row in range(200)]
    from hangtag.data.store.pool import _Job

    job = _Job(samples, [ParquetColumn(["x"], "image", None)], ImageSpec(8, 8), tmp_path, [], None)
    job.remaining = list(range(200))[::-1]

    assert job._next_rows(1, 2) == list(range(10))
    assert job._next_rows(512, 2) == list(range(10, 20))
    job.remaining = list(range(180, 200))[::-1]
    assert job._next_rows(1, 2) == [180, 181, 182, 183, 184]  # towards the end, all share


def test_a_table_of_one_row_group_is_read_right(tmp_path: Path) -> None:
    path = parquet_file(
        tmp_path / "a.parquet", {f"{'ab'[number % 2]}{number}": picture(number) for number in range(90)}
    )

    data = read(path)

    for name, image in zip(data.names, data.images, strict=True):
        np.testing.assert_array_equal(image, photo(int(name.split()[1]) - 1, 16, 16))


def test_a_pipe_in_a_table_is_set_aside_and_not_waited_for(tmp_path: Path) -> None:
    folder(tmp_path, two_classes())
    os.mkfifo(tmp_path / "pipe.bmp")
    rows = [f"{name},{name[0]}" for name in two_classes()] + ["pipe.bmp,a"]
    (tmp_path / "table.csv").write_text("\n".join(["file,label", *rows]))

    with Pool([containers.Folder(str(tmp_path))], 1) as pool:
        (tmp_path / "out").mkdir()
        found = pool.decode([Sample("pipe.bmp", 0, "pipe.bmp")], ImageSpec(16, 16), tmp_path / "out")

    assert [each.reason for each in found.skipped] == ["a device, pipe or folder"]

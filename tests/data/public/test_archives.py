"""Packed files are read in memory, within a limit; a damaged one is an error and not a surprise."""

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from hangtag.data.public.archives import content_of, gunzip, members_of, sha256_of
from hangtag.errors import DataError
from toys import tar_of, zip_of

FILES = {"set/a.bin": b"aaaa" * 50, "set/b.bin": os.urandom(3000), "set/notes.txt": b"hello"}
WANTED = ["set/a.bin", "set/b.bin"]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_wanted_members_are_read_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: object
) -> None:
    assert callable(pack)
    path = written(tmp_path, pack({"../evil": b"x", "/evil": b"x", **FILES}))
    monkeypatch.chdir(tmp_path)

    found = members_of(path, [*WANTED, "set/none.bin"])

    assert found == {name: FILES[name] for name in WANTED}
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert [each.name for each in tmp_path.parent.iterdir() if "evil" in each.name] == []


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_no_more_of_a_file_is_read_than_asked_for(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    content = pack(b"0123456789")

    assert content_of(written(tmp_path, content), 4) == gunzip(content, 4, "here") == b"0123"


def test_a_small_tar_of_very_much_is_left_off(tmp_path: Path) -> None:
    path = written(tmp_path, tar_of({"zeros": bytes(30_000_000), **FILES}))

    with pytest.raises(DataError, match="unpacks to over 200 times its size"):
        members_of(path, WANTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of(FILES)[:2000], "damaged or incomplete zip file"),
        (zip_of(FILES).replace(FILES["set/b.bin"][:2000], bytes(2000)), "set/b.bin: damaged in the zip file"),
        (tar_of(FILES)[:2000], "damaged or incomplete tar file"),
        (gzip.compress(b"no tar at all"), "damaged or incomplete tar file"),
        (b"Rar!", "not an archive that hangtag can read"),
        (b"", "not an archive that hangtag can read"),
    ],
    ids=["cut zip", "changed zip", "cut tar", "no tar", "another kind", "empty"],
)
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, content)

    with pytest.raises(DataError) as caught:
        members_of(path, WANTED)

    assert caught.value.message.startswith(f"{path}: {message}")
    assert caught.value.hint


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for read in (lambda: content_of(tmp_path, 1), lambda: members_of(tmp_path / "no", []), lambda: sha256_of(tmp_path)):
        with pytest.raises(DataError, match="cannot be read"):
            read()


def test_a_checksum_is_of_the_file_as_it_lies_there(tmp_path: Path) -> None:
    packed = gzip.compress(b"x")

    assert sha256_of(written(tmp_path, packed)) == hashlib.sha256(packed).hexdigest()

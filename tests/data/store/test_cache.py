"""What is kept: found again, noticed when its source changed, bounded, and never in the way when damaged."""

import hashlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hangtag.data.folder_layout import Choose
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.read import read
from hangtag.data.store import cache
from hangtag.data.store.pool import Pool
from hangtag.errors import UsageError
from hangtag.pictures import ImageSpec
from pictures import encoded, photo


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def a_set(root: Path, count: int = 4, first: int = 0) -> Path:
    for number in range(first, first + count):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(photo(number, 20, 20)), "x.png"))
    return root


def entry_of(data: LabelledImages) -> Path:
    assert isinstance(data.names, cache.LazyNames)
    return data.names.path.parent


def test_a_known_folder_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = a_set(tmp_path / "set")
    first = read(root)
    for started in ("start", "decode"):
        monkeypatch.setattr(Pool, started, lambda *arguments: pytest.fail("decoded again"))

    again = read(root)

    assert (again.fingerprint, list(again.names), again.source.description) == (
        first.fingerprint, list(first.names), first.source.description,
    )  # fmt: skip
    assert isinstance(again.images.base, np.memmap) or isinstance(again.images, np.memmap)


def test_an_edited_file_is_noticed(tmp_path: Path) -> None:
    root = a_set(tmp_path / "set")
    first = read(root)
    path = root / "a" / "0.png"
    before = path.stat()
    path.write_bytes(encoded(Image.fromarray(photo(99, 20, 20)), "x.png"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    second = read(root)

    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(second.images[list(second.names).index("a/0.png")], photo(99, 20, 20))


@pytest.mark.parametrize("harm", ["cut", "version", "index", "facts", "empty"])
def test_a_damaged_entry_is_made_again(harm: str, tmp_path: Path) -> None:
    root = a_set(tmp_path / "set")
    first = read(root)
    entry, fingerprint = entry_of(first), first.fingerprint
    if harm == "cut":
        content = (entry / "images.npy").read_bytes()
        (entry / "images.npy").write_bytes(content[:-100])
    elif harm == "version":
        index = (entry / "index.json").read_text()
        (entry / "index.json").write_text(index.replace(f'"version": {cache.VERSION}', '"version": 0'))
    elif harm == "index":
        (entry / "index.json").write_text("{")
    elif harm == "facts":
        (entry / "facts.npy").write_bytes(b"")
    else:
        for path in entry.iterdir():
            path.unlink()

    assert read(root).fingerprint == fingerprint


@pytest.mark.parametrize("harm", ["bit", "cut", "empty", "gone"])
@pytest.mark.parametrize(
    "name",
    ["images.npy", "facts.npy", "labels.npy", "parts.npy", "groups.npy", "names.json", "index.json", "checksums.json"],
)
def test_a_file_of_an_entry_is_whole_or_the_entry_counts_as_none(
    name: str, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, random = "0123", np.random.default_rng(list(f"{name} {harm}".encode()))
    monkeypatch.setattr(cache, "_CHECKED_BYTES", 400)  # several pieces
    images = random.integers(0, 255, (9, 8, 8), np.uint8)
    facts = np.zeros(9, cache.FACTS)
    facts["pixels"] = [zlib.crc32(image) for image in images]
    index = {"spec": ImageSpec(8, 8).to_json(), "skipped": []}
    numbers: dict[str, Any] = dict.fromkeys(("labels", "groups"), np.arange(9)) | {"parts": np.zeros(9, np.int8)}
    with cache.building(key, "here") as folder:
        np.save(folder / "images.npy", images)
        np.save(folder / "facts.npy", facts)
        cache.save(folder, key, index, numbers, list("abcdefghi"))
    found = cache.open_pictures(key)
    assert found is not None and list(found.names) == list("abcdefghi")

    path = tmp_path / "cache" / "hangtag" / "pictures" / key / name
    content = bytearray(path.read_bytes())
    place = int(random.integers(len(content)))
    content[place] ^= 1 << int(random.integers(8))
    path.write_bytes({"bit": content, "cut": content[:place], "empty": b""}.get(harm, b""))
    if harm == "gone":
        path.unlink()

    again = cache.open_pictures(key)
    harmless = harm == "bit" and again is not None and (again.images == images).all()  # in the padding of a header
    assert (again is None and not path.parent.exists()) or (harmless and name == "images.npy")


@pytest.mark.parametrize("harm", [b"", b"{", b'{"height": 9}\n0', b"\xff", b"[]\n[]\n"])
def test_a_damaged_guess_of_an_interrupted_decoding_counts_as_none(
    harm: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    root = a_set(tmp_path / "set")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache, "decoded_as", stop)  # called between the guess and the decoding
        read(root)
    (guess,) = (tmp_path / "cache").rglob("guess.json")
    guess.write_bytes(harm)

    assert len(read(root)) == 4


def test_an_answer_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / "set" / "ab"[number % 2] / "cd"[number // 2 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(photo(number, 20, 20)), "x.png"))
    asked: list[str] = []

    def answering(answer: str) -> Choose:
        return lambda question, answers: asked.append(question) or answer  # type: ignore[func-returns-value]

    found = [read(tmp_path / "set", choose=answering(answer)).class_names for answer in ("top", "leaf", "leaf")]

    assert found == [("a", "b"), *[("a/c", "a/d", "b/c", "b/d")] * 2]
    assert len(asked) == 3  # once per reading
    with pytest.raises(UsageError):
        read(tmp_path / "set")


def test_damaged_groups_are_searched_again(tmp_path: Path) -> None:
    cache.save_groups("f", np.arange(5))
    found = cache.load_groups("f")
    assert found is not None and found.tolist() == [0, 1, 2, 3, 4]
    (path,) = (tmp_path / "cache").rglob("f-*.npy")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)

    assert cache.load_groups("f") is None


def test_groups_of_another_version_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save_groups("f", np.arange(5))
    monkeypatch.setattr(cache, "_GROUPS_VERSION", -1)

    assert cache.load_groups("f") is None


def test_content_that_was_decoded_elsewhere_is_not_decoded_again(tmp_path: Path) -> None:
    first = read(a_set(tmp_path / "set"))
    images = np.load(entry_of(first) / "images.npy", mmap_mode="r+")
    facts = np.load(entry_of(first) / "facts.npy")
    images[0] = 7  # a mark: whoever has it took the row from here
    facts["pixels"][0] = zlib.crc32(np.ascontiguousarray(images[0]).data)
    np.save(entry_of(first) / "facts.npy", facts)
    checksums = json.loads((entry_of(first) / "checksums.json").read_bytes())
    checksums["facts.npy"] = hashlib.sha256((entry_of(first) / "facts.npy").read_bytes()).hexdigest()
    (entry_of(first) / "checksums.json").write_text(json.dumps(checksums))
    images.flush()

    copied = read(a_set(tmp_path / "copy"))

    assert (np.asarray(copied.images[0]) == 7).all()


def test_two_processes_may_read_the_same_at_once(tmp_path: Path) -> None:
    root = a_set(tmp_path / "set", 200)
    program = f"import hangtag; print(hangtag.read({str(root)!r}).fingerprint)"

    together = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0] for process in together}

    assert len(said) == 1 and said != {""}
    assert not [path for path in (tmp_path / "cache" / "hangtag" / "pictures").iterdir() if "partial" in path.name]


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANGTAG_CACHE_GB", "0.0001")
    first = read(a_set(tmp_path / "one"))
    os.utime(entry_of(first), (1, 1))

    second = read(a_set(tmp_path / "two", first=50, count=60))

    assert not entry_of(first).exists() and entry_of(second).exists()


def test_everything_can_be_shown_and_cleared(tmp_path: Path) -> None:
    read(a_set(tmp_path / "set"))

    shown = cache.entries()
    freed = cache.clear()

    assert [(entry.kind, entry.what) for entry in shown] == [("pictures", str(tmp_path / "set"))]
    assert freed == shown[0].bytes > 0 and cache.entries() == []


def test_a_set_in_use_stays_whole_when_the_cache_is_cleared(tmp_path: Path) -> None:
    read(a_set(tmp_path / "set"))
    data = read(tmp_path / "set")
    pixels = np.array(read(tmp_path / "set").images)

    cache.clear()

    assert not entry_of(data).exists()
    assert sorted(data.train.names) == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]
    np.testing.assert_array_equal(data.images, pixels)


def test_a_set_that_is_being_decoded_is_not_cleared(tmp_path: Path) -> None:
    program = """
import sys
from hangtag.data.store import cache
with cache.building("some", "a set") as folder:
    print(folder, flush=True)
    sys.stdin.readline()
"""
    start = [sys.executable, "-c", program]
    running = [subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [Path(process.stdout.readline().strip()) for process in running if process.stdout]

    while_running = cache.clear()
    kept = [folder.is_dir() for folder in folders]
    for process in running:
        process.communicate("\n")
    cache.clear()

    assert while_running == 0 and kept == [True, True] and len(set(folders)) == 2
    assert cache.entries() == []


def test_a_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("much", "nan", "inf", "-inf", "-1", "", "1e999"):
        monkeypatch.setenv("HANGTAG_CACHE_GB", value)
        with pytest.raises(UsageError, match="must be a number of gigabytes"):
            cache.limit_bytes()

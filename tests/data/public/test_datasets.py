"""A named set is looked for in the stated order, checked by content, and kept whole or not at all."""

import dataclasses
import gzip
import hashlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hangtag
from hangtag.data.public import datasets
from hangtag.data.public.catalog import NAMED, Archive, DataFile
from hangtag.data.public.datasets import NamedSet, cache_folder, fetch, fingerprint
from hangtag.errors import DataError, DownloadError, HangtagError, MissingExtra, UnknownName, UsageError
from toys import (
    Mirror,
    cifar_like,
    even_arrays,
    idx,
    idx_files,
    letters_like,
    sha256,
    tar_of,
    tiny_arrays,
    tiny_files,
    tiny_set,
    zip_of,
)

ROOT = Path(__file__).resolve().parents[3]
BY_HAND = (
    "download its four files from http://tiny.example and name the folder (--path or HANGTAG_DATA), "
    "or install the Debian package dataset-tiny"
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """pooch rests a second or two before it tries again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NamedSet]:
    """Make the tiny set a named one; some of its fields changed."""

    def know(*mirrors: str, **changes: object) -> NamedSet:
        wanted = dataclasses.replace(tiny_set(mirrors), **changes)  # type: ignore[arg-type]
        monkeypatch.setitem(datasets.NAMED, "tiny", wanted)
        return wanted

    return know


def filled(folder: Path, files: dict[str, bytes], level: int | None = None) -> Path:
    """`folder` with the files in it, plain or compressed."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        if level is None:
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, level))
    return folder


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def changed(**files: bytes) -> dict[str, bytes]:
    """The tiny set's files, some with other content: train_images=..., test_labels=..."""
    names = {"train_images": "train-images-idx3-ubyte", "test_images": "t10k-images-idx3-ubyte",
             "train_labels": "train-labels-idx1-ubyte", "test_labels": "t10k-labels-idx1-ubyte"}  # fmt: skip
    return {**tiny_files(), **{names[key]: content for key, content in files.items()}}


def expect_tiny(found: datasets.PublicSet, origin: str) -> None:
    images, labels = tiny_arrays()
    np.testing.assert_array_equal(found.images, images, strict=True)
    np.testing.assert_array_equal(found.labels, labels, strict=True)
    assert found.origin == origin


def refused(name: str = "tiny", path: Path | None = None) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        fetch(name, path)
    assert caught.value.hint
    return caught.value


def kept() -> list[str]:
    """What is in the cache, half-made things included."""
    folder = cache_folder("tiny").parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- the order of places ---------------------------------------------------------------------------------------


def test_each_place_is_asked_before_the_next(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = filled(tmp_path / "named", tiny_files())
    data = filled(tmp_path / "data" / "tiny", tiny_files()).parent
    debian = filled(tmp_path / "debian", tiny_files(), level=9)
    origins = []

    with Mirror(packed(tiny_files())) as mirror:
        known(mirror.url, debian_folder=debian)
        cache = cache_folder("tiny")

        monkeypatch.setenv("HANGTAG_DATA", str(data))
        origins.append(fetch("tiny", named).origin)
        origins.append(fetch("tiny").origin)
        monkeypatch.delenv("HANGTAG_DATA")
        origins.append(fetch("tiny").origin)  # from Debian's folder: now in the cache
        origins.append(fetch("tiny").origin)
        forget(cache)
        known(mirror.url)
        asked_so_far = list(mirror.asked)
        origins.append(fetch("tiny").origin)

    assert asked_so_far == []
    assert origins == [str(named), str(data / "tiny"), str(debian), str(cache), mirror.url]


def forget(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_named_folder_is_not_replaced_by_another_place(known: Callable[..., NamedSet], tmp_path: Path) -> None:
    known(debian_folder=filled(tmp_path / "debian", tiny_files()))
    empty = tmp_path / "empty"
    empty.mkdir()

    error = refused(path=empty)

    assert isinstance(error, DataError)
    assert error.message == f"{empty}: train-images-idx3-ubyte[.gz] is missing"
    assert error.hint == "put all four files of Tiny there"


def test_a_named_folder_must_exist(known: Callable[..., NamedSet], tmp_path: Path) -> None:
    known()

    error = refused(path=tmp_path / "nowhere")

    assert error.message == f"{tmp_path / 'nowhere'}: no such folder"


@pytest.mark.parametrize("inside", ["tiny", "."])
def test_hangtag_data_names_the_set_or_a_folder_of_sets(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    known()
    filled(tmp_path / "data" / inside, tiny_files())
    monkeypatch.setenv("HANGTAG_DATA", str(tmp_path / "data"))

    expect_tiny(fetch("tiny"), str(tmp_path / "data" / inside))
    assert kept() == []


def test_hangtag_data_without_this_set_is_passed_over(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian = filled(tmp_path / "debian", tiny_files())
    known(debian_folder=debian)
    monkeypatch.setenv("HANGTAG_DATA", str(filled(tmp_path / "data", {"notes.txt": b"x"})))

    expect_tiny(fetch("tiny"), str(debian))


def test_hangtag_data_must_be_a_folder(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known()
    monkeypatch.setenv("HANGTAG_DATA", str(tmp_path / "nowhere"))

    error = refused()

    assert isinstance(error, UsageError)
    assert error.message == f"HANGTAG_DATA: {tmp_path / 'nowhere'} is not a folder"


def test_half_of_a_set_in_hangtag_data_is_an_error(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known()
    files = tiny_files()
    del files["t10k-labels-idx1-ubyte"]
    data = filled(tmp_path / "data", files)
    monkeypatch.setenv("HANGTAG_DATA", str(data))

    assert refused().message == f"{data}: t10k-labels-idx1-ubyte[.gz] is missing"


def test_an_unknown_set_offers_the_nearest_one() -> None:
    error = refused("fashion-mnits")

    assert isinstance(error, UnknownName)
    known = "cifar10, cifar100, digits, emnist-balanced, emnist-letters, fashion-mnist, kmnist, mnist"
    assert str(error) == f"unknown dataset 'fashion-mnits' (did you mean 'fashion-mnist'? known: {known})"


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [None, 0, 1, 6, 9])
def test_files_may_be_plain_or_compressed_by_anybody(
    known: Callable[..., NamedSet], tmp_path: Path, level: int | None
) -> None:
    known()
    folder = filled(tmp_path / "set", tiny_files(), level)

    expect_tiny(fetch("tiny", folder), str(folder))


def test_files_may_be_named_as_unpackers_name_them(known: Callable[..., NamedSet], tmp_path: Path) -> None:
    known()
    files = {name.replace("-idx", ".idx"): content for name, content in tiny_files().items()}
    files["train-images.idx3-ubyte"] = gzip.compress(files["train-images.idx3-ubyte"])  # compressed without saying so
    folder = filled(tmp_path / "set", files)

    expect_tiny(fetch("tiny", folder), str(folder))


IMAGES, LABELS = tiny_arrays()
TRAIN = tiny_files()["train-images-idx3-ubyte"]
DIGIT_LABELS = np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4] * 2, np.uint8)


@pytest.mark.parametrize(
    ("files", "wrong", "message", "hint"),
    [
        (changed(train_images=TRAIN[:-1]), "train-images-idx3-ubyte", "must have 336 bytes, got 335",
         "download it again"),
        (changed(train_images=b""), "train-images-idx3-ubyte", "must have 336 bytes, got 0", "download it again"),
        (changed(train_images=TRAIN + b"x"), "train-images-idx3-ubyte", "must have 336 bytes, got more",
         "download it again"),
        (changed(train_images=TRAIN[:-1] + b"\0"), "train-images-idx3-ubyte", "wrong content", "download it again"),
        (changed(train_labels=idx(DIGIT_LABELS)), "train-labels-idx1-ubyte", "wrong content", "download it again"),
        (changed(test_labels=gzip.compress(tiny_files()["t10k-labels-idx1-ubyte"])[:-9]), "t10k-labels-idx1-ubyte",
         "damaged or incomplete", "download it again"),
        (changed(test_labels=b"\x1f\x8bnonsense"), "t10k-labels-idx1-ubyte", "damaged or incomplete",
         "download it again"),
    ],
    ids=[
        "a byte short", "empty", "a byte long", "one pixel off", "digit labels", "cut gzip", "false gzip",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_wrong_file_is_named_with_what_is_wrong_and_nothing_is_kept(
    known: Callable[..., NamedSet], tmp_path: Path, files: dict[str, bytes], wrong: str, message: str, hint: str
) -> None:
    folder = filled(tmp_path / "debian", files)
    known(debian_folder=folder)

    error = refused()

    assert type(error) is DataError
    assert error.message.startswith(f"{folder / wrong}: {message}")
    assert error.hint == hint
    assert kept() == []


def test_progress_tells_what_is_read_and_how_far(known: Callable[..., NamedSet], tmp_path: Path) -> None:
    known()
    told: list[tuple[str, int, int]] = []

    fetch("tiny", filled(tmp_path / "set", tiny_files()), lambda *step: told.append(step))

    assert told[-1] == ("reading Tiny", 510, 510)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


# --- the cache -------------------------------------------------------------------------------------------------


def test_the_cache_opens_without_copying_and_cannot_be_written(known: Callable[..., NamedSet], tmp_path: Path) -> None:
    known(debian_folder=filled(tmp_path / "debian", tiny_files()))
    first = fetch("tiny")

    again = fetch("tiny")

    expect_tiny(again, str(cache_folder("tiny")))
    assert isinstance(again.images, np.memmap)
    assert [array.flags.writeable for found in (first, again) for array in (found.images, found.labels)] == [False] * 4
    assert kept() == ["tiny"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def break_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'descr'", b"('descr'"))


def empty_it(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_last_byte, empty_it, Path.unlink])
def test_damaged_hashes_of_the_images_are_computed_again(
    known: Callable[..., NamedSet], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    known(debian_folder=filled(tmp_path / "debian", tiny_files()))
    fingerprints = [hangtag.read("tiny").fingerprint, hangtag.read("tiny").fingerprint]
    path = cache_folder("tiny") / "contents.bin"
    content = path.read_bytes()
    damage(path)

    fingerprints.append(hangtag.read("tiny").fingerprint)

    assert len(set(fingerprints)) == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("damage", [cut, flip_last_byte, break_header, empty_it, Path.unlink])
def test_a_damaged_cache_is_noticed_and_made_again(
    known: Callable[..., NamedSet], tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    debian = filled(tmp_path / "debian", tiny_files())
    known(debian_folder=debian)
    fetch("tiny")
    damage(cache_folder("tiny") / name)

    with pytest.warns(UserWarning, match="the cached copy of Tiny is damaged; it is fetched again"):
        mended = fetch("tiny")

    expect_tiny(mended, str(debian))
    expect_tiny(fetch("tiny"), str(cache_folder("tiny")))
    assert kept() == ["tiny"]


def test_without_a_place_for_the_cache_the_set_is_still_read(
    known: Callable[..., NamedSet], tmp_path: Path, home: Path
) -> None:
    debian = filled(tmp_path / "debian", tiny_files())
    known(debian_folder=debian)
    (home / ".cache").write_text("a file where a folder should be")

    with pytest.warns(UserWarning, match=r"cannot be written: .*; Tiny will be read from .*debian each time"):
        found = fetch("tiny")

    expect_tiny(found, str(debian))


def test_the_cache_follows_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert cache_folder("tiny") == tmp_path / "hangtag" / "datasets" / "tiny"


# --- mirrors ---------------------------------------------------------------------------------------------------


def test_a_mirror_is_asked_once_for_each_file_and_the_result_kept(known: Callable[..., NamedSet]) -> None:
    told: list[tuple[str, int, int]] = []

    with Mirror(packed(tiny_files())) as mirror:
        known(mirror.url)
        found = fetch("tiny", progress=lambda *step: told.append(step))

    expect_tiny(found, mirror.url)
    expect_tiny(fetch("tiny"), str(cache_folder("tiny")))
    assert mirror.asked == [f"{name}.gz" for name in tiny_files()]
    sizes = {f"downloading {name}": len(content) for name, content in packed(tiny_files()).items()}
    assert {what: done for what, done, total in told if done == total and what in sizes} == sizes


def test_after_a_mirror_without_the_files_comes_the_next(known: Callable[..., NamedSet]) -> None:
    with Mirror({}) as empty, Mirror(packed(tiny_files())) as good:
        known(empty.url, good.url)
        found = fetch("tiny")

    expect_tiny(found, good.url)


def test_a_connection_cut_midway_is_tried_again(known: Callable[..., NamedSet]) -> None:
    with Mirror(packed(tiny_files()), trouble="cut", times=2) as mirror:
        known(mirror.url)
        found = fetch("tiny")

    expect_tiny(found, mirror.url)
    assert mirror.asked[:3] == ["train-images-idx3-ubyte.gz"] * 3


@pytest.mark.parametrize(
    ("files", "trouble", "says"),
    [
        ({}, "", "the server answered 404"),
        (packed(tiny_files()), "cut", "no answer"),
        (packed(changed(train_images=TRAIN[:-1] + b"\0")), "", "wrong content"),
        (packed(changed(train_labels=idx(DIGIT_LABELS))), "", "wrong content"),
        ({name: content[:-9] for name, content in packed(tiny_files()).items()}, "", "damaged or incomplete"),
    ],
    ids=["not found", "cut every time", "wrong content", "digits", "cut gzip"],
)
def test_bad_mirrors_are_all_reported_and_nothing_is_kept(
    known: Callable[..., NamedSet], files: dict[str, bytes], trouble: str, says: str
) -> None:
    with Mirror(files, trouble) as one, Mirror(files, trouble) as two:
        known(one.url, two.url)
        error = refused()

    assert isinstance(error, DownloadError)
    assert error.message.startswith("Tiny is not on this machine and could not be downloaded: ")
    assert error.message.count(says) == 2
    assert one.url in error.message and two.url in error.message
    assert error.hint == BY_HAND
    assert kept() == []


def test_a_mirror_that_is_not_there_is_reported(known: Callable[..., NamedSet]) -> None:
    with Mirror({}) as gone:
        url = gone.url
    known(url)

    assert refused().message == (f"Tiny is not on this machine and could not be downloaded: {url}: no answer")


def test_after_a_mirror_with_wrong_content_comes_the_next(known: Callable[..., NamedSet]) -> None:
    with Mirror(packed(changed(train_labels=idx(DIGIT_LABELS)))) as digits, Mirror(packed(tiny_files())) as good:
        known(digits.url, good.url)
        found = fetch("tiny")

    expect_tiny(found, good.url)


def test_downloading_leaves_nothing_in_the_temporary_folder(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Mirror(packed(tiny_files())) as mirror:
        known(mirror.url)
        fetch("tiny")

    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_make_data_installs_the_debian_package_only_if_the_set_is_missing(
    known: Callable[..., NamedSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("get_data", ROOT / "scripts" / "get_data.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    dataset = known(debian_folder=tmp_path / "debian")
    commands: list[str] = []

    def run(command: list[str], **_: object) -> None:
        commands.append(" ".join(command[command.index("apt-get") :]))
        if "install" in command:
            filled(tmp_path / "debian", tiny_files())

    monkeypatch.setattr(script.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(script.subprocess, "run", run)

    expect_tiny(script.get("tiny"), str(tmp_path / "debian"))
    expect_tiny(script.get("tiny"), str(cache_folder("tiny")))
    assert commands == ["apt-get -qq update", "apt-get -qq install -y dataset-tiny"]
    assert datasets.NAMED["tiny"] is dataset


# --- sets in archives ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """A toy set in an archive: its name, its archive, and what must come of it."""

    wanted: NamedSet
    inside: dict[str, bytes]  # by the names they have in the archive's folder
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]

    @property
    def packed(self) -> bytes:
        assert self.wanted.archive is not None
        files = {self.wanted.archive.folder + name: content for name, content in self.inside.items()}
        return (zip_of if self.wanted.archive.name.endswith(".zip") else tar_of)({"readme": b"hello", **files})

    @property
    def archive(self) -> Archive:
        assert self.wanted.archive is not None
        return self.wanted.archive


KINDS = {
    "emnist-letters": Kind(*letters_like(), *even_arrays(3, (5, 4))),
    "cifar10": Kind(*cifar_like(NAMED["cifar10"]), *even_arrays(5, (4, 4, 3))),
    "cifar100": Kind(*cifar_like(NAMED["cifar100"]), *even_arrays(5, (4, 4, 3))),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    kind: Kind = KINDS[request.param]
    monkeypatch.setitem(datasets.NAMED, kind.wanted.name, kind.wanted)
    return kind


def expect(kind: Kind, found: datasets.PublicSet, origin: str) -> None:
    np.testing.assert_array_equal(found.images, kind.images, strict=True)
    np.testing.assert_array_equal(found.labels, kind.labels, strict=True)
    assert found.images.flags.c_contiguous
    train = kind.wanted.train
    assert (found.origin, found.parts) == (origin, {"train": slice(0, train), "test": slice(train, len(kind.labels))})


def test_a_set_in_an_archive_is_read_from_it_or_from_its_unpacked_files(kind: Kind, tmp_path: Path) -> None:
    packed = filled(tmp_path / "packed", {kind.archive.name: kind.packed})
    unpacked = filled(tmp_path / "unpacked" / kind.archive.folder, kind.inside)

    expect(kind, fetch(kind.wanted.name, packed), str(packed))
    expect(kind, fetch(kind.wanted.name, packed / kind.archive.name), str(packed / kind.archive.name))
    expect(kind, fetch(kind.wanted.name, unpacked), str(unpacked))
    expect(kind, fetch(kind.wanted.name, unpacked.parent), str(unpacked.parent))


def test_hangtag_data_may_hold_an_archive(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path / "data" / kind.wanted.name, {kind.archive.name: kind.packed})
    monkeypatch.setenv("HANGTAG_DATA", str(tmp_path / "data"))

    expect(kind, fetch(kind.wanted.name), str(folder))


def test_an_archive_is_downloaded_once_and_the_result_kept(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    with Mirror({kind.archive.name: kind.packed}) as mirror:
        wanted = dataclasses.replace(kind.wanted, mirrors=(mirror.url,))
        monkeypatch.setitem(datasets.NAMED, wanted.name, wanted)
        first = fetch(wanted.name)
        again = fetch(wanted.name)

    expect(kind, first, mirror.url)
    expect(kind, again, str(cache_folder(wanted.name)))
    assert mirror.asked == [kind.archive.name]
    assert isinstance(again.images, np.memmap)


def without_json(folder: Path) -> None:
    (folder / "kept.json").unlink()


def another_fingerprint(folder: Path) -> None:
    (folder / "kept.json").write_text('{"fingerprint": "0"}')


def no_json(folder: Path) -> None:
    (folder / "kept.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [without_json, another_fingerprint, no_json, lambda folder: flip_last_byte(folder / "images.npy"),
     lambda folder: flip_last_byte(folder / "labels.npy")],
)  # fmt: skip
def test_a_copy_whose_fingerprint_nobody_published_is_checked_by_the_one_computed_then(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    with Mirror({kind.archive.name: kind.packed}) as mirror:
        wanted = dataclasses.replace(kind.wanted, mirrors=(mirror.url,))
        monkeypatch.setitem(datasets.NAMED, wanted.name, wanted)
        fetch(wanted.name)
        damage(cache_folder(wanted.name))
        with pytest.warns(UserWarning, match="the cached copy of .* is damaged; it is fetched again"):
            mended = fetch(wanted.name)

    expect(kind, mended, mirror.url)
    expect(kind, fetch(wanted.name), str(cache_folder(wanted.name)))


def test_a_wrong_archive_is_named_with_what_is_wrong(kind: Kind, tmp_path: Path) -> None:
    name, last = kind.archive.name, list(kind.inside)[-1]
    path = filled(tmp_path / "set", {}) / name
    member = f"{path}: {kind.archive.folder}{last}"

    def trouble(content: bytes) -> str:
        path.write_bytes(content)
        return refused(kind.wanted.name, path.parent).message

    def with_last(content: bytes | None) -> bytes:
        inside = {key: value for key, value in kind.inside.items() if key != last or content is not None}
        return dataclasses.replace(kind, inside=inside if content is None else {**inside, last: content}).packed

    assert trouble(kind.packed[: len(kind.packed) // 2]).startswith(f"{path}: damaged or incomplete")
    other = "damaged or incomplete zip file" if name.endswith(".zip") else "not an archive that hangtag can read"
    assert trouble(b"x").startswith(f"{path}: {other}")
    assert trouble(with_last(None)) == f"{path}: {kind.archive.folder}{last} is missing"
    size = len(content) if not (content := kind.inside[last]).startswith(b"\x1f\x8b") else len(gzip.decompress(content))
    plain = content if len(content) == size else gzip.decompress(content)
    assert trouble(with_last(plain[:-1])).startswith(f"{member}: must have {size} bytes, got {size - 1}")
    assert trouble(with_last(plain + b"x")).startswith(f"{member}: must have {size} bytes, got more")


def test_a_folder_without_the_archive_is_told_which_one_to_get(kind: Kind, tmp_path: Path) -> None:
    error = refused(kind.wanted.name, tmp_path)

    first = kind.wanted.files[0].name
    assert error.message == f"{tmp_path}: must contain {kind.archive.name} or {first}"
    assert error.hint == f"get {kind.archive.name} ({kind.archive.note}) from {kind.wanted.home}"


def test_without_network_the_archive_is_asked_for_by_hand(kind: Kind) -> None:
    error = refused(kind.wanted.name)

    assert isinstance(error, DownloadError)
    assert error.hint == (
        f"download {kind.archive.name} from {kind.wanted.home} and name the folder (--path or HANGTAG_DATA)"
    )


def test_an_archive_proven_as_a_whole_proves_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["emnist-letters"]
    recompressed = {name: gzip.compress(gzip.decompress(content), 1) for name, content in kind.inside.items()}
    packed = dataclasses.replace(kind, inside=recompressed).packed
    proven = dataclasses.replace(kind.archive, sha256=hashlib.sha256(packed).hexdigest())

    with Mirror({kind.archive.name: packed}) as mirror:
        for archive in (kind.archive, proven):
            wanted = dataclasses.replace(kind.wanted, archive=archive, mirrors=(mirror.url,))
            monkeypatch.setitem(datasets.NAMED, wanted.name, wanted)
            if archive is proven:
                expect(kind, fetch(wanted.name), mirror.url)
            else:
                assert "wrong content" in refused(wanted.name).message


def test_emnist_is_stored_on_its_side_and_read_upright(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted, packed = letters_like()
    monkeypatch.setitem(datasets.NAMED, wanted.name, wanted)
    stored = gzip.decompress(packed["emnist-letters-train-images-idx3-ubyte.gz"])[16:]

    found = fetch(wanted.name, filled(tmp_path / "set", packed))

    assert found.images[0, 3, 1] == stored[1 * 5 + 3]  # column 1, row 3
    assert found.labels[:3].tolist() == [0, 1, 2]  # a, b, c: 1, 2, 3 in the file


# --- files without a published checksum of their content -------------------------------------------------------


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[NamedSet, dict[str, bytes]]]:
    """A set like NAMED["kmnist"], only the checksums of its .gz files published; some of its plain files changed."""

    def know(*mirrors: str, **changes: bytes) -> tuple[NamedSet, dict[str, bytes]]:
        images, labels = even_arrays(3, (4, 4))
        files = idx_files(images, labels, train=12)
        plain = [
            DataFile(file, 12 if "train" in file else 6, packed_sha256=sha256(gzip.compress(content, mtime=0)))
            for file, content in files.items()
        ]
        wanted = dataclasses.replace(
            NAMED["kmnist"], class_names=("o", "ki", "su"), shape=(4, 4), train=12, images=(plain[0], plain[1]),
            labels=(plain[2], plain[3]), mirrors=mirrors,
        )  # fmt: skip
        monkeypatch.setitem(datasets.NAMED, "kmnist", wanted)
        return wanted, {**files, **{name.replace("_", "-"): content for name, content in changes.items()}}

    return know


Unproven = Callable[..., tuple[NamedSet, dict[str, bytes]]]


def test_files_as_their_makers_compressed_them_are_proven(unproven: Unproven, tmp_path: Path) -> None:
    _, files = unproven()
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        (folder / name).write_bytes(b"beside it, an unpacked file that cannot be proven")

    found = fetch("kmnist", folder)

    np.testing.assert_array_equal(found.labels, even_arrays(3, (4, 4))[1], strict=True)


@pytest.mark.parametrize("level", [None, 1])
def test_other_files_of_that_shape_are_read_with_a_warning(
    unproven: Unproven, tmp_path: Path, level: int | None
) -> None:
    _, files = unproven()
    folder = filled(tmp_path / "set", files, level)

    with pytest.warns(UserWarning, match=r"this looks like Kuzushiji-MNIST, .* \.gz"):
        found = fetch("kmnist", folder)

    np.testing.assert_array_equal(found.images, even_arrays(3, (4, 4))[0], strict=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train-labels-idx1-ubyte": idx(np.repeat(np.arange(3, dtype=np.uint8), (5, 4, 3)))}, "the labels are not"),
        ({"t10k-labels-idx1-ubyte": idx(np.tile(np.array([0, 1, 3], np.uint8), 2))}, "the labels are not"),
        (
            {"train-images-idx3-ubyte": idx(np.zeros((12, 2, 8), np.uint8))},
            "(12, 4, 4), got uint8 of (12, 2, 8)",
        ),
        ({"train-images-idx3-ubyte": bytes(16 + 12 * 16)}, "not an IDX file"),
        ({"train-images-idx3-ubyte": idx(np.zeros((12, 4, 4), np.uint8))[:-1]}, "must have 208 bytes, got 207"),
    ],
    ids=["uneven", "a class too many", "another shape", "no header", "cut"],
)
def test_what_has_another_shape_or_other_labels_is_refused(
    unproven: Unproven, tmp_path: Path, changes: dict[str, bytes], message: str
) -> None:
    _, files = unproven(**changes)

    error = refused("kmnist", filled(tmp_path / "set", files))

    assert isinstance(error, DataError)
    assert message in error.message


def test_from_a_mirror_nothing_unproven_is_taken(unproven: Unproven) -> None:
    _, files = unproven()
    with Mirror({f"{name}.gz": gzip.compress(content, 1, mtime=0) for name, content in files.items()}) as mirror:
        unproven(mirror.url)
        error = refused("kmnist")

    assert isinstance(error, DownloadError)
    assert "wrong content" in error.message


def test_a_file_of_another_set_is_known_by_its_checksum(
    unproven: Unproven, known: Callable[..., NamedSet], tmp_path: Path
) -> None:
    _, files = unproven()
    known()
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))

    error = refused("tiny", folder)

    assert "these are the hiragana of Kuzushiji-MNIST, not Tiny" in error.message
    assert error.hint == "to read them, use the name 'kmnist'; get the files of Tiny from http://tiny.example"


# --- digits ----------------------------------------------------------------------------------------------------


def test_digits_come_with_scikit_learn() -> None:
    found = fetch("digits")

    assert (found.images.shape, found.images.dtype, found.labels.dtype) == ((1797, 8, 8), np.uint8, np.int64)
    assert (found.images.min(), found.images.max(), found.labels[:10].tolist()) == (0, 255, list(range(10)))
    assert fingerprint(found.images, found.labels) == NAMED["digits"].fingerprint
    assert (found.parts, found.origin.split()[0], kept()) == ({}, "scikit-learn", [])
    assert not found.images.flags.writeable


def test_digits_are_undivided_labelled_images() -> None:
    data = hangtag.read("digits")

    assert data.train is data
    assert repr(data) == "<digits: 1,797 images, 10 classes, 8x8 grey>"


def test_digits_have_no_folder(tmp_path: Path) -> None:
    assert isinstance(refused("digits", tmp_path), UsageError)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)

    assert isinstance(refused("digits"), MissingExtra)


# --- the real set ----------------------------------------------------------------------------------------------


def test_fashion_mnist_is_what_the_lesson_shows(fashion: hangtag.LabelledImages) -> None:
    assert fashion.class_names == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    assert (fashion.train.images.shape, fashion.train.images.dtype.name) == ((60_000, 28, 28), "uint8")
    assert (fashion.test.images.shape, fashion.test.images.dtype.name) == ((10_000, 28, 28), "uint8")
    assert (fashion.train.images.min(), fashion.train.images.max()) == (0, 255)
    assert fashion.train.counts().tolist() == [6000] * 10
    assert fashion.test.counts().tolist() == [1000] * 10
    assert fashion.train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert fashion.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert str(fashion.spec) == "28x28 grey"


def test_the_fingerprint_is_of_the_real_content(fashion: hangtag.LabelledImages) -> None:
    assert NAMED["fashion-mnist"].fingerprint == fingerprint(fashion.images, fashion.labels)


@pytest.mark.parametrize("level", [None, 1])
def test_the_real_files_are_accepted_however_they_are_compressed(
    fashion: hangtag.LabelledImages, tmp_path: Path, level: int | None
) -> None:
    folder = filled(tmp_path / "set", idx_files(fashion.images, fashion.labels, train=60_000), level)

    found = fetch("fashion-mnist", folder)

    assert fingerprint(found.images, found.labels) == NAMED["fashion-mnist"].fingerprint


def test_real_files_cut_short_are_refused(fashion: hangtag.LabelledImages, tmp_path: Path) -> None:
    files = idx_files(fashion.images, fashion.labels, train=60_000)
    files["train-images-idx3-ubyte"] = files["train-images-idx3-ubyte"][:20_000_000]
    folder = filled(tmp_path / "set", files)

    error = refused("fashion-mnist", folder)

    assert error.message == f"{folder / 'train-images-idx3-ubyte'}: must have 47,040,016 bytes, got 20,000,000"


@pytest.mark.parametrize("level", [None, 1])
@pytest.mark.parametrize(("name", "title"), [("mnist", "MNIST"), ("kmnist", "Kuzushiji-MNIST")])
def test_real_clothes_under_another_name_are_recognised(
    fashion: hangtag.LabelledImages, tmp_path: Path, level: int | None, name: str, title: str
) -> None:
    folder = filled(tmp_path / "set", idx_files(fashion.images, fashion.labels, train=60_000), level)

    error = refused(name, folder)

    assert error.message.endswith(f"these are the clothes of Fashion-MNIST, not {title}")
    assert error.hint.startswith("to read them, use the name 'fashion-mnist'")


# --- folders without a name ----------------------------------------------------------------------------------------


def test_files_of_a_public_set_that_are_no_pictures_say_its_name(tmp_path: Path) -> None:
    for name, content in cifar_like(NAMED["cifar10"])[1].items():
        (tmp_path / "cifar-10-batches-bin").mkdir(exist_ok=True)
        (tmp_path / "cifar-10-batches-bin" / name).write_bytes(content)

    with pytest.raises(DataError) as caught:
        hangtag.read(tmp_path)

    assert caught.value.hint == f"these look like files of CIFAR-10; to read them: cifar10 --path {tmp_path}"

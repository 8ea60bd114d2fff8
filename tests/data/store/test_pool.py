"""Many pictures into one array: what is done stays done, and a decoder that dies or hangs costs one picture."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag.data.picture_facts import FACTS
from hangtag.data.read import read
from hangtag.data.store import pool as pool_module
from hangtag.data.store import process as process_module
from hangtag.data.store.containers import Folder, Sample
from hangtag.data.store.pool import Pool, npy_header
from hangtag.data.store.worker import DecodedBefore
from hangtag.errors import DataError, SaveError
from hangtag.pictures import ImageSpec
from hangtag.resize import Sizer
from pictures import encoded, photo

SPEC = ImageSpec(16, 16, 3)

pytestmark = pytest.mark.usefixtures("only_own_processes")


def pictures(root: Path, count: int) -> list[Sample]:
    root.mkdir(exist_ok=True)
    for number in range(count):
        (root / f"{number:03d}.png").write_bytes(encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    return [Sample(f"{number:03d}.png", 0, f"{number:03d}.png") for number in range(count)]


def test_rows_are_the_pictures_in_order(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 40)
    (tmp_path / "out").mkdir()
    seen: list[tuple[str, int, int]] = []

    with Pool([Folder(str(tmp_path / "in"))], 2) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out", progress=lambda *said: seen.append(said))

    images = np.load(tmp_path / "out" / "images.npy")
    np.testing.assert_array_equal(images, np.stack([photo(number, 16, 16) for number in range(40)]))
    assert (found.good.tolist(), found.skipped) == (list(range(40)), ())
    assert seen[-1] == ("decoding images", 40, 40)
    assert np.load(tmp_path / "out" / "facts.npy").dtype == FACTS
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["facts.npy", "images.npy"]


def test_holes_are_closed(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 20)
    bad = [0, 7, 8, 19]
    for number in bad:
        (tmp_path / "in" / f"{number:03d}.png").write_bytes(b"not an image")
    (tmp_path / "out").mkdir()

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out")

    good = [number for number in range(20) if number not in bad]
    assert found.good.tolist() == good
    assert [(each.name, each.kind) for each in found.skipped] == [(f"{n:03d}.png", "not an image") for n in bad]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "images.npy"), [photo(number, 16, 16) for number in good])


CRASHER = """
import hangtag.data.store.worker as decoder, os, signal, time
before = decoder.examine
def examine(content, background=255):
    if b"die" in content: os.kill(os.getpid(), signal.SIGSEGV)
    if b"hang" in content: time.sleep(600)
    if b"much" in content: bytearray(10**12)
    return before(content, background)
decoder.examine = examine
decoder.work()
"""


def test_a_decoder_that_dies_hangs_or_eats_memory_costs_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pictures(tmp_path / "in", 12)
    for number, word in ((3, b"die"), (4, b"die"), (5, b"hang"), (9, b"much")):
        (tmp_path / "in" / f"{number:03d}.png").write_bytes(word)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(process_module, "_SECONDS", 1.0)
    start = subprocess.Popen
    monkeypatch.setattr(
        process_module.subprocess, "Popen", lambda command, **how: start([sys.executable, "-c", CRASHER], **how)
    )

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out")

    assert [(each.name, each.kind) for each in found.skipped] == [
        ("003.png", "crashes the decoder"), ("004.png", "crashes the decoder"), ("005.png", "takes too long"),
        # macOS bounds no process's memory
        ("009.png", "needs too much memory" if sys.platform == "linux" else "not an image"),
    ]  # fmt: skip
    assert found.good.tolist() == [0, 1, 2, 6, 7, 8, 10, 11]


ONCE = """
import hangtag.data.store.worker as decoder, os, signal, sys
before, write_all = decoder.examine, decoder.write_all
def first(what):
    try: os.close(os.open(sys.argv[1] + what, os.O_CREAT | os.O_EXCL))
    except FileExistsError: return False
    return True
def examine(content, background=255):
    if b"kill" in content and first("kill"): os.kill(os.getpid(), signal.SIGKILL)
    if b"crash" in content and first("crash"): os.kill(os.getpid(), signal.SIGSEGV)
    if b"stop" in content and first("stop"): os.kill(os.getpid(), signal.SIGSTOP)
    if b"always" in content and not os.path.exists(sys.argv[1] + "calm"): os.kill(os.getpid(), signal.SIGKILL)
    return before(content, background)
def write(handle, content, offset):
    if b"full" in sys.argv[2].encode() and first("full"):
        write_all(handle, content[: len(content) // 2], offset)
        raise OSError(28, "No space left on device")
    write_all(handle, content, offset)
decoder.examine, decoder.write_all = examine, write
decoder.work()
"""


def start_workers(program: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Workers run this program from now on."""
    start = subprocess.Popen
    command = [sys.executable, "-c", program, *arguments]
    monkeypatch.setattr(process_module.subprocess, "Popen", lambda _, **how: start(command, **how))


def marked(root: Path, **words: int) -> Path:
    """Two classes of pictures; the file of this number has a word after its end, which decoders ignore."""
    pictures(root / "a", 10) and pictures(root / "b", 10)
    for word, number in words.items():
        path = root / "b" / f"{number:03d}.png"
        path.write_bytes(path.read_bytes() + word.encode())
    return root


def test_a_decoder_that_is_killed_or_stopped_from_outside_costs_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    root = marked(tmp_path / "set", kill=3, stop=5, crash=7)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(process_module, "_SECONDS", 2.0)
    start_workers(ONCE, monkeypatch, f"{tmp_path}/", "")

    data = read(root)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "crash", "kill", "set", "stop"]
    assert (len(data), data.source.skipped) == (20, ())


@pytest.mark.parametrize("form", ["set", "set.tar"])
def test_a_verdict_by_death_is_not_remembered(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    root = marked(tmp_path / "set", always=3)
    if form == "set.tar":
        with tarfile.open(tmp_path / form, "w") as tar:
            tar.add(root, "")
        root = tmp_path / form
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    start_workers(ONCE, monkeypatch, f"{tmp_path}/", "")

    first, second = read(root), read(root)
    (tmp_path / "calm").touch()
    third = read(root)

    for data in (first, second):
        assert [(each.name, each.kind) for each in data.source.skipped] == [("b/003.png", "crashes the decoder")]
    assert (len(third), third.source.skipped) == (20, ())
    assert [path.name for path in (tmp_path / "cache" / "hangtag" / "pictures").glob(".*")] == []


def test_a_full_disk_blames_no_picture_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    root = marked(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    start_workers(ONCE, monkeypatch, f"{tmp_path}/", "full")

    with pytest.raises(SaveError, match=r"No space left on device \(the disk is full"):
        read(root)

    assert (len(read(root)), read(root).source.skipped) == (20, ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    data = read(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert read(root).fingerprint == data.fingerprint


def test_a_disk_without_room_is_an_error_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    root = marked(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pool_module.shutil, "disk_usage", lambda path: usage._replace(free=2000))

    with pytest.raises(SaveError, match=r"the disk is full: the decoded images take [\d.]+ kB more, and 2 kB are free"):
        read(root)


NO_LIMITS = """
import resource
def setrlimit(*limit): raise ValueError("current limit exceeds maximum limit")
resource.setrlimit = setrlimit
from hangtag.data.store.worker import work
work()
"""


def test_a_system_that_refuses_memory_limits_decodes_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pictures(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    start = subprocess.Popen
    monkeypatch.setattr(
        process_module.subprocess, "Popen", lambda command, **how: start([sys.executable, "-c", NO_LIMITS], **how)
    )

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out")

    assert found.good.tolist() == [0, 1, 2]


def test_an_interrupted_decoding_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 30)
    out = tmp_path / "out"
    out.mkdir()
    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        pool.decode(wanted, SPEC, out)
    whole, facts = np.load(out / "images.npy"), np.load(out / "facts.npy")
    array = bytearray(npy_header(whole.shape) + whole.tobytes())
    array[128 + 3 * 768 : 128 + 4 * 768] = bytes(768)  # row 3 was written down, and never reached the disk
    (out / "array").write_bytes(bytes(array))
    (out / "facts").write_bytes(facts.tobytes())
    job = pool_module._Job(wanted, [Folder(str(tmp_path / "in"))], SPEC, out, [], None)
    text = json.dumps([list(range(20)), [[5, "damaged", "as it was"]], zlib.crc32(np.delete(facts[:20], 5).tobytes())])
    (out / "journal").write_text(f"{zlib.crc32(text.encode(), job.seed):08x} {text}\n" + "01234567 [[20, 2")
    (out / "images.npy").unlink()
    for number in range(20):  # the first 20 are not looked at again, but for row 3
        if number != 3:
            (tmp_path / "in" / f"{number:03d}.png").unlink()

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, out)

    assert [(each.name, each.reason) for each in found.skipped] == [("005.png", "as it was")]
    np.testing.assert_array_equal(np.load(out / "images.npy"), np.delete(whole, 5, axis=0))


def test_a_killed_reading_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = slow_pictures(tmp_path / "photos")
    for _ in range(2):
        process = read_until_something_is_done(root, tmp_path / "cache")
        assert process.poll() is None
        process.kill()
        process.communicate()
    (journal,) = (tmp_path / "cache").rglob("journal")
    assert journal.read_text().count("\n") > 0  # some chunks are done,
    assert not journal.with_name("images.npy").exists()  # and not all

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    again = read(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))

    assert again.fingerprint == read(root).fingerprint
    assert len(again) == 120


def slow_pictures(root: Path) -> Path:
    """A folder that takes some seconds to read."""
    contents = [encoded(Image.fromarray(photo(number, 900, 900)), "x.png") for number in range(2)]
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for number in range(60):
            (root / label / f"{number}.png").write_bytes(contents[number % 2])
    return root


def read_until_something_is_done(what: Path, cache: Path) -> "subprocess.Popen[str]":
    """A reading in a process of its own, some of whose pictures are decoded."""
    program = "from hangtag.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "data", str(what)], env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cache.parent,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a job in the background ignores it
    )  # fmt: skip
    while process.poll() is None and not any(path.stat().st_size for path in cache.rglob("journal")):
        time.sleep(0.01)
    return process


def test_a_folder_that_vanishes_stops_the_reading_which_goes_on_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = slow_pictures(tmp_path / "photos")
    process = read_until_something_is_done(root, tmp_path / "cache")

    root.rename(tmp_path / "away")
    _, said = process.communicate(timeout=60)
    (journal,) = (tmp_path / "cache").rglob("journal")
    done = sum(len(json.loads(line[9:])[0]) for line in journal.read_text().splitlines())
    (tmp_path / "away").rename(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steps: list[tuple[str, int, int]] = []
    data = read(root, progress=lambda *step: steps.append(step))

    assert process.returncode == 1
    assert said.startswith(
        f"hangtag: {root}: cannot be read any more (No such file or directory); {done} images are already decoded"
    )
    assert said.count("\n") == 1
    assert 0 < done < steps[0][1] <= steps[-1][1] == 120  # what was done is not done again
    assert (len(data), data.source.skipped) == (120, ())


def test_ctrl_c_says_that_what_is_decoded_is_kept(tmp_path: Path) -> None:
    root = slow_pictures(tmp_path / "photos")
    process = read_until_something_is_done(root, tmp_path / "cache")

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert (
        said.splitlines()[0]
        == "stopped reading; images decoded so far are kept. To continue, run the same command again"
    )
    assert [path.stat().st_size > 0 for path in (tmp_path / "cache").rglob("journal")] == [True]


def test_files_that_vanish_are_set_aside_and_looked_for_again(tmp_path: Path) -> None:
    root = slow_pictures(tmp_path / "photos")
    process = read_until_something_is_done(root, tmp_path / "cache")
    (root / "b" / "59.png").rename(tmp_path / "59.png")
    said, _ = process.communicate(timeout=60)
    (tmp_path / "59.png").rename(root / "b" / "59.png")

    again = read_until_something_is_done(root, tmp_path / "cache").communicate(timeout=60)[0]

    assert "note: skipped 1 file: 1 cannot be read" in said and "119 images" in said
    assert "skipped" not in again and "120 images" in again


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading fails with EIO")
@pytest.mark.parametrize("failing", [5, 300])
def test_a_disk_that_fails_stops_the_reading_and_some_bad_sectors_do_not(failing: int, tmp_path: Path) -> None:
    rows = [f"{wanted.name},{'ab'[number % 2]}" for number, wanted in enumerate(pictures(tmp_path, 4))]
    rows += ["/proc/self/mem,a"] * failing
    (tmp_path / "table.csv").write_text("\n".join(["file,label", *rows]))

    if failing == 5:
        assert {each.kind for each in read(tmp_path / "table.csv").source.skipped} == {"disk or network error"}
    else:
        with pytest.raises(DataError, match=r"cannot be read any more \(disk or network error: Input/output error\)"):
            read(tmp_path / "table.csv")


def test_an_archive_that_vanishes_stops_the_reading(tmp_path: Path) -> None:
    root = slow_pictures(tmp_path / "photos")
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root, "photos")
    process = read_until_something_is_done(path, tmp_path / "cache")

    path.rename(tmp_path / "away")
    _, said = process.communicate(timeout=60)

    assert process.returncode == 1 and said.count("\n") == 1
    assert f"{path}: cannot be read any more (No such file or directory)" in said


def test_what_was_decoded_before_is_known_by_its_content(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 6)
    (tmp_path / "out").mkdir()
    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        pool.decode(wanted, SPEC, tmp_path / "out")
    facts = np.load(tmp_path / "out" / "facts.npy")

    known = DecodedBefore([str(tmp_path / "out"), str(tmp_path / "nothing")])
    found = known.find(facts["content"][4].tobytes())

    assert found is not None
    np.testing.assert_array_equal(found[1], photo(4, 16, 16))
    assert known.find(b"\0" * 16) is None


@pytest.mark.parametrize("shape", [(0,), (16, 16), (1024, 1024, 3)])
def test_a_header_is_as_long_for_any_number_of_rows(shape: tuple[int, ...]) -> None:
    assert {len(npy_header((rows, *shape))) for rows in (0, 1, 10**4, 10**15)} == {128}


def test_what_was_changed_in_pictures_is_counted_from_new_and_known_ones_alike(tmp_path: Path) -> None:
    for root in ("one", "two"):
        for number, label in enumerate("aabb"):
            path = tmp_path / root / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(photo(number, 16, 16))
            image.putalpha(128 if label == "a" else 255)
            image.save(path, save_all=number == 3, append_images=[image.rotate(90)] if number == 3 else [])

    notes = [read(tmp_path / root).source.notes for root in ("one", "two")]

    assert notes[0] == notes[1] == (
        "2 images: transparency was filled with grey level 255", "1 image: the first frame of an animation was used",
    )  # fmt: skip


def test_a_picture_of_another_size_than_expected_is_sized_all_the_same(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "004.png").write_bytes(encoded(Image.fromarray(photo(4, 40, 30)), "x.png"))
    (tmp_path / "out").mkdir()

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out")

    assert found.good.tolist() == list(range(6))
    resized = np.load(tmp_path / "out" / "images.npy")[4]
    np.testing.assert_array_equal(resized, Sizer(SPEC)(photo(4, 40, 30)))


def test_nothing_that_lies_beside_the_pictures_is_ever_imported(tmp_path: Path) -> None:
    """Python puts the current folder first on its path when it starts a module; a decoding process must not."""
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        pictures(tmp_path / "photos" / label, 20)
    trap = f"import os\nos.mkdir({str(tmp_path / 'ran-')!r} + str(os.getpid()))\nraise SystemExit\n"
    for name in ("hashlib", "json", "typing", "numpy", "struct", "PIL", "onnx", "hangtag", "pillow_heif"):
        for folder in (tmp_path, tmp_path / "photos"):
            (folder / f"{name}.py").write_text(trap, encoding="utf-8")
    program = "from hangtag.cli.main import main; main()"

    for folder, what in ((tmp_path, "photos"), (tmp_path / "photos", ".")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, "data", what], cwd=folder, capture_output=True, text=True, check=False
        )
        assert "40 images" in done.stdout, done.stderr
        assert not list(tmp_path.glob("ran-*"))


def test_relative_and_empty_entries_of_pythonpath_do_not_reach_a_decoding_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", ".", "lib", "/opt/lib")))
    assert process_module._environment()["PYTHONPATH"] == "/opt/lib"

    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in process_module._environment()

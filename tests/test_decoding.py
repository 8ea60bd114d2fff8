"""Many pictures into one array: what is done stays done, and a decoder that dies or hangs costs one picture."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag import decoding
from hangtag.containers import Folder
from hangtag.decoder import FACTS, Known, reason_kind
from hangtag.decoding import Pool, Wanted, header_of
from hangtag.images import ImageSpec
from pictures import encoded, photo

SPEC = ImageSpec(16, 16, 3)


def pictures(root: Path, count: int) -> list[Wanted]:
    root.mkdir(exist_ok=True)
    for number in range(count):
        (root / f"{number:03d}.png").write_bytes(encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    return [Wanted(f"{number:03d}.png", 0, f"{number:03d}.png") for number in range(count)]


def test_rows_are_the_pictures_in_order(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 40)
    (tmp_path / "out").mkdir()
    seen: list[tuple[str, int, int]] = []

    with Pool([Folder(str(tmp_path / "in"))], 2) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out", progress=lambda *said: seen.append(said))

    images = np.load(tmp_path / "out" / "images.npy")
    np.testing.assert_array_equal(images, np.stack([photo(number, 16, 16) for number in range(40)]))
    assert (found.good.tolist(), found.skipped, found.notes) == (list(range(40)), (), {})
    assert seen[-1] == ("decoding pictures", 40, 40)
    assert np.load(tmp_path / "out" / "facts.npy").dtype == FACTS
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["facts.npy", "images.npy"]


def test_holes_are_closed(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 20)
    bad = [0, 7, 8, 19]
    for number in bad:
        (tmp_path / "in" / f"{number:03d}.png").write_bytes(b"not a picture")
    (tmp_path / "out").mkdir()

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out")

    good = [number for number in range(20) if number not in bad]
    assert found.good.tolist() == good
    assert [(each.name, each.kind) for each in found.skipped] == [(f"{n:03d}.png", "not a picture") for n in bad]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "images.npy"), [photo(number, 16, 16) for number in good])


CRASHER = """
import hangtag.decoder as decoder, os, signal, time
before = decoder.examine
def examine(content, name, background=255):
    if b"die" in content: os.kill(os.getpid(), signal.SIGSEGV)
    if b"hang" in content: time.sleep(600)
    if b"much" in content: bytearray(10**12)
    return before(content, name, background)
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
    monkeypatch.setattr(decoding, "_SECONDS", 1.0)
    start = subprocess.Popen
    monkeypatch.setattr(
        decoding.subprocess, "Popen", lambda command, **how: start([sys.executable, "-c", CRASHER], **how)
    )

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, tmp_path / "out")

    assert [(each.name, each.kind) for each in found.skipped] == [
        ("003.png", "crashes the decoder"), ("004.png", "crashes the decoder"), ("005.png", "takes too long"),
        ("009.png", "too large"),
    ]  # fmt: skip
    assert found.good.tolist() == [0, 1, 2, 6, 7, 8, 10, 11]


def test_an_interrupted_decoding_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 30)
    out = tmp_path / "out"
    out.mkdir()
    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        pool.decode(wanted, SPEC, out)
    whole, facts = np.load(out / "images.npy"), np.load(out / "facts.npy")
    array = bytearray(header_of(whole.shape) + whole.tobytes())
    array[128 + 3 * 768 : 128 + 4 * 768] = bytes(768)  # row 3 was written down, and never reached the disk
    (out / "array").write_bytes(bytes(array))
    (out / "facts").write_bytes(facts.tobytes())
    (out / "journal").write_text(json.dumps([list(range(20)), [[5, "damaged", "as it was"]]]) + "\n" + "[[20, 2")
    (out / "images.npy").unlink()
    for number in range(20):  # the first 20 are not looked at again, but for row 3
        if number != 3:
            (tmp_path / "in" / f"{number:03d}.png").unlink()

    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        found = pool.decode(wanted, SPEC, out)

    assert [(each.name, each.reason) for each in found.skipped] == [("005.png", "as it was")]
    np.testing.assert_array_equal(np.load(out / "images.npy"), np.delete(whole, 5, axis=0))


def test_a_killed_reading_can_be_done_again(tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = tmp_path / "set" / label
        folder.mkdir(parents=True)
        for number in range(400):
            folder.joinpath(f"{number}.png").write_bytes(encoded(Image.fromarray(photo(number, 60, 60)), "x.png"))
    program = f"import hangtag; print(hangtag.read({str(tmp_path / 'set')!r}).fingerprint)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for delay in (0.5, 0.8):
        process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()

    again = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    fresh = {**environment, "XDG_CACHE_HOME": str(tmp_path / "other")}
    whole = subprocess.run([sys.executable, "-c", program], env=fresh, capture_output=True, text=True, check=True)

    assert again.stdout == whole.stdout != ""


def test_what_was_decoded_before_is_known_by_its_content(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 6)
    (tmp_path / "out").mkdir()
    with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
        pool.decode(wanted, SPEC, tmp_path / "out")
    facts = np.load(tmp_path / "out" / "facts.npy")

    known = Known([str(tmp_path / "out"), str(tmp_path / "nothing")])
    found = known.find(facts["content"][4].tobytes())

    assert found is not None
    np.testing.assert_array_equal(found[1], photo(4, 16, 16))
    assert known.find(b"\0" * 16) is None


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("the file is empty", "empty"),
        ("truncated or damaged picture", "truncated"),
        ("damaged (x) picture", "damaged"),
        ("declares 9x9 pixels, over the limit of 8", "too large"), ("larger than 9 bytes", "too large"),
    ],
)  # fmt: skip
def test_reasons_are_counted_by_kind(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_a_picture_of_another_size_than_expected_is_sized_all_the_same(tmp_path: Path) -> None:
    wanted = pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "004.png").write_bytes(encoded(Image.fromarray(photo(4, 40, 30)), "x.png"))
    rows = []
    for one_size in (True, False):
        out = tmp_path / f"out {one_size}"
        out.mkdir()
        with Pool([Folder(str(tmp_path / "in"))], 1) as pool:
            found = pool.decode(wanted, SPEC, out, one_size=one_size)
        assert found.good.tolist() == list(range(6))
        rows.append(np.load(out / "images.npy"))

    np.testing.assert_array_equal(*rows)

"""A decoding process is used by the next reading of the same program, as if it had been started for it."""

import multiprocessing
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag.data.store import spares
from hangtag.data.store.containers import Bucket, Container, Folder, Sample, Zip
from hangtag.data.store.pool import Pool
from hangtag.pictures import ImageSpec
from pictures import encoded, photo

SPEC = ImageSpec(16, 16, 3)
pytestmark = pytest.mark.usefixtures("only_own_processes")


@pytest.fixture
def decode(tmp_path: Path) -> Callable[..., tuple[list[int], np.ndarray]]:
    """Decodes one picture of a container; returns the processes that the pool had at its end, and the pixels."""

    def decode(container: Container, key: object = "a.png") -> tuple[list[int], np.ndarray]:
        out = tmp_path / f"out {len(list(tmp_path.iterdir()))}"
        out.mkdir()
        with Pool([container], 1) as pool:
            pool.decode([Sample("a.png", 0, key)], SPEC, out)
            pids = [worker.process.pid for worker in pool.idle]
        return pids, np.load(out / "images.npy")

    return decode


def saved(folder: Path, seed: int) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(Image.fromarray(photo(seed, 16, 16)), "x.png"))
    return folder


def waiting() -> list[int]:
    return [worker.process.pid for worker in spares._waiting]


def test_the_next_reading_uses_it(tmp_path: Path, decode: Callable[..., tuple[list[int], np.ndarray]]) -> None:
    first, _ = decode(Folder(str(saved(tmp_path / "one", 1))))
    second, images = decode(Folder(str(saved(tmp_path / "two", 2))))

    assert first == second == waiting()
    np.testing.assert_array_equal(images, [photo(2, 16, 16)])


def test_paths_are_relative_to_where_the_program_is_now(
    tmp_path: Path, decode: Callable[..., tuple[list[int], np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, place in enumerate(("here", "there")):
        (tmp_path / place).mkdir()
        saved(tmp_path / place / "in", seed)

    found = []
    for place in ("here", "there"):
        monkeypatch.chdir(tmp_path / place)
        found.append(decode(Folder("in")))

    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[1][1], [photo(1, 16, 16)])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_it_has_no_file_or_folder_open(tmp_path: Path, decode: Callable[..., tuple[list[int], np.ndarray]]) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(saved(tmp_path / "in", 1) / "a.png", "a.png")

    [pid], _ = decode(Zip(str(tmp_path / "in.zip")), 0)

    process, deadline = Path(f"/proc/{pid}"), time.monotonic() + 30
    while any(str(tmp_path) in str(each.readlink()) for each in [*(process / "fd").iterdir(), process / "cwd"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_has_died_is_replaced(tmp_path: Path, decode: Callable[..., tuple[list[int], np.ndarray]]) -> None:
    [first], _ = decode(Folder(str(saved(tmp_path / "one", 1))))
    [worker] = spares._waiting
    os.kill(first, signal.SIGKILL)
    worker.process.wait()

    [second], images = decode(Folder(str(saved(tmp_path / "two", 2))))

    assert second != first
    np.testing.assert_array_equal(images, [photo(2, 16, 16)])


def test_few_wait_and_not_for_long(
    tmp_path: Path, decode: Callable[..., tuple[list[int], np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pool([Folder(str(tmp_path))], 3) as pool:
        pool.start()
    assert len(waiting()) == spares._MOST

    monkeypatch.setattr(spares, "_SECONDS", 0.05)
    decode(Folder(str(saved(tmp_path / "in", 1))))

    deadline = time.monotonic() + 30
    while waiting():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_at_an_address_is_read_by_processes_of_its_own(tmp_path: Path) -> None:
    with Pool([Folder(str(tmp_path))], 1) as pool:
        pool.start()
    [kept] = waiting()

    with Pool([Bucket("s3://photos/cats")], 1) as pool:
        pool.start()
        assert [worker.process.pid for worker in pool.idle] != [kept]

    assert waiting() == [kept]


def _waiting_in_child(found: "multiprocessing.SimpleQueue[int]") -> None:
    found.put(len(waiting()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_use_it(tmp_path: Path) -> None:
    with Pool([Folder(str(tmp_path))], 1) as pool:
        pool.start()
    kept, context = waiting(), multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    child = context.Process(target=_waiting_in_child, args=(found,))

    child.start()

    assert found.get() == 0
    child.join()
    assert waiting() == kept

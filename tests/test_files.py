"""Files and folders are whole or not there, whatever the operating system does."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hangtag.errors import SaveError
from hangtag.files import append_line, inside, new_folder, new_folder_whole, write_bytes, write_json, write_text
from toys import in_a_process

IMPORTS = "import os, resource, signal\nfrom pathlib import Path\nfrom hangtag.errors import SaveError\n"
IMPORTS += "from hangtag.files import *\n"
NOBODY = 65534
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can do this")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def limited_to_1000_bytes(act: str, folder: Path) -> str:
    """What a process prints whose files may not grow over 1000 bytes."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    return in_a_process(f"{IMPORTS}signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{limit}\n{act}", folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# --- whole files -----------------------------------------------------------------------------------------------


def test_a_written_file_holds_exactly_what_was_given(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"\x00\xff\r\n")
    write_text(tmp_path / "b", "셔츠\n")
    write_json(tmp_path / "c", {"name": "셔츠", "share": 0.5})

    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert contents == {
        "a": b"\x00\xff\r\n",
        "b": "셔츠\n".encode(),
        "c": '{\n  "name": "셔츠",\n  "share": 0.5\n}\n'.encode(),
    }


def test_a_second_writing_replaces_the_first(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "a long first text")
    write_text(tmp_path / "a", "new")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
        with new_folder_whole(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)

    modes = [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("file", "folder")]
    assert modes == ["0o640", "0o750"]


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a", [1])

    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", [float("nan")])

    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "[\n  1\n]\n")


def test_a_size_limit_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"old")

    printed = limited_to_1000_bytes(
        """
try:
    write_bytes(Path("model"), bytes(5000))
except SaveError as error:
    print(error)
""",
        tmp_path,
    )

    assert printed == (
        "model: cannot be written: File too large "
        "(the disk is full or a size limit is reached; free some space and run the command again)\n"
    )
    assert (names(tmp_path), (tmp_path / "model").read_bytes()) == (["model"], b"old")


@needs_root
def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk: Path) -> None:
    (small_disk / "model").write_bytes(b"old")

    with pytest.raises(SaveError, match=r"model: cannot be written: No space left on device \(the disk is full"):
        write_bytes(small_disk / "model", bytes(200_000))

    assert (names(small_disk), (small_disk / "model").read_bytes()) == (["model"], b"old")


@needs_root
def test_a_full_disk_leaves_no_half_made_folder(small_disk: Path) -> None:
    with (
        pytest.raises(SaveError, match=r"set: cannot be written: .*the disk is full"),
        new_folder_whole(small_disk / "set") as folder,
    ):
        (folder / "labels").write_bytes(bytes(1000))
        (folder / "images").write_bytes(bytes(200_000))

    assert names(small_disk) == []


@needs_root
def test_a_full_disk_never_leaves_half_a_line(small_disk: Path) -> None:
    log = small_disk / "history.jsonl"
    append_line(log, {"epoch": 1})

    with pytest.raises(SaveError, match="the disk is full"):
        append_line(log, {"epoch": "x" * 200_000})
    append_line(log, {"epoch": 3})

    assert [json.loads(line) for line in log.read_text().splitlines()] == [{"epoch": 1}, {"epoch": 3}]


def test_a_size_limit_never_leaves_half_a_line(tmp_path: Path) -> None:
    limited_to_1000_bytes(
        """
log = Path("history.jsonl")
append_line(log, {"epoch": 1})
try:
    append_line(log, {"epoch": "x" * 5000})
except SaveError:
    append_line(log, {"epoch": 3})
""",
        tmp_path,
    )

    assert (tmp_path / "history.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 3}\n'


def test_an_appended_value_that_is_not_json_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_line(tmp_path / "log", float("inf"))

    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["missing/a", "file/a", "folder", "x" * 300])
def test_an_impossible_place_is_refused_with_its_name_and_a_hint(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()

    with pytest.raises(SaveError) as caught:
        write_text(tmp_path / where, "x")

    assert caught.value.message.startswith(f"{tmp_path / where}: cannot be written: ")
    assert caught.value.hint == "check that the folder exists and is writable"
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file", "folder"], "kept")


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A folder that everybody may read and nobody (but root) may write."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    (folder / "a").write_text("old")
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("act", "name"),
    [
        ("write_text(Path('a'), 'new')", "a"),
        ("append_line(Path('b'), 1)", "b"),
        ("new_folder(Path('c'))", "c"),
        ("with new_folder_whole(Path('d')) as folder: pass", "d"),
    ],
)
def test_a_forbidden_place_is_refused_with_its_name_and_a_hint(shelf: Path, act: str, name: str) -> None:
    as_nobody = f"if os.geteuid() == 0: os.setegid({NOBODY}); os.seteuid({NOBODY})\n"

    printed = in_a_process(
        f"{IMPORTS}{as_nobody}try:\n    {act}\nexcept SaveError as error:\n    print(error)\n", shelf
    )

    hint = "you have no write permission there; choose another place"
    assert printed == f"{name}: cannot be written: Permission denied ({hint})\n"
    assert (names(shelf), (shelf / "a").read_text()) == (["a"], "old")


def test_readers_see_the_old_or_the_new_file_but_never_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "a"
    versions = [bytes([number]) * 50_000 for number in range(4)]
    write_bytes(path, versions[0])
    writers = [threading.Thread(target=write_bytes, args=(path, version)) for version in versions * 5]
    seen = set()

    for writer in writers:
        writer.start()
        seen.add(path.read_bytes())
    for writer in writers:
        writer.join()

    assert seen <= set(versions)
    assert names(tmp_path) == ["a"]


# --- folders ---------------------------------------------------------------------------------------------------


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    new_folder(tmp_path / "runs" / "first")

    assert (tmp_path / "runs" / "first").is_dir()


def test_a_new_folder_never_takes_over_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()

    with pytest.raises(SaveError) as caught:
        new_folder(tmp_path / "first")

    assert caught.value.message == f"{tmp_path / 'first'}: already exists"
    assert caught.value.hint == "choose another name; hangtag never overwrites runs"


def test_a_whole_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "set"

    with new_folder_whole(target) as folder:
        (folder / "images").write_bytes(b"12")
        there_while_filling = target.exists()

    assert not there_while_filling
    assert (names(tmp_path / "cache"), names(target)) == (["set"], ["images"])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_folder_that_is_not_finished_is_dropped(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop), new_folder_whole(tmp_path / "set") as folder:
        (folder / "images").write_bytes(b"12")
        raise stop

    assert names(tmp_path) == []


def test_the_first_of_two_whole_folders_stays(tmp_path: Path) -> None:
    with new_folder_whole(tmp_path / "set") as late:
        (late / "who").write_text("late")
        with new_folder_whole(tmp_path / "set") as early:
            (early / "who").write_text("early")

    assert (names(tmp_path), (tmp_path / "set" / "who").read_text()) == (["set"], "early")


def test_a_file_in_the_place_of_a_whole_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("kept")

    with pytest.raises(SaveError, match="set: cannot be written: Not a directory"), new_folder_whole(tmp_path / "set"):
        pass

    assert (names(tmp_path), (tmp_path / "set").read_text()) == (["set"], "kept")


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")

    assert not inside(tmp_path, tmp_path / "circle")

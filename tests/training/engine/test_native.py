"""native.py: C is compiled once, kept whole, and done without where it cannot be had."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hangtag.errors import SaveError
from hangtag.training.engine import native
from hangtag.training.engine.dense import CompiledSteps
from hangtag.training.engine.native import library

pytestmark = pytest.mark.skipif(not CompiledSteps.possible(), reason="no C compiler here")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HANGTAG_NATIVE", raising=False)
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "answer.c"
    file.write_text("int answer(void) { return 42; }\n", encoding="utf-8")
    return file


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "hangtag" / "native").iterdir())


def test_a_source_is_compiled_once_and_reused(source: Path, tmp_path: Path) -> None:
    first = library(source)
    made = [(file, file.stat().st_mtime_ns) for file in kept(tmp_path)]
    library.cache_clear()
    second = library(source)

    assert first is not None and second is not None
    assert first.answer() == second.answer() == 42
    assert [(file, file.stat().st_mtime_ns) for file in kept(tmp_path)] == made
    assert len(made) == 1  # and no temporary folder left beside it


def test_a_damaged_library_is_compiled_again(source: Path, tmp_path: Path) -> None:
    library(source)
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # it may be mapped
    file.write_bytes(content)
    library.cache_clear()

    again = library(source)

    assert again is not None and again.answer() == 42
    assert [each.read_bytes() != content for each in kept(tmp_path)] == [True]


def test_a_full_disk_is_an_error_and_does_not_change_how_is_trained(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.tempfile, "TemporaryDirectory", full)

    with pytest.raises(SaveError, match="the disk is full"):
        library(source)


def test_a_changed_source_is_compiled_anew(source: Path) -> None:
    library(source)
    library.cache_clear()
    source.write_text("int answer(void) { return 43; }\n", encoding="utf-8")

    found = library(source)

    assert found is not None
    assert found.answer() == 43


def test_a_source_that_does_not_compile_gives_no_library(source: Path, tmp_path: Path) -> None:
    source.write_text("this is not C\n", encoding="utf-8")

    assert library(source) is None
    assert kept(tmp_path) == []


def test_a_machine_without_a_compiler_gives_no_library(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)

    assert library(source) is None


def test_it_can_be_switched_off(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANGTAG_NATIVE", "off")

    assert library(source) is None


def test_a_read_only_cache_gives_no_library(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder", encoding="utf-8")

    assert library(source) is None


def test_only_the_user_can_write_to_the_folder_of_libraries(source: Path, tmp_path: Path) -> None:
    library(source)

    mode = stat.S_IMODE((tmp_path / "cache" / "hangtag" / "native").stat().st_mode)

    assert mode & 0o022 == 0

"""A new model file replaces the old one while it serves; a bad one does not."""

import asyncio
import errno
import gc
import json
import os
import shutil
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from hangtag.errors import ArtifactError, UsageError
from hangtag.pictures import ImageSpec
from hangtag.serving.models import Models
from hangtag.serving.refusals import Refusal
from toys import SIDE, toy_model

OLD, NEW = toy_model(), toy_model(image=ImageSpec(SIDE, SIDE, 1, background=7))


def test_a_new_file_serves_and_the_old_version_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(OLD)
    models = Models([path])
    old = models.default
    models.refresh()
    assert models.default is old
    new = tmp_path / "new"
    new.write_bytes(NEW)
    new.replace(path)
    models.refresh()
    assert models.find("toy").version != old.version and models.find("toy", models.default.version)
    with pytest.raises(Refusal, match="unknown model or version"):
        models.find("toy", old.version)
    assert old.predictor.probabilities([[[0] * SIDE] * SIDE]).shape[0] == 1


def test_a_file_that_is_written_in_place_with_the_size_and_time_of_the_old_one_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(OLD)
    models, before = Models([path]), path.stat()
    old = models.default
    time.sleep(0.01)  # file systems count in ticks
    path.write_bytes(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    models.refresh()
    assert models.default is not old


def test_the_memory_of_an_old_version_does_not_wait_for_the_collector_which_skips_what_the_server_began_with(
    tmp_path: Path,
) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(OLD)
    models = Models([path])
    old = weakref.ref(models.default.predictor)
    gc.disable()
    try:
        path.write_bytes(NEW)
        models.refresh()
        assert old() is None
    finally:
        gc.enable()


def test_a_damaged_file_leaves_the_old_one_serving(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(OLD)
    models = Models([path])
    old = models.default
    path.write_bytes(NEW[:-100])
    models.refresh(is_patient=True)
    assert models.default is old and not models.problems  # it may be half written
    models.refresh(is_patient=True)
    assert models.default is old and "cannot be used" in models.problems["toy"]
    assert str(tmp_path) not in models.problems["toy"]
    path.unlink()
    models.refresh()
    assert models.default is old and models.problems
    path.write_bytes(NEW)
    models.refresh()
    assert models.default is not old and not models.problems


def test_a_disk_that_does_not_answer_for_a_while_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object, **__: object) -> os.stat_result:
        raise OSError(errno.ESTALE, "Stale file handle")

    async def watched(until: Callable[[], bool]) -> None:
        task = asyncio.create_task(models.watch(0.01))
        end = time.monotonic() + 10
        while not until():
            assert time.monotonic() < end and not task.done()
            await asyncio.sleep(0.01)
        task.cancel()

    path = tmp_path / "toy.onnx"
    path.write_bytes(OLD)
    models = Models([path])
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        asyncio.run(watched(lambda: "toy" in models.problems))
    asyncio.run(watched(lambda: not models.problems))

    looks: list[bool] = []

    def failing(is_patient: bool = False) -> None:
        looks.append(is_patient)
        raise OSError("nobody expected this")

    monkeypatch.setattr(models, "refresh", failing)
    asyncio.run(watched(lambda: len(looks) > 1))


def test_a_run_is_replaced_as_a_whole_or_file_by_file(tmp_path: Path) -> None:
    def run(name: str, content: bytes, sha256: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(content)
        (tmp_path / name / "config.json").write_text(json.dumps({"status": "finished", "model": {"sha256": sha256}}))
        return tmp_path / name

    (tmp_path / "a.onnx").write_bytes(OLD)
    (tmp_path / "b.onnx").write_bytes(NEW)
    old, new = (model.predictor.sha256 for model in Models([tmp_path / "a.onnx", tmp_path / "b.onnx"]))
    place = run("run", OLD, old)
    models = Models([place])
    place.rename(tmp_path / "away")
    models.refresh()
    assert models.problems and models.default.predictor.sha256 == old
    run("next", NEW, new).rename(place)
    models.refresh()
    assert not models.problems and models.default.predictor.sha256 == new
    (tmp_path / "a.onnx").replace(place / "model.onnx")  # its record follows
    models.refresh()
    assert models.problems and models.default.predictor.sha256 == new
    (place / "config.json").write_text(json.dumps({"status": "finished", "model": {"sha256": old}}))
    models.refresh()
    assert not models.problems and models.default.predictor.sha256 == old


def test_a_link_gives_the_model_its_name_and_can_be_turned_to_another_file(tmp_path: Path) -> None:
    for channels in (1, 3):
        (folder := tmp_path / f"run-{channels}").mkdir()
        (folder / "model.onnx").write_bytes(toy_model(channels))
    (tmp_path / "current").symlink_to("run-1")
    models = Models([tmp_path / "current"])
    before = models.find("current").version

    (tmp_path / "new").symlink_to("run-3")
    (tmp_path / "new").replace(tmp_path / "current")
    models.refresh()

    assert models.find("current").version != before


def test_models_need_names_of_their_own_and_good_files(tmp_path: Path) -> None:
    (tmp_path / "toy.onnx").write_bytes(OLD)
    with pytest.raises(UsageError, match="two models are named 'toy'"):
        Models([tmp_path / "toy.onnx", tmp_path / "toy.onnx"])
    (tmp_path / "toy.onnx").write_bytes(OLD[:-100])
    with pytest.raises(ArtifactError):
        Models([tmp_path / "toy.onnx"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names of files are text")
def test_a_name_that_is_no_text_is_escaped(toy_run: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\nb"))
    folder.mkdir()
    shutil.copy(toy_run / "model.onnx", folder)

    name = Models([folder]).default.name

    assert name.isprintable() and name.encode()
    assert Models([folder]).find(name).name == name

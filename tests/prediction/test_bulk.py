"""Many pictures: the answers of one, in order, from processes that may end."""

import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag import FileAnswer, load
from hangtag import predict as predict_files
from hangtag.data.picture_list import list_pictures
from hangtag.data.store import process
from hangtag.errors import DataError, UsageError
from hangtag.model.predictor import Predictor
from hangtag.pictures import ImageSpec, encode_png
from hangtag.prediction import bulk, crew
from toys import toy_model


@pytest.fixture
def tag() -> Predictor:
    return load(toy_model(3, ImageSpec(8, 8, 3, fit="pad")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of many kinds and sizes in two folders, and two files that are not pictures."""
    random = np.random.default_rng(0)
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    for number in range(20):
        size = int(random.integers(4, 40))
        image = random.integers(0, 256, (size, 20, 3), dtype=np.uint8)
        (place / ("more" if number % 2 else ".") / f"{number:02d}.png").write_bytes(encode_png(image))
    Image.effect_noise((1300, 1100), 60).convert("RGB").save(place / "large.jpg")  # decoded at reduced size
    Image.fromarray(random.integers(0, 65536, (9, 9)).astype(np.uint16)).save(place / "deep.png")
    frames = [Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(2)]
    frames[0].save(place / "moving.gif", save_all=True, append_images=frames[1:])
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    (place / "empty.png").write_bytes(b"")
    (place / "notes.txt").write_text("not a picture")
    return place


def one_by_one(tag: Predictor, files: list[str]) -> list[FileAnswer]:
    return [FileAnswer(file, answer) for file, answer in zip(files, tag.many(files), strict=True)]


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_answers_are_those_of_the_predictor_bit_for_bit_in_any_number_of_processes(
    tag: Predictor, folder: Path, workers: int | None
) -> None:
    rows = list(predict_files(tag, folder, workers=workers))

    files = [str(folder / f"{name}") for name in sorted(str(each.relative_to(folder)) for each in folder.rglob("*.*"))]
    files = [file for file in files if not file.endswith(".txt")]
    alone = one_by_one(tag, files)
    assert [row.file for row in rows] == files and len(rows) == 25
    assert [row.answer for row in rows if row.answer.label] == [row.answer for row in alone if row.answer.label]
    assert [row.answer for row in rows if row.answer.label][3] == tag(next(r.file for r in rows[3:] if r.answer.label))
    failed = {Path(row.file).name: row.answer.error for row in rows if row.answer.label is None}
    assert failed.keys() == {"broken.jpg", "empty.png"}
    assert {f"{row.file}: {row.answer.error}" for row in rows if row.answer.label is None} == {
        row.answer.error for row in alone if row.answer.label is None
    }


def test_a_few_pictures_need_no_processes(tag: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WorkerProcess", None)
    files = [str(folder / "large.jpg"), str(folder / "broken.jpg"), str(folder / "nowhere.png")]

    rows = list(predict_files(tag, *files))

    assert rows[0].answer == tag(files[0])
    assert [bool(row.answer.error) for row in rows] == [False, True, True]
    assert rows[2].answer.error == "no such file"


CRASHER = """
import os, signal, time, hangtag.prediction.worker as worker
from hangtag.model.predictor import Predictor
before = Predictor.many
def many(self, pictures, top):
    def watched():
        for picture in pictures:
            if "die" in str(picture): os.kill(os.getpid(), signal.SIGSEGV)
            if "hang" in str(picture):
                while True: pass
            yield picture
    return before(self, watched(), top)
Predictor.many = many
worker.work()
"""


def test_a_picture_that_kills_or_hangs_a_process_is_one_row(
    tag: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        name = {3: "3-die", 8: "8-hang"}.get(number, f"{number:02d}")
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.full((8, 8, 3), 20 * number, np.uint8)))
    start = subprocess.Popen
    monkeypatch.setattr(process, "_SECONDS", 1.0)
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command, **how: start([sys.executable, "-c", CRASHER], **how)
    )

    rows = {Path(row.file).stem: row.answer for row in predict_files(tag, tmp_path, workers=2)}

    assert len(rows) == 12
    assert {name: answer.error for name, answer in rows.items() if answer.error} == {
        "3-die": "crashes the decoder: the decoding process ended with exit code -11",
        "8-hang": "takes too long: decoding took more than 1 s",
    }
    assert rows["05"] == tag(tmp_path / "05.png")


def test_an_abandoned_prediction_leaves_no_process(
    tag: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[process.WorkerProcess] = []

    def start(module: str, settings: dict[str, object]) -> process.WorkerProcess:
        started.append(process.WorkerProcess(module, settings))
        return started[-1]

    monkeypatch.setattr(crew, "WorkerProcess", start)
    rows = predict_files(tag, folder, workers=2)
    next(rows)

    rows.close()  # type: ignore[attr-defined]

    assert started and all(each.process.poll() is not None for each in started)


def test_only_some_answers_are_in_memory(tag: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tmp_path / "one.png"
    one.write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    work, begun = crew.Crew._work, []

    def counting(self: crew.Crew, chunk: list[list[object]]) -> list[dict[str, object]]:
        begun.append(len(chunk))
        return work(self, chunk)

    monkeypatch.setattr(crew.Crew, "_work", counting)
    rows = bulk.answers(tag, list_pictures([one] * 3000, tmp_path), workers=1)
    for _ in range(300):
        next(rows)

    time.sleep(0.5)  # for a process that would work ahead
    assert sum(begun) <= 300 + (crew._AHEAD + 2) * crew._LARGEST_CHUNK
    assert sum(1 for _ in rows) == 2700


def test_members_of_archives_and_cells_of_tables_have_the_answers_of_files(
    tag: Predictor, folder: Path, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [folder / f"{number:02d}.png" for number in range(0, 20, 2)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, f"inside/{file.name}")
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    parquet.write_table(pyarrow.table({"image": cells}), tmp_path / "all.parquet")
    (tmp_path / "all.csv").write_text("name,photo\n" + "".join(f"x,{file}\n" for file in files))

    expected = tag.many(files)

    for place in ("all.zip", "all.parquet", "all.csv"):
        rows = list(predict_files(tag, tmp_path / place, workers=2))
        assert [row.answer for row in rows] == expected
    assert rows[0].file == str(files[0])


def test_wrong_requests_are_errors_before_any_answer(tag: Predictor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers must be at least 1"):
        predict_files(tag, tmp_path, workers=0)
    with pytest.raises(UsageError, match="top must be at least 1"):
        predict_files(tag, tmp_path, top=0)
    with pytest.raises(DataError, match="no images found"):
        predict_files(tag, tmp_path)


def test_a_model_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    buffer = io.BytesIO(encode_png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "a.png").write_bytes(buffer.getvalue())

    ((file, answer),) = predict_files(tmp_path / "model.onnx", tmp_path / "a.png", top=1)

    assert file.endswith("a.png") and len(answer.top) == 1

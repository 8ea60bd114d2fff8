"""A job: all kinds of places into Parquet shards, exactly once, whatever happens in between."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hangtag import load
from hangtag.errors import DataError, DataNotFound, HangtagError, StoreError, UsageError
from hangtag.model.predictor import Predictor
from hangtag.pictures import encode_png
from hangtag.prediction.job import Done, Job, begin
from hangtag.prediction.units import UnitWorkers, answer_unit
from object_store import ObjectStore, object_store
from toys import toy_model

pq = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def tag() -> Predictor:
    return load(toy_model())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same ten pictures in every form, and a folder that also holds a broken one."""
    folder = tmp_path_factory.mktemp("places")
    source = np.random.default_rng(0)
    pictures = {f"{n:02d} ä#%.png": encode_png(source.integers(0, 256, (8 + n, 8), dtype=np.uint8)) for n in range(10)}
    found = {name: folder / name for name in ("photos", "a.zip", "a.tar", "b.tar.gz", "a.parquet", "a.csv", "b.jsonl")}
    (found["photos"] / "more").mkdir(parents=True)
    for number, (name, content) in enumerate(pictures.items()):
        (found["photos"] / ("more" if number % 2 else ".") / name).write_bytes(content)
    (found["photos"] / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    with zipfile.ZipFile(found["a.zip"], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pictures.items():
            archive.writestr(f"in/{name}", content)
    for form, mode in (("a.tar", "w:"), ("b.tar.gz", "w:gz")):
        with tarfile.open(found[form], mode) as packed:  # type: ignore[call-overload]
            for name, content in pictures.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    pq.write_table(pyarrow.table({"n": range(10), "image": list(pictures.values())}), found["a.parquet"], 4)
    rows = [f"photos/{'more/' if number % 2 else ''}{name}" for number, name in enumerate(pictures)]
    found["a.csv"].write_text("image\n" + "".join(f"{row}\n" for row in [*rows, "photos/missing.png"]))
    found["b.jsonl"].write_text("".join(json.dumps({"image": row}) + "\n" for row in rows))
    return found


def run(
    tag: Predictor, places: Sequence[object], out: object, workers: int = 1, unit_images: int = 10_000, most: int = 99
) -> Done:
    """Work on a job, at most on so many units."""
    with begin(tag, [str(place) for place in places], str(out), unit_images=unit_images) as job:
        done = job.finished()
        units = [unit for unit in job.units if unit.number not in done][:most]
        if units:
            with UnitWorkers(job, tag, workers) as crew:
                for each in crew.answer(units, sum(unit.images for unit in units)):
                    done[each.unit] = each
        total = sum((done[number] for number in sorted(done)), Done())
        if len(done) == len(job.units):
            job.finish(total)
    return total


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def test_all_kinds_of_places_give_the_answers_of_the_predictor_whatever_the_units_and_workers(
    tag: Predictor, places: dict[str, Path], tmp_path: Path
) -> None:
    total = run(tag, list(places.values()), tmp_path / "whole")
    run(tag, list(places.values()), tmp_path / "pieces", workers=3, unit_images=7)

    rows = rows_of(tmp_path / "whole")
    assert rows == rows_of(tmp_path / "pieces")
    assert len(rows) == total.images == 72 and total.failed == 2
    assert len(list((tmp_path / "pieces").glob("part-*.parquet"))) == 11
    failed = {row["file"]: row["error"] for row in rows if row["error"]}
    assert list(failed) == [f"{places['photos']}/broken.jpg", "photos/missing.png"]
    answers = {path.name: tag(path) for path in places["photos"].rglob("*.png")}
    named = [row for row in rows if not row["error"] and row["file"].endswith(".png")]
    assert len(named) == 60
    for row in named:
        answer = answers[row["file"].rpartition("/")[2]]
        assert (row["label"], row["probability"]) == (answer.label, answer.probability)
    in_parquet = [row["probability"] for row in rows if "a.parquet: row" in row["file"]]
    assert in_parquet == [answer.probability for _, answer in sorted(answers.items())]
    assert {row["model"] for row in rows} == {tag.fingerprint}


def test_a_worker_elsewhere_opens_the_job_and_answers_single_units(
    tag: Predictor, places: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with begin(tag, [str(places["photos"])], str(out), unit_images=6) as mine:
        job = Job.open(str(out))
        predictor = job.predictor(tag.content)
        with UnitWorkers(job, predictor, 1) as workers:
            done = [answer_unit(unit, workers) for unit in reversed(list(job.pending()))]
        assert [each.unit for each in done] == [1, 0] and list(mine.pending()) == []
    with pytest.raises(DataError, match="another model"):
        job.predictor(toy_model(3))
    assert len(rows_of(out)) == 11


def test_damaged_and_missing_shards_are_made_again_and_the_others_are_kept(
    tag: Predictor, places: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(tag, [places["photos"]], out, unit_images=3)
    shards = sorted(out.glob("part-*.parquet"))
    before = [shard.read_bytes() for shard in shards]
    kept = shards[3].stat().st_mtime_ns
    shards[0].unlink()
    shards[1].write_bytes(before[1][:-9])
    place = before[2].index(b"PAR1") + 60
    shards[2].write_bytes(before[2][:place] + bytes([before[2][place] ^ 1]) + before[2][place + 1 :])

    run(tag, [places["photos"]], out)

    assert [shard.read_bytes() for shard in shards] == before
    assert shards[3].stat().st_mtime_ns == kept


def test_a_job_that_is_finished_is_not_done_again(tag: Predictor, places: dict[str, Path], tmp_path: Path) -> None:
    first = run(tag, [places["photos"]], tmp_path / "out")

    with begin(tag, [str(places["photos"])], str(tmp_path / "out")) as job:
        assert job.manifest.status == "finished" and job.manifest.images == 11
        assert list(job.pending()) == []
        assert Done.from_json(job.manifest.counts) == first


def test_another_job_other_files_and_damage_are_refused(
    tag: Predictor, places: dict[str, Path], tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    run(tag, [places["photos"]], out, unit_images=6)
    run(tag, [places["a.zip"]], other)

    def refused(
        error: type[HangtagError], match: str, model: Predictor = tag, place: object = places["photos"]
    ) -> None:
        with pytest.raises(error, match=match):
            run(model, [place], out)

    refused(UsageError, "about other pictures", place=places["a.zip"])
    refused(UsageError, "another model", load(toy_model(3)))
    refused(UsageError, "another coverage", tag.with_policy(type(tag.policy)(coverage=0.9)))
    refused(UsageError, "--as-is", tag.with_doctor(False))
    shard = out / "part-000000.parquet"
    content = shard.read_bytes()
    shard.write_bytes((other / "part-000000.parquet").read_bytes())
    refused(DataError, "part-000000.parquet: belongs to another job")
    shard.unlink()
    units = out / "_units" / "000000.json.gz"
    listed = units.read_bytes()
    units.write_bytes(listed[:-5])
    refused(DataError, "the list of pictures is damaged")
    units.write_bytes(gzip.compress(b"{}"))
    refused(DataError, "the list of pictures is damaged")
    units.write_bytes(listed)
    run(tag, [places["photos"]], out)
    assert shard.read_bytes() == content
    (out / "_manifest.json").write_text('{"model": 3}')
    refused(DataError, "_manifest.json is invalid")
    with pytest.raises(UsageError, match="holds other files, such as"):
        run(tag, [places["photos"]], places["photos"])
    assert not [path for path in places["photos"].iterdir() if path.name[0] in "._"]


def test_two_commands_cannot_write_the_same_job(tag: Predictor, places: dict[str, Path], tmp_path: Path) -> None:
    with (
        begin(tag, [str(places["photos"])], str(tmp_path / "out")),
        pytest.raises(UsageError, match="another command is writing there"),
        begin(tag, [str(places["photos"])], str(tmp_path / "out")),
    ):
        pass


def test_a_list_that_was_not_finished_is_begun_again(tag: Predictor, places: dict[str, Path], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.zip"
    with pytest.raises(DataError, match="no images found"):
        (tmp_path / "empty").mkdir()
        run(tag, [places["photos"], tmp_path / "empty"], tmp_path / "out", unit_images=2)
    with pytest.raises(DataError, match="the list of pictures is not complete"):
        Job.open(str(tmp_path / "out"))
    with pytest.raises(DataNotFound):
        Job.open(str(missing))
    (tmp_path / "empty" / "one.png").write_bytes(encode_png(np.zeros((8, 8), np.uint8)))

    assert run(tag, [places["photos"], tmp_path / "empty"], tmp_path / "out").images == 12


def test_a_folder_that_vanishes_stops_the_job_and_loses_nothing(tag: Predictor, tmp_path: Path) -> None:
    photos, away = tmp_path / "photos", tmp_path / "away"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number}.png").write_bytes(encode_png(np.full((8, 8), number, np.uint8)))
    run(tag, [photos], tmp_path / "out", unit_images=5, most=1)
    photos.rename(away)
    photos.mkdir()  # what unmounting leaves
    with pytest.raises(StoreError, match="photos: cannot be read any more: it is empty now"):
        run(tag, [photos], tmp_path / "out")
    photos.rmdir()
    away.rename(photos)

    assert run(tag, [photos], tmp_path / "out").failed == 0
    assert len(rows_of(tmp_path / "out")) == 12


def test_killed_at_any_instant_the_same_command_loses_and_doubles_no_row(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    (tmp_path / "photos").mkdir()
    content = [encode_png(np.full((8, 8), number, np.uint8)) for number in range(100)]
    for number in range(300):
        (tmp_path / "photos" / f"{number:04d}.png").write_bytes(content[number % 100])
    program = (
        "import hangtag.prediction.job as job; job.begin.__wrapped__.__kwdefaults__['unit_images'] = 20\n"
        "import sys; from hangtag.cli.main import main; sys.argv[0] = 'hangtag'; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "predict", "model.onnx", "photos", "--out", "out", "--top", "1"]
    command += ["--workers", "1"]
    source = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        end = time.monotonic() + 60
        goal = len(list(tmp_path.glob("out/part-*"))) + source.randint(1, 3)
        while process.poll() is None and len(list(tmp_path.glob("out/part-*"))) < goal and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(source.random() / 100)
        process.send_signal(signal.SIGKILL)
        process.wait()

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert [row["file"] for row in rows_of(tmp_path / "out")] == [f"photos/{number:04d}.png" for number in range(300)]
    assert not list(tmp_path.glob("out/.part*"))


def test_small_jobs_have_units_for_many_workers(tag: Predictor, tmp_path: Path) -> None:
    def units(images: int, most: int = 10_000) -> list[int]:
        names = [f"{number}.png" for number in range(images)]
        with begin(tag, names, str(tmp_path / f"{images} {most}"), unit_images=most) as job:
            assert [unit.first for unit in job.units] == np.cumsum([0, *job.manifest.units])[:-1].tolist()
            return job.manifest.units

    assert units(30) == [30] and units(300) == [32] * 9 + [12] and units(300, 100) == units(300)
    assert units(1600) == [100] * 16 and units(1600, 70) == [70] * 22 + [60]
    assert units(10_900) == [625] * 16 + [900]


# --- object stores -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


def test_pictures_and_shards_in_an_object_store_give_the_rows_of_files(
    tag: Predictor, places: dict[str, Path], store: ObjectStore, tmp_path: Path
) -> None:
    folder = places["photos"].parent
    store.put({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    run(tag, list(places.values()), tmp_path / "local")
    addresses = [f"s3://{store.bucket}/{place.name}" for place in places.values()]

    total = run(tag, addresses, f"s3://{store.bucket}/answers/all", unit_images=25)
    run(tag, addresses, f"s3://{store.bucket}/answers/all")

    rows = pq.read_table(f"{store.bucket}/answers/all", filesystem=store.system()).to_pylist()
    local = rows_of(tmp_path / "local")
    assert total.images == len(rows) == len(local)
    for row, expected in zip(rows, local, strict=True):
        assert row["file"].rpartition("/")[2] == expected["file"].rpartition("/")[2]
        differ = {"file", "error"} if "missing.png" in row["file"] else {"file"}  # said in other words
        assert {name: row[name] for name in row.keys() - differ} == {
            name: expected[name] for name in row.keys() - differ
        }
    with pytest.raises(UsageError, match="about other pictures"):
        run(tag, addresses[:1], f"s3://{store.bucket}/answers/all")
    store.put({f"shards/in/{name}": places[name].read_bytes() for name in ("a.zip", "a.parquet")})
    assert run(tag, [f"s3://{store.bucket}/shards"], tmp_path / "shards").images == 20
    assert {row["probability"] for row in rows_of(tmp_path / "shards")} == {
        row["probability"] for row in rows if row["probability"] is not None
    }


def test_what_is_wrong_with_an_object_store_is_one_clear_line(
    tag: Predictor, places: dict[str, Path], store: ObjectStore, tmp_path: Path
) -> None:
    def refused(error: type[HangtagError], match: str, place: str, out: object = tmp_path / "out") -> None:
        with pytest.raises(error, match=match):
            run(tag, [place], out)

    store.put({"alone/one.png": b"x", "texts/a.txt": b"x"})
    refused(DataNotFound, "s3://nobucket/x: (does not exist|the bucket does not)", "s3://nobucket/x")
    refused(DataNotFound, "s3://pictures/none: does not exist", "s3://pictures/none")
    refused(DataError, "s3://pictures/texts: no images found, but files such as a.txt", "s3://pictures/texts")
    refused(DataNotFound, "the bucket does not exist", "s3://pictures/alone", "s3://nobucket/out")
    refused(StoreError, "does not answer", "s3://pictures/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
    refused(UsageError, "cannot be opened: Protocol not known", "nosuchscheme://bucket/x")
    refused(UsageError, "s3://bucket: an address must not hold a password", "s3://me:secret@bucket/x")


def test_credentials_that_are_missing_or_wrong_are_named(tag: Predictor, tmp_path: Path) -> None:
    with object_store(auth=True) as guarded:
        done = subprocess.run(
            [sys.executable, "-m", "hangtag", "predict", "model.onnx", f"s3://{guarded.bucket}/x", "--out", "out"],
            cwd=_with_model(tmp_path), capture_output=True, text=True, check=False,
            env={**os.environ, **guarded.environment, "AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"},
        )  # fmt: skip

    assert done.returncode == 1
    assert "cannot be read: access denied, or no credentials (set the credentials" in done.stderr
    assert "Traceback" not in done.stderr


def _with_model(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(toy_model())
    return folder

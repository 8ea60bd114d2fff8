"""A job answered on a real cluster: its shards are those without Ray, and nodes without the data are named."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import toys
from hangtag.cluster import answering
from hangtag.cluster.answering import GPU_SHARE, Speed, answer_on
from hangtag.cluster.connect import Cluster, Node, Resources, connected
from hangtag.errors import ClusterError, UsageError
from hangtag.model import gpu
from hangtag.model.predictor import Predictor, load
from hangtag.prediction.job import Done, begin
from hangtag.prediction.units import UnitWorkers
from object_store import object_store


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 toy images, one of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(toys.shapes(60)[0]):
        Image.fromarray(np.asarray(image)).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes(b"\x89PNG not really")
    return folder


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load(toys.toy_model())


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def answer(address: str, model: Predictor, photos: Path | str, out: Path | str, **settings: Any) -> tuple[Done, Speed]:
    speed = Speed()
    with connected(address) as cluster, begin(model, [str(photos)], str(out), unit_images=6) as job:
        progress = settings.pop("progress", lambda *_: None)
        work = answer_on(cluster, settings.pop("workers", None), speed)
        units = list(job.pending())
        return sum(work(job, model, units, sum(unit.images for unit in units), progress), Done()), speed


def test_shards_are_those_without_ray(address: str, model: Predictor, photos: Path, tmp_path: Path) -> None:
    with begin(model, [str(photos)], str(tmp_path / "here"), unit_images=6) as job, UnitWorkers(job, model, 1) as crew:
        here = sum(crew.answer(job.units, 60), Done())
    seen: list[tuple[str, int, int]] = []

    done, speed = answer(address, model, photos, tmp_path / "ray", progress=lambda *each: seen.append(each))

    assert shards(tmp_path / "ray") == shards(tmp_path / "here")
    assert (done.images, done.failed, done.labels) == (60, 1, here.labels)
    assert speed.images.total() == 60 and set(speed.images) <= {"head", "east", "west"}
    assert [each[1:] for each in seen] == [(count, 60) for count in range(6, 61, 6)]
    assert seen[-1][0] == f"{speed}: classifying images" or "/s" in seen[-1][0]


def test_a_job_goes_on_where_a_stopped_driver_left_it_with_another_number_of_workers(
    address: str, model: Predictor, photos: Path, tmp_path: Path
) -> None:
    with begin(model, [str(photos)], str(tmp_path / "here"), unit_images=6) as job, UnitWorkers(job, model, 1) as crew:
        list(crew.answer(job.units, 60))
    out = tmp_path / "out"
    with connected(address) as cluster, begin(model, [str(photos)], str(out), unit_images=6) as job:
        found = answer_on(cluster)(job, model, job.units, 60, lambda *_: None)
        next(found)
        found.close()  # type: ignore[attr-defined]
    there = shards(out)
    assert there

    done, _ = answer(address, model, photos, out, workers=1)

    assert done.images == 60 - 6 * len(there)
    assert shards(out) == shards(tmp_path / "here")


def test_units_of_killed_workers_are_answered_by_new_ones(
    address: str, model: Predictor, photos: Path, tmp_path: Path
) -> None:
    with begin(model, [str(photos)], str(tmp_path / "here"), unit_images=6) as job, UnitWorkers(job, model, 1) as crew:
        list(crew.answer(job.units, 60))
    killed: list[int] = []

    def kill_all(*_: object) -> None:
        if not killed:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                if path.read_bytes().startswith(b"ray::_Worker"):
                    killed.append(int(path.parent.name))
                    os.kill(killed[-1], signal.SIGKILL)

    done, _ = answer(address, model, photos, tmp_path / "out", progress=kill_all)

    assert killed
    assert (done.images, done.failed) == (60, 1)
    assert shards(tmp_path / "out") == shards(tmp_path / "here")


def test_a_node_without_the_images_is_named(address: str, model: Predictor, photos: Path, tmp_path: Path) -> None:
    with connected(address) as cluster, begin(model, [str(photos)], str(tmp_path / "out"), unit_images=6) as job:
        task = answering._Task(job.store.place, job.manifest.id, answering._witnesses(job, job.units))
        assert len(task.witnesses) == 8
        elsewhere = [(name, ["folder", "/nowhere"], key, digest) for name, _, key, digest in task.witnesses]
        wrong = answering._Task(task.place, task.id, elsewhere)
        with pytest.raises(ClusterError, match=r"on node (head|east|west): .*this node cannot read the file, but"):
            list(answering._Actors(cluster, 1, Resources()).reports(wrong, model.content, job.units))
        with pytest.raises(ClusterError, match="cannot read the output folder"):
            answering._Task(str(tmp_path / "other"), task.id, task.witnesses).job()
        with pytest.raises(ClusterError, match="another folder of that name"):
            answering._Task(task.place, "another", task.witnesses).job()
    assert shards(tmp_path / "out") == {}


def test_images_and_shards_in_an_object_store_give_the_rows_of_files(
    address: str, model: Predictor, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        place = f"s3://{store.bucket}/{{}}?endpoint_override={store.environment['AWS_ENDPOINT_URL']}"
        store.put({f"photos/{path.name}": path.read_bytes() for path in sorted(photos.iterdir())[:12]})
        with (
            begin(model, [place.format("photos")], place.format("here"), unit_images=6) as job,
            UnitWorkers(job, model, 1) as crew,
        ):
            here = sum(crew.answer(job.units, 12), Done())

        done, _ = answer(address, model, place.format("photos"), place.format("ray"))

        assert (done.images, done.failed, done.labels) == (12, 1, here.labels)
        system = store.system()
        for name in ("part-000000.parquet", "part-000001.parquet"):
            made, wanted = (system.open_input_file(f"{store.bucket}/{out}/{name}").readall() for out in ("ray", "here"))
            assert made == wanted


def test_a_job_for_gpus_needs_some(address: str) -> None:
    with pytest.raises(ClusterError, match="asked for 1 GPU, the cluster has 0"):
        connected(address, Resources(1, 1, GPU_SHARE)).__enter__()


@pytest.mark.skipif(gpu.gpus() > 0, reason="needs a machine without a GPU")
def test_workers_for_gpus_go_where_gpus_are(
    cluster: Any, address: str, model: Predictor, photos: Path, tmp_path: Path
) -> None:
    """A node says that it has a GPU, and has none: its worker is started, and says so."""
    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=100_000_000, node_name="gpu")
    try:
        with (
            connected(address, Resources(1, 1, GPU_SHARE)) as found,
            begin(model, [str(photos)], str(tmp_path / "out"), device="cuda") as job,
            pytest.raises(UsageError, match=r"node gpu: device 'cuda' cannot be used: "),
        ):
            list(answer_on(found, device="cuda")(job, model, job.units, 60, lambda *_: None))
    finally:
        cluster.remove_node(node)
        cluster.wait_for_nodes()


@pytest.mark.parametrize(
    ("nodes", "share", "room"),
    [
        ([(1, 1)], 1.0, 1),
        ([(4, 2), (8, 0)], 0.5, 4),
        ([(5, 2)], 0.3333, 5),
        ([(64, 2)], 0.125, 16),
        ([(16, 1), (2, 1)], 0.125, 10),
        ([(8, 0)], 0.125, 0),
    ],
    ids=str,
)
def test_workers_use_the_cpus_beside_gpus_and_all_gpus(nodes: list[Any], share: float, room: int) -> None:
    cluster = Cluster("", tuple(Node(str(at), str(at), *each) for at, each in enumerate(nodes)), None)

    assert answering._gpu_share(cluster) == share
    assert cluster.room_for(Resources(1, 1, share)) == room

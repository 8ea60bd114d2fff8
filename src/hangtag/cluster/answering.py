"""Units of a job, answered on all nodes of a cluster: operators of Ray Data over the list of units.

Each unit is a small row. An actor of `map_batches` has the model and a process for pictures (`prediction/units.py`),
and writes a unit's shard where it is made, so rows never travel; what comes back is a count. Ray Data replaces actors
and nodes that are lost, and gives their units to others. Ray Data runs only inside a cluster, and a driver may be a
client from elsewhere, so an actor without a CPU, the coordinator, runs it. Its messages stay in the cluster's logs.
"""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hangtag.cluster.connect import Cluster, Resources, Room
from hangtag.cluster.remote import node_name, outcome, ray_errors, result
from hangtag.data.store.containers import container_of
from hangtag.data.store.remote import without_query
from hangtag.errors import ClusterError, DataError, HangtagError, StoreError
from hangtag.model.gpu import MOST_PROCESSES
from hangtag.model.predictor import Predictor
from hangtag.prediction.bulk import source_of
from hangtag.prediction.job import Done, Job, Unit
from hangtag.progress import Progress
from hangtag.words import first_few

__all__ = ["GPU_SHARE", "Speed", "answer_on"]

GPU_SHARE = 1 / MOST_PROCESSES
"""The least share of a GPU that a worker takes."""

_WITNESSES = 8  # pictures by which a node shows that it has the data
_MOST_BLOCKS = 10_000  # units are handed out in at most this many pieces
_MOST_LOSSES = 5  # coordinators lost one after the other before the work stops
_MOST_RETRIES = 20  # of one unit whose workers die
_POLL_SECONDS = 0.5


@dataclass
class Speed:
    """What each node has done so far: images, and images a second since its first unit began."""

    images: Counter[str] = field(default_factory=Counter)
    began: dict[str, float] = field(default_factory=dict)

    def add(self, node: str, images: int, seconds: float) -> None:
        now = time.monotonic()
        self.began.setdefault(node, now - seconds)
        self.images[node] += images

    def __str__(self) -> str:
        now = time.monotonic()
        return first_few(
            [f"{node} {self.images[node] / max(now - self.began[node], 1e-3):,.0f}/s" for node in sorted(self.images)]
        )


def answer_on(
    cluster: Cluster, workers: int | None = None, speed: Speed | None = None
) -> Callable[[Job, Predictor, Iterable[Unit], int, Progress], Iterator[Done]]:
    """A function that answers units of a job on the cluster, in the order in which they are done.

    Args:
        cluster: to which this process is connected.
        workers: the most that work at once, each with one CPU and, if the job is for GPUs, a share of one; None: as
            many as the cluster has room for, also on nodes that join later.
        speed: filled with what each node does.

    Raises:
        ClusterError: a node cannot read the pictures or the output folder, or the cluster fails several times in a row.
        DataError, SaveError: as for `UnitWorkers.answer`, with the name of the node.
    """
    speed = speed if speed is not None else Speed()

    def answer(
        job: Job, predictor: Predictor, units: Iterable[Unit], images: int, progress: Progress
    ) -> Iterator[Done]:
        left = {unit.number: unit for unit in units}
        task = _Task(job.store.place, job.manifest.id, _witnesses(job, list(left.values())))
        needs = Resources(1, 1, _gpu_share(cluster) if job.manifest.device == "cuda" else 0)
        room = max(1, cluster.room_for(needs))
        sizes = min(workers or room, room), workers or len(left)
        answered = losses = 0
        while left:
            try:
                for found in _reports(cluster, task, predictor.content, list(left.values()), sizes, needs):
                    done = Done.from_json(found["done"])
                    del left[done.unit]
                    losses = 0
                    answered += done.images
                    speed.add(found["node"], done.images, found["seconds"])
                    progress(f"{speed}: classifying images", answered, images)
                    yield done
            except _CoordinatorLostError as error:
                losses += 1
                if losses > _MOST_LOSSES:
                    raise error.reason from error
                time.sleep(1.0)

    return answer


def _gpu_share(cluster: Cluster) -> float:
    """The share of a GPU with which there are as many workers as CPUs on the nodes with GPUs, spread over all GPUs."""
    most = max((math.ceil(node.cpus / node.gpus) for node in cluster.nodes if node.gpus), default=MOST_PROCESSES)
    return math.floor(1e4 / max(1, min(most, MOST_PROCESSES))) / 1e4  # Ray counts in steps of 0.0001


class _CoordinatorLostError(Exception):
    """The coordinator or its node has died; the units that are left can be given to another."""

    def __init__(self, reason: HangtagError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class _Task:
    """What a worker must know: where the job is, its id, and some pictures that it must see, with their digests."""

    place: str
    id: str
    witnesses: list[tuple[str, list[Any], Any, str]]

    def check_data(self) -> None:
        """Raise an error unless this node sees the same pictures as the driver."""
        for name, container, key, digest in self.witnesses:
            try:
                same = _digest(container, key) == digest
            except (HangtagError, OSError) as error:
                why = error.message if isinstance(error, HangtagError) else error.strerror
                raise ClusterError(
                    f"{name}: this node cannot read the file, but the machine that runs the command can: {why}",
                    _hint(
                        error, "mount the folder at the same path on all nodes, or put the images into an object store"
                    ),
                ) from error
            if not same:
                raise ClusterError(
                    f"{name}: this node has another file of that name", "mount the same folder on all nodes"
                )

    def job(self) -> Job:
        """The job, as this node sees it."""
        where = without_query(self.place)
        try:
            job = Job.open(self.place)
        except DataError as error:
            raise ClusterError(
                f"{where}: this node cannot read the output folder: {error.message}",
                _hint(error, "the folder must be on a file system that all nodes share, or in an object store"),
            ) from error
        if job.manifest.id != self.id:
            raise ClusterError(f"{where}: this node has another folder of that name", "share one folder on all nodes")
        return job


def _hint(error: Exception, otherwise: str) -> str:
    """What to do about an error of a node."""
    return f"on every node, {error.hint}" if isinstance(error, StoreError) else otherwise


def _witnesses(job: Job, units: list[Unit]) -> list[tuple[str, list[Any], Any, str]]:
    """Some pictures of the job that this machine can read, and the digests of their bytes."""
    step = max(1, len(units) // _WITNESSES)
    found = []
    for unit in units[::step][:_WITNESSES]:
        pictures = job.pictures(unit)
        for name, where, key in zip(pictures.names[:3], pictures.places, pictures.keys, strict=False):
            container = pictures.containers[where]
            try:
                found.append((name, container, key, _digest(container, key)))
                break
            except (HangtagError, OSError):  # its row will say why
                continue
    return found


def _digest(where: list[Any], key: Any) -> str:
    source = source_of(container_of(where), key)
    return hashlib.sha256(Path(source).read_bytes() if isinstance(source, str) else source).hexdigest()


class _Worker:
    """An actor of Ray Data: answers one unit after the other. It opens the model with its first unit."""

    def __init__(self, task: _Task, model: list[Any]) -> None:
        self.task, self.model = task, model
        self.units: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        numbers = (int(value) for value in (batch["number"][0], batch["first"][0], batch["images"][0]))
        return {"found": [json.dumps(outcome(lambda: self._answer(Unit(*numbers))))]}

    def _answer(self, unit: Unit) -> dict[str, Any]:
        from hangtag.prediction.units import answer_unit

        began = time.monotonic()
        self.task.check_data()
        if self.units is None:
            self.units = self._open()
        done = answer_unit(unit, self.units)
        try:
            self.task.check_data()
        except ClusterError:  # the data went away meanwhile, so some rows may say that pictures are missing
            self.units.job.store.delete(unit.shard)
            raise
        return {"done": done.to_json(), "node": node_name(), "seconds": time.monotonic() - began}

    def _open(self) -> Any:
        import ray

        from hangtag.prediction.units import UnitWorkers

        job = self.task.job()
        return UnitWorkers(job, job.predictor(ray.get(self.model[0]), threads=1), 1).__enter__()

    def __del__(self) -> None:  # called by Ray Data before it ends the actor
        if self.units is not None:
            self.units.__exit__(None, None, None)


class _Coordinator:
    """Runs Ray Data inside the cluster, and hands out what the workers report."""

    def __init__(
        self, task: _Task, content: bytes, units: list[tuple[int, int, int]], sizes: tuple[int, int], needs: Resources
    ) -> None:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [dict(zip(("number", "first", "images"), unit, strict=True)) for unit in units]
        first, most = (min(size, len(rows)) for size in sizes)
        self.rows = iter(
            ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS))
            .map_batches(
                _Worker,
                batch_size=1,
                fn_constructor_kwargs={"task": task, "model": [ray.put(content)]},
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=most, initial_size=first, max_tasks_in_flight_per_actor=2
                ),
                num_cpus=needs.cpus,
                num_gpus=needs.gpus or None,
                max_restarts=-1,
                max_task_retries=_MOST_RETRIES,
            )
            .iter_rows()
        )

    def next(self) -> str | None:
        """The next report as JSON; None after the last."""

        def pull() -> str | None:
            with ray_errors():
                row = next(self.rows, None)
            return None if row is None else str(row["found"])

        found = outcome(pull)
        return found["value"] if "value" in found else json.dumps(found)


def _reports(
    cluster: Cluster, task: _Task, content: bytes, units: list[Unit], sizes: tuple[int, int], needs: Resources
) -> Iterator[dict[str, Any]]:
    """What workers report, unit by unit; `sizes` are the numbers of workers at the start and at most."""
    import ray

    numbers = [(unit.number, unit.first, unit.images) for unit in units]
    with ray_errors():
        actor = ray.remote(num_cpus=0, max_restarts=0)(_Coordinator).remote(
            task, ray.put(content), numbers, sizes, needs
        )
    room = Room(cluster, needs)
    try:
        while True:
            try:
                waiting = actor.next.remote()
                while not ray.wait([waiting], timeout=_POLL_SECONDS)[0]:  # Ctrl-C is noticed here
                    room.check()
                found = ray.get(waiting)
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                raise _CoordinatorLostError(
                    ClusterError(
                        f"the work was lost {_MOST_LOSSES + 1} times in a row, most recently: {str(error)[:200]}",
                        "check its nodes in the dashboard, then run the same command again",
                    )
                ) from error
            if found is None:
                return
            yield result(json.loads(found))
    finally:
        ray.kill(actor)

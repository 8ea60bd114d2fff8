"""Units of a job, answered on all nodes of a cluster by actors of Ray.

An actor has the model and a process for pictures (`prediction/units.py`). It is given one unit after the other, and
writes a unit's shard where it is made, so rows never travel; what comes back is a count. Ray replaces actors and nodes
that are lost, and gives their units to the new ones. The first actors start while the pictures are still listed.
"""

import hashlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hangtag.cluster.connect import Cluster, Resources, Room
from hangtag.cluster.remote import node_name, outcome, result
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
_MOST_RETRIES = 20  # of one unit whose workers die
_POLL_SECONDS = 0.5
_END_SECONDS = 5.0  # that an actor has to end its process for pictures


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
    cluster: Cluster, workers: int | None = None, speed: Speed | None = None, device: str = "cpu"
) -> Callable[[Job, Predictor, Iterable[Unit], int, Progress], Iterator[Done]]:
    """A function that answers units of a job on the cluster, in the order in which they are done; actors start at once.

    Args:
        cluster: to which this process is connected.
        workers: the most that work at once, each with one CPU; None: as many as the cluster has room for, also on
            nodes that join later.
        speed: filled with what each node does.
        device: that of the job; with "cuda" each worker also takes a share of a GPU.

    Raises:
        ClusterError: a node cannot read the pictures or the output folder, or too many nodes are lost.
        DataError, SaveError: as for `UnitWorkers.answer`, with the name of the node.
    """
    speed = speed if speed is not None else Speed()
    actors = _Actors(cluster, workers, Resources(1, 1, _gpu_share(cluster) if device == "cuda" else 0))
    actors.start(None)

    def answer(
        job: Job, predictor: Predictor, units: Iterable[Unit], images: int, progress: Progress
    ) -> Iterator[Done]:
        left = list(units)
        task = _Task(job.store.place, job.manifest.id, _witnesses(job, left))
        answered = 0
        for found in actors.reports(task, predictor.content, left):
            done = Done.from_json(found["done"])
            answered += done.images
            speed.add(found["node"], done.images, found["seconds"])
            progress(f"{speed}: classifying images", answered, images)
            yield done

    return answer


def _gpu_share(cluster: Cluster) -> float:
    """The share of a GPU with which there are as many workers as CPUs on the nodes with GPUs, spread over all GPUs."""
    most = max((math.ceil(node.cpus / node.gpus) for node in cluster.nodes if node.gpus), default=MOST_PROCESSES)
    return math.floor(1e4 / max(1, min(most, MOST_PROCESSES))) / 1e4  # Ray counts in steps of 0.0001


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
    """An actor that answers one unit after the other. It opens the model with its first unit."""

    def __init__(self) -> None:
        self.units: Any = None

    def prepare(self) -> None:
        """Import what the work needs."""
        import hangtag.prediction.units  # noqa: F401

    def answer(self, task: _Task, model: Any, unit: Unit) -> dict[str, Any]:
        """What was done, on which node and in how many seconds, as an `outcome`."""
        return outcome(lambda: self._answer(task, model, unit))

    def close(self) -> None:
        if self.units is not None:
            self.units.__exit__(None, None, None)

    def _answer(self, task: _Task, model: Any, unit: Unit) -> dict[str, Any]:
        from hangtag.prediction.units import UnitWorkers, answer_unit

        began = time.monotonic()
        task.check_data()
        if self.units is None:
            job = task.job()
            self.units = UnitWorkers(job, job.predictor(model, threads=1), 1)
        done = answer_unit(unit, self.units)
        try:
            task.check_data()
        except ClusterError:  # the data went away meanwhile, so some rows may say that pictures are missing
            self.units.job.store.delete(unit.shard)
            raise
        return {"done": done.to_json(), "node": node_name(), "seconds": time.monotonic() - began}


class _Actors:
    """The actors of a job: as many as there is room for, each for as long as there are units for it.

    Args:
        workers: the most at once; None: as many as the cluster has room for, or can grow to.
        needs: of each.
    """

    def __init__(self, cluster: Cluster, workers: int | None, needs: Resources) -> None:
        import ray

        self.cluster, self.workers = cluster, workers
        self.room = Room(cluster, needs)
        self.kind = ray.remote(
            num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=-1, max_task_retries=_MOST_RETRIES
        )(_Worker)
        self.asked: dict[Any, Any] = {}  # what each actor does now, and the actor
        self.ending: list[Any] = []

    def start(self, left: int | None) -> None:
        """Start actors for which there is room: one for each unit that is left, if that is known."""
        grown = int(min(self.cluster.most.get("CPU", 0), left or 0))
        wanted = self.workers or max(1, self.room.now, grown)
        for _ in range((wanted if left is None else min(wanted, left)) - len(self.asked)):
            actor = self.kind.remote()
            self.asked[actor.prepare.remote()] = actor

    def reports(self, task: _Task, content: bytes, units: list[Unit]) -> Iterator[dict[str, Any]]:
        """What the actors report, unit by unit."""
        import ray

        waiting, left = deque(units), len(units)
        try:
            told = ray.put(task), ray.put(content)
            while left:
                self.start(left)
                ready, _ = ray.wait(list(self.asked), timeout=_POLL_SECONDS)  # Ctrl-C is noticed here
                self.room.check()
                for each in ready:
                    found = self._next(each, told, waiting)
                    if found is not None:
                        left -= 1
                        yield result(found)
            if self.ending:
                ray.wait(self.ending, num_returns=len(self.ending), timeout=_END_SECONDS)
        finally:
            for actor in self.asked.values():
                ray.kill(actor)

    def _next(self, asked: Any, told: tuple[Any, Any], waiting: deque[Unit]) -> dict[str, Any] | None:
        """What an actor has found. It is given the next unit, or ends, so that a lost one can use its CPU."""
        import ray

        actor = self.asked.pop(asked)
        found: dict[str, Any] | None = ray.get(asked)
        if waiting:
            self.asked[actor.answer.remote(*told, waiting.popleft())] = actor
        else:
            self.ending.append(actor.close.remote())  # Ray ends an actor that nothing refers to
        return found

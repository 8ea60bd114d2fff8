"""One training on several workers of a Ray cluster, by Ray Train.

The process that began the training keeps the run folder. It divides the data, sends the workers a description of the
training, and gets back epochs, checkpoints and weights through an actor, so that no file system needs to be shared.
Ray Train starts the workers, connects them, and starts all of them again when one is lost; they then continue from the
last checkpoint.
"""

import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from hangtag import errors
from hangtag.cluster.connect import Cluster, Resources
from hangtag.cluster.images import SharedImages, received
from hangtag.cluster.remote import node_name
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import ClusterError, HangtagError
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.loop import Epoch, choose_device, use_threads
from hangtag.training.engine.workers import Workers
from hangtag.training.shared import Network, Part, Task, Trainer
from hangtag.words import amount, listed

__all__ = ["on_workers"]

_LOOK_SECONDS = 0.1  # between two looks for news
_ASK_SECONDS = 0.2  # between two questions whether to stop
_LOST_WITHOUT_PROGRESS = 5  # workers; a sixth would be lost for the same reason
_END_SECONDS = 30.0  # that Ray Train gets to end its workers
_NO_ROOM_SECONDS = 60.0  # that a cluster gets to replace a lost node

Say = Callable[[str], None]


def on_workers(cluster: Cluster, workers: int, cpus: int | None, device: str, say: Say) -> Trainer:
    """What trains a network on workers of a cluster.

    Args:
        workers: how many.
        cpus: of each, and its threads; None: as many as all workers can have.
        device: "auto", "cpu" or "cuda".
        say: called with sentences about what happens on the cluster.

    Raises:
        ClusterError: the cluster has no room for them.
    """
    gpus = int(device != "cpu" and cluster.gpus >= workers)
    needs = _needs(cluster, workers, cpus, gpus)

    def trainer(
        task: Task, network: Network, data: LabelledImages, stop: Callable[[], bool],
        checkpoint_writer: CheckpointWriter | None, resume: Checkpoint | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        images = SharedImages(cluster, data)
        say(images.in_words)
        message = {
            "task": msgspec.structs.replace(task, device="cuda" if gpus else "cpu").to_bytes(),
            "images": images.message,
            "folder": str(Path.cwd()),
            "threads": int(needs.cpus),
        }
        yield from _Training(cluster, needs, message, resume, say).epochs(network, stop, checkpoint_writer)

    return trainer


def _needs(cluster: Cluster, workers: int, cpus: int | None, gpus: int) -> Resources:
    """What the workers take, if there is room."""
    most = int(max(node.cpus for node in cluster.nodes))
    for each in [cpus] if cpus else range(most, 0, -1):
        if cluster.room_for(needs := Resources(workers, each, gpus)) >= workers:
            return needs
    each_has = f"{amount(cpus or 1, 'CPU')}{' and 1 GPU' if gpus else ''}"
    room = cluster.room_for(Resources(workers, cpus or 1, gpus))
    raise ClusterError(
        f"asked for {amount(workers, 'worker')} with {each_has} each, the cluster has room for {room}",
        "ask for fewer workers, or add nodes to the cluster",
    )


class _Training:
    """The driver's side of one training."""

    def __init__(
        self, cluster: Cluster, needs: Resources, message: dict[str, Any], resume: Checkpoint | None, say: Say
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.cluster, self.needs, self.say = cluster, needs, say
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board = ray.remote(num_cpus=0)(_Board).options(scheduling_strategy=here)
        self.board = board.remote(None if resume is None else resume.to_bytes())
        self.message = {**message, "board": self.board}
        self.failure: BaseException | None = None
        self.no_room_since: float | None = None
        self.looked = 0.0  # for room, by `time.monotonic`

    def epochs(
        self, network: Network, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None
    ) -> Iterator[Epoch]:
        """What the workers report; the network has their weights at the end."""
        import ray

        running = threading.Thread(target=self._run, daemon=True)
        running.start()
        try:
            yield from self._epochs(running, network, stop, checkpoint_writer)
        finally:  # ending the connection while the thread uses it would crash this process
            with suppress(ray.exceptions.RayError):
                ray.get(self.board.leave.remote(), timeout=_END_SECONDS)
            running.join(_END_SECONDS)

    def _epochs(
        self, running: threading.Thread, network: Network, stop: Callable[[], bool],
        checkpoint_writer: CheckpointWriter | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        import ray

        finished, ended, weights = 0, False, None
        while weights is None:
            time.sleep(_LOOK_SECONDS)
            ended = not running.is_alive()  # before the last look
            news = ray.get(self.board.read.remote(stop()))
            for sentence in news["sentences"]:
                self.say(sentence)
            if checkpoint_writer is not None and news["checkpoint"] is not None:
                checkpoint = Checkpoint.from_bytes(news["checkpoint"])
                checkpoint_writer.save(lambda checkpoint=checkpoint: checkpoint)  # type: ignore[misc]
            for state in news["epochs"]:
                epoch = msgspec.convert(state, Epoch)
                if epoch.number > finished:  # replaced workers repeat epochs since the checkpoint
                    finished = epoch.number if epoch.finished else finished
                    yield epoch
            weights = news["weights"]
            if weights is not None:
                network.load_state_dict(Checkpoint.from_bytes(weights).tensors)
            if news["problem"] is not None:
                raise _as_error(news["problem"])
            if ended and weights is None:
                raise ClusterError(
                    f"Ray Train ended without a model: {str(self.failure or 'no reason given').splitlines()[0][:300]}",
                    "repeat the command; the training resumes from its last checkpoint",
                )
            self._check_room()

    def _run(self) -> None:
        """Let Ray Train run the workers until they are done, replacing lost ones."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        name = f"hangtag-{secrets.token_hex(8)}"
        folder = Path(tempfile.gettempdir()) / name
        resources = {"CPU": self.needs.cpus, **({"GPU": 1} if self.needs.gpus else {})}
        try:
            TorchTrainer(
                _work,
                train_loop_config=self.message,
                scaling_config=ScalingConfig(
                    num_workers=self.needs.workers, use_gpu=bool(self.needs.gpus), resources_per_worker=resources
                ),
                run_config=RunConfig(
                    name=name, storage_path=str(folder), failure_config=FailureConfig(max_failures=-1)
                ),
            ).fit()
        except BaseException as error:  # it is raised in the thread that waits
            self.failure = error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_room(self) -> None:
        """Raise ClusterError if the training needs a node that was lost and not replaced."""
        import ray

        now = time.monotonic()
        if now - self.looked < 1:
            return
        self.looked = now
        total = ray.cluster_resources()
        enough = total.get("CPU", 0) >= self.needs.workers * self.needs.cpus
        enough = enough and total.get("GPU", 0) >= self.needs.workers * self.needs.gpus
        if enough:
            self.no_room_since = None
            return
        if self.no_room_since is None:
            self.no_room_since = now
            self.say("a node was lost, and the cluster has no room for all workers; waiting for another node")
        if now - self.no_room_since > _NO_ROOM_SECONDS:
            raise ClusterError(
                f"a node was lost, and no other took its place within {_NO_ROOM_SECONDS:.0f} s",
                "repeat the command with fewer --workers; the training resumes from its last checkpoint",
            )


class _Board:
    """An actor between the workers and the driver. Messages are dicts, lists, numbers, strings and bytes."""

    def __init__(self, checkpoint: bytes | None) -> None:
        self.checkpoint = checkpoint
        self.stopping = self.over = False
        self.nodes: dict[int, str] = {}
        self.starts = self.fruitless = 0
        self.news = self._nothing()

    def begin(self, rank: int, workers: int, node: str) -> dict[str, Any]:
        """Called by every worker when it starts."""
        self.nodes[rank] = node
        if rank == 0:
            self.starts, self.fruitless = self.starts + 1, self.fruitless + 1
            if self.starts > 1 and not self.over:
                self.news["sentences"].append("a worker was lost and replaced; continuing from the last checkpoint")
            if self.fruitless > _LOST_WITHOUT_PROGRESS and not self.over:
                self.fail({
                    "kind": "ClusterError", "node": node,
                    "message": f"workers were lost {_LOST_WITHOUT_PROGRESS} times in a row without progress",
                    "hint": "look at the workers' logs in Ray's dashboard; a node may have too little memory",
                })  # fmt: skip
        if len(self.nodes) == workers and self.starts <= 1:
            each = [f"{rank} on {self.nodes[rank]}" for rank in sorted(self.nodes)]
            self.news["sentences"].append(f"workers: {listed(each)}")
        return {"over": self.over, "checkpoint": self.checkpoint}

    def tell(self, epoch: dict[str, Any] | None) -> bool:
        """A report of the first worker; returns whether to stop."""
        if epoch is not None:
            self.news["epochs"].append(epoch)
            if epoch["finished"]:
                self.fruitless = 0
        return self.stopping

    def save(self, checkpoint: bytes) -> None:
        self.checkpoint = self.news["checkpoint"] = checkpoint
        self.fruitless = 0

    def end(self, weights: bytes) -> None:
        self.news["weights"], self.over = weights, True

    def fail(self, problem: dict[str, str], weights: bytes | None = None) -> None:
        if not self.over:
            self.news["problem"], self.news["weights"], self.over = problem, weights, True

    def leave(self) -> None:
        """The driver goes: workers stop at their next report, and replaced ones at once."""
        self.stopping = self.over = True

    def read(self, stopping: bool) -> dict[str, Any]:
        """Called by the driver."""
        self.stopping = stopping
        news, self.news = self.news, self._nothing()
        return news

    @staticmethod
    def _nothing() -> dict[str, Any]:
        return {"epochs": [], "sentences": [], "checkpoint": None, "weights": None, "problem": None}


class _Link(CheckpointWriter):
    """The first worker's connection to the board."""

    def __init__(self, board: Any) -> None:
        super().__init__(Path())
        self.board, self.asked, self.stopping = board, 0.0, False

    def save(self, make: Callable[[], Checkpoint]) -> None:
        import ray

        began = time.perf_counter()
        ray.get(self.board.save.remote(make().to_bytes()))
        self.saved_in(time.perf_counter() - began)

    def tell(self, epoch: Epoch | None) -> None:
        import ray

        self.stopping = ray.get(self.board.tell.remote(None if epoch is None else epoch.to_json()))
        self.asked = time.monotonic()

    def stop(self) -> bool:
        if time.monotonic() - self.asked > _ASK_SECONDS:
            self.tell(None)
        return self.stopping


def _work(message: dict[str, Any]) -> None:
    """In a worker of Ray Train: train, and as the first worker tell the driver."""
    import ray
    import ray.train

    context, board = ray.train.get_context(), message["board"]
    rank, count = context.get_world_rank(), context.get_world_size()
    begun = ray.get(board.begin.remote(rank, count, node_name()))
    if begun["over"]:
        return
    use_threads(message["threads"])
    with suppress(OSError):  # a custom network is imported from the user's folder, if this node has it
        os.chdir(message["folder"])
    task = Task.from_bytes(message["task"])
    workers = Workers.of_process_group(choose_device(task.device))
    first, link = rank == 0, _Link(board)
    part: Part | None = None
    try:
        part = Part(task, workers, received(message["images"]))
        resume = Checkpoint.from_bytes(begun["checkpoint"]) if first and begun["checkpoint"] else None
        stop = link.stop if first else lambda: False
        for epoch in part.epochs(stop, link if first else None, resume):
            if first:
                link.tell(epoch)
        if first:
            ray.get(board.end.remote(_weights(part.network)))
    except errors.WorkerLostError:
        raise  # Ray Train starts all workers again
    except HangtagError as error:
        problem = {
            "kind": type(error).__name__, "node": node_name(), "message": error.message, "hint": error.hint,
        }  # fmt: skip
        ray.get(board.fail.remote(problem, _weights(part.network) if part is not None else None))
        raise


def _weights(network: Network) -> bytes:
    return Checkpoint(network.state_dict(), {}).to_bytes()


def _as_error(problem: dict[str, str]) -> HangtagError:
    kind = getattr(errors, problem["kind"], ClusterError)
    known = isinstance(kind, type) and issubclass(kind, HangtagError)
    return (kind if known else ClusterError)(problem["message"], problem["hint"])

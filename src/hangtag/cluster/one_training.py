"""One training on several workers of a Ray cluster, by Ray Train.

The process that began the training keeps the run folder. It divides the data, sends the workers a description of the
training, and gets back epochs, checkpoints and weights through an actor, so that no file system needs to be shared.
Ray Train, in an actor of its own, starts the workers, connects them, and starts all of them again when one is lost;
they then continue from the last checkpoint.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from hangtag.cluster.connect import Cluster, Resources, Room
from hangtag.cluster.images import SharedImages, received
from hangtag.cluster.remote import node_name
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import ClusterError, HangtagError, WorkerLostError
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.loop import Epoch, choose_device, use_threads
from hangtag.training.engine.workers import Workers
from hangtag.training.shared import Network, Part, Task, Trainer
from hangtag.words import listed

__all__ = ["on_workers"]

_LOOK_SECONDS = 0.1  # between two looks for news
_ASK_SECONDS = 0.2  # between two questions whether to stop
_LOST_WITHOUT_PROGRESS = 5  # workers; a sixth would be lost for the same reason
_END_SECONDS = 10.0  # that workers get to end

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
    shares = [cpus] if cpus else range(int(max(node.cpus for node in cluster.nodes)), 0, -1)
    possible = (Resources(workers, each, gpus) for each in shares)
    needs = next((each for each in possible if cluster.room_for(each) >= workers), Resources(workers, cpus or 1, gpus))
    cluster.check_room(needs)

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


class _Training:
    """The driver's side of one training."""

    def __init__(
        self, cluster: Cluster, needs: Resources, message: dict[str, Any], resume: Checkpoint | None, say: Say
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.say, self.room = say, Room(cluster, needs, say)
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)  # if it were soft, Ray would take any node
        board, runner = (ray.remote(num_cpus=0)(each).options(scheduling_strategy=here) for each in (_Board, _Runner))
        self.board, self.runner = board.remote(None if resume is None else resume.to_bytes()), runner.remote()
        self.running = self.runner.run.remote({**message, "board": self.board}, needs.workers, needs.cpus, needs.gpus)

    def epochs(
        self, network: Network, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None
    ) -> Iterator[Epoch]:
        """What the workers report; the network has their weights at the end."""
        import ray

        patience = _END_SECONDS
        try:
            yield from self._epochs(network, stop, checkpoint_writer)
        except HangtagError:
            patience = 0.0  # workers that wait for a lost node do not end; Ray Train starts failed ones again
            raise
        finally:
            with suppress(ray.exceptions.RayError):
                ray.get(self.board.leave.remote(), timeout=_END_SECONDS)
                ray.wait([self.running], timeout=patience)
            ray.kill(self.runner)  # and with it the workers

    def _epochs(
        self, network: Network, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None
    ) -> Iterator[Epoch]:
        import ray

        finished, weights = 0, None
        while weights is None:
            ended, _ = ray.wait([self.running], timeout=_LOOK_SECONDS)  # before the last look
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
                raise HangtagError.of_plain(news["problem"])
            if ended and weights is None:
                raise ClusterError(
                    f"Ray Train ended without a model: {ray.get(self.running)}",
                    "repeat the command; the training resumes from its last checkpoint",
                )
            self.room.check()


class _Runner:
    """An actor that lets Ray Train run the workers until they are done, replacing lost ones."""

    def run(self, message: dict[str, Any], workers: int, cpus: float, gpus: float) -> str:
        """Returns why the training ended, if it failed."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        resources = {"CPU": cpus, **({"GPU": 1} if gpus else {})}
        with tempfile.TemporaryDirectory(prefix="hangtag-", ignore_cleanup_errors=True) as folder:
            try:
                TorchTrainer(
                    _work,
                    train_loop_config=message,
                    scaling_config=ScalingConfig(
                        num_workers=workers, use_gpu=bool(gpus), resources_per_worker=resources
                    ),
                    run_config=RunConfig(
                        name="training", storage_path=folder, failure_config=FailureConfig(max_failures=-1)
                    ),
                ).fit()
            except Exception as error:
                return str(error).strip().splitlines()[0][:300]
        return "no reason given"


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
                lost = ClusterError(
                    f"workers were lost {_LOST_WITHOUT_PROGRESS} times in a row without progress",
                    "look at the workers' logs in Ray's dashboard; a node may have too little memory",
                )
                self.fail(lost.to_plain())
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
    except WorkerLostError:
        raise  # Ray Train starts all workers again
    except HangtagError as error:
        weights = _weights(part.network) if part is not None else None
        ray.get(board.fail.remote(error.to_plain(), weights))
        raise


def _weights(network: Network) -> bytes:
    return Checkpoint(network.state_dict(), {}).to_bytes()

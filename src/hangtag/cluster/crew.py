"""Several trainings on a Ray cluster at once: each is a Ray task with its own CPUs, which reports its progress.

If a worker or node is lost, Ray starts its task again, up to three times. The training continues from its checkpoint if
its folder is on a file system that the nodes share.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from hangtag.cluster.connect import Cluster, Resources, Room
from hangtag.cluster.remote import node_name, outcome, result

__all__ = ["Crew", "Link"]

_REPORT_SECONDS = 0.3  # between two reports of a worker
_LOOK_SECONDS = 0.3  # between two looks at the reports
_RETRIES = 3

Show = Callable[[int, dict[str, Any], str], None]
"""Called with the number of a job, the state of its training (see `Epoch.to_json`), and the name of its node."""


class _Board:
    """An actor that holds the last report of each job, and whether all are to stop."""

    def __init__(self) -> None:
        self.reports: dict[int, tuple[dict[str, Any], str]] = {}
        self.stopping = False

    def report(self, number: int, state: dict[str, Any] | None, node: str) -> bool:
        if state is not None:
            self.reports[number] = (state, node)
        return self.stopping

    def read(self, stopping: bool) -> dict[int, tuple[dict[str, Any], str]]:
        self.stopping = stopping
        reports, self.reports = self.reports, {}
        return reports


class Link:
    """In a worker: reports to the driver, and knows whether the work is to stop."""

    def __init__(self, board: Any, number: int) -> None:
        self._board, self._number, self._node = board, number, node_name()
        self._asked, self._stop = 0.0, False

    def report(self, epoch: Any) -> None:
        """Report the state of a training, if the last report is not too recent."""
        self._exchange(epoch)

    def stop(self) -> bool:
        """Whether the training is to stop; it can be asked at any moment."""
        self._exchange(None)
        return self._stop

    def _exchange(self, epoch: Any) -> None:
        import ray

        if time.monotonic() - self._asked >= _REPORT_SECONDS:
            state = None if epoch is None else epoch.to_json()
            self._stop = ray.get(self._board.report.remote(self._number, state, self._node))
            self._asked = time.monotonic()


class Crew:
    """Runs jobs on a cluster, as many at once as it has room for.

    Args:
        cluster: to which this process is connected.
        cpus, gpus: of each job. PyTorch uses as many threads as it has CPUs.
        show: called several times a second with the last report of each job.
    """

    def __init__(self, cluster: Cluster, cpus: int = 1, gpus: int = 0, show: Show = lambda *_: None) -> None:
        import ray

        self.cluster, self.cpus, self.gpus, self.show = cluster, cpus, gpus, show
        board = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Board)
        self._board = board.remote()
        self._work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)(_work)
        self._running: dict[Any, int] = {}
        self._room = Room(cluster, Resources(1, cpus, gpus))

    @property
    def running(self) -> list[int]:
        """The numbers of the jobs that were started and have not ended."""
        return list(self._running.values())

    def start(self, number: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Start `work(link, *arguments)`; it waits for its turn while the cluster has no room."""
        self._running[self._work.remote(self._board, number, self.cpus, work, arguments)] = number

    def results(self, stop: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        """The number and result of each job, as they end, until none is running; others may be started meanwhile.

        Args:
            stop: called several times a second; when it returns True, the jobs are told to stop.

        Raises:
            HangtagError: a job failed; its message names the node.
            ClusterError: a worker was lost several times in a row, or no node is left that has enough CPUs.
        """
        import ray

        while self._running:
            ready, _ = ray.wait(list(self._running), timeout=_LOOK_SECONDS)
            for number, (state, node) in ray.get(self._board.read.remote(stop())).items():
                if number in self.running:
                    self.show(number, state, node)
            for each in ready:
                number = self._running.pop(each)
                yield number, result(ray.get(each))
            if not ready:
                self._room.check()


def _work(board: Any, number: int, cpus: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """In a worker: do a job with as many threads as it has CPUs."""
    from hangtag.training.engine.loop import use_threads

    use_threads(cpus)
    return outcome(lambda: work(Link(board, number), *arguments))

"""`hangtag serve --ray`: replicas of a Ray Serve deployment compute the batches of the server.

The server itself (connections, limits, token, logs, metrics, new versions of models) is the one of `serving/`, in the
process of the command. Its batches go to the replicas in one call each: a call of Ray costs milliseconds of processor
time, and so would each request that passes through Ray's own HTTP proxy (docs/serving.md has the numbers).
"""

import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.cluster.connect import Cluster, Resources, connected
from hangtag.errors import ClusterError, HangtagError, UsageError, logger
from hangtag.model.artifact import OUTPUT
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Predictor
from hangtag.pictures import Images
from hangtag.serving.compute import Ask, Piece, Work, answer_all
from hangtag.serving.models import Models, ServedModel, open_to_serve
from hangtag.serving.refusals import Refusal
from hangtag.serving.run import Serving, serve
from hangtag.serving.settings import Settings
from hangtag.words import amount

__all__ = ["Replica", "Replicas", "serve_on_ray"]

_DEPLOYMENT = "predictor"
_AHEAD = 2  # batches that a thread of a replica has at hand, so that it need not wait for the next one
_START_SECONDS = 60.0  # that the first replica may take
_MORE_SECONDS = 15.0  # that the others may take after it
_LOOK_SECONDS = 1.0  # between two looks at the replicas
_ATTEMPTS = 3  # a batch is computed again if its replica ends
_MOST = 10_000
_LEASE_SECONDS = 2.0  # between two looks whether the server still runs
_SPARE = 2  # versions that a replica keeps open beyond those that are served


@dataclass(frozen=True)
class Replicas:
    """How many processes compute: from `least` to `most`, as Ray Serve sees fit."""

    least: int = 1
    most: int = 1

    @classmethod
    def parsed(cls, text: str) -> "Replicas":
        """From "4" or "1..8"; raises UsageError."""
        least, dots, most = text.partition("..")
        numbers = [int(each) if each.isascii() and each.isdigit() and len(each) < 6 else 0 for each in (least, most)]
        wanted = cls(numbers[0], numbers[1] if dots else numbers[0])
        if not 1 <= wanted.least <= wanted.most <= _MOST:
            raise UsageError(
                f"--replicas must be a number from 1 to {_MOST:,}, or MIN..MAX, got {text}", "for example 4, or 1..8"
            )
        return wanted


def serve_on_ray(
    places: Sequence[str],
    settings: Settings,
    announce: Callable[[Serving], None],
    address: str | None = None,
    replicas: Replicas | None = None,
    told: Callable[[Cluster], None] = lambda cluster: None,
) -> None:
    """Serve as `serving.run.serve` does, but let replicas on a Ray cluster decode and infer.

    Args:
        settings: `threads` is the number of threads, and of CPUs, of each replica; 1 unless given.
        address: of the cluster; see `connected`.
        told: called with the cluster once it answers.

    Raises:
        HangtagError: as for `serve` and `connected`, or no replica starts.
    """
    wanted = replicas or Replicas()
    if settings.workers > 1:
        raise UsageError(
            "--workers and --ray contradict each other", "with Ray, --replicas says how many processes compute"
        )

    @contextmanager
    def engine(models: Models) -> Iterator[OnReplicas]:
        threads = settings.threads or 1
        with connected(address, Resources(wanted.least, threads)) as cluster:
            told(cluster)
            with _deployed(models, settings, threads, wanted) as computing:
                yield computing

    serve(places, settings, announce, engine)


class OnReplicas:
    """An `Engine` whose batches are computed by the replicas of a deployment.

    Args:
        handle: of the deployment.
        running: the number of replicas that run now.
        each: batches that a replica takes at the same time.
    """

    def __init__(self, handle: Any, running: Callable[[], int], each: int) -> None:
        self.handle, self.each, self._running = handle, each, running
        self.replicas = running()
        self._contents: weakref.WeakKeyDictionary[ServedModel, Any] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="hangtag-replicas", daemon=True)
        self._watching.start()

    @property
    def threads(self) -> int:
        return max(1, self.replicas) * self.each

    @property
    def problem(self) -> str | None:
        return None if self.replicas else "no replica of the server runs"

    def answers(self, model: ServedModel, pieces: Sequence[Piece], seconds: float) -> Work:
        plain = [(asdict(ask), list(pictures)) for ask, pictures in pieces]
        return Work(*self._call("answers", model, seconds, plain))

    def outputs(
        self, model: ServedModel, images: Images, names: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        rows: dict[str, NDArray[Any]] = self._call("outputs", model, seconds, images, list(names))
        return rows

    def warm_up(self, models: Iterable[ServedModel]) -> None:
        """Let the replicas open the models, so that the first requests need not wait."""
        with ThreadPoolExecutor(self.threads) as pool:
            for model in models:
                blank = np.zeros((1, *model.predictor.spec.shape), np.uint8)
                calls = [
                    pool.submit(self.outputs, model, blank, (OUTPUT,), _START_SECONDS) for _ in range(self.threads)
                ]
                for call in calls:
                    call.result()

    def close(self) -> None:
        self._is_over.set()
        self._watching.join()

    def _call(self, method: str, model: ServedModel, seconds: float, *content: Any) -> Any:
        from ray.exceptions import ObjectLostError, RayActorError

        end = time.monotonic() + seconds
        for attempt in range(_ATTEMPTS):
            response = getattr(self.handle, method).remote(
                model.predictor.sha256, [self._content(model, attempt > 0)], *content
            )
            try:
                found = response.result(timeout_s=max(1e-3, end - time.monotonic()))
            except TimeoutError:
                response.cancel()
                raise Refusal(
                    504, "the deadline has passed", "allow more time, or try again when the server has less to do"
                ) from None
            except (RayActorError, ObjectLostError) as error:
                logger.warning("a replica ended while it computed a batch: %s", type(error).__name__)
                continue
            if isinstance(found, HangtagError):
                raise found
            return found
        raise Refusal(503, "the replicas that computed the answer ended", "try again in a second", {"Retry-After": "1"})

    def _content(self, model: ServedModel, is_lost: bool) -> Any:
        """Where replicas find the bytes of a model."""
        import ray

        with self._lock:
            if is_lost or model not in self._contents:
                self._contents[model] = ray.put(model.predictor.content)
            return self._contents[model]

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            try:
                now = self._running()
            except Exception:  # the next look may succeed
                logger.warning("Ray does not say how many replicas run")
                continue
            if now != self.replicas:
                logger.info("%s now", amount(now, "replica"))
                self.replicas = now


class Replica:
    """What runs in each replica. Models come as bytes, so a node needs no run folder.

    Args:
        threads: batches that are computed at the same time.
        models: the number of models that are served.
        most_pixels: of a picture.
        lease: an actor that lives as long as the server.
        name: of the application, which ends with the lease.
    """

    def __init__(self, threads: int, models: int, most_pixels: int, lease: Any, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, "hangtag-batch")
        self._most_open, self._most_pixels = models + _SPARE, most_pixels
        self._opened: OrderedDict[str, Predictor] = OrderedDict()
        self._lock = threading.Lock()
        threading.Thread(target=_end_with, args=(lease, name), daemon=True).start()

    async def answers(self, sha256: str, content: list[Any], pieces: list[tuple[dict[str, Any], list[bytes]]]) -> Any:
        """`Work` as a tuple, or a HangtagError."""
        asks = [(_ask(ask), pictures) for ask, pictures in pieces]
        return await self._run(sha256, content, lambda predictor: tuple(answer_all(predictor, asks, self._most_pixels)))

    async def outputs(self, sha256: str, content: list[Any], images: Images, names: list[str]) -> Any:
        """Outputs by name, or a HangtagError."""
        return await self._run(sha256, content, lambda predictor: predictor.outputs(images, *names))

    async def _run(self, sha256: str, content: list[Any], work: Callable[[Predictor], Any]) -> Any:
        import asyncio

        def compute() -> Any:
            try:
                return work(self._predictor(sha256, content))
            except HangtagError as error:
                return error

        return await asyncio.get_running_loop().run_in_executor(self._pool, compute)

    def _predictor(self, sha256: str, content: list[Any]) -> Predictor:
        import ray

        with self._lock:
            found = self._opened.get(sha256)
            if found is None:
                found = self._opened[sha256] = open_to_serve(ray.get(content[0]))
            self._opened.move_to_end(sha256)
            if len(self._opened) > self._most_open:
                self._opened.popitem(last=False)
            return found


class _Lease:
    """An actor of the server. Ray ends it when the server's process has ended, even if that was killed."""


def _end_with(lease: Any, name: str) -> None:
    """In a replica: delete the application when its lease has ended."""
    import ray
    from ray import serve as ray_serve

    while True:
        time.sleep(_LEASE_SECONDS)
        try:
            ray.get(lease.__ray_ready__.remote())
        except ray.exceptions.ActorDiedError:
            ray_serve.delete(name, _blocking=False)
        except ray.exceptions.RayError:  # its node was lost, and it starts again elsewhere
            continue


def _ask(plain: dict[str, Any]) -> Ask:
    return Ask(**{**plain, "policy": AnswerPolicy(**plain["policy"])})


@contextmanager
def _deployed(models: Models, settings: Settings, threads: int, wanted: Replicas) -> Iterator[OnReplicas]:
    """A deployment that is deleted at the end of the block."""
    import logging

    import ray
    from ray import serve as ray_serve

    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    ray_serve.start(proxy_location="Disabled", logging_config=quiet)
    number: dict[str, Any] = {"num_replicas": wanted.least}
    if wanted.most > wanted.least:
        scale = {"min_replicas": wanted.least, "max_replicas": wanted.most, "initial_replicas": wanted.least}
        number = {"autoscaling_config": {**scale, "target_ongoing_requests": threads, "upscale_delay_s": 3.0}}
    name = f"hangtag-{secrets.token_hex(4)}"
    deployment: Any = ray_serve.deployment(
        Replica, name=_DEPLOYMENT, max_ongoing_requests=threads * _AHEAD, ray_actor_options={"num_cpus": threads},
        graceful_shutdown_timeout_s=settings.grace, graceful_shutdown_wait_loop_s=0.1, logging_config=quiet, **number,
    )  # fmt: skip
    lease = ray.remote(num_cpus=0, max_restarts=-1)(_Lease).remote()
    application = deployment.bind(threads, len(list(models)), settings.max_pixels, lease, name)
    try:
        (handle,) = ray_serve.run_many(
            [ray_serve.RunTarget(application, name=name, route_prefix=None)], wait_for_applications_running=False
        )
        _wait(name, wanted.least)
        engine = OnReplicas(handle, lambda: _running(name)[0], threads * _AHEAD)
        try:
            engine.warm_up(models)
            yield engine
        finally:
            engine.close()
    finally:
        with suppress(Exception):  # the cluster may be gone
            ray_serve.delete(name)


def _wait(name: str, least: int) -> None:
    """Wait until the replicas run, or until at least one runs and the others have no room."""
    began = time.monotonic()
    noted, first = 0, began
    while (state := _running(name))[0] < least:
        running, failure = state
        now = time.monotonic()
        if failure:
            raise ClusterError(f"the replicas did not start: {failure}", "the dashboard and the logs of Ray say more")
        if not running and now - began > _START_SECONDS:
            raise ClusterError(
                f"no replica started within {_START_SECONDS:.0f} s",
                "other work may occupy the cluster's CPUs; try again later",
            )
        if running > noted:
            noted, first = running, now
        elif running and now - first > _MORE_SECONDS:
            logger.warning("%d of %d replicas run; the others start when the cluster has room", running, least)
            return
        time.sleep(0.1)


def _running(name: str) -> tuple[int, str | None]:
    """How many replicas run, and why none can."""
    from ray import serve as ray_serve

    application = ray_serve.status().applications.get(name)
    if application is None:
        return 0, None
    deployment = application.deployments.get(_DEPLOYMENT)
    failure = None
    if "FAILED" in application.status.value:
        lines = (deployment.message if deployment else application.message).strip().splitlines()
        failure = lines[-1].strip() if lines else "Ray does not say why"
    states: dict[str, int] = {} if deployment is None else {**deployment.replica_states}
    return states.get("RUNNING", 0), failure

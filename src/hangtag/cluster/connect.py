"""Connecting to a Ray cluster, or starting one on this machine, and checking that it can do the work.

Ray is quiet: its messages and those of its workers stay off the screen unless RAY_LOG_TO_DRIVER=1 is set, and usage
statistics are off. A cluster that was started here ends with the context, also after Ctrl-C or SIGTERM.
"""

import importlib.util
import logging
import math
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hangtag.cluster.remote import ray_errors
from hangtag.errors import ClusterError, MissingExtra, UsageError, warn
from hangtag.machine import processors, versions
from hangtag.words import amount

__all__ = ["LOCAL", "Cluster", "Node", "Resources", "Room", "check_address", "connected", "is_address", "on_each_node"]

LOCAL = "local"
"""The address that stands for a cluster on this machine, started for the work and ended after it."""

_ANSWER_SECONDS = 10.0  # that a cluster has to answer
_JOIN_SECONDS = 30.0  # that Ray has to join a cluster that answers
_WORKER_SECONDS = 60.0  # that a node has to start a worker
_LOOK_SECONDS = 1.0  # between two looks at the nodes
_HEAD_SECONDS = 50.0  # that the head may be away; after 60, Ray ends the process with a line of its own
_HEAD_LOOK_SECONDS = 2.0  # between two looks at the head
_NO_ROOM_SECONDS = 60.0  # that lost nodes may be missing
_GROWTH_SECONDS = 1800.0  # that a cluster which rents its nodes may take for them
_ADDRESS = re.compile(r"(?P<client>ray://)?(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)
_FEWER = "ask for fewer workers, or add nodes to the cluster"
_MUST_AGREE = ("hangtag", "ray", "python")
_QUIET = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # or else a call after the end would connect to any cluster of this machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # drops what nodes say about lost workers, which Ray prints on stdout
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray announces that this will be its default
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would upload the current folder to the cluster
}
"""What Ray reads from the environment when it is imported, and when it starts processes."""


@dataclass(frozen=True)
class Resources:
    """What some work needs: a number of workers, each with this many CPUs and GPUs."""

    workers: int = 1
    cpus: float = 1
    gpus: float = 0

    def __str__(self) -> str:
        """What each worker needs."""
        cpus, gpus = amount(round(self.cpus), "CPU"), amount(round(self.gpus), "GPU")
        gpus = "a share of a GPU" if self.gpus < 1 else gpus
        return f"{cpus} and {gpus}" if self.gpus else cpus

    @property
    def together(self) -> str:
        """How many workers, and what each needs."""
        return f"{amount(self.workers, 'worker')} with {self}{' each' * (self.workers > 1)}"


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: Ray's id, the name in messages, its CPUs and GPUs."""

    id: str
    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Cluster:
    """A cluster to which this process is connected.

    Attributes:
        address: where it was reached; "local" if it was started here.
        nodes: those that were alive when the connection was made.
        dashboard: the URL of Ray's dashboard; None if there is none.
        most: the CPUs and GPUs that the cluster can grow to, by Ray's names; empty if it does not grow by itself.
    """

    address: str
    nodes: tuple[Node, ...]
    dashboard: str | None
    most: Mapping[str, float] = field(default_factory=dict)

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    def name_of(self, node_id: str) -> str:
        """The name of a node; a node that joined later is called by the start of its id."""
        return next((node.name for node in self.nodes if node.id == node_id), node_id[:8])

    def room_for(self, needs: Resources) -> int:
        """How many such workers fit on the nodes at once."""
        return sum(
            int(min(node.cpus / needs.cpus if needs.cpus else 1e6, node.gpus / needs.gpus if needs.gpus else 1e6))
            for node in self.nodes
        )

    def check_room(self, needs: Resources) -> None:
        """Raise ClusterError if the cluster is too small for the work, now and when it has grown."""
        for kind, now, each in (("GPU", self.gpus, needs.gpus), ("CPU", self.cpus, needs.cpus)):
            wanted, has = needs.workers * each, max(now, self.most.get(kind, 0))
            if wanted > has:
                hint = "add nodes with GPUs, or use --device cpu" if kind == "GPU" and not has else _FEWER
                raise ClusterError(f"asked for {amount(math.ceil(wanted), kind)}, the cluster has {has:g}", hint)
        if not self.most and self.room_for(needs) < needs.workers:
            raise ClusterError(
                f"asked for {needs.together}, the nodes of the cluster have room for {self.room_for(needs)}",
                _FEWER,
            )

    def __str__(self) -> str:
        gpus = f", {amount(round(self.gpus), 'GPU')}" if self.gpus else ""
        where = f"; dashboard: {self.dashboard}" if self.dashboard else ""
        return f"Ray: {amount(len(self.nodes), 'node')}, {amount(round(self.cpus), 'CPU')}{gpus}{where}"


@contextmanager
def connected(address: str | None = None, needs: Resources | None = None) -> Iterator[Cluster]:
    """A connection to a Ray cluster; Ray's own errors inside the context become `ClusterError`s.

    If the head of a cluster that was started elsewhere is lost for good, this process ends, as it would with Ray alone.

    Args:
        address: "HOST:PORT" on a node of the cluster, "ray://HOST:PORT" from any other machine. None or "local":
            the cluster that RAY_ADDRESS names, as in a Ray job; without it, one that is started on this machine.
        needs: what the work takes; checked at once.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: the address is malformed, or this process is already connected.
        ClusterError: the cluster does not answer within 10 seconds, its versions differ from those of this machine, or
            it has too few CPUs or GPUs.
    """
    target = check_address(address)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        raise UsageError("this process is already connected to a Ray cluster", "call ray.shutdown() first")
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="hangtag-ray-"))
    with _token_mode_kept():
        try:
            with _exit_code_kept(), ray_errors():
                context = _start(folder) if target == LOCAL else _connect(target, folder)
                cluster = Cluster(target, _nodes(), _dashboard(context))
                if target != LOCAL:  # a cluster that was started here has the versions of this process
                    cluster = replace(cluster, most=_check_nodes(cluster))
                cluster.check_room(needs or Resources(0, 0, 0))
                with _head_watched(target):
                    yield cluster
        finally:
            with _handlers_kept(), _threads_quiet():
                _end_monitor()
                ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


class Room:
    """Notices, while work runs, that the cluster has lost nodes that the work needs.

    Args:
        needs: what must fit on the nodes.
        say: called with a sentence when the nodes are first missing.
    """

    def __init__(self, cluster: Cluster, needs: Resources, say: Callable[[str], None] = lambda _: None) -> None:
        self.cluster, self.needs, self.say = cluster, needs, say
        self._patience = _GROWTH_SECONDS if cluster.most else _NO_ROOM_SECONDS
        self._looked = -math.inf
        self._now = 0
        self._missing_since: float | None = None

    @property
    def now(self) -> int:
        """How many such workers fit on the nodes that are alive; looked up once a second at most."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._now = replace(self.cluster, nodes=_nodes()).room_for(self.needs)
            self._looked = time.monotonic()
        return self._now

    def check(self) -> None:
        """Raise ClusterError if the nodes have been missing for too long; may be called at any rate."""
        if self.now >= self.needs.workers:
            self._missing_since = None
            return
        now = time.monotonic()
        if self._missing_since is None:
            self._missing_since = now
            self.say(f"the cluster has no room for {self.needs.together}; waiting for nodes")
        if now - self._missing_since > self._patience:
            raise ClusterError(
                f"the cluster has had no room for {self.needs.together} for {self._patience:.0f} s: nodes were lost "
                "and not replaced",
                "add nodes or ask for fewer workers, then run the same command again; it continues",
            )


def is_address(text: str) -> bool:
    """Whether a text is meant as the address of a cluster: HOST:PORT, or anything after ray://."""
    return text.startswith("ray://") or _ADDRESS.fullmatch(text) is not None


def check_address(address: str | None) -> str:
    """The address to which `connected` connects; raises its errors about a missing extra and a malformed address."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra.named("ray", "ray")
    if address in (None, LOCAL):
        address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address in (LOCAL, "auto"):
        return address
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > 65535:
        raise UsageError(
            f"the address of a Ray cluster must be HOST:PORT or ray://HOST:PORT, got {address}",
            "for example ray://head:10001; a URL that begins with http is the dashboard's",
        )
    return address


def _start(folder: Path) -> Any:
    """Start a cluster on this machine."""
    return _init(folder, address=LOCAL, num_cpus=processors(), _temp_dir=str(folder))


@contextmanager
def _head_watched(target: str) -> Iterator[None]:
    """Inside, end this process with one line if the head of a cluster that was started elsewhere is lost for good.

    Calls of Ray hang then, and cannot be interrupted, until Ray ends the process. A client (`ray://`) gets an error.
    """
    if target == LOCAL or target.startswith("ray://"):
        yield
        return
    import ray

    ended = threading.Event()
    head = target if _ADDRESS.fullmatch(target) else ray.get_runtime_context().gcs_address
    threading.Thread(target=_watch_head, args=(head, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch_head(head: str, ended: threading.Event) -> None:
    host, _, port = head.rpartition(":")
    answered = time.monotonic()
    while not ended.wait(_HEAD_LOOK_SECONDS):
        try:
            socket.create_connection((host.strip("[]"), int(port)), _HEAD_LOOK_SECONDS).close()
            answered = time.monotonic()
        except OSError:
            if time.monotonic() - answered > _HEAD_SECONDS:
                lost = f"the head of the Ray cluster ({head}) has not answered for {_HEAD_SECONDS:.0f} s"
                os.write(2, f"hangtag: {lost}; start the cluster again, then repeat the command\n".encode())
                os._exit(1)


def _end_monitor() -> None:
    """End the one process of a cluster started here that does not follow SIGTERM; Ray would wait a second for it."""
    with suppress(Exception):  # the end of the cluster ends it, too
        from ray._private import worker

        started: Any = worker._global_node
        started.kill_monitor(check_alive=False)


def _connect(address: str, folder: Path) -> Any:
    found = _ADDRESS.fullmatch(address)
    if found is not None:
        _check_answers(address, found)
    try:
        return _init(folder, address=address)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _refused(address, error) from error


def _init(folder: Path, **settings: Any) -> Any:
    """`ray.init` without its side effects on this process, and with a limit of time.

    Ray lets workers import from the driver's current folder. That may be a folder of a stranger's files, so an
    empty folder is the current one meanwhile. A cluster that is started here must be started by the main thread,
    because its processes end with the thread that started them.
    """
    import ray

    chatty = os.environ.get("RAY_LOG_TO_DRIVER") == "1"
    settings |= {"log_to_driver": chatty, "logging_level": logging.CRITICAL, "configure_logging": chatty}
    with chdir(folder), _handlers_kept(), _stderr_hidden(chatty), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ray.init(**settings) if settings["address"] == LOCAL else _within(_JOIN_SECONDS, ray.init, settings)


def _within(seconds: float, function: Callable[..., Any], settings: dict[str, Any]) -> Any:
    """What a function returns, or TimeoutError; it then runs on in a thread that does not keep the process alive."""
    done: Future[Any] = Future()

    def work() -> None:
        try:
            done.set_result(function(**settings))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None


@contextmanager
def _stderr_hidden(shown: bool) -> Iterator[None]:
    """Ray's parts in C++ write to the file descriptor itself."""
    if shown:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _exit_code_kept() -> Iterator[None]:
    """A handler of SIGTERM may raise SystemExit; Ray, where it waits, would replace its code by 1."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    codes: list[Any] = []

    def noting(number: int, frame: Any) -> None:
        try:
            before(number, frame)
        except SystemExit as end:
            codes.append(end.code)
            raise

    signal.signal(signal.SIGTERM, noting)
    try:
        yield
    except SystemExit as end:
        raise SystemExit(codes[0] if codes else end.code) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _token_mode_kept() -> Iterator[None]:
    """Ray makes this process use tokens when it starts a cluster; the next cluster may have none."""
    from ray import _raylet

    raylet: Any = _raylet
    before = os.environ.get("RAY_AUTH_MODE")
    try:
        yield
    finally:
        if before is None and "RAY_AUTH_MODE" in os.environ:
            del os.environ["RAY_AUTH_MODE"]
            raylet.Config.initialize("")
            raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM; this process keeps its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _threads_quiet() -> Iterator[None]:
    """Threads of Ray that fail while the connection ends print no traceback."""
    before = threading.excepthook

    def print_others(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or not failed.thread.name.startswith("ray_"):
            before(failed)

    threading.excepthook = print_others
    try:
        yield
    finally:
        threading.excepthook = before


def _check_answers(address: str, found: re.Match[str]) -> None:
    """Raise an error unless a Ray cluster answers; Ray itself would try for two minutes."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    where = f"{found['host']}:{found['port']}"
    failure: str | None = None
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), _ANSWER_SECONDS).close()
    except OSError as error:
        failure = str(error.strerror or error)
    else:
        channel = init_grpc_channel(where)
        try:
            if found["client"]:
                grpc.channel_ready_future(channel).result(_ANSWER_SECONDS)
            else:
                stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
                reply = stub.CheckAlive(
                    gcs_service_pb2.CheckAliveRequest(), timeout=_ANSWER_SECONDS, wait_for_ready=True
                )
                _check_version("the cluster", {"ray": reply.ray_version})
        except grpc.FutureTimeoutError:
            failure = "what listens there is not a Ray cluster"
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ClusterError(
                    f"{address}: the cluster requires a token",
                    "set RAY_AUTH_MODE=token, and copy the file ~/.ray/auth_token from the cluster's head",
                ) from error
            is_client = error.code() == grpc.StatusCode.UNIMPLEMENTED
            failure = "is its port for clients" if is_client else "what listens there is not a Ray cluster"
        finally:
            channel.close()
    if failure == "is its port for clients":
        raise ClusterError(f"{address}: this is not the port of a Ray cluster's head", f"try ray://{address}")
    if failure is not None:
        raise ClusterError(
            f"{address}: no Ray cluster answers: {failure}",
            "check the address and that the cluster runs; --ray alone starts Ray on this machine",
        )


def _refused(address: str, error: Exception) -> ClusterError:
    """Why Ray did not connect, in one line."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or "mismatched version" in text:
        return ClusterError(
            f"{address}: the cluster has other versions of Ray or Python than this machine: {text[:300]}",
            "install the same versions everywhere",
        )
    if not address.startswith("ray://"):
        host = address.rpartition(":")[0]
        return ClusterError(
            f"{address}: this machine is not a node of that cluster, or the cluster is ending: {text[:200]}",
            f"from other machines, connect to its client port: ray://{host or 'HOST'}:10001",
        )
    return ClusterError(
        f"{address}: this is not the client port of a Ray cluster, or it refuses clients: {text[:200]}",
        "the client port is usually 10001; on a node of the cluster, use HOST:PORT without ray://",
    )


def _nodes() -> tuple[Node, ...]:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    named = [
        node["NodeManagerHostname"] if node["NodeName"] == node["NodeManagerAddress"] else node["NodeName"]
        for node in alive
    ]
    return tuple(
        Node(
            node["NodeID"],
            name if named.count(name) == 1 else f"{name}-{node['NodeID'][-4:]}",
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for name, node in sorted(zip(named, alive, strict=True), key=lambda each: each[0])
    )


def _dashboard(context: Any) -> str | None:
    url = getattr(context, "dashboard_url", None)
    return f"http://{url}" if url and "://" not in url else url or None


def on_each_node(cluster: Cluster, question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """The answer of each node to a question, by the node's name; a node that has just been lost has none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        node.name: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            *arguments
        )
        for node in cluster.nodes
    }
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_WORKER_SECONDS)
    answers = {}
    for name, each in asked.items():
        if each not in ready:
            raise ClusterError(
                f"node {name} started no worker within {_WORKER_SECONDS:.0f} s", "check its memory and logs"
            )
        with suppress(ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            answers[name] = ray.get(each)
    return answers


def _check_nodes(cluster: Cluster) -> dict[str, float]:
    """What the cluster can grow to. Raises an error if a node has no hangtag, or other versions than this machine."""
    most: dict[str, float] = {}
    for name, found in on_each_node(cluster, _probe()).items():
        most = found.pop("most") or most
        _check_version(f"node {name}", found)
    return most


def _probe() -> Any:
    """A function that tells a node's versions, and what its cluster can grow to.

    It travels as code, because the node may lack hangtag.
    """

    def tell() -> dict[str, Any]:
        import importlib.metadata
        import platform

        import ray

        most = ray._private.state.state.get_max_resources_from_cluster_config()
        told: dict[str, Any] = {"python": platform.python_version(), "ray": ray.__version__, "most": most}
        for name in ("torch", "onnxruntime", "numpy", "pillow"):
            try:
                told[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        try:
            from hangtag.version import __version__
        except ImportError:
            return {**told, "hangtag": None}
        return {**told, "hangtag": __version__}

    return tell


def _check_version(where: str, theirs: dict[str, str | None]) -> None:
    """Raise an error if results could not be trusted, and warn of versions that can change their last digits."""
    import ray

    ours = {**versions(), "ray": ray.__version__}
    if theirs.get("hangtag", "") is None:
        raise ClusterError(f"{where} has no hangtag", "install it there: pip install 'hangtag[ray]'")
    for name, version in theirs.items():
        mine = ours.get(name)
        if version is None or mine is None:
            continue
        same = _minor(version) == _minor(mine) if name == "python" else version == mine
        if same:
            continue
        if name in _MUST_AGREE:
            shown = {"ray": "Ray", "python": "Python"}.get(name, name)
            raise ClusterError(
                f"{where} has {shown} {version}, this machine has {shown} {mine}", "install the same version everywhere"
            )
        warn(f"{where} has {name} {version}, this machine has {mine}: the last digits of results can differ")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])

"""Errors across machines: hangtag's errors travel back from workers, and Ray's become hangtag's.

A worker returns an error as a dict of strings. Ray would raise a class of its own making, with a traceback as its text.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hangtag.errors import ClusterError, HangtagError

__all__ = ["node_name", "outcome", "ray_errors", "result"]


def outcome(work: Callable[[], Any]) -> dict[str, Any]:
    """In a worker: what the work returns, as {"value": ...}, or its HangtagError as a dict that names the node."""
    try:
        return {"value": work()}
    except HangtagError as error:
        return {"problem": error.to_plain(), "node": node_name()}


def result(found: dict[str, Any]) -> Any:
    """What the work returned. Its error is raised with its own class, and the message starts with the node's name."""
    if "problem" in found:
        raise HangtagError.of_plain(found["problem"], f"on node {found['node']}: ")
    return found["value"]


def node_name() -> str:
    """The name of the node on which this worker runs; "this machine" outside a cluster."""
    import socket

    import ray

    if not ray.is_initialized():
        return "this machine"
    ours = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == ours and node["NodeName"] != node["NodeManagerAddress"]:
            return str(node["NodeName"])
    return socket.gethostname()


@contextmanager
def ray_errors() -> Iterator[None]:
    """Inside, errors of Ray become `ClusterError`s of one line; a HangtagError that a worker raised is itself again."""
    import ray

    try:
        yield
    except HangtagError:
        raise
    except ray.exceptions.RayError as error:
        raise _ours(error) from error
    except ConnectionError as error:
        raise ClusterError(f"the connection to the cluster was lost: {_line(error)}", _AGAIN) from error


_AGAIN = "run the same command again"


def _ours(error: BaseException) -> HangtagError:
    import ray

    cause = getattr(error, "cause", None)
    if isinstance(cause, HangtagError):
        return cause
    if isinstance(cause, ray.exceptions.RayError) and cause is not error:
        return _ours(cause)
    known = ray.exceptions
    kinds = (
        (known.OutOfMemoryError, "a worker's node ran out of memory", "start fewer workers on each node"),
        (known.NodeDiedError, "a node of the cluster was lost", "check the node"),
        (known.OutOfDiskError, "a node's disk is full", "free some space"),
        (known.GetTimeoutError, "the cluster did not answer in time", "check its nodes in the dashboard"),
        (known.RayTaskError, "a worker failed", "this may be an error in hangtag; --debug shows where"),
        (known.WorkerCrashedError | known.RayActorError, "a worker died", "its node may be out of memory or lost"),
        (known.RayError, "Ray failed", "check the nodes of the cluster"),
    )
    what, hint = next((what, hint) for kind, what, hint in kinds if isinstance(error, kind))
    of = f"{type(cause).__name__}: " if isinstance(cause, Exception) else ""
    return ClusterError(f"{what}: {of}{_line(cause or error)}", f"{hint}, then {_AGAIN}")


def _line(error: BaseException) -> str:
    """The first 200 characters of an error's text without tracebacks."""
    text = str(error).split("Traceback (most recent call last)", maxsplit=1)[0].removesuffix("traceback: ")
    return " ".join(text.split())[:200].rstrip(". ") or type(error).__name__

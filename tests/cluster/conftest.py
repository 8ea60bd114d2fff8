"""A real Ray cluster on this machine, started once for all tests of the folder: a head and two more nodes."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NODES = ("head", "east", "west")
"""The nodes of the cluster, each with one CPU."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this folder are skipped where Ray is missing."""
    missing = importlib.util.find_spec("ray") is None
    for item in items:
        if "/tests/cluster/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))  # Ray leaves sockets unclosed
            if missing:
                item.add_marker(pytest.mark.skip(reason="Ray is not installed: pip install 'hangtag[ray]'"))


@pytest.fixture(scope="package")  # later, its processes would take time from other tests
def cluster() -> Iterator[Any]:
    """A running `ray.cluster_utils.Cluster` of three nodes; no test may stop one of them."""
    with three_nodes() as started:
        yield started


@pytest.fixture(scope="package")
def address(cluster: Any) -> str:
    """Where the shared cluster is reached from this machine."""
    return loopback(cluster)


def loopback(cluster: Any) -> str:
    """The address of a cluster on this machine, on the one interface that tests may use."""
    return f"127.0.0.1:{cluster.address.rpartition(':')[2]}"


class three_nodes:  # noqa: N801 - used like a function
    """A cluster of a head and two more nodes; `add` starts another node."""

    def __enter__(self) -> Any:
        from hangtag.cluster import connect

        for name, value in connect._QUIET.items():
            os.environ.setdefault(name, value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.setdefault(name, "test")  # nodes hand their environment to their workers
        from ray.cluster_utils import Cluster

        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # where Cluster notes its address
        self.folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self.cluster = Cluster()
        head = {"temp_dir": self.folder.name, "include_dashboard": False, "include_log_monitor": False}
        self.cluster.add_node(**SETTINGS, **head, node_name=NODES[0])
        for name in NODES[1:]:
            self.cluster.add_node(**SETTINGS, node_name=name, wait=False)
        self.cluster.wait_for_nodes()
        return self.cluster

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()
        self.folder.cleanup()


SETTINGS: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}

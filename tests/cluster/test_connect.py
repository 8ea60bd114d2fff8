"""Connecting to a real Ray cluster, starting one, and what is checked before any work."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hangtag
from hangtag.cluster import connect
from hangtag.cluster.connect import Cluster, Node, Resources, connected
from hangtag.errors import ClusterError, UsageError


def test_a_cluster_tells_its_nodes_and_what_they_have(address: str) -> None:
    with connected(address, Resources(workers=3)) as cluster:
        assert [node.name for node in cluster.nodes] == ["east", "head", "west"]
        assert (cluster.cpus, cluster.gpus) == (3, 0)
        assert cluster.name_of(cluster.nodes[0].id) == "east"
        assert str(cluster) == "Ray: 3 nodes, 3 CPUs"


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (Resources(workers=4, gpus=1), "asked for 4 GPUs, the cluster has 0"),
        (Resources(workers=4), "asked for 4 CPUs, the cluster has 3"),
        (Resources(workers=1, cpus=2), "asked for 1 worker with 2 CPUs, the nodes of the cluster have room for 0"),
        (
            Resources(workers=2, cpus=1.5),
            "asked for 2 workers with 2 CPUs each, the nodes of the cluster have room for 0",
        ),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(needs: Resources, says: str) -> None:
    small = Cluster("x:1", tuple(Node(name, name, 1, 0) for name in "abc"), None)
    with pytest.raises(ClusterError, match=says):
        small.check_room(needs)


def test_a_cluster_that_can_grow_is_asked_for_what_it_can_grow_to() -> None:
    growing = Cluster("x:1", (Node("head", "head", 0, 0),), None, {"CPU": 8})

    growing.check_room(Resources(workers=4, cpus=2))
    with pytest.raises(ClusterError, match="asked for 10 CPUs, the cluster has 8"):
        growing.check_room(Resources(workers=10))


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()

    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(ClusterError, match="no Ray cluster answers: Connection refused"), connected(address):
            pass

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_listener_that_never_answers_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.cluster.connect._ANSWER_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(ClusterError, match="what listens there is not a Ray cluster"), connected(address):
            pass


@pytest.mark.parametrize("address", ["http://head:8265", "head", "ray://head", "head:99999", "head:port"])
def test_a_malformed_address_is_an_invalid_request(address: str) -> None:
    with pytest.raises(UsageError, match="must be HOST:PORT or ray://HOST:PORT, got"), connected(address):
        pass


def test_ray_address_names_the_cluster_when_the_user_does_not(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)

    with connected(None) as cluster:
        assert len(cluster.nodes) == 3


def test_a_node_with_another_hangtag_is_refused_by_name(cluster: Any, address: str, tmp_path: Path) -> None:
    package = tmp_path / "hangtag"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "version.py").write_text('__version__ = "0.0.7"\n')
    odd = cluster.add_node(
        num_cpus=1, object_store_memory=100_000_000, node_name="old", env_vars={"PYTHONPATH": str(tmp_path)}
    )
    try:
        says = r"node old has hangtag 0\.0\.7, this machine has"
        with pytest.raises(ClusterError, match=says), connected(address):
            pass
    finally:
        cluster.remove_node(odd)
        cluster.wait_for_nodes()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ray", r"^the cluster has Ray \d+\.\d+\.\d+, this machine has Ray 0\.0\.7"),
        ("python", r"^node east has Python 3\.\d+\.\d+, this machine has Python 2\.7\.18"),
    ],
)
def test_another_ray_or_python_is_refused(name: str, says: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "ray":
        monkeypatch.setattr("ray.__version__", "0.0.7")
    else:
        ours = {**connect.versions(), "python": "2.7.18"}
        monkeypatch.setattr(connect, "versions", lambda: ours)
    with pytest.raises(ClusterError, match=says), connected(address):
        pass


def test_workers_import_nothing_from_the_current_folder(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)

    with connected(address):
        import ray

        def find() -> str | None:
            import colorsys

            return colorsys.__file__

        assert str(tmp_path) not in str(ray.get(ray.remote(find).remote()))


def test_a_local_cluster_has_the_cores_of_this_machine_and_ends_with_the_work(address: str, tmp_path: Path) -> None:
    program = """
import os
import sys
from hangtag.cluster.connect import connected
from hangtag.machine import processors

def parent():
    return os.getppid()

with connected() as cluster:
    assert cluster.cpus == processors() and len(cluster.nodes) == 1
    import ray
    print(ray.get(ray.remote(num_cpus=0)(parent).remote()))
with connected(sys.argv[1]) as cluster:  # which has no tokens, other than the one before
    assert len(cluster.nodes) == 3
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(hangtag.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program, address], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, check=False, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_room_is_counted_node_by_node() -> None:
    nodes = (Node("a", "a", 4, 1), Node("b", "b", 2, 2))

    assert Cluster("x:1", nodes, None).room_for(Resources(cpus=3)) == 1
    assert Cluster("x:1", nodes, None).room_for(Resources(cpus=1, gpus=1)) == 3


def test_a_head_that_is_lost_for_good_ends_the_process_with_one_line() -> None:
    code = """
import socket, threading, time
from hangtag.cluster import connect

connect._HEAD_SECONDS, connect._HEAD_LOOK_SECONDS = 0.5, 0.05
head = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=connect._watch_head, args=("127.0.0.1:%d" % head.getsockname()[1], threading.Event())).start()
time.sleep(1)
print("answered", flush=True)
head.close()
time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 1
    assert ended.stdout == "answered\n"
    assert ended.stderr.startswith("hangtag: the head of the Ray cluster (127.0.0.1:")
    assert ended.stderr.count("\n") == 1

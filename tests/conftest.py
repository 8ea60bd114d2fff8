"""What every test gets: a home of its own, no network, and on request the real Fashion-MNIST."""

import dataclasses
import gc
import itertools
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores; threads of OpenBLAS wait busily for each other
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hangtag
from hangtag.data.public import datasets
from hangtag.errors import DownloadError
from hangtag.training.engine import cores

LOOPBACK = ("127.", "::1", "localhost")
_HOMES = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def network_is_off() -> Iterator[None]:
    """Only this machine can be reached; what tries more fails the test that started it."""

    def only_here(real: Any, address_of: Any) -> Any:
        def guarded(*args: Any, **settings: Any) -> Any:
            host = address_of(*args)
            if isinstance(host, str) and host and not host.startswith(LOOPBACK):
                raise AssertionError(f"a test tried to reach {host}")
            return real(*args, **settings)

        return guarded

    def target(sock: socket.socket, address: Any, *_: Any) -> object:
        return None if sock.family == socket.AF_UNIX else address[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", only_here(socket.socket.connect, target))
        patch.setattr(socket.socket, "connect_ex", only_here(socket.socket.connect_ex, target))
        patch.setattr(socket, "getaddrinfo", only_here(socket.getaddrinfo, lambda host, *_: host))
        yield


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder and an empty cache for each test."""
    folder = tmp_path_factory.getbasetemp() / "homes" / str(next(_HOMES))  # `mktemp` would list all others each time
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    for name in ("HANGTAG_DATA", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def same_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process use all cores, however busy the machine is, so that equal seeds give equal weights."""
    monkeypatch.setattr(cores, "_BUSY", math.inf)


@pytest.fixture(autouse=True, scope="session")
def font_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """matplotlib looks at the fonts once per test run, not once per home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        yield


@pytest.fixture(scope="session")
def fashion() -> hangtag.LabelledImages:
    """The real Fashion-MNIST as this machine has it; set up before any test's home is redirected, never fetched."""
    on_this_machine = dataclasses.replace(datasets.NAMED["fashion-mnist"], mirrors=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.NAMED, "fashion-mnist", on_this_machine)
        try:
            return hangtag.read("fashion-mnist")
        except DownloadError:
            pytest.fail("Fashion-MNIST is not on this machine: run `make data`")


def pytest_collection_finish() -> None:
    """Python's search for garbage leaves out what the test run keeps anyway: modules and 5,000 tests."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file run in one process, which makes its fixtures once; those of the cluster all run in one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "cluster" if nodeid.startswith("tests/cluster/") else nodeid.partition("::")[0]

    return ByFile(config, log)

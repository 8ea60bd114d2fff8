"""Sockets, processes, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import hangtag
from hangtag.errors import ArtifactError, UsageError
from hangtag.serving.run import listening_socket, serve
from hangtag.serving.settings import Settings
from toys import in_a_process

from .conftest import Running

only_posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks are POSIX")


class Started(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def children(self) -> set[int]:
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return {int(number) for number in listed.stdout.split()}

    def status(self, picture: bytes) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/predict", picture) as response:
            return int(response.status)


@contextmanager
def command(*arguments: str | Path) -> Iterator[Started]:
    """`hangtag serve ARGUMENTS --port 0`, ready to answer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hangtag", "serve", *map(str, arguments), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(hangtag.__file__).parents[1])},
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Started(process, int(json.loads(line)["url"].rpartition(":")[2].strip("/")))
    finally:
        process.kill()
        process.communicate()


def half_sent(port: int, picture: bytes) -> socket.socket:
    """A connection whose request lacks its last byte, and which the server is reading."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    with ExitStack() as on_failure:
        on_failure.push(connection)
        head = f"Host: localhost\r\nContent-Length: {len(picture)}\r\nExpect: 100-continue"
        connection.sendall(f"POST /predict HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # sent when the body is read
        connection.sendall(picture[:-1])
        on_failure.pop_all()
    return connection


def is_draining(port: int) -> bool:
    """Whether the server says that it is not ready, or accepts no connections."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
            return False
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 503
    except OSError:
        return True


def is_refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_real_server_answers(server: Running, toy_png: bytes) -> None:
    with urllib.request.urlopen(f"{server.url}/predict", toy_png) as response:
        assert json.load(response)["label"] in ("bar", "dot", "edge")
        assert "server" not in response.headers
        assert response.headers["x-content-type-options"] == "nosniff"


@only_posix
def test_sigterm_finishes_what_was_accepted_and_ends_with_code_0(toy_run: Path, toy_png: bytes) -> None:
    with command(toy_run, "--drain-delay", "0") as started, half_sent(started.port, toy_png) as connection:
        started.process.send_signal(signal.SIGTERM)
        wait_for(lambda: is_refused(started.port))
        connection.sendall(toy_png[-1:])
        answer = connection.recv(65536)

        assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer
        assert started.process.wait(20) == 0
        assert started.process.stderr is not None and "hangtag: stopping after" in started.process.stderr.read()


@only_posix
def test_a_second_signal_ends_at_once(toy_run: Path, toy_png: bytes) -> None:
    with command(toy_run) as started, half_sent(started.port, toy_png):
        started.process.send_signal(signal.SIGINT)
        wait_for(lambda: is_draining(started.port))
        assert started.process.poll() is None
        started.process.send_signal(signal.SIGINT)

        assert started.process.wait(20) == 130


@only_posix
def test_requests_that_do_not_end_are_cut_off_after_the_grace_time(toy_run: Path, toy_png: bytes) -> None:
    with command(toy_run, "--grace", "0.3") as started, half_sent(started.port, toy_png) as connection:
        started.process.send_signal(signal.SIGTERM)

        assert started.process.wait(20) == 0
        assert connection.recv(65536)[:13] in (b"", b"HTTP/1.1 500 ", b"HTTP/1.1 503 ")


@only_posix
def test_a_killed_worker_is_replaced_and_workers_end_with_their_parent(toy_run: Path, toy_png: bytes) -> None:
    with command(toy_run, "--workers", "2") as started:
        wait_for(lambda: len(started.children()) == 2)
        before = started.children()
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(started.children() - before) == 1)
        assert started.status(toy_png) == 200

        workers = started.children()
        started.process.send_signal(signal.SIGHUP)  # looks for new models
        time.sleep(0.3)
        assert started.children() == workers and started.status(toy_png) == 200

        started.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{each}/exe").exists() for each in workers), 10)


@only_posix
def test_workers_end_with_code_0(toy_run: Path) -> None:
    with command(toy_run, "--workers", "2") as started:
        started.process.send_signal(signal.SIGTERM)

        assert started.process.wait(20) == 0


_HASTY = """
import multiprocessing.context, os, signal, time
from hangtag.serving.run import Workers, listening_socket
from hangtag.serving.settings import Settings

started = []

def target(listening, reporter, alive_end):
    reporter.send("ready")
    time.sleep(60)

class Process(multiprocessing.context.ForkProcess):
    def start(self):
        super().start()
        started.append(self.pid)
        if len(started) == 2:
            os.kill(self.pid, signal.SIGTERM)
        if len(started) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

settings = Settings(port=0, grace=0.1, drain_delay=0)
with listening_socket(settings) as listening:
    workers = Workers(target, listening, settings, lambda said: os.kill(started[0], signal.SIGKILL))
    workers.context.Process = Process
    workers.run()
print(len(started))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_worker_that_gets_sigterm_before_it_has_begun_does_not_end_the_server(tmp_path: Path) -> None:
    assert in_a_process(_HASTY, tmp_path).strip() == "3"


def test_a_worker_that_cannot_open_its_model_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")

    for workers in (1, 2):
        with pytest.raises(ArtifactError, match=r"model\.onnx"):
            serve([str(tmp_path)], Settings(port=0, workers=workers), lambda _: None)


def test_a_port_in_use_is_an_error(server: Running) -> None:
    with pytest.raises(UsageError, match=f"port {server.port} is in use") as caught:
        listening_socket(Settings(port=server.port))
    assert "--port 0" in caught.value.hint


def test_a_privileged_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))
    with pytest.raises(UsageError, match="port 80 is privileged"):
        listening_socket(Settings(port=80))


def test_an_address_that_this_machine_does_not_have_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
    with pytest.raises(UsageError, match="this machine has no such address"):
        listening_socket(Settings(host="192.0.2.1", port=0, no_auth=True))


def test_more_connections_than_allowed_are_refused_unless_another_is_idle(
    start_server: Callable[..., AbstractContextManager[Running]], toy_png: bytes
) -> None:
    with start_server(max_connections=2) as server, ExitStack() as stack:
        busy = [stack.enter_context(half_sent(server.port, toy_png)) for _ in range(2)]
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as third:
            assert third.recv(1000).startswith(b"HTTP/1.1 503 ")
        for connection in busy:
            connection.sendall(toy_png[-1:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        with half_sent(server.port, toy_png) as fourth:  # takes the place of one that is idle
            fourth.sendall(toy_png[-1:])
            assert fourth.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert busy[0].recv(1) == b""


def test_tls(start_server: Callable[..., AbstractContextManager[Running]], toy_png: bytes, tmp_path: Path) -> None:
    import ssl

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.create_default_context(cafile=str(certificate))

    with (
        start_server(certfile=str(certificate), keyfile=str(key), client_timeout=0.5) as server,
        urllib.request.urlopen(f"{server.url}/predict", toy_png, context=context) as response,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent,
    ):
        assert response.status == 200
        assert silent.recv(1) == b""  # it does not begin to encrypt

    with pytest.raises(UsageError, match="its own key"):
        serve(["unused.onnx"], Settings(port=0, certfile=str(key), keyfile=str(key)), lambda _: None)


@pytest.mark.parametrize("error", [UnicodeError("label too long"), socket.gaierror(-2, "Name or service not known")])
def test_a_name_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(UsageError, match="no such address"):
        listening_socket(Settings(host="a" * 300, port=0, no_auth=True))

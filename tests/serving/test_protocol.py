"""Limits of a connection that hostile requests alone do not show."""

import asyncio
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .conftest import Running

_HEAD = b"Host: localhost\r\n"


@pytest.fixture(scope="module")
def impatient(start_server: Callable[..., AbstractContextManager[Running]]) -> Iterator[Running]:
    with start_server(client_timeout=0.5, timeout=5, keep_alive=1) as server:

        async def large(request: Request) -> Response:
            return Response(bytes(30_000_000))

        server.app.router.routes.append(Route("/large", large))
        yield server


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_client_that_does_not_read_is_cut_off(impatient: Running) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\n" + _HEAD + b"\r\n")
        deadline = time.monotonic() + 20
        while impatient.listener.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not impatient.listener.server_state.connections


def test_a_client_that_reads_slowly_is_served(impatient: Running) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nConnection: close\r\n" + _HEAD + b"\r\n")
        size = 0
        began = time.monotonic()
        while data := connection.recv(1_000_000):
            size += len(data)
            time.sleep(0.03)
        assert size > 30_000_000 and time.monotonic() - began > 0.9  # longer than a client may wait


def test_a_client_that_ends_its_half_of_the_connection_gets_its_answer(server: Running, toy_png: bytes) -> None:
    with connect(server) as connection:
        length = f"Content-Length: {len(toy_png)}\r\n\r\n".encode()
        connection.sendall(b"POST /predict HTTP/1.1\r\n" + _HEAD + length + toy_png)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_breaks_before_the_answer_is_counted_as_a_client_that_left(
    start_server: Callable[..., AbstractContextManager[Running]],
) -> None:
    with start_server() as server:
        has_begun, may_end = threading.Event(), threading.Event()

        async def slow(request: Request) -> Response:
            has_begun.set()
            await asyncio.to_thread(may_end.wait, 10)
            return Response()

        server.app.router.routes.append(Route("/slow", slow))
        with connect(server) as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\n" + _HEAD + b"\r\n")
            assert has_begun.wait(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
        deadline = time.monotonic() + 20
        while server.listener.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        may_end.set()
        counts = ""
        while "hangtag_errors_total{" not in counts and time.monotonic() < deadline:
            with urllib.request.urlopen(f"{server.url}/metrics") as response:
                counts = response.read().decode()
        assert 'hangtag_errors_total{kind="client left"} 1.0' in counts


def test_a_client_that_sends_everything_before_it_reads_learns_that_it_was_too_much(server: Running) -> None:
    size = 100_000_000
    with connect(server) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n" + _HEAD + f"Content-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 1_000_000):
            connection.sendall(bytes(1_000_000))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_expect_100_continue_is_answered_before_the_body_is_sent(server: Running, toy_png: bytes) -> None:
    def asked(length: int) -> bytes:
        fields = f"Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n".encode()
        return b"POST /predict HTTP/1.1\r\n" + _HEAD + fields

    with connect(server) as connection:
        connection.sendall(asked(len(toy_png)))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(toy_png)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    with connect(server) as connection:
        connection.sendall(asked(10**9))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_wish_for_another_protocol_is_ignored(server: Running, toy_png: bytes) -> None:
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"  # Java's default
    length = f"Content-Length: {len(toy_png)}\r\n\r\n".encode()
    ask = b"POST /predict HTTP/1.1\r\n" + _HEAD + wish + length
    last = b"POST /predict HTTP/1.1\r\n" + _HEAD + wish + b"Connection: close\r\n" + length
    with connect(server) as connection:
        for some in (ask[:50], ask[50:100], ask[100:], toy_png[:9], toy_png[9:] + ask + toy_png + last, toy_png):
            connection.sendall(some)
            time.sleep(0.02)
        answers = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200"] * 3
    assert answers.count(b'"label"') >= 3


@pytest.mark.parametrize("field", [b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b""])
def test_what_cannot_be_another_protocol_is_refused(server: Running, field: bytes) -> None:
    start = b"GET /predict" if field else b"CONNECT localhost:80"
    with connect(server) as connection:
        connection.sendall(start + b" HTTP/1.1\r\n" + _HEAD + field + b"\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert re.findall(rb"HTTP/1.1 (\d+)", read_all(connection)) == [b"405"]


def test_spaces_around_a_header_do_not_count(server: Running) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost:  localhost \t\r\nX-Request-Id: a-1 \r\n\r\n")
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"x-request-id: a-1\r\n" in answer.lower()


def test_http_1_0_knows_no_100_continue(server: Running, toy_png: bytes) -> None:
    fields = f"Expect: 100-continue\r\nContent-Length: {len(toy_png)}\r\n\r\n".encode()
    with connect(server) as connection:
        connection.sendall(b"POST /predict HTTP/1.0\r\n" + _HEAD + fields + toy_png)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    with connect(server) as connection:
        paths = [f"/nothing-{number}" if number % 2 else "/healthz" for number in range(20)]
        ask = b"".join(f"GET {path} HTTP/1.1\r\n".encode() + _HEAD + b"\r\n" for path in paths)
        connection.sendall(ask)
        connection.shutdown(socket.SHUT_WR)
        statuses = re.findall(rb"HTTP/1.1 (\d+)", read_all(connection))
        assert statuses == [b"404" if "nothing" in path else b"200" for path in paths]


def test_ending_closes_idle_connections_and_serves_those_that_still_ask(
    start_server: Callable[..., AbstractContextManager[Running]],
) -> None:
    with start_server() as server:
        idle, busy = connect(server), connect(server)
        for connection in (idle, busy):
            connection.sendall(b"GET /healthz HTTP/1.1\r\n" + _HEAD + b"\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        threading.Timer(0.15, busy.sendall, (b"GET /healthz HTTP/1.1\r\n" + _HEAD + b"\r\n",)).start()
        server.listener.stop()
        answer = read_all(busy)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()
        assert read_all(idle) == b""
        idle.close()
        busy.close()


def test_bodies_that_are_being_received_are_limited_together(
    start_server: Callable[..., AbstractContextManager[Running]], toy_png: bytes
) -> None:
    head = b"POST /predict HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: %d\r\n" + _HEAD + b"\r\n"
    with start_server(max_queue_bytes=100_000) as server:
        bodies = server.listener.config.http_protocol_class.args[1]  # type: ignore[union-attr]
        with connect(server) as alone:  # larger than the limit, but nobody else sends anything
            alone.sendall(head % 150_001 + bytes(150_000))
            deadline = time.monotonic() + 20
            while bodies.size < 150_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert bodies.size == 150_000
            with connect(server) as another:
                another.sendall(head % 1000 + bytes(500))
                assert another.recv(1000).startswith(b"HTTP/1.1 503 ")
            alone.sendall(b"\0")
            assert alone.recv(1000).startswith(b"HTTP/1.1 422 ")  # it was read as a whole
        with connect(server) as later:
            later.sendall(head % len(toy_png) + toy_png)
            assert later.recv(1000).startswith(b"HTTP/1.1 200 ")
        deadline = time.monotonic() + 20
        while bodies.size and time.monotonic() < deadline:
            time.sleep(0.01)
        assert bodies.size == 0

"""A full server refuses at little cost what it would refuse anyway."""

import http.client
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from .conftest import Running

StartServer = Callable[..., AbstractContextManager[Running]]


def refused(start: StartServer, picture: bytes, path: str, sent: dict[str, str], **settings: Any) -> tuple[Any, ...]:
    """Status, headers and body of two requests over one connection to a full server, and what it counted."""
    with start(**settings) as server:
        server.app.state.server.batcher.waiting = 10**6
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        found = []
        for _ in range(2):
            connection.request("POST", path, picture, sent)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() != "date"}
            headers.pop("vary", None)  # of servers with other origins
            request_id = headers.pop("x-request-id")
            found.append((answer.status, headers, answer.read(), request_id == sent.get("X-Request-Id")))
        connection.close()
        server.app.state.server.batcher.waiting = 0
        connection.request("POST", "/predict", picture, sent)
        assert connection.getresponse().status == 200
        connection.close()
        text = server.app.state.server.metrics.text()[0].decode()
        return (*found, [line for line in text.splitlines() if line.startswith("hangtag_requests_total")])


@pytest.mark.parametrize("path", ["/predict", "/v2/models/toy/infer", "/nowhere"])
@pytest.mark.parametrize("sent", [{}, {"X-Request-Id": "mine"}])
def test_the_answer_is_that_of_the_application(
    start_server: StartServer, toy_png: bytes, path: str, sent: dict[str, str]
) -> None:
    early = refused(start_server, toy_png, path, sent)
    usual = refused(start_server, toy_png, path, sent, allow_origins=("https://elsewhere.example",))
    assert early[0][0] == 503 and early == usual


def test_who_has_no_token_is_told_so_even_by_a_full_server(start_server: StartServer, toy_png: bytes) -> None:
    with start_server(token="secret") as server:
        server.app.state.server.batcher.waiting = 10**6
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/predict", toy_png)
        assert connection.getresponse().status == 401
        connection.close()
        server.app.state.server.batcher.waiting = 0


def test_requests_sent_at_once_are_all_refused_in_turn(start_server: StartServer, toy_png: bytes) -> None:
    one = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(toy_png) + toy_png
    with start_server() as server:
        server.app.state.server.batcher.waiting = 10**6
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(3 * one)
            received = b""
            while received.count(b"the server is overloaded") < 3:
                received += connection.recv(65536)
            assert received.count(b"HTTP/1.1 503 ") == 3
            server.app.state.server.batcher.waiting = 0
            connection.sendall(one)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")

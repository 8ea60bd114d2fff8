"""Sockets, processes, signals."""

import json
import urllib.request

from .conftest import Running


def test_a_real_server_answers(server: Running, toy_png: bytes) -> None:
    with urllib.request.urlopen(f"{server.url}/predict", toy_png) as response:
        assert json.load(response)["label"] in ("bar", "dot", "edge")

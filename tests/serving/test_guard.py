"""What stands before every handler."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import Route

from hangtag.errors import UsageError
from hangtag.serving.app import create_app
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings

from .conftest import Running


class Client:
    """Calls an application in this process."""

    def __init__(self, app: Any) -> None:
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def answer() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://localhost") as client:
                return await client.request(method, path, **request)

        return asyncio.run(answer())


@pytest.fixture
def client(toy_run: Path) -> Callable[..., Client]:
    def make(**settings: Any) -> Client:
        app = create_app(Models([toy_run]), Settings(**{"access_log": None, **settings}))

        async def broken(request: Request) -> None:
            raise RuntimeError("/home/secret at 0x7f0000")

        app.router.routes.append(Route("/broken", broken))
        return Client(app)

    return make


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({}, "localhost", 200),
        ({}, "localhost:8000", 200),
        ({}, "LOCALHOST.", 200),
        ({}, "127.0.0.1:1234", 200),
        ({}, "127.9.9.9", 200),
        ({}, "[::1]:8000", 200),
        ({}, "example.org", 421),
        ({}, "192.0.2.7", 421),
        ({"allow_hosts": ("Example.org",)}, "example.org:80", 200),
        ({"allow_hosts": ("*",)}, "anything", 200),
        ({"allow_hosts": ("2001:db8::1",)}, "[2001:db8::1]:80", 200),
        ({"host": "0.0.0.0", "no_auth": True}, "192.0.2.7:8000", 200),
        ({"host": "0.0.0.0", "no_auth": True}, "example.org", 421),
        ({"host": "::", "no_auth": True}, "[2001:db8::1]", 200),
        ({"host": "0.0.0.0", "token": "t"}, "example.org", 200),
        ({"host": "0.0.0.0", "token": "t", "allow_hosts": ("example.org",)}, "example.com", 421),
    ],
)
def test_hosts(client: Callable[..., Client], toy_png: bytes, settings: dict[str, Any], host: str, status: int) -> None:
    headers = {"Host": host, "Authorization": "Bearer t"}

    response = client(**settings).ask("POST", "/predict", content=toy_png, headers=headers)

    assert response.status_code == status
    assert status == 200 or "--allow-host" in response.json()["hint"]


@pytest.mark.parametrize(
    ("settings", "origin", "status"),
    [
        ({}, "http://localhost", 200),
        ({}, "https://localhost", 200),  # a proxy may speak https
        ({}, "http://localhost:3000", 403),
        ({}, "null", 403),
        ({"allow_origins": ("https://example.org",)}, "https://example.org", 200),
        ({"allow_origins": ("https://example.org",)}, "http://example.org", 403),
        ({"allow_origins": ("*",)}, "https://example.com", 200),
    ],
)
def test_origins(
    client: Callable[..., Client], toy_png: bytes, settings: dict[str, Any], origin: str, status: int
) -> None:
    response = client(**settings).ask("POST", "/predict", content=toy_png, headers={"Origin": origin})

    assert response.status_code == status
    assert ("access-control-allow-origin" in response.headers) == (bool(settings) and status == 200)


def test_a_preflight_needs_no_token_and_is_answered_for_allowed_origins_only(client: Callable[..., Client]) -> None:
    asked = client(token="t", allow_origins=("https://example.org",))
    headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    assert asked.ask("OPTIONS", "/predict", headers={**headers, "Origin": "https://example.org"}).status_code == 200
    assert asked.ask("OPTIONS", "/predict", headers={**headers, "Origin": "https://example.com"}).status_code == 400


def test_a_token_opens_what_is_closed(client: Callable[..., Client], toy_png: bytes) -> None:
    asked = client(token="secret")

    refused = asked.ask("POST", "/predict", content=toy_png)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert set(refused.json()) == {"error", "hint"}
    for header in ("Bearer secret", "bearer secret", "BEARER  secret"):
        assert asked.ask("POST", "/predict", content=toy_png, headers={"Authorization": header}).status_code == 200
    assert asked.ask("GET", "/v2/health/live").status_code != 401


def test_an_unexpected_error_shows_nothing_of_the_server(
    client: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = client().ask("GET", "/broken")

    assert response.status_code == 500
    assert "secret" not in response.text and "0x7f" not in response.text and "Traceback" not in response.text
    number = response.headers["x-request-id"]
    assert number in response.json()["hint"]
    assert number in caplog.text and "RuntimeError: /home/secret" in caplog.text


def test_a_full_queue_refuses_before_the_body_is_read(
    start_server: Callable[..., AbstractContextManager[Running]], toy_png: bytes
) -> None:
    import http.client

    with start_server(max_queue=1) as server:
        batcher = server.app.state.server.batcher
        batcher.waiting = 1
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", str(len(toy_png)))
        connection.endheaders()
        response = connection.getresponse()  # nothing of the body has been sent

        assert response.status == 503 and int(response.headers["retry-after"]) >= 1
        assert set(response.read()) > set(b'{"error"')
        connection.send(toy_png)  # is skipped, and the connection can be used again
        batcher.waiting = 0
        connection.request("POST", "/predict", toy_png)
        with connection.getresponse() as response:
            assert response.status == 200
        connection.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "needs a token"),
        ({"host": "example.org"}, "needs a token"),
        ({"token": "two words"}, "visible ASCII"),
        ({"token": ""}, "visible ASCII"),
        ({"token": "t", "no_auth": True}, "contradict"),
        ({"keyfile": "key.pem"}, "--certfile"),
        ({"allow_origins": ("example.org",)}, "scheme and a host"),
        ({"allow_origins": ("https://Example.org",)}, "lower case"),
        ({"allow_hosts": ("example.org:80",)}, "without a port"),
        ({"allow_hosts": ("*.example.org",)}, "a name or an address"),
        ({"port": 70_000}, "from 0 to 65,535"),
        ({"workers": 0}, "from 1 to 256"),
        ({"timeout": float("nan")}, "timeout must be"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(**settings)

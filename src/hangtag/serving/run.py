"""From the command line to a listening server: sockets, processes, signals."""

import socket
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn

from hangtag.serving.models import Models
from hangtag.serving.settings import Settings

__all__ = ["Listener", "listening_socket", "serve"]


class Listener(uvicorn.Server):
    """Answers requests with an ASGI application until it is told to stop.

    Attributes:
        ready: set once it answers.
    """

    def __init__(self, app: Any, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(app, log_config=None, log_level="error", access_log=False, ws="none", server_header=False)
        )
        self.settings = settings
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def stop(self) -> None:
        """From any thread: finish what was accepted and end."""
        self.should_exit = True


def listening_socket(settings: Settings) -> socket.socket:
    return socket.create_server((settings.host, settings.port), backlog=2048)


def serve(places: Sequence[str], settings: Settings) -> None:
    """Answer requests until SIGTERM or Ctrl-C."""
    from hangtag.serving.app import create_app

    Listener(create_app(Models(places), settings), settings).run([listening_socket(settings)])

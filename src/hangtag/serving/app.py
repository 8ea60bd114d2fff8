"""The web application: what answers at which path, and what stands before it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from hangtag.errors import HangtagError
from hangtag.serving.batching import Batcher
from hangtag.serving.guard import Guard
from hangtag.serving.models import Models
from hangtag.serving.refusals import Refusal
from hangtag.serving.replies import json_response
from hangtag.serving.settings import Settings
from hangtag.version import __version__

__all__ = ["Server", "create_app", "json_response"]


@dataclass(eq=False)
class Server:
    """What the handlers of requests share; `app.state.server`.

    Attributes:
        is_draining: whether the server finishes what it accepted and takes nothing new.
    """

    models: Models
    settings: Settings
    batcher: Batcher = field(init=False)
    is_draining: bool = False
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.settings)


def create_app(models: Models, settings: Settings | None = None) -> FastAPI:
    """An ASGI application that answers with these models."""
    from hangtag.serving import page
    from hangtag.serving.description import describe
    from hangtag.serving.simple_api import router

    server = Server(models, settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        server.batcher.close()

    app = FastAPI(title="hangtag", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.include_router(router)
    app.include_router(page.router)
    app.add_middleware(Guard, server=server)
    if server.settings.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=server.settings.allow_origins, allow_methods=["GET", "POST"],
            allow_headers=["*"], expose_headers=["*"],
        )  # fmt: skip
    app.add_exception_handler(HangtagError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_path)
    app.openapi = lambda: describe(app, server.settings.token is not None)  # type: ignore[method-assign]
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HangtagError)
    if isinstance(error, Refusal):
        return json_response(error.to_json(), error.status, error.headers)
    return json_response(error.to_json(), 400)


async def _refuse_path(request: Request, error: Exception) -> Response:
    """No such path, or no such method there."""
    assert isinstance(error, HTTPException)
    hint = "/docs lists the paths and their methods"
    return json_response({"error": error.detail.lower(), "hint": hint}, error.status_code, dict(error.headers or {}))

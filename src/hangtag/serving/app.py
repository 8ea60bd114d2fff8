"""The web application: what answers at which path, and what stands before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hangtag.errors import HangtagError, logger
from hangtag.serving.access_log import AccessLog, Requests, open_access_log
from hangtag.serving.answer_log import AnswerLog
from hangtag.serving.batching import Batcher
from hangtag.serving.compute import Engine
from hangtag.serving.guard import Checks, Guard
from hangtag.serving.line_log import LineLog
from hangtag.serving.metrics import SECONDS, Metrics
from hangtag.serving.models import Models
from hangtag.serving.refusals import Refusal
from hangtag.serving.replies import error_response, json_response
from hangtag.serving.settings import Settings

__all__ = ["Server", "create_app"]


@dataclass(eq=False)
class Server:
    """What the handlers of requests share; `app.state.server`.

    Attributes:
        checks, requests: what comes before and after all handlers.
        is_draining: whether the server finishes what it accepted and takes nothing new.
    """

    models: Models
    settings: Settings
    engine: Engine | None = None
    batcher: Batcher = field(init=False)
    metrics: Metrics = field(init=False)
    checks: Checks = field(init=False)
    requests: Requests = field(init=False)
    access_log: LineLog | None = None
    is_draining: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self.metrics = Metrics(lambda: list(self.models), lambda: self.batcher.waiting)
        self.batcher = Batcher(settings, self.metrics, self.engine)
        if settings.access_log is not None:
            self.access_log = open_access_log(settings.access_log, self.metrics)
        self.checks = Checks(settings, self.batcher.admit)
        self.requests = Requests(self.metrics, self.access_log)
        if settings.log_answers is not None:
            self.metrics.answer_log = AnswerLog(
                settings.log_answers, self.metrics, settings.sample, settings.log_answers_bytes
            )

    async def count(self) -> None:
        """Keep the counts fresh for scrapes that another process answers."""
        while True:
            try:
                self.metrics.flush()
            except Exception:  # a count that fails must not end all others
                logger.exception("requests could not be counted")
            await asyncio.sleep(SECONDS)

    def close(self) -> None:
        """Finish what was accepted, and write all logs."""
        self.batcher.close()
        self.metrics.flush()
        for log in (self.access_log, self.metrics.answer_log):
            if log is not None:
                log.close()


def create_app(models: Models, settings: Settings | None = None, engine: Engine | None = None) -> Starlette:
    """An ASGI application that answers with these models; an `engine` other than this process computes elsewhere."""
    from hangtag.serving import open_inference, page, simple_api

    server = Server(models, settings or Settings(), engine)
    routers = [simple_api.router, open_inference.router, page.router]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(models.watch()), asyncio.create_task(server.count())]
        yield
        for task in tasks:
            task.cancel()
        server.close()

    @cache
    def description() -> dict[str, Any]:
        from hangtag.serving.description import describe

        return describe(routers, server.settings.token is not None)

    async def openapi(request: Request) -> Response:
        return json_response(description())

    async def metrics(request: Request) -> Response:
        """Counts of all processes, for Prometheus."""
        content, kind = await asyncio.to_thread(server.metrics.text)
        return Response(content, media_type=kind)

    middleware = [Middleware(Guard, server=server)]
    if server.settings.allow_origins:
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware, allow_origins=server.settings.allow_origins, allow_methods=["GET", "POST"],
                allow_headers=["*"], expose_headers=["*"],
            ),
        )  # fmt: skip
    middleware.insert(0, Middleware(AccessLog, requests=server.requests))
    routes = [Route("/openapi.json", openapi), Route("/metrics", metrics)]
    routes += [route for router in routers for route in router.routes]
    handlers: Any = {HangtagError: _refuse, HTTPException: _refuse_path}
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False  # it would redirect to http:// behind a proxy that ends TLS
    app.state.server = server
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HangtagError)
    return error_response(error, request.url.path)


async def _refuse_path(request: Request, error: Exception) -> Response:
    """No such path, or no such method there."""
    assert isinstance(error, HTTPException)
    hint = "/docs lists the paths and their methods"
    refusal = Refusal(error.status_code, error.detail.lower(), hint, dict(error.headers or {}))
    return error_response(refusal, request.url.path)

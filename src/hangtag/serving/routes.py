"""Paths and their handlers: served by starlette, and described by FastAPI once somebody wants the description.

Importing FastAPI takes a third of the time and a fifth of the memory in which the server starts.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.routing import Match, Route

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Router"]


class _Route(Route):
    """Says in the request's scope which route it takes, as an older starlette does not itself."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        match, found = super().matches(scope)
        return match, found if match == Match.NONE else {**found, "route": self}


class Router:
    """Collects handlers with the decorators of FastAPI's `APIRouter`.

    A handler takes the request and returns a `Response`.

    Args:
        described: what FastAPI needs to know about all paths, such as `tags`.
    """

    def __init__(self, **described: Any) -> None:
        self.described = described
        self.entries: list[tuple[str, Sequence[str], Callable[..., Any], dict[str, Any]]] = []

    def get(self, path: str, **described: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self.api_route(path, ("GET",), **described)

    def post(self, path: str, **described: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self.api_route(path, ("POST",), **described)

    def api_route(
        self, path: str, methods: Sequence[str], **described: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(handler: Callable[..., Any]) -> Callable[..., Any]:
            self.entries.append((path, methods, handler, described))
            return handler

        return add

    @property
    def routes(self) -> list[Route]:
        return [_Route(path, handler, methods=methods) for path, methods, handler, _ in self.entries]

    def describe_to(self, app: "FastAPI") -> None:
        """Add the paths to an application that is only described, never served."""
        for path, methods, handler, described in self.entries:
            app.add_api_route(path, handler, methods=list(methods), **{**self.described, **described})

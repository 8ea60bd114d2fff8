"""The simple API: pictures in, answers out."""

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from hangtag.errors import HangtagError
from hangtag.serving.batching import Ask

__all__ = ["router"]

router = APIRouter()


@router.post("/predict")
async def predict(request: Request) -> Response:
    """The answer for the picture in the body."""
    from hangtag.serving.app import json_response

    server = request.app.state.server
    deadline = time.monotonic() + server.settings.timeout
    (answer,) = await server.batcher.answers(server.models.default, [await request.body()], Ask(), deadline)
    if isinstance(answer, HangtagError):
        raise answer
    return json_response(answer.to_json())

"""What all handlers share."""

import asyncio
from pathlib import Path

import pytest

from hangtag.serving import app
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings


def test_counting_goes_on_after_an_error(
    toy_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = app.Server(Models([toy_run]), Settings(access_log=None))
    calls: list[int] = []

    def flush() -> None:
        calls.append(1)
        raise OSError("the disk is full")

    monkeypatch.setattr(app, "SECONDS", 0.001)
    monkeypatch.setattr(server.metrics, "flush", flush)

    async def count() -> None:
        counting = asyncio.create_task(server.count())
        while len(calls) < 3:
            assert not counting.done()
            await asyncio.sleep(0.001)
        counting.cancel()

    asyncio.run(asyncio.wait_for(count(), 20))
    server.batcher.close()

    assert "requests could not be counted" in caplog.text

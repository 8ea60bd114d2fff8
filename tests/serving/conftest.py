"""A real server for tests: uvicorn with our protocol and limits, on a free port of this machine, with a toy model."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from hangtag.serving.app import create_app
from hangtag.serving.models import Models
from hangtag.serving.run import Listener, listening_socket
from hangtag.serving.settings import Settings
from toys import shapes, toy_model


class Running(NamedTuple):
    """A server that answers.

    Attributes:
        url: without a slash at the end.
        port: on 127.0.0.1.
        app: the application; `app.state.server` is the `Server`.
        listener: what stops it.
    """

    url: str
    port: int
    app: Any
    listener: Listener


@contextmanager
def run_server(models: Models, settings: Settings | None = None) -> Iterator[Running]:
    """Serve from a thread of this process until the block ends; a free port unless the settings name one."""
    settings = settings or Settings(port=0, access_log=None)
    app = create_app(models, settings)
    socket = listening_socket(settings)
    listener = Listener(app, settings)
    thread = threading.Thread(target=listener.run, args=([socket],), daemon=True)
    port = socket.getsockname()[1]
    thread.start()
    try:
        assert listener.ready.wait(20)
        yield Running(f"{'https' if settings.certfile else 'http'}://127.0.0.1:{port}", port, app, listener)
    finally:
        listener.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `toy` with a model.onnx for 8x8 grey images and the classes bar, dot and edge."""
    folder = tmp_path_factory.mktemp("serving") / "toy"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(toy_model())
    return folder


@pytest.fixture(scope="session")
def toy_png() -> bytes:
    """A picture for the model of `toy_run`."""
    buffer = io.BytesIO()
    Image.fromarray(shapes(3)[0][0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def start_server(toy_run: Path) -> Callable[..., AbstractContextManager[Running]]:
    """`with start_server(max_queue=1) as server:` serves the toy model with these settings."""

    def start(**settings: Any) -> AbstractContextManager[Running]:
        return run_server(Models([toy_run]), Settings(**{"port": 0, "access_log": None, **settings}))

    return start


@pytest.fixture(scope="session")
def server(start_server: Callable[..., AbstractContextManager[Running]]) -> Iterator[Running]:
    """One server for all tests, with the toy model and default settings."""
    with start_server() as running:
        yield running

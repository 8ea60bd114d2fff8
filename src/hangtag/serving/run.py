"""From the command line to a listening server: sockets, processes, signals."""

from collections.abc import Sequence

from hangtag.serving.models import Models
from hangtag.serving.settings import Settings

__all__ = ["serve"]


def serve(places: Sequence[str], settings: Settings) -> None:
    """Answer requests until SIGTERM or Ctrl-C."""
    import uvicorn

    from hangtag.serving.app import create_app

    app = create_app(Models(places), settings)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)

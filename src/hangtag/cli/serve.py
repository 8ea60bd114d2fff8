"""`hangtag serve`: a prediction server."""

from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, their names, or model files.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8000,
) -> None:
    """Answer over HTTP: POST /predict with a picture."""
    from hangtag.serving.run import serve as run
    from hangtag.serving.settings import Settings

    run(runs, Settings(host=host, port=port))

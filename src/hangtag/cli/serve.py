"""`hangtag serve`: a prediction server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hangtag.cli.options import AsJson, Ray, complete_run, path_option, print_warnings
from hangtag.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from hangtag.serving.run import Serving
    from hangtag.serving.settings import Settings

__all__ = ["serve"]


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run folders, their names under runs/, 'last', or model.onnx files. The first one is the default.",
            autocompletion=complete_run,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; 0.0.0.0 for all. Addresses beyond this machine need a token."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            help="What clients must send as 'Authorization: Bearer TOKEN'. Other users of this machine can see it in "
            "the list of processes; the next option or the variable hides it.",
            envvar="HANGTAG_TOKEN",
        ),
    ] = None,
    token_file: Annotated[Path | None, path_option("A file that holds the token.")] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let everyone who can reach --host call the server without a token.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name by which clients may call the server; * for every name. Can be repeated."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web pages from here may call the server: https://example.org, or *. Can be repeated."),
    ] = None,
    certfile: Annotated[Path | None, path_option("A PEM file with a certificate, for https.")] = None,
    keyfile: Annotated[Path | None, path_option("A PEM file with the certificate's key.")] = None,
    workers: Annotated[int, typer.Option(help="Number of processes. One that ends is replaced.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of each process that decode and infer. [default: one per core; with --ray, 1]"),
    ] = None,
    max_batch: Annotated[int, typer.Option(help="The most pictures that are inferred together.")] = 64,
    max_delay_ms: Annotated[
        float, typer.Option(help="Milliseconds that a picture may wait for others while the server is busy.")
    ] = 2.0,
    max_queue: Annotated[int, typer.Option(help="Pictures that may wait; more are refused with status 503.")] = 1000,
    max_queue_bytes: Annotated[
        int, typer.Option(help="Bytes of pictures that may wait, and of bodies being received.")
    ] = 256_000_000,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a request may take. Clients can ask for fewer: X-Request-Timeout.")
    ] = 30.0,
    client_timeout: Annotated[
        float, typer.Option(help="Seconds that a client may take to send headers, or to read on in an answer.")
    ] = 10.0,
    keep_alive: Annotated[float, typer.Option(help="Seconds after which an idle connection is closed.")] = 75.0,
    grace: Annotated[
        float, typer.Option(help="Seconds that accepted requests may still take after SIGTERM or Ctrl-C.")
    ] = 30.0,
    drain_delay: Annotated[
        float,
        typer.Option(help="Seconds after SIGTERM in which the server accepts requests but says that it is not ready."),
    ] = 0.25,
    max_connections: Annotated[int, typer.Option(help="Connections of each process; more are refused.")] = 1000,
    max_body: Annotated[int, typer.Option(help="Bytes of a request's body, also after decompression.")] = 64_000_000,
    max_chunks: Annotated[int, typer.Option(help="Chunks of a request's body.")] = 20_000,
    max_headers: Annotated[int, typer.Option(help="Headers of a request.")] = 100,
    max_header_bytes: Annotated[int, typer.Option(help="Bytes of a request's headers.")] = 32_768,
    max_url: Annotated[int, typer.Option(help="Bytes of a request's URL.")] = 8192,
    max_pictures: Annotated[int, typer.Option(help="Pictures of a request.")] = 256,
    max_pixels: Annotated[int, typer.Option(help="Pixels of a picture.")] = 50_000_000,
    access_log: Annotated[
        str, typer.Option(help="A file for a line of JSON about each request; - is stderr, none is no log.")
    ] = "-",
    log_answers: Annotated[
        Path | None,
        path_option("A file for a line of JSON about each answer, for hangtag drift. It has no pictures."),
    ] = None,
    sample: Annotated[
        float, typer.Option(help="Share of answers that --log-answers keeps, drawn at random: 0.01 for 1%.")
    ] = 1.0,
    log_answers_bytes: Annotated[
        int, typer.Option(help="Size at which the file of --log-answers is renamed to NAME.1 and begun again.")
    ] = 1_000_000_000,
    ray: Ray = None,
    replicas: Annotated[
        str | None,
        typer.Option(help="With --ray: number of processes that compute, or MIN..MAX to follow the load. [default: 1]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer over HTTP, as hangtag predict answers on the command line.

    http://127.0.0.1:8000/ is a page to try pictures on, and /docs describes the API for programs. For example:
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict

    New files of the models are noticed and served while requests go on. SIGTERM or Ctrl-C ends the server after it has
    answered what it accepted. docs/serving.md in the source code describes statuses, metrics, logs and limits.
    """
    MissingExtra.check_serving()
    from hangtag.serving.settings import Settings

    if token_file is not None:
        if no_auth:
            raise UsageError("--token-file and --no-auth contradict each other", "give only one of them")
        token = _read_token(token_file)
    settings = Settings(
        host=host, port=port, token=token, no_auth=no_auth, allow_hosts=tuple(allow_host or ()),
        allow_origins=tuple(allow_origin or ()), certfile=str(certfile) if certfile else None,
        keyfile=str(keyfile) if keyfile else None,
        workers=workers, threads=threads, max_batch=max_batch, max_delay_ms=max_delay_ms, max_queue=max_queue,
        access_log=None if access_log == "none" else access_log,
        log_answers=str(log_answers) if log_answers else None, sample=sample, log_answers_bytes=log_answers_bytes,
        max_queue_bytes=max_queue_bytes,
        timeout=timeout, client_timeout=client_timeout, keep_alive=keep_alive, grace=grace, drain_delay=drain_delay,
        max_connections=max_connections, max_body=max_body, max_chunks=max_chunks, max_headers=max_headers,
        max_header_bytes=max_header_bytes, max_url=max_url, max_pictures=max_pictures, max_pixels=max_pixels,
    )  # fmt: skip
    if replicas is not None and ray is None:
        raise UsageError("--replicas needs --ray", "without Ray, --workers says how many processes answer")

    def announce(serving: "Serving") -> None:
        _announce(serving, settings, as_json)

    with _log_on_stderr():
        if ray is None:
            from hangtag.serving.run import serve as run

            run(runs, settings, announce)
            return
        from hangtag.cluster.serve import Replicas, serve_on_ray

        wanted = Replicas.parsed(replicas or "1")
        with print_warnings():
            serve_on_ray(
                runs, settings, announce, ray, wanted, lambda cluster: print(cluster, file=sys.stderr, flush=True)
            )


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file", "it must hold the token and nothing else") from None


def _announce(serving: "Serving", settings: "Settings", as_json: bool) -> None:
    if as_json:
        import json

        models = [{"name": name, "version": version} for name, version in serving.models]
        print(json.dumps({"url": serving.url, "models": models}), flush=True)
        return
    names = ", ".join(name for name, _ in serving.models)
    others = " and this machine's other addresses" if settings.host in ("0.0.0.0", "::") else ""
    token = ", with a token" if settings.token else ""
    print(f"serving {names} at {serving.url}{others}{token} (API: {serving.url}docs; Ctrl-C stops)", flush=True)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """What the server reports goes to stderr, a line for each record."""
    import logging

    from hangtag.errors import logger

    handler, level = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(logging.Formatter("hangtag: %(message)s"))
    loggers = [logger, *map(logging.getLogger, ("uvicorn.error", "asyncio"))]
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that a client got wrong
    logger.setLevel(logging.INFO)
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        for each in loggers:
            each.removeHandler(handler)

"""From the command line to a listening server: sockets, processes, signals."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn

from hangtag.errors import HangtagError, UsageError, logger
from hangtag.evaluation.run_folder import find_run
from hangtag.serving.app import create_app
from hangtag.serving.compute import Engine
from hangtag.serving.metrics import shared_by_workers
from hangtag.serving.models import Models
from hangtag.serving.overload import EarlyRefusals
from hangtag.serving.protocol import Bodies, LimitedProtocol
from hangtag.serving.settings import Settings

__all__ = ["Listener", "Serving", "listening_socket", "serve"]

_CHECK_SECONDS = 0.2  # between two looks at slow clients
_EXTRA_SECONDS = 5.0  # beyond the grace time, after which what still hangs is killed
_PAUSE = 1.0  # after several processes in a row that ended before they were ready; clients wait meanwhile
_BACKLOG = 2048
_STOPPING = "stopping after the requests that were accepted; a second signal stops at once"
_HELD = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} if hasattr(signal, "pthread_sigmask") else set()
_HEADERS = [("x-content-type-options", "nosniff")]  # of every answer


@dataclass(frozen=True)
class Serving:
    """What is served and where.

    Attributes:
        url: of the page, ending with a slash.
        models: name and version of each model.
    """

    url: str
    models: tuple[tuple[str, str], ...]


class Listener(uvicorn.Server):
    """Answers requests with an ASGI application until it is told to stop.

    SIGTERM, SIGINT or `stop()` end it: it says that it is not ready, stops accepting, finishes what it accepted within
    `Settings.grace` seconds, and returns. A second signal ends the process at once. SIGHUP looks for new versions of
    the models.

    Args:
        on_ready: called once it answers.
        parent: a file descriptor that ends when the parent process does.

    Attributes:
        ready: set once it answers.
    """

    def __init__(
        self, app: Any, settings: Settings, on_ready: Callable[[], None] | None = None, parent: int | None = None
    ) -> None:
        http: Any = partial(LimitedProtocol, settings, Bodies(), EarlyRefusals(app.state.server))
        super().__init__(
            uvicorn.Config(
                app, http=http, ws="none", log_config=None, log_level="error",
                access_log=False, server_header=False, proxy_headers=False, headers=_HEADERS, lifespan="on",
                timeout_keep_alive=max(1, int(settings.keep_alive)),
                timeout_graceful_shutdown=max(0.1, settings.grace),  # type: ignore[arg-type]
                ssl_certfile=settings.certfile, ssl_keyfile=settings.keyfile,
            )
        )  # fmt: skip
        self.state, self.settings = app.state.server, settings
        self.on_ready, self.parent = on_ready, parent
        self.ready = threading.Event()
        self.delay = 0.0
        self.refreshing: asyncio.Future[Any] | None = None
        self.end: threading.Timer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = self.loop = asyncio.get_running_loop()
        if self.parent is not None:
            loop.add_reader(self.parent, self._parent_ended)
        await super().startup([])
        tls = self._tls()
        for listening in sockets or []:
            server = await loop.create_server(self._protocol(), sock=listening, backlog=_BACKLOG, **tls)
            self.servers.append(server)
        self.checking = loop.create_task(self._check_connections())
        if threading.current_thread() is threading.main_thread():
            gc.freeze()  # or else the collector walks through modules and models for 20 ms again and again
        self.ready.set()
        if self.on_ready is not None:
            self.on_ready()

    def _protocol(self) -> Callable[[], asyncio.Protocol]:
        make: Any = self.config.http_protocol_class
        return partial(make, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _tls(self) -> dict[str, Any]:
        """For a connection: uvicorn would let a client be silent for a minute before it encrypts."""
        context = self.config.ssl
        return {"ssl": context, "ssl_handshake_timeout": self.settings.client_timeout if context else None}

    def stop(self) -> None:
        """From any thread: finish what was accepted and end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.state.is_draining = True
        if self.parent is None:
            logger.info(_STOPPING)
        self.end = end = threading.Timer(self.delay + self.settings.grace + _EXTRA_SECONDS, os._exit, (1,))
        end.daemon = True
        end.start()
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._stop_accepting(sockets or [])
        await super().shutdown(sockets)
        self.checking.cancel()
        if threading.current_thread() is not threading.main_thread():
            end.cancel()

    async def _stop_accepting(self, sockets: list[socket.socket]) -> None:
        """Close the sockets, and serve the connections that the system has accepted meanwhile."""
        accepted = []
        for listening in sockets:
            listening.setblocking(False)
            with contextlib.suppress(OSError):  # BlockingIOError: there are no more
                while True:
                    accepted.append(listening.accept()[0])
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()
        protocol, tls = self._protocol(), self._tls()
        connecting = [self.loop.connect_accepted_socket(protocol, connection, **tls) for connection in accepted]
        await asyncio.gather(*connecting, return_exceptions=True)

    async def _check_connections(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = time.monotonic()
            connections: list[Any] = list(self.server_state.connections)
            for connection in connections:
                try:
                    connection.check(now)
                except Exception:  # the others must be checked all the same
                    logger.exception("a connection could not be checked")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's, which ends the process by the signal, so that its exit code is not 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[int, Any] = {signal.SIGTERM: self.handle_exit, signal.SIGINT: self.handle_exit}
        if self.parent is not None:  # Ctrl-C reaches all processes, and the first one passes it on
            handlers[signal.SIGINT] = signal.SIG_IGN
        if hasattr(signal, "SIGHUP"):
            ends = _hangup_ends() if self.parent is None else lambda: False
            handlers[signal.SIGHUP] = partial(self._handle_hangup, ends=ends)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        if sig == signal.SIGTERM:
            self.delay = self.settings.drain_delay
        self.state.is_draining = self.should_exit = True

    def _handle_hangup(self, sig: int, frame: object, ends: Callable[[], bool]) -> None:
        if ends():
            self.handle_exit(sig, frame)
        else:
            self.loop.call_soon_threadsafe(self._refresh)

    def _refresh(self) -> None:
        if self.refreshing is None or self.refreshing.done():
            self.refreshing = self.loop.run_in_executor(None, self._refresh_models)

    def _refresh_models(self) -> None:
        try:
            self.state.models.refresh()
        except Exception:
            logger.exception("the models could not be read again; the old ones go on serving")

    def _parent_ended(self) -> None:
        self.loop.remove_reader(self.parent or 0)
        self.state.is_draining = self.should_exit = True


class Workers:
    """Several processes that accept from one socket. A process that ends is replaced.

    Args:
        target: what a process runs: it gets the socket, a connection for one report, and a file descriptor that ends
            with this process.
        on_ready: called with the first report.
    """

    def __init__(
        self,
        target: Callable[[socket.socket, Any, int], None],
        listening: socket.socket,
        settings: Settings,
        on_ready: Callable[[Any], None],
    ) -> None:
        import multiprocessing
        import sys

        # A forked process starts at once and shares memory; this one has neither threads nor open models.
        self.context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.target, self.listening, self.settings, self.on_ready = target, listening, settings, on_ready
        self.count = settings.workers
        self.processes: dict[Any, Any] = {}  # process -> connection on which it reports
        self.failures, self.next_start, self.deadline = 0, 0.0, float("inf")
        self.is_ready = self.is_ending = False
        self.alive_end, self.parent_end = self.context.Pipe(duplex=False)

    def run(self) -> None:
        from multiprocessing.connection import wait

        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
        self.hangup_ends = _hangup_ends() if hasattr(signal, "SIGHUP") else lambda: False
        before = [
            (number, signal.signal(number, lambda number, frame: os.write(waker, bytes([number]))))
            for number in numbers
        ]
        try:
            while not self.is_ending or self.processes:
                now = time.monotonic()
                if now >= self.deadline:
                    self._signal("kill")
                while not self.is_ending and len(self.processes) < self.count and now >= self.next_start:
                    self._start((wake, waker))
                pause = (self.deadline if self.is_ending else self.next_start) - now
                is_missing = self.is_ending or len(self.processes) < self.count
                ready = wait(
                    [wake, *(each.sentinel for each in self.processes), *filter(None, self.processes.values())],
                    max(0.01, min(pause, 3600)) if is_missing else None,
                )
                for process in list(self.processes):
                    self._hear(process, ready)
                for number in os.read(wake, 100) if wake in ready else b"":
                    self._obey(number)
        finally:
            for number, handler in before:
                signal.signal(number, handler)
            self._end()
            os.close(wake)
            os.close(waker)

    def _obey(self, number: int) -> None:
        """Pass a signal on."""
        if number not in (signal.SIGTERM, signal.SIGINT) and not self.hangup_ends():
            self._signal("hangup")
        elif self.is_ending:
            raise SystemExit(128 + number)
        else:
            self.is_ending = True
            logger.info(_STOPPING)
            self.listening.close()  # what nobody would accept is refused
            self._signal("terminate")
            self.deadline = time.monotonic() + self.settings.drain_delay + self.settings.grace + _EXTRA_SECONDS

    def _end(self) -> None:
        self._signal("kill")
        for process, report in self.processes.items():
            process.join()
            process.close()
            if report is not None:
                report.close()
        self.alive_end.close()
        self.parent_end.close()

    def _start(self, ours: tuple[int, ...]) -> None:
        report, reporter = self.context.Pipe(duplex=False)
        others = [*ours, self.parent_end.fileno()] if self.context.get_start_method() == "fork" else []
        process = self.context.Process(
            target=_work, args=(self.target, self.listening, reporter, self.alive_end, others), daemon=False
        )
        with _signals_held():  # or it would pass them on to this process before it has handlers of its own
            process.start()
        reporter.close()
        self.processes[process] = report

    def _hear(self, process: Any, ready: list[Any]) -> None:
        """Note what a process reports, and that it has ended."""
        report, has_ended = self.processes[process], process.sentinel in ready
        if report is not None and (report in ready or has_ended):
            try:
                said = report.recv()
            except (EOFError, OSError):
                said = None
            report.close()
            self.processes[process] = None
            if isinstance(said, HangtagError):
                if not self.is_ready:
                    raise said
                logger.error("a process could not start: %s", said)
            elif said is not None:
                self.failures = 0
                if not self.is_ready:
                    self.is_ready = True
                    self.on_ready(said)
        if has_ended:
            process.join()
            del self.processes[process]
            if self.is_ending:
                return
            if not self.is_ready:
                raise HangtagError(
                    f"a server process ended while it started (exit code {process.exitcode})", "is there enough memory?"
                )
            self.failures += 1
            self.next_start = time.monotonic() + (0.0 if self.failures < 3 else _PAUSE)
            logger.error("process %s ended with code %s; it is replaced", process.pid, process.exitcode)

    def _signal(self, what: str) -> None:
        for process in self.processes:
            with contextlib.suppress(OSError):
                if what == "hangup":
                    os.kill(process.pid, signal.SIGHUP)
                else:
                    getattr(process, what)()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait until the end of the block; those of a process forked in it wait until it allows them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD) if _HELD else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    target: Callable[[socket.socket, Any, int], None],
    listening: socket.socket,
    reporter: Any,
    alive_end: Any,
    others: Sequence[int],
) -> None:
    """What a worker process runs."""
    for end in others:
        os.close(end)
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _HELD:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    try:
        target(listening, reporter, alive_end.fileno())
    except HangtagError as error:
        reporter.send(error)
        raise SystemExit(1) from None


def _serve_as_worker(
    places: Sequence[str], settings: Settings, listening: socket.socket, reporter: Any, alive_end: int
) -> None:
    models = Models(places)
    listener = Listener(create_app(models, settings), settings, lambda: reporter.send(_names(models)), alive_end)
    listener.run([listening])


def _names(models: Models) -> tuple[tuple[str, str], ...]:
    return tuple((model.name, model.version) for model in models)


def serve(
    places: Sequence[str],
    settings: Settings,
    announce: Callable[[Serving], None],
    engine: Callable[[Models], AbstractContextManager[Engine]] | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    Args:
        places: runs (folders, names under runs/, `last`) and files ending with .onnx.
        announce: called once the server answers.
        engine: what computes the answers, ended after the last of them; the server's own threads unless given.

    Raises:
        HangtagError: a model that cannot be opened, or an address on which the server cannot listen.
    """
    found = [place if place.endswith(".onnx") else str(find_run(place).path) for place in places]
    _check_certificate(settings)
    _allow_connections(settings)
    with listening_socket(settings) as listening:
        host, port = listening.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else settings.host
        url = f"{'https' if settings.certfile else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{port}/"
        if settings.workers > 1:
            target = partial(_serve_as_worker, found, settings)
            with shared_by_workers():
                Workers(target, listening, settings, lambda names: announce(Serving(url, names))).run()
        else:
            models = Models(found)
            with engine(models) if engine else contextlib.nullcontext() as computing:
                app = create_app(models, settings, computing)
                listener = Listener(app, settings, lambda: announce(Serving(url, _names(models))))
                listener.run([listening])
                if engine is not None and listener.end is not None:
                    listener.end.cancel()  # all is answered, and an engine may take longer to end


def listening_socket(settings: Settings) -> socket.socket:
    """A socket that listens at `host` and `port`; raises UsageError."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise UsageError(f"--host {host}: no such address{why}", "use 127.0.0.1 or 0.0.0.0") from None
    try:
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
        opened.set_inheritable(True)
    except OSError as error:
        opened.close()
        raise _cannot_listen(error, host, port) from None
    return opened


def _cannot_listen(error: OSError, host: str, port: int) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} is in use", "choose another: --port 0 takes a free one")
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} is privileged", "choose one from 1024 up, such as --port 8000")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host}: this machine has no such address", "use 127.0.0.1 or 0.0.0.0")
    return UsageError(f"cannot listen on {host} port {port}: {error.strerror}", "choose another --host or --port")


def _check_certificate(settings: Settings) -> None:
    if settings.certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certfile, settings.keyfile, lambda: "")
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if not isinstance(error, ssl.SSLError) else "not a PEM certificate with its own key"
        raise UsageError(
            f"--certfile {settings.certfile}: {why}", "give --certfile and --keyfile as PEM files without a password"
        ) from None


def _allow_connections(settings: Settings) -> None:
    """Raise this process's limit of open files to what the connections need, as far as the system lets it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = settings.max_connections + 200
        if soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


def _hangup_ends() -> Callable[[], bool]:
    """A function that says, when SIGHUP comes, whether it came because the terminal was closed."""
    had_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN  # which nohup sets
    return lambda: had_terminal and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

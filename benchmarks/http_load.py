"""A light load generator over keep-alive HTTP: a fixed number of connections, or requests at fixed times.

`closed_loop` keeps every connection busy: the next request is sent when the last one is answered. `open_loop` sends at
random times (a Poisson process), whether or not the server keeps up; latency counts from the time a request was due,
so a stalled server is not excused (Tene, "How NOT to measure latency", 2013). A request that is due while all
connections are busy waits, and its wait counts. The answers' heads are read as far as needed: status and length.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Load", "closed_loop", "open_loop", "request"]


@dataclass
class Load:
    """What happened.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: (N,) seconds, by status.
        lost: requests whose connection ended without an answer.
        different: answers that were not as expected.
    """

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)
    lost: int = 0
    different: int = 0

    @property
    def good(self) -> int:
        return len(self.latencies.get(200, []))

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return self.good / self.seconds

    def quantile(self, share: float, status: int = 200) -> float:
        """Seconds within which this share of the answers with a status came; NaN if there are none."""
        values = sorted(self.latencies.get(status, []))
        return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def request(path: str, body: bytes, content_type: str, port: int, headers: Sequence[str] = ()) -> bytes:
    """A POST request, ready to send."""
    lines = [
        f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, check: "Check | None" = None
) -> Load:
    """Load from busy connections; the requests are taken in turn, again and again."""
    return _run(_closed(port, requests, connections, seconds, check))


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, connections: int, seconds: float, seed: int = 0
) -> Load:
    """Load from `rate` requests a second, at random times."""
    return _run(_open(port, requests, rate, connections, seconds, seed))


Check = Callable[[int, bytes], bool]
"""Whether the answer to the request of this number has the expected body."""


def _run(work: "asyncio.Future[Load] | object") -> Load:
    import uvloop

    return uvloop.run(work)  # type: ignore[arg-type]


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, load: Load, free: Callable[["_Connection"], None], check: Check | None) -> None:
        self.load, self.free, self.check = load, free, check
        self.transport: asyncio.Transport | None = None
        self.due: float | None = None
        self.number = -1
        self.received = b""
        self.needed = -1
        self.closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]

    def send(self, number: int, data: bytes, due: float) -> None:
        assert self.transport is not None
        self.number, self.due, self.received, self.needed = number, due, b"", -1
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        if self.needed < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.received[:end].lower()
            place = head.find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            self.closes = b"connection: close" in head
            self.needed = end + 4 + length
            self.body = end + 4
        if len(self.received) >= self.needed and self.due is not None:
            status = int(self.received[9:12])
            self.load.latencies.setdefault(status, []).append(time.perf_counter() - self.due)
            if self.check and status == 200 and not self.check(self.number, self.received[self.body :]):
                self.load.different += 1
            self.due = None
            if not self.closes:
                self.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.due is not None:
            self.load.lost += 1
            self.due = None
        self.free(self)


async def _connect(port: int, load: Load, free: Callable[[_Connection], None], check: Check | None) -> _Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: _Connection(load, free, check), "127.0.0.1", port)
    return connection


async def _closed(port: int, requests: Sequence[bytes], connections: int, seconds: float, check: Check | None) -> Load:
    load, count = Load(), 0
    began = time.perf_counter()
    end, busy = began + seconds, connections
    done = asyncio.Event()

    def free(connection: _Connection) -> None:
        nonlocal count, busy
        now = time.perf_counter()
        if now < end and connection.transport is not None:
            connection.send(count, requests[count % len(requests)], now)
            count += 1
        elif now < end:
            tasks.append(asyncio.ensure_future(again()))
        else:
            busy -= 1
            if busy <= 0:
                done.set()

    async def again() -> None:
        free(await _connect(port, load, free, check))

    tasks: list[asyncio.Future[None]] = []
    opened = [await _connect(port, load, free, check) for _ in range(connections)]
    for connection in opened:
        free(connection)
    await asyncio.wait_for(done.wait(), seconds + 120)
    load.seconds = time.perf_counter() - began
    return load


async def _open(port: int, requests: Sequence[bytes], rate: float, connections: int, seconds: float, seed: int) -> Load:
    load, rng = Load(), random.Random(seed)
    idle: deque[_Connection] = deque()
    waiting: deque[float] = deque()
    count = outstanding = 0
    tasks: set[asyncio.Future[None]] = set()

    def free(connection: _Connection) -> None:
        nonlocal outstanding
        if connection.number >= 0:
            outstanding -= 1
            connection.number = -1
        if connection.transport is None:
            task = asyncio.ensure_future(again())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        elif waiting:
            start(connection, waiting.popleft())
        else:
            idle.append(connection)

    async def again() -> None:
        free(await _connect(port, load, free, None))

    def start(connection: _Connection, due: float) -> None:
        nonlocal count, outstanding
        outstanding += 1
        connection.send(count, requests[count % len(requests)], due)
        count += 1

    for _ in range(connections):
        idle.append(await _connect(port, load, free, None))
    began = time.perf_counter()
    due = began
    while (due := due + rng.expovariate(rate)) < began + seconds:
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        elif rng.random() < 0.05:
            await asyncio.sleep(0)
        while idle and idle[-1].transport is None:
            idle.pop()
        if idle:
            start(idle.pop(), due)
        else:
            waiting.append(due)
    sent = time.perf_counter()
    while (outstanding > 0 or waiting) and time.perf_counter() < sent + 60:
        await asyncio.sleep(0.005)
    load.lost += outstanding + len(waiting)
    load.seconds = time.perf_counter() - began
    return load

"""Everything that `hangtag serve` can be told, checked before anything is opened."""

import ipaddress
import re
from dataclasses import dataclass

from hangtag.errors import UsageError

__all__ = ["Settings", "is_loopback"]


@dataclass(frozen=True)
class Settings:
    """How a server listens and what it accepts.

    Attributes:
        host, port: where it listens; 0 takes a free port.
        token: what clients must send as `Authorization: Bearer TOKEN`; None: nothing.
        no_auth: whether a server that other machines can reach may do without a token.
        allow_hosts: names by which clients may call the server, beside `host`, this machine's loopback names and, if
            other machines can reach it, any IP address; "*" allows every name.
        allow_origins: web pages of these origins, such as https://example.org, may call the server; "*": all pages.
        certfile, keyfile: PEM files of a certificate and its key, for https.
        workers: number of processes.
        threads: threads of each process that decode and infer; None: one per core.
        max_batch: the most pictures that are inferred together.
        max_delay_ms: how long a picture may wait for others, in milliseconds; nothing waits while the server is idle.
        max_queue: pictures that may wait; requests beyond that are refused.
        max_queue_bytes: bytes of pictures that may wait, and bytes of bodies that are being received at the same time.
        timeout: seconds that a request may take, including its transfer, unless the client wants fewer.
        client_timeout: seconds that a client may take to send the head of a request, or to read on in an answer.
        keep_alive: seconds after which an idle connection is closed.
        grace: seconds that accepted requests may still take after SIGTERM or Ctrl-C.
        drain_delay: seconds after SIGTERM in which the server says that it is not ready but still accepts requests, so
            that load balancers notice.
        max_connections: connections of each process; more are refused.
        max_body: bytes of a request's body, also after decompression.
        max_chunks: chunks of a request's body.
        max_headers, max_header_bytes, max_url: headers of a request, their bytes, and bytes of its URL.
        max_pictures: pictures of a request.
        max_pixels: pixels of a picture.
        access_log: a file that gets a line for each request; "-": standard error; None: no log.
        log_answers: a file that gets a line for each answer; None: no log.
        sample: the share of answers in that file, drawn at random.
        log_answers_bytes: the size at which that file is renamed to NAME.1, which replaces an earlier one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    no_auth: bool = False
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    certfile: str | None = None
    keyfile: str | None = None
    workers: int = 1
    threads: int | None = None
    max_batch: int = 64
    max_delay_ms: float = 2.0
    max_queue: int = 1000
    max_queue_bytes: int = 256_000_000
    timeout: float = 30.0
    client_timeout: float = 10.0
    keep_alive: float = 75.0
    grace: float = 30.0
    drain_delay: float = 0.25
    max_connections: int = 1000
    max_body: int = 64_000_000
    max_chunks: int = 20_000
    max_headers: int = 100
    max_header_bytes: int = 32_768
    max_url: int = 8192
    max_pictures: int = 256
    max_pixels: int = 50_000_000
    access_log: str | None = "-"
    log_answers: str | None = None
    sample: float = 1.0
    log_answers_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        for name, least, most in (
            ("port", 0, 65_535), ("workers", 1, 256), ("threads", 1, 256), ("max_batch", 1, 10_000),
            ("max_delay_ms", 0, 10_000), ("max_queue", 1, 1_000_000), ("max_queue_bytes", 1000, 2**40),
            ("timeout", 0.001, 86_400),
            ("client_timeout", 0.1, 3600), ("keep_alive", 0.1, 86_400), ("grace", 0, 86_400), ("drain_delay", 0, 3600),
            ("max_connections", 1, 1_000_000), ("max_body", 1000, 2**31), ("max_chunks", 1, 100_000_000),
            ("max_headers", 10, 10_000), ("max_header_bytes", 1000, 1_000_000), ("max_url", 100, 65_000),
            ("max_pictures", 1, 100_000), ("max_pixels", 1, 80_000_000),
            ("sample", 1e-6, 1), ("log_answers_bytes", 10_000, 2**50),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UsageError(
                    f"{name} must be from {least:,} to {most:,}, got {value!r}", f"change --{name.replace('_', '-')}"
                )
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise UsageError(
                "the token must be visible ASCII characters without spaces", "for example from: openssl rand -hex 32"
            )
        if self.token is not None and self.no_auth:
            raise UsageError("--token and --no-auth contradict each other", "give only one of them")
        if self.token is None and not self.no_auth and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} lets other machines call this server, so it needs a token",
                "give --token-file FILE, or --no-auth to let everyone in the network call it",
            )
        if self.keyfile is not None and self.certfile is None:
            raise UsageError("--keyfile needs --certfile", "give both files")
        for host in self.allow_hosts:
            if not (host == "*" or _is_address(host) or re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", host)):
                raise UsageError(
                    f"--allow-host must be a name or an address without a port, got {host!r}",
                    "for example example.org; * allows every name",
                )
        for origin in self.allow_origins:
            if origin not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\sA-Z]+", origin):
                raise UsageError(
                    f"--allow-origin must be a scheme and a host in lower case, got {origin!r}",
                    "for example https://example.org",
                )

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the server."""
        return not is_loopback(self.host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach this address."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Everything that `hangtag serve` can be told, checked before anything is opened."""

from dataclasses import dataclass

from hangtag.errors import UsageError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How a server listens and what it accepts.

    Attributes:
        host, port: where it listens; 0 takes a free port.
        token: what clients must send as `Authorization: Bearer TOKEN`; None: nothing.
        threads: threads that decode and infer; None: one per core.
        max_batch: the most pictures that are inferred together.
        max_delay_ms: how long a picture may wait for others, in milliseconds; nothing waits while the server is idle.
        max_queue: pictures that may wait; requests beyond that are refused.
        max_queue_bytes: bytes of pictures that may wait.
        timeout: seconds that a request may take, unless the client wants fewer.
        max_body: bytes of a request's body, also after decompression.
        max_pictures: pictures of a request.
        max_pixels: pixels of a picture.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    threads: int | None = None
    max_batch: int = 64
    max_delay_ms: float = 2.0
    max_queue: int = 1000
    max_queue_bytes: int = 256_000_000
    timeout: float = 30.0
    max_body: int = 64_000_000
    max_pictures: int = 256
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        for name, least, most in (
            ("port", 0, 65_535), ("max_batch", 1, 10_000), ("max_delay_ms", 0, 10_000), ("max_queue", 1, 1_000_000),
            ("max_queue_bytes", 1000, 2**40), ("timeout", 0.001, 86_400), ("max_body", 1000, 2**31),
            ("max_pictures", 1, 100_000), ("max_pixels", 1, 80_000_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(f"{name} must be from {least:,} to {most:,}, got {value!r}", "change this option")

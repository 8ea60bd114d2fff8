"""A real object store for tests: moto's S3 server in a process of its own, on this machine alone."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from hangtag.data.store import remote


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server.

    Attributes:
        environment: the variables with which S3 clients reach it.
        bucket: the name of a bucket that exists.
        process: the server.
    """

    environment: dict[str, str]
    bucket: str
    process: "subprocess.Popen[bytes]"

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write objects into the bucket."""
        system = self.system()
        for name, content in files.items():
            with system.open_output_stream(f"{self.bucket}/{name}", compression=None) as out:
                out.write(content)

    def system(self) -> Any:
        """The store as a file system of pyarrow."""
        import pyarrow.fs

        return pyarrow.fs.S3FileSystem(
            access_key="test", secret_key="test", region="us-east-1", allow_bucket_creation=True,
            endpoint_override=self.environment["AWS_ENDPOINT_URL"],
        )  # fmt: skip


@contextmanager
def object_store(bucket: str = "pictures", auth: bool = False) -> Iterator[ObjectStore]:
    """Start a server on a free port, make a bucket in it, and stop it afterwards; skip the test without moto.

    Args:
        auth: whether it denies access to everybody; then it has no bucket.
    """
    pytest.importorskip("moto", reason="moto[server] is the object store of these tests")
    pytest.importorskip("pyarrow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **environment, **({"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if auth else {})},
    )  # fmt: skip
    try:
        _wait(port, process)
        store = ObjectStore(environment, bucket, process)
        if not auth:
            store.system().create_dir(bucket)
        remote._system.cache_clear()  # of an earlier store in this process
        yield store
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]", seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the object store did not start")

"""Faults of `hangtag serve`: killed workers, SIGTERM under load, and hostile requests, seen by clients.

    make soak
    python scripts/soak_serving.py --run RUN --picture PICTURE --kills 100 --drains 50 --rounds 3

A client loses a request if it had sent it over a connection that the server had accepted and got neither an answer nor
an error. A drain may lose none; a killed worker may cost its clients an error, but never leaves them waiting.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import hostile
import toys
from hangtag.pictures import encode_png

CLIENTS = 6


def start(*arguments: str) -> tuple["subprocess.Popen[str]", int]:
    """A server of its own on a free port, ready to answer."""
    command = [sys.executable, "-m", "hangtag", "serve", *arguments, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2].strip("/"))


def children(process: "subprocess.Popen[str]") -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return sorted(map(int, listed.stdout.split()))


class Load:
    """Clients that send one picture after the other until the block ends; `counts` says what became of them."""

    def __init__(self, port: int, picture: bytes, keeps_connections: bool = True) -> None:
        self.port, self.picture, self.keeps = port, picture, keeps_connections
        self.counts: Counter[str] = Counter()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        connection = None
        while not self.ended.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
                try:
                    connection.connect()
                except OSError:
                    self.counts["not accepted"] += 1
                    return
            try:
                connection.request("POST", "/predict", self.picture)
                response = connection.getresponse()
                response.read()
                self.counts[str(response.status)] += 1
                closes = not self.keeps or response.getheader("connection") == "close"
            except TimeoutError:
                self.counts["waits"] += 1
                closes = True
            except (OSError, http.client.HTTPException):
                self.counts["error"] += 1
                closes = True
            if closes:
                connection.close()
                connection = None


def drains(count: int, run: str, picture: bytes) -> bool:
    """SIGTERM under load; whether no request was lost and all servers ended with code 0."""
    counts: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    for number in range(count):
        process, port = start(run, "--workers", str(1 + number % 2))
        with Load(port, picture, keeps_connections=number % 4 < 2) as load:
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            codes[process.wait(30)] += 1
        counts += load.counts
    print(f"{count} drains: {dict(counts)}, exit codes {dict(codes)}")
    return not counts["error"] and not counts["waits"] and set(codes) == {0}


def kills(count: int, run: str, picture: bytes) -> bool:
    """Kill workers under load; whether all were replaced and no client waited in vain."""
    process, port = start(run, "--workers", "2")
    with Load(port, picture) as load:
        for number in range(count):
            time.sleep(0.3)
            with suppress(ProcessLookupError, IndexError):
                os.kill(children(process)[number % 2], signal.SIGKILL)
        time.sleep(2)
    left = len(children(process))
    process.send_signal(signal.SIGTERM)
    print(f"{count} kills: {dict(load.counts)}, {left} workers at the end, exit code {process.wait(30)}")
    return left == 2 and not load.counts["waits"] and not load.counts["not accepted"]


def hostile_requests(rounds: int, run: str, picture: bytes) -> bool:
    """Send every hostile case; whether each was refused in time and the server answers after each."""
    bad = []
    for needs_token in (False, True):
        token = ["--token", hostile.TOKEN] if needs_token else []
        process, port = start(run, *token, "--client-timeout", "0.4", "--timeout", "0.6")
        for case in rounds * [each for each in hostile.CASES if each.needs_token == needs_token]:
            outcome = hostile.attack(port, case)
            first = outcome.statuses[0] if outcome.statuses else hostile.CLOSED
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", "/predict", picture, {"Authorization": f"Bearer {hostile.TOKEN}"})
            is_well = connection.getresponse().status == 200
            connection.close()
            if first not in case.statuses or not is_well or outcome.seconds > 1.5:
                bad.append((case.name, outcome))
        process.terminate()
        process.wait(30)
    print(f"{rounds * len(hostile.CASES)} hostile requests: {len(bad)} not refused in time {bad[:5]}")
    return not bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the model to serve; without it, a toy")
    parser.add_argument("--picture", type=Path, help="a picture for this model")
    for name, default in (("kills", 100), ("drains", 50), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or f"{folder}/toy.onnx"
        if options.run is None:
            Path(run).write_bytes(toys.toy_model())
        picture = options.picture.read_bytes() if options.picture else encode_png(toys.shapes(3)[0][0])
        good = [
            drains(options.drains, run, picture),
            kills(options.kills, run, picture),
            hostile_requests(options.rounds, run, picture),
        ]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()

"""Faults of `hangtag serve`, seen by clients: every answer must be the library's, bit for bit, and none may be lost.

    make soak
    python scripts/soak_serving.py --run RUN --second RUN --picture PICTURE --answers 200000 --only answers

Mixed requests, simple and Open Inference Protocol v2, are sent while nothing happens, while model files are swapped and
damaged, while workers are killed, and at SIGTERM. A client loses a request if it had sent it over a connection that the
server had accepted and got neither an answer nor an error. Drains and swaps may lose none; a killed worker may cost
its clients an error, but never leaves them waiting. `--second` is another version to swap with.
"""

import argparse
import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import hostile
import toys
from hangtag import load
from hangtag.errors import PictureError
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import export_model

CLIENTS = 6
PATIENCE = 30.0  # seconds after which a client hangs
NAME = "served"  # of the model
FRESH = 20  # connections in a row that agree: all workers do
SOON = 15.0  # seconds within which a new or damaged file must be noticed on a busy machine
VARIANTS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("", 3, {}),
    ("top=1&coverage=0.99", 1, {"coverage": 0.99}),
    ("top=5&as_is=1", 5, {"doctor": False}),
    ("cost=20&set_method=aps", 3, {"cost": 20.0, "set_method": "aps"}),
    ("top=2&target_accuracy=0.95&ood_false_positive_rate=0.2", 2,
     {"target_accuracy": 0.95, "ood_false_positive_rate": 0.2}),
)  # fmt: skip
"""Queries, and the same for the library: `top`, and arguments of `load`."""

Expected = tuple[int, Any]
"""A status, and what `understood` makes of the body."""


# --- requests and the answers of the library ------------------------------------------------------------------------


@dataclass
class Request:
    """What a client sends, how many pictures that are, and what the library answers, by version."""

    path: str
    body: bytes
    headers: dict[str, str]
    pictures: int
    expected: dict[str, Expected]
    right: dict[tuple[int, bytes], str] = field(default_factory=dict)

    def check(self, status: int, headers: Any, body: bytes) -> bool:
        """Whether this is exactly what the version that it names answers; bodies seen before need no reading."""
        if (status, body) in self.right:
            return True
        version, found = understood(status, headers, body)
        wanted = [self.expected[version]] if version in self.expected else [*self.expected.values()]
        if is_right := (version is None or version in self.expected) and (status, found) in wanted:
            self.right[status, body] = version or ""
        return is_right


def understood(status: int, headers: Any, body: bytes) -> tuple[str | None, Any]:
    """The version that an answer names, and its content; a tensor as its shape and its bytes or texts."""
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    length = int(headers.get("inference-header-content-length") or len(body))
    said, binary = orjson.loads(body[:length]), body[length:]
    if not isinstance(said, dict) or "outputs" not in said:
        rows = said if isinstance(said, list) else [said]
        return next((row["model"] for row in rows if "model" in row), None), said
    tensors = {}
    for tensor in said["outputs"]:
        is_text, size = tensor["datatype"] == "BYTES", tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            content: Any = tensor["data"] if is_text else np.array(tensor["data"], np.float32).tobytes()
        else:
            content, binary = binary[:size], binary[size:]
            content = texts(content) if is_text else content
        tensors[tensor["name"]] = (tensor["shape"], content)
    assert not binary, "bytes after the last tensor"
    return said["model_version"], tensors


def texts(content: bytes) -> list[str]:
    found = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + length].decode())
        content = content[4 + length :]
    return found


def pictures_like(source: NDArray[np.uint8], seed: int) -> Iterator[bytes]:
    """Files of many formats and sizes, some damaged: the source moved, brightened, inverted, in colours, noisy."""
    draws = np.random.default_rng(seed)
    for number in range(60):
        pixels = np.roll(source, draws.integers(-3, 4, 2), (0, 1)).astype(np.float64) * draws.uniform(0.5, 1.2)
        pixels += draws.normal(0, 12, pixels.shape) * (number % 3 == 0)
        changed = np.clip(255 - pixels if number % 5 == 0 else pixels, 0, 255).astype(np.uint8)
        image = Image.fromarray(changed).convert("RGB" if number % 4 == 1 else "L")
        if number % 6 > 3:
            image = image.resize(((100, 60), (640, 480), (1200, 900), (7, 90))[number // 6 % 4])
        kind = ("PNG", "PNG", "JPEG", "PNG", "WEBP", "GIF", "BMP")[number % 7]
        image.save(buffer := io.BytesIO(), kind)
        yield buffer.getvalue()[: len(buffer.getvalue()) // 2] if number % 15 == 14 else buffer.getvalue()
    yield b"not a picture"


class Maker:
    """Makes requests, and asks the library in each version for its answers.

    Args:
        models: by version.
        files: encoded pictures.
        arrays: (N, H, W[, 3]) pixels.
    """

    def __init__(self, models: dict[str, bytes], files: Sequence[bytes], arrays: NDArray[np.uint8]) -> None:
        self.tags = {
            version: [load(content, **arguments) for _, _, arguments in VARIANTS] for version, content in models.items()
        }
        self.files, self.arrays = files, arrays
        self.answers: dict[Any, Any] = {}

    def requests(self, seed: int = 0) -> list[Request]:
        draws = random.Random(seed)
        found = [self.raw(file, number % len(VARIANTS)) for number, file in enumerate(self.files)]
        for number, count in enumerate((1, 1, 2, 3, 5, 16)):
            some, variant = draws.sample(self.files, count), number % len(VARIANTS)
            found += [self.form(some, variant), self.json(some, variant, is_list=count > 1 or number == 1)]
        for count in (1, 1, 4, 8, 32, 64):
            some = draws.choices([file for file in self.files if self.is_good(file)], k=count)
            found += [self.encoded(some, is_binary=True), self.encoded(some[:8], is_binary=False)]
            array = self.arrays[draws.choices(range(len(self.arrays)), k=count)]
            floats = (array / 255).astype(np.float32)
            for pixels in (array, floats, np.pad(array, [(0, 0), (2, 1), (0, 3), *[(0, 0)] * (array.ndim - 3)])):
                found += 4 * [self.pixels(pixels, is_binary=True), self.pixels(pixels[:4], is_binary=False)]
        return [*found, self.encoded([self.files[0], b"not a picture"], is_binary=True)]

    def is_good(self, file: bytes) -> bool:
        return all("error" not in self.row(version, 0, file) for version in self.tags)

    def row(self, version: str, variant: int, file: bytes) -> dict[str, Any]:
        """What the library answers for a picture, with the status if it is the only one; remembered."""
        key = version, variant, file
        if key not in self.answers:
            try:
                answer = self.tags[version][variant](file, top=VARIANTS[variant][1])
                self.answers[key] = orjson.loads(orjson.dumps(answer.to_json()))
            except PictureError as error:
                self.answers[key] = {"error": error.reason, "hint": error.hint}
        return dict(self.answers[key])

    def simple(
        self, files: Sequence[bytes], variant: int, is_list: bool, body: bytes, kind: str, names: Sequence[str] = ()
    ) -> Request:
        def expected(version: str) -> Expected:
            rows = [self.row(version, variant, file) for file in files]
            for row, name in zip(rows, names, strict=False):
                row.update({"file": name} | ({"error": f"{name}: {row['error']}"} if "error" in row else {}))
            status = 422 if len(rows) == 1 and "error" in rows[0] else 200
            return status, rows if is_list and status == 200 else rows[0]

        query = VARIANTS[variant][0]
        return Request(f"/predict?{query}", body, {"Content-Type": kind}, len(files), self.by_version(expected))

    def by_version(self, expected: Callable[[str], Expected]) -> dict[str, Expected]:
        return {version: expected(version) for version in self.tags}

    def raw(self, file: bytes, variant: int) -> Request:
        return self.simple([file], variant, False, file, "application/octet-stream")

    def form(self, files: Sequence[bytes], variant: int) -> Request:
        names, head = (
            [f"{number}.png" for number in range(len(files))],
            b'--x\r\nContent-Disposition: form-data; name="f"',
        )
        parts = [
            head + f'; filename="{name}"\r\n\r\n'.encode() + file + b"\r\n"
            for name, file in zip(names, files, strict=True)
        ]
        return self.simple(
            files, variant, True, b"".join([*parts, b"--x--\r\n"]), "multipart/form-data; boundary=x", names
        )

    def json(self, files: Sequence[bytes], variant: int, is_list: bool) -> Request:
        coded = [base64.b64encode(file).decode() for file in files]
        body = orjson.dumps({"images": coded} if is_list else {"image": coded[0]})
        return self.simple(files if is_list else files[:1], variant, is_list, body, "application/json")

    def encoded(self, files: Sequence[bytes], is_binary: bool) -> Request:
        def expected(version: str) -> Expected:
            rows = [self.row(version, 0, file) for file in files]
            for place, row in enumerate(rows):
                if "error" in row:
                    text = f"element {place} of 'images' cannot be read: {row['error']}"
                    return 400, {"error": f"{text}: {row['hint']}", "hint": row["hint"]}
            tag = self.tags[version][0]
            shares = tag.predict_proba([*files])
            found = {"probabilities": shares, "label": [row["label"] for row in rows]}
            if tag.guarantees.has_ood_score:
                found["ood_score"] = np.array([row["ood_score"] for row in rows], np.float32)
            tensors = self.tensors(found)
            answers = [orjson.dumps(tag(file).to_json()).decode() for file in files]
            return 200, {**tensors, "answer": ([len(files)], answers)}

        data: Any = b"".join(struct.pack("<I", len(file)) + file for file in files)
        data = data if is_binary else [base64.b64encode(file).decode() for file in files]
        return self.inference([len(files)], "BYTES", data, expected, len(files))

    def pixels(self, array: NDArray[Any], is_binary: bool) -> Request:
        def expected(version: str) -> Expected:
            tag = self.tags[version][0]
            rows = tag.outputs(array, *tag.output_shapes)
            labels = [tag.class_names[column] for column in rows["probabilities"].argmax(axis=1)]
            return 200, self.tensors({**rows, "label": labels})

        datatype = {"u": "UINT8", "f": "FP32"}[array.dtype.kind]
        data = array.tobytes() if is_binary else array.ravel().tolist()
        return self.inference(list(array.shape), datatype, data, expected, len(array))

    def tensors(self, found: dict[str, Any]) -> dict[str, Any]:
        return {
            name: (list(rows.shape), rows.tobytes()) if isinstance(rows, np.ndarray) else ([len(rows)], rows)
            for name, rows in found.items()
        }

    def inference(
        self, shape: list[int], datatype: str, data: Any, expected: Callable[[str], Expected], count: int
    ) -> Request:
        tensor: dict[str, Any] = {"name": "images", "shape": shape, "datatype": datatype}
        headers, is_binary, binary = {"Content-Type": "application/json"}, isinstance(data, bytes), b""
        if is_binary:
            tensor["parameters"], binary = {"binary_data_size": len(data)}, data
        else:
            tensor["data"] = data
        head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": is_binary}})
        if is_binary:
            headers["Inference-Header-Content-Length"] = str(len(head))
        body = head + binary
        if count == 4:  # some are compressed, both ways
            headers |= {"Accept-Encoding": "gzip", "Content-Encoding": "gzip"}
            body = gzip.compress(body, 1)
        return Request(f"/v2/models/{NAME}/infer", body, headers, count, self.by_version(expected))


# --- servers and their load -----------------------------------------------------------------------------------------


def start(*arguments: str) -> tuple["subprocess.Popen[str]", int]:
    """A server of its own on a free port, ready to answer."""
    command = [sys.executable, "-m", "hangtag", "serve", *arguments, "--port", "0", "--json", "--access-log", "none"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2].strip("/"))


@contextmanager
def server(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """As `start`; ended afterwards, whatever happens."""
    process, port = start(*arguments)
    try:
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Its workers, without the processes that decode pictures."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    found = []
    for each in map(int, listed.stdout.split()):
        with suppress(OSError):
            if b"hangtag.serving.decoding" not in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return sorted(found)


def memory(process: "subprocess.Popen[str]") -> float:
    """MB that the server's processes have resident."""
    total = 0.0
    for each in (process.pid, *children(process)):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
    return total


class Load:
    """Clients that send one request after the other until the block ends or `most` pictures are answered.

    Attributes:
        counts: what became of the requests: a status, if the answer is right, or "wrong", "refused" (the server said
            that it is overloaded), "error" (the connection ended without an answer), "waits" (nothing came within
            `PATIENCE`) and "not accepted".
        answers: for pictures, that were right.
        wrong: some of the wrong answers, with their requests.
    """

    def __init__(
        self, port: int, requests: Sequence[Request], keeps_connections: bool = True, most: float = float("inf")
    ) -> None:
        self.port, self.requests, self.keeps, self.most = port, requests, keeps_connections, most
        self.counts: Counter[str] = Counter()
        self.answers, self.wrong = 0, list[Any]()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=[number]) for number in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def _run(self, seed: int) -> None:
        draws, connection = random.Random(seed), None
        while not self.ended.is_set() and self.answers < self.most:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                try:
                    connection.connect()
                except OSError as error:
                    self._count("waits" if isinstance(error, TimeoutError) else "not accepted")
                    return
            request = draws.choice(self.requests)
            try:
                connection.request("POST", request.path, request.body, request.headers)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._count("waits" if isinstance(error, TimeoutError) else "error")
                closes = True
            else:
                self._judge(request, response, body)
                closes = not self.keeps or response.getheader("connection") == "close"
            if closes:
                connection.close()
                connection = None

    def _judge(self, request: Request, response: http.client.HTTPResponse, body: bytes) -> None:
        if response.status == 503 and response.getheader("retry-after"):
            self._count("refused")
            return
        try:
            is_right = request.check(response.status, response.headers, body)
        except Exception:  # an answer of another form
            is_right = False
        self._count(str(response.status) if is_right else "wrong", request.pictures if is_right else 0)
        if not is_right and len(self.wrong) < 5:
            self.wrong.append((request.path, request.headers, response.status, body[:300]))

    def _count(self, what: str, answers: int = 0) -> None:
        with self.lock:
            self.counts[what] += 1
            self.answers += answers

    @property
    def said(self) -> str:
        return f"{self.answers:,} answers, {sum(self.counts.values()):,} requests: {dict(sorted(self.counts.items()))}"

    def has_none(self, *what: str) -> bool:
        for each in self.wrong:
            print("  WRONG", each)
        return not any(self.counts[each] for each in what)


# --- campaigns ------------------------------------------------------------------------------------------------------


def answers(count: int, run: str, requests: Sequence[Request]) -> bool:
    """Compare answers; whether all are right and memory stays flat."""
    good = True
    for workers in (1, 2):
        with server(run, "--workers", str(workers)) as (process, port):
            sizes = [memory(process)]
            began = time.monotonic()
            with Load(port, requests, most=count / 2) as load:
                while any(thread.is_alive() for thread in load.threads):
                    time.sleep(1)
                    if load.answers > len(sizes) * count / 20:
                        sizes.append(memory(process))
            seconds, sizes = time.monotonic() - began, [*sizes, memory(process)]
            print(f"{workers} workers, {seconds:.0f} s: {load.said}; MB {[round(size) for size in sizes]}", flush=True)
            is_flat = sizes[-1] < 1.2 * sizes[min(2, len(sizes) - 1)] + 20
            good &= load.has_none("wrong", "refused", "error", "waits", "not accepted") and is_flat
    return good


def drains(count: int, run: str, requests: Sequence[Request]) -> bool:
    """SIGTERM under load; whether no request was lost and all servers ended with code 0."""
    counts: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    good = True
    for number in range(count):
        process, port = start(run, "--workers", str(1 + number % 2))
        with Load(port, requests, keeps_connections=number % 4 < 2) as load:
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            codes[process.wait(60)] += 1
        counts += load.counts
        good &= load.has_none("wrong", "error", "waits")
    print(f"{count} drains: {dict(counts)}, exit codes {dict(codes)}", flush=True)
    return good and set(codes) == {0}


def kills(count: int, run: str, requests: Sequence[Request]) -> bool:
    """Kill workers under load; whether all were replaced and no client waited in vain."""
    process, port = start(run, "--workers", "2")
    killed = 0
    with Load(port, requests) as load:
        while killed < count:
            time.sleep(0.2)
            before, end = load.answers, time.monotonic() + PATIENCE
            while load.answers == before and time.monotonic() < end:  # a busy machine needs time for new workers
                time.sleep(0.05)
            with suppress(ProcessLookupError, IndexError):
                os.kill(children(process)[killed % 2], signal.SIGKILL)
                killed += 1
        time.sleep(2)
    left = len(children(process))
    process.send_signal(signal.SIGTERM)
    print(f"{killed} kills: {load.said}, {left} workers at the end, exit code {process.wait(60)}", flush=True)
    return left == 2 and load.has_none("wrong", "waits", "not accepted")


def swaps(count: int, models: dict[str, bytes], requests: Sequence[Request]) -> bool:
    """Swap two versions under light load, with damaged, missing and half-written files in between.

    A file is swapped with one worker, a run folder with two. Whether no answer was lost or mixed, new versions served
    soon, and bad files were reported and left the old version serving.
    """
    good, requests = True, [request for request in requests if request.pictures <= 8]
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, NAME) if workers == 2 else Path(folder, f"{NAME}.onnx")
            versions = list(models)
            put(place, models[versions[0]])
            with server(str(place), "--workers", str(workers)) as (process, port), Load(port, requests) as load:
                noticed, served, failures, sizes = 0.0, 0.0, list[str](), list[float]()
                for number in range(count // 2):
                    old, new = versions[number % 2], versions[(number + 1) % 2]
                    if number % 3:
                        spoil(place, models[new], is_removed=number % 3 == 1)
                        seconds = until(port, old, False)
                        noticed = max(noticed, seconds)
                        if seconds > SOON:
                            failures.append(f"swap {number}: the bad file was not reported")
                    put(place, models[new], slowly=bool(number % 2))
                    seconds = until(port, new, True)
                    served, sizes = max(served, seconds), [*sizes, memory(process)]
                    if seconds > SOON:
                        failures.append(f"swap {number}: the new version is not served")
            print(
                f"{count // 2} swaps, {workers} workers: {load.said}; a bad file noticed within {noticed:.1f} s, "
                f"a new one served by all within {served:.1f} s; MB {[round(size) for size in sizes]}; "
                f"failures: {failures}", flush=True
            )  # fmt: skip
            good &= load.has_none("wrong", "error", "waits", "not accepted") and not failures
            named = Counter(version for request in requests for version in request.right.values() if version)
            good &= set(named) == set(models)
    return good


def put(place: Path, content: bytes, slowly: bool = False) -> None:
    """Write a model: in pieces over the old one, or beside it and then in its place; a run's record comes last."""
    file = place if place.suffix else place / "model.onnx"
    file.parent.mkdir(exist_ok=True)
    if slowly:
        with file.open("wb") as out:
            for piece in range(0, len(content), -(-len(content) // 6)):
                out.write(content[piece : piece - (-len(content) // 6)])
                out.flush()
                time.sleep(0.4)
    else:
        file.with_name("next").write_bytes(content)
        file.with_name("next").replace(file)
    if place is not file:
        record = {"status": "finished", "model": {"sha256": hashlib.sha256(content).hexdigest()}}
        (place / "next.json").write_text(json.dumps(record))
        (place / "next.json").replace(place / "config.json")


def spoil(place: Path, content: bytes, is_removed: bool) -> None:
    """Remove a model's file, or change one of its bytes."""
    file = place if place.suffix else place / "model.onnx"
    if is_removed:
        file.unlink()
    else:
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def until(port: int, version: str, is_ready: bool) -> float:
    """Seconds until new connections, many in a row, agree about the version and whether the server is ready."""
    began, agreed = time.monotonic(), 0
    while agreed < FRESH and time.monotonic() - began < 3 * SOON:
        status, _ = get(port, "/v2/health/ready")
        _, said = get(port, f"/v2/models/{NAME}")
        agreed = agreed + 1 if said.get("versions") == [version] and status == (200 if is_ready else 503) else 0
        time.sleep(0 if agreed else 0.1)
    return time.monotonic() - began


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    said: dict[str, Any] = orjson.loads(response.read())
    connection.close()
    return response.status, said


def hostile_requests(rounds: int, run: str, picture: bytes) -> bool:
    """Send every hostile case; whether each was refused within a second and the server answers after each."""
    bad: list[Any] = []
    slowest = ("", 0.0)
    for needs_token, slow in ((False, False), (False, True), (True, False)):
        arguments = ["--token", hostile.TOKEN] if needs_token else []
        arguments += ["--client-timeout", "0.4", "--timeout", "0.6"] if slow else []
        cases = [each for each in hostile.CASES if (each.needs_token, each.slow) == (needs_token, slow)]
        with server(run, *arguments) as (_, port):
            for case in rounds * cases:
                outcome = hostile.attack(port, case)
                first = outcome.statuses[0] if outcome.statuses else hostile.CLOSED
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("POST", "/predict", picture, {"Authorization": f"Bearer {hostile.TOKEN}"})
                is_well = connection.getresponse().status == 200
                connection.close()
                slowest = max(slowest, (case.name, outcome.seconds), key=lambda each: each[1])
                if first not in case.statuses or not is_well or outcome.seconds > 1:
                    bad.append((case.name, outcome, is_well))
    total = rounds * len(hostile.CASES)
    print(f"{total} hostile requests: {len(bad)} not refused within a second {bad[:5]}; slowest {slowest}", flush=True)
    return not bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the run whose model is served; without it, a toy")
    parser.add_argument("--second", type=Path, help="the run with another version; without it, a toy")
    parser.add_argument("--picture", type=Path, help="a picture for this model")
    counts = {"answers": 200_000, "swaps": 30, "kills": 100, "drains": 50, "rounds": 3}
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="*", choices=counts, default=list(counts))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = [run / "model.onnx" if run else None for run in (options.run, options.second)]
    contents = [file.read_bytes() if file else toy(seed) for seed, file in enumerate(files)]
    models = {load(content).fingerprint: content for content in contents}
    source = Image.open(options.picture).convert("L") if options.picture else Image.fromarray(toys.shapes(3)[0][0])
    first = load(contents[0])
    pictures = list(pictures_like(np.asarray(source), options.seed))
    images = [
        np.asarray(source.resize((first.spec.width, first.spec.height)).rotate(angle)) for angle in range(0, 360, 9)
    ]
    arrays = np.stack(images) if first.spec.channels == 1 else np.stack([np.stack(images)] * 3, axis=-1)
    one = Maker(dict([next(iter(models.items()))]), pictures, arrays).requests(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/{NAME}.onnx"
        Path(run).write_bytes(contents[0])
        campaigns: dict[str, Callable[[], bool]] = {
            "answers": lambda: answers(options.answers, run, one),
            "swaps": lambda: swaps(options.swaps, models, Maker(models, pictures[:20], arrays).requests(options.seed)),
            "kills": lambda: kills(options.kills, run, one),
            "drains": lambda: drains(options.drains, run, one),
            "rounds": lambda: hostile_requests(options.rounds, run, pictures[1]),
        }
        good = {name: campaigns[name]() for name in options.only}
    print(good)
    sys.exit(not all(good.values()))


def toy(seed: int) -> bytes:
    """A model file for the toy images."""
    metadata = toys.metadata()
    return export_model(build_network("mlp", metadata.image, len(toys.CLASSES), seed=seed), metadata)


if __name__ == "__main__":
    main()

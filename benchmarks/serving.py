"""`hangtag serve` under load on loopback, beside the usual handler, LitServe, BentoML and raw ONNX Runtime.

    python -m benchmarks.serving [RUN] [--parts throughput tensors latency overload start] [--seconds 8] [--rounds 3]
        [--peers FOLDER] [--json FILE]

RUN is a run of `fast` on Fashion-MNIST; without it, one is trained for an epoch, which answers as quickly. Client and
server share the machine's cores. Requests are PNG files of 28x28 from the test images over keep-alive connections
(`http_load.py`). The servers are measured one after the other in each round, each in a fresh process that is warmed up
first.

throughput: 64 busy connections; answers a second, and the processor time of all processes of the server for an answer,
    which other programs on the machine disturb less. hangtag and the eager handler get the picture as the body of the
    request, BentoML in a form, LitServe as base64 in JSON: each as its documentation shows. hangtag is measured with
    forms, too.
tensors: binary requests of the Open Inference Protocol with 64 images, 4 busy connections, against the same 64 images
    in a loop of ONNX Runtime without a server, with two threads of its own or two loops of one thread, the quicker.
latency: requests at random times, half as many a second as the throughput found.
overload: as many requests a second as twice and ten times the capacity of a server of a model for photos (--slow RUN),
    with 64x64 JPEGs, so that the client can send that many.
start: seconds from the command to ready, and memory of the server's process after the throughput part (USS).
"""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Others, Result, alone, in_fresh_process, options, ordinary_environment, publish, summary
from benchmarks.http_load import Load, closed_loop, open_loop, request

SOURCE = Path(__file__).resolve().parent.parent
PEERS = SOURCE / "benchmarks" / "peers"
PARTS = ("throughput", "tensors", "latency", "overload", "start")
BOUNDARY = "hangtag-benchmark"
CONNECTIONS = 64


@dataclass(frozen=True)
class Way:
    """A server and how pictures are sent to it: the command, {port} filled in; the kind of body."""

    name: str
    command: tuple[str, ...]
    body: str
    environment: tuple[tuple[str, str], ...] = ()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--slow", type=Path, help="a run with a model for photos, for the part overload")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=SOURCE / ".venv-peers", help="the environments of the peers")
    settings = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    others = Others()
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as folder, alone():
        if settings.run is None:
            settings.run = Path(folder) / "clothes"
            command = ["-m", "hangtag", "train", "fashion-mnist", "--recipe", "fast", "--epochs", "1", "--out"]
            source = {**os.environ, "PYTHONPATH": str(SOURCE / "src")}
            subprocess.run([sys.executable, *command, str(settings.run)], check=True, env=source)
        for _ in range(settings.rounds):
            for part in settings.parts:
                for name, values in globals()[part](settings):
                    found.setdefault(name, []).append(values)
                    print(name, {key: round(value, 5) for key, value in values.items()}, flush=True)
    publish(describe(found, others.share()), settings.json)


def throughput(settings: Any) -> Iterator[tuple[str, dict[str, float]]]:
    pictures = pngs(2000)
    for way in ways(settings.run, settings.peers):
        with server(way) as (port, process):
            requests = [sent(way.body, each, port) for each in pictures]
            closed_loop(port, requests, CONNECTIONS, 2)
            load, cost = measured(process.pid, port, requests, CONNECTIONS, settings.seconds)
            yield f"throughput: {way.name}", told(load) | {"memory": memory(process.pid), "cpu": cost}


def tensors(settings: Any) -> Iterator[tuple[str, dict[str, float]]]:
    images = fashion(64)
    raw = max(
        (in_fresh_process(bare, str(settings.run / "model.onnx"), images, threads, settings.seconds / 2)
         for threads in (1, 2)), key=lambda found: found["rate"],
    )  # fmt: skip
    yield "tensors: ONNX Runtime alone", raw
    head = json.dumps({
        "inputs": [{"name": "images", "shape": list(images.shape), "datatype": "UINT8",
                    "parameters": {"binary_data_size": images.nbytes}}],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
    }).encode()  # fmt: skip
    with server(hangtag(settings.run)) as (port, process):
        path = f"/v2/models/{settings.run.resolve().name}/infer"
        one = request(path, head + images.tobytes(), "application/octet-stream", port,
                      [f"Inference-Header-Content-Length: {len(head)}"])  # fmt: skip
        closed_loop(port, [one], 4, 2)
        load, cost = measured(process.pid, port, [one], 4, settings.seconds)
        yield "tensors: hangtag serve", told(load) | {"cpu": cost}


def latency(settings: Any) -> Iterator[tuple[str, dict[str, float]]]:
    with server(hangtag(settings.run)) as (port, _):
        requests = [sent("raw", each, port) for each in pngs(2000)]
        closed_loop(port, requests, CONNECTIONS, 2)
        capacity = closed_loop(port, requests, CONNECTIONS, settings.seconds).rate
        load = open_loop(port, requests, capacity / 2, 256, 2 * settings.seconds)
        yield "latency: at half of capacity", told(load) | {"capacity": capacity}


def overload(settings: Any) -> Iterator[tuple[str, dict[str, float]]]:
    with server(hangtag(settings.slow or settings.run, "--max-queue", "100")) as (port, process):
        requests = [sent("raw", each, port) for each in jpegs(50)]
        closed_loop(port, requests, 32, 3)
        capacity = closed_loop(port, requests, 32, settings.seconds).rate
        yield "overload: capacity", {"rate": capacity, "memory": memory(process.pid)}
        for times in (2, 10):
            load = open_loop(port, requests, times * capacity, 1000, 1.5 * settings.seconds, seed=times)
            refused = {status: load.quantile(0.99, status) for status in (429, 503) if status in load.latencies}
            yield f"overload: {times} times", told(load) | {
                "goodput": load.rate / capacity, "refused": float(sum(len(load.latencies[each]) for each in refused)),
                "refusal p99": max(refused.values(), default=float("nan")), "memory": memory(process.pid),
            }  # fmt: skip


def start(settings: Any) -> Iterator[tuple[str, dict[str, float]]]:
    began = time.perf_counter()
    with server(hangtag(settings.run)) as (_, process):
        took = time.perf_counter() - began
        yield "start: to ready", {"seconds": took, "memory": memory(process.pid)}


def hangtag(run: Path, *more: str) -> Way:
    return Way("hangtag serve", (sys.executable, "-m", "hangtag", "serve", str(run), "--port", "{port}", *more), "raw")


def ways(run: Path, peers: Path) -> Iterator[Way]:
    model = str((run / "model.onnx").resolve())  # BentoML works in another folder
    yield hangtag(run)
    yield Way("hangtag serve, forms", hangtag(run).command, "form")
    yield Way(
        "FastAPI, eager PyTorch", (sys.executable, "-m", "benchmarks.peers.serve_eager", str(run), "{port}"), "raw"
    )
    for workers in ("1", "2"):
        python = peers / "litserve" / "bin" / "python"
        if python.exists():
            command = (str(python), str(PEERS / "serve_litserve.py"), model, "{port}", workers)
            yield Way(f"LitServe, {workers} worker(s)", command, "json")
    bentoml = peers / "bentoml" / "bin" / "bentoml"
    if bentoml.exists():
        served = (str(bentoml), "serve", "serve_bentoml:Service", "--port", "{port}", "--working-dir", str(PEERS))
        yield Way("BentoML", served, "form", (("MODEL", model), ("BENTOML_DO_NOT_TRACK", "True")))


@contextmanager
def server(way: Way) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A server's port and process, once it answers on any path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {**ordinary_environment(), **dict(way.environment), "PYTHONPATH": f"{SOURCE / 'src'}:{SOURCE}"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [part.format(port=port) for part in way.command], env=variables, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            end = time.monotonic() + 90
            while not answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{way.name} does not start: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.01)
            yield port, process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 404  # a peer, which has no such path
    except OSError:
        return False


def sent(kind: str, picture: bytes, port: int) -> bytes:
    """A request with a picture."""
    if kind == "raw":
        return request("/predict", picture, "application/octet-stream", port)
    if kind == "json":
        return request("/predict", json.dumps({"image": base64.b64encode(picture).decode()}).encode(),
                       "application/json", port)  # fmt: skip
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n' \
           "Content-Type: image/png\r\n\r\n"  # fmt: skip
    body = head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    return request("/predict", body, f"multipart/form-data; boundary={BOUNDARY}", port)


def told(load: Load) -> dict[str, float]:
    errors = sum(len(each) for status, each in load.latencies.items() if status not in (200, 429, 503))
    return {
        "rate": load.rate, "p50": load.quantile(0.5), "p99": load.quantile(0.99), "lost": float(load.lost),
        "errors": float(errors), "seconds": load.seconds,
    }  # fmt: skip


def bare(model: str, images: Any, threads: int, seconds: float) -> dict[str, float]:
    """Calls a second of ONNX Runtime for these images on two cores: loops of one thread, or one loop of two."""
    import threading

    import onnxruntime

    onnx = onnxruntime.SessionOptions()
    onnx.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, onnx, providers=["CPUExecutionProvider"])
    counts, began = [0] * (2 // threads), time.process_time()
    end = time.perf_counter() + seconds

    def loop(place: int) -> None:
        while time.perf_counter() < end:
            session.run(["probabilities"], {"images": images})
            counts[place] += 1

    together = [threading.Thread(target=loop, args=(place,)) for place in range(len(counts))]
    for each in together:
        each.start()
    for each in together:
        each.join()
    return {"rate": sum(counts) / seconds, "cpu": (time.process_time() - began) / max(1, sum(counts))}


def fashion(count: int) -> Any:
    import hangtag as library

    return np.ascontiguousarray(library.read("fashion-mnist").part("test").images[:count])


def pngs(count: int) -> Sequence[bytes]:
    from PIL import Image

    def encoded(pixels: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return [encoded(each) for each in fashion(count)]


def jpegs(count: int) -> Sequence[bytes]:
    from PIL import Image

    files = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def measured(pid: int, port: int, requests: Sequence[bytes], connections: int, seconds: float) -> tuple[Load, float]:
    """The load, and the seconds of processor time of a server and all processes below it for each answer."""
    began = processor_seconds(pid)
    load = closed_loop(port, requests, connections, seconds)
    return load, (processor_seconds(pid) - began) / max(1, load.good)


def processor_seconds(pid: int) -> float:
    """User and system time of a process and all processes below it, also of those that have ended (proc(5))."""
    ticks = 0
    for process in [pid, *children(pid)]:
        try:
            fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Bytes of the processes of a server that they share with nobody (USS), of all its processes together."""
    total = 0
    for process in [pid, *children(pid)]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024
    return float(total)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += [int(child), *children(int(child))]
    return found


def describe(found: dict[str, list[dict[str, Any]]], others: float) -> Result:
    rows, numbers = [], {}
    for name, runs in found.items():
        numbers[name] = {key: summary([run[key] for run in runs]) for key in runs[0]}
        middle = {key: values["median"] for key, values in numbers[name].items()}
        rows.append((
            name, f"{middle['rate']:,.1f}" if "rate" in middle else "-",
            f"{1000 * middle['p50']:.1f}" if "p50" in middle else "-",
            f"{1000 * middle['p99']:.1f}" if "p99" in middle else "-",
            f"{1e6 * middle['cpu']:,.0f}" if "cpu" in middle else "-",
            f"{middle['memory'] / 1e6:.0f}" if "memory" in middle else "-",
            f"{middle['lost'] + middle['errors']:.0f}" if "lost" in middle else "-", str(len(runs)),
        ))  # fmt: skip
    says = [f"Others used {others:.0%} of the machine meanwhile."]
    rate = {name: values["rate"]["median"] for name, values in numbers.items() if "rate" in values}
    for name, value in rate.items():
        kind, _, which = name.partition(": ")
        ours = rate.get("throughput: hangtag serve" if kind == "throughput" else "tensors: hangtag serve")
        if ours and kind in ("throughput", "tensors") and "hangtag" not in which:
            says.append(f"{kind}: hangtag serve gives {ours / value:.2f} times as many answers as {which}.")
    cost = {name: values["cpu"]["median"] for name, values in numbers.items() if "cpu" in values}
    for name, value in cost.items():
        kind, _, which = name.partition(": ")
        if f"{kind}: hangtag serve" in cost and "hangtag" not in which:
            times = value / cost[f"{kind}: hangtag serve"]
            says.append(f"{kind}: an answer of {which} takes {times:.2f} times the processor time of one of ours.")
    for name, values in numbers.items():
        if "goodput" in values:
            says.append(f"{name}: {values['goodput']['median']:.1%} of capacity; 99% of refusals within "
                        f"{1000 * values['refusal p99']['median']:.1f} ms.")  # fmt: skip
        if name.startswith("start"):
            says.append(f"Ready after {values['seconds']['median']:.2f} s.")
    columns = ("what", "answers a second", "p50 ms", "p99 ms", "CPU us an answer", "MB", "lost or wrong", "n")
    return Result("serving", "A prediction server under load", columns, rows, says, numbers)


if __name__ == "__main__":
    main()

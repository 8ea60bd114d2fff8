"""`hangtag serve --ray` beside Ray Serve's own HTTP proxy, `@serve.batch`, and `hangtag serve` without Ray.

    python -m benchmarks.ray_serving [RUN] [--seconds 8] [--rounds 3] [--connections 64] [--json FILE]

Each way has two replicas (or threads) with one CPU each. RUN is a run of `fast` on Fashion-MNIST, as for
`benchmarks.serving`, which says what is sent and how. The ways are measured one after the other in each round, each in
a fresh process that is warmed up first. The processor time for an answer includes Ray's own processes; it is the number
to compare where other programs use the machine. A way is interesting beyond its speed where requests are refused or
replicas end: docs/cluster.md.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from benchmarks.common import Others, Result, alone, options, publish, summary
from benchmarks.http_load import closed_loop
from benchmarks.serving import Way, hangtag, measured, memory, pngs, sent, server, told

OURS = "hangtag serve --ray"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    settings = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    others = Others()
    with alone():
        for _ in range(settings.rounds):
            for way in ways(settings.run):
                for connections, values in loaded(way, settings):
                    name = f"{way.name}, {connections} connection(s)"
                    found.setdefault(name, []).append(values)
                    print(name, {key: round(value, 5) for key, value in values.items()}, flush=True)
    publish(describe(found, others.share()), settings.json)


def ways(run: Path) -> Iterator[Way]:
    yield hangtag(run, "--threads", "2", "--access-log", "none")
    ours = hangtag(run, "--access-log", "none", "--replicas", "2", "--ray")
    yield Way(OURS, ours.command, ours.body)
    for kind, name in (("app", "Ray's proxy, our application"), ("batch", "Ray's proxy, @serve.batch")):
        yield Way(name, (sys.executable, "-m", "benchmarks.peers.serve_ray", str(run), "{port}", kind), "raw")


def loaded(way: Way, settings: Any) -> Iterator[tuple[int, dict[str, float]]]:
    pictures = pngs(1000)
    with server(way) as (port, process):
        until_answered(port, pictures[0])
        requests = [sent(way.body, each, port) for each in pictures]
        for connections in settings.connections:
            closed_loop(port, requests, connections, 2)
            load, cost = measured(process.pid, port, requests, connections, settings.seconds)
            yield connections, told(load) | {"cpu": cost, "memory": memory(process.pid)}


def until_answered(port: int, picture: bytes) -> None:
    """Ray's proxy answers before it knows any application."""
    end = time.monotonic() + 60
    while httpx.post(f"http://127.0.0.1:{port}/predict", content=picture).status_code != 200:
        if time.monotonic() > end:
            raise SystemExit("the server does not answer")
        time.sleep(0.1)


def describe(found: dict[str, list[dict[str, float]]], others: float) -> Result:
    rows, numbers = [], {}
    for name, runs in found.items():
        numbers[name] = {key: summary([run[key] for run in runs]) for key in runs[0]}
        middle = {key: values["median"] for key, values in numbers[name].items()}
        rows.append((
            name, f"{middle['rate']:,.0f}", f"{1000 * middle['p50']:.1f}", f"{1000 * middle['p99']:.1f}",
            f"{1e6 * middle['cpu']:,.0f}", f"{middle['memory'] / 1e6:.0f}", f"{middle['lost'] + middle['errors']:.0f}",
            str(len(runs)),
        ))  # fmt: skip
    says = [f"Others used {others:.0%} of the machine meanwhile."]
    for name, values in numbers.items():
        ours = numbers[f"{OURS}, {name.rpartition(', ')[2]}"]
        if name.startswith("Ray's"):
            rate, cost = (ours[key]["median"] / values[key]["median"] for key in ("rate", "cpu"))
            says.append(f"{OURS} gives {rate:.1f} times as many answers as {name}, each for {cost:.2f} of the CPU.")
    columns = ("what", "answers a second", "p50 ms", "p99 ms", "CPU us an answer", "MB", "lost or wrong", "n")
    return Result("ray_serving", "The prediction server on Ray", columns, rows, says, numbers)


if __name__ == "__main__":
    main()

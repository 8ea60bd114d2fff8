"""Eight seeds on a Ray cluster of two nodes with one CPU each, against one after the other on the same two cores.

    nice python -m benchmarks.cluster_seeds [--seeds 8] [--rounds 3] [--recipe fast] [--epochs 2] [--data fashion-mnist]
        [--json FILE]

Both are the whole command `hangtag train --seeds`, report included, from its start to its end. The cluster runs
already, its workers do not: starting them is part of the time. All processes are bound to the same two cores. The ways
take turns, and the one that begins changes from round to round. A ratio above 1 means that the cluster is faster. On a
machine that does other work its numbers mean nothing.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from benchmarks.common import Result, alone, options, publish

CORES = 2


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--data", default="fashion-mnist")
    settings = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    command = [
        sys.executable, "-m", "hangtag", "train", settings.data, "--recipe", settings.recipe,
        "--set", f"epochs={settings.epochs}", "--seeds", str(settings.seeds),
    ]  # fmt: skip
    rounds: list[dict[str, Any]] = []
    with two_nodes() as address, tempfile.TemporaryDirectory() as folder:
        ways = {"in turn": [], "cluster": ["--ray", address]}
        for number in range(settings.rounds):
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            rounds.append({})
            for way in order:
                out = Path(folder) / f"{number}-{way.replace(' ', '-')}"
                with alone():
                    rounds[-1][way] = run([*command, "--out", str(out), *ways[way]], out)
            print({way: round(each["seconds"], 1) for way, each in rounds[-1].items()}, flush=True)
    publish(describe(rounds, settings.seeds, f"{settings.recipe}, {settings.epochs} epochs"), settings.json)


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster()
        own: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200_000_000}
        try:
            cluster.add_node(**own, temp_dir=folder, include_dashboard=False)
            cluster.add_node(**own)
            cluster.wait_for_nodes()
            yield f"127.0.0.1:{cluster.address.rpartition(':')[2]}"
        finally:
            cluster.shutdown()


def run(command: list[str], out: Path) -> dict[str, Any]:
    """Wall time of a command in seconds, and the accuracies of its seeds."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    metrics = msgspec.json.decode((out / "metrics.json").read_bytes())
    return {"seconds": seconds, "accuracy": metrics["seeds"]["accuracy"]["values"]}


def describe(rounds: list[dict[str, Any]], seeds: int, what: str) -> Result:
    times = {way: [each[way]["seconds"] for each in rounds] for way in ("in turn", "cluster")}
    ratio = median(first / second for first, second in zip(*times.values(), strict=True))
    accuracy = {way: rounds[0][way]["accuracy"] for way in times}
    rows = [
        (way, f"{median(seconds):.1f} s", f"{sum(accuracy[way]) / len(accuracy[way]):.4f}")
        for way, seconds in times.items()
    ]
    return Result(
        name="cluster_seeds",
        title=f"{seeds} seeds on two nodes with one CPU each ({what})",
        columns=("way", "wall time, median", "mean test accuracy"),
        rows=rows,
        says=[f"The cluster takes {1 / ratio:.2f} of the time, so it is {ratio:.2f} times as fast; n = {len(rounds)}."],
        numbers={"ratio": ratio, "rounds": rounds},
    )


if __name__ == "__main__":
    main()

"""Kills of drivers, workers and nodes during `hangtag predict --ray`: no row may be lost or doubled.

    make soak
    python scripts/soak_ray.py --kills 30 --seed 1

A cluster of three nodes on this machine answers a job of many small units. At random instants, a driver (SIGKILL of
the command), a worker (of an actor, or of its process for pictures), a node (of everything on it) or the head node is
killed. A lost node is replaced. If the command ends, the same command is run again, until it has finished. Then every
shard must be, byte for byte, that of a job without Ray. A command that gives up must say so in one line.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import toys
from hangtag.model.predictor import load
from hangtag.prediction.job import Job, begin
from hangtag.prediction.units import UnitWorkers

KINDS = {"driver": 4, "worker": 4, "node": 3, "head": 1}
SETTINGS: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}
PATIENCE = 180.0  # seconds after which a command hangs


class Fleet:
    """A cluster of a head and two more nodes, each with one CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, 0
        self.cluster: Any = None
        self.start()

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        self.started += 1
        self.cluster = Cluster()
        temporary = self.folder / f"r{self.started}"
        self.cluster.add_node(**SETTINGS, temp_dir=str(temporary), include_dashboard=False)
        for _ in range(2):
            self.cluster.add_node(**SETTINGS)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_node(self, chance: random.Random) -> None:
        nodes = sorted(self.cluster.worker_nodes, key=lambda each: str(each.unique_id))
        lost = chance.choice(nodes)
        self.cluster.remove_node(lost, allow_graceful=False)
        self.cluster.add_node(**SETTINGS)

    def kill_head(self) -> None:
        for node in self.cluster.list_all_nodes()[::-1]:
            self.cluster.remove_node(node, allow_graceful=False)
        self.start()

    def workers(self) -> list[int]:
        """The actors that answer, and their processes for pictures."""
        return [
            pid
            for pid, command in processes().items()
            if "ray::_Worker" in command or "hangtag.prediction.worker" in command
        ]


def processes() -> dict[int, str]:
    """The command lines of all processes that this one has started, and those that they have started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = (parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    ours, more = {os.getpid()}, {0}
    while more:
        more = {pid for pid, (parent, _) in found.items() if parent in ours} - ours
        ours |= more
    return {pid: found[pid][1] for pid in ours if pid in found}


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def rows(folder: Path) -> Counter[str]:
    return Counter(
        name
        for path in folder.glob("part-*.parquet")
        for name in pyarrow.parquet.read_table(path, columns=["file"])["file"].to_pylist()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--unit-images", type=int, default=50)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "src")
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        soak(Path(folder), arguments)


def soak(folder: Path, arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)
    photos, model = folder / "photos", folder / "model.onnx"
    photos.mkdir()
    for number, image in enumerate(toys.shapes(arguments.images)[0]):
        Image.fromarray(image).save(photos / f"{number:05d}.png")
    model.write_bytes(toys.toy_model())

    def new_job(name: str) -> Path:
        with begin(load(model), [str(photos)], str(folder / name), top=3, unit_images=arguments.unit_images):
            return folder / name

    reference = new_job("without")
    job = Job.open(str(reference))
    with UnitWorkers(job, job.predictor(model)) as workers:
        list(workers.answer(job.units, job.manifest.images))
    expected, names = shards(reference), rows(reference)
    campaign = Campaign(Fleet(folder), chance, arguments.kills)
    jobs = lost = doubled = 0
    try:
        while campaign.killed.total() < arguments.kills:
            jobs += 1
            out = new_job(f"out{jobs}")
            command = [sys.executable, "-m", "hangtag", "predict", str(model), str(photos), "--out", str(out)]
            while not campaign.run(command, folder / "log", out):
                pass
            found = rows(out)
            lost += (names - found).total()
            doubled += (found - names).total()
            if shards(out) != expected:
                sys.exit(f"{out.name}: the shards differ from those without Ray")
    finally:
        campaign.fleet.cluster.shutdown()
    print(
        json.dumps(
            {"kills": campaign.killed, "jobs": jobs, "rows_lost": lost, "rows_doubled": doubled, "said": campaign.said}
        )
    )


class Campaign:
    """Runs commands and kills something now and then."""

    def __init__(self, fleet: Fleet, chance: random.Random, kills: int) -> None:
        self.fleet, self.chance, self.kills = fleet, chance, kills
        self.killed: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.usual = 0.0  # seconds of the first command, which nothing disturbs

    def run(self, command: list[str], log: Path, out: Path) -> bool:
        """Whether a command has finished its job, or has to be run again."""
        began = time.monotonic()
        with log.open("w") as file:
            driver = subprocess.Popen([*command, f"--ray={self.fleet.address}"], stdout=file, stderr=file)
            while driver.poll() is None:
                self._wait(driver)
                if driver.poll() is None and self.usual and self.killed.total() < self.kills:
                    kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
                    if kill(kind, self.fleet, driver, self.chance):
                        self.killed[kind] += 1
                        print(f"{self.killed.total()} killed: {kind}, {len(shards(out))} shards there", flush=True)
        text = log.read_text()
        if "Traceback" in text or driver.returncode not in (0, 1, -signal.SIGKILL):
            sys.exit(f"a command ended with {driver.returncode} and said: {text[-3000:]}")
        if driver.returncode == 1:
            self.said[text.strip().splitlines()[-1][:150]] += 1
        self.usual = self.usual or time.monotonic() - began
        return driver.returncode == 0

    def _wait(self, driver: "subprocess.Popen[bytes]") -> None:
        """Wait until the next kill, or until the command ends; none may take for ever."""
        is_last = not self.usual or self.killed.total() >= self.kills
        end = time.monotonic() + (PATIENCE if is_last else self.chance.uniform(0, self.usual))
        while time.monotonic() < end and driver.poll() is None:
            time.sleep(0.05)
        if is_last and driver.poll() is None:
            driver.kill()
            sys.exit(f"a command hangs after {dict(self.killed)}")


def kill(kind: str, fleet: Fleet, driver: "subprocess.Popen[bytes]", chance: random.Random) -> bool:
    """Kill one of a kind; False if there is none at the moment."""
    if kind == "driver":
        driver.kill()
        driver.wait()
    elif kind == "node":
        fleet.kill_node(chance)
    elif kind == "head":
        fleet.kill_head()
    else:
        workers = fleet.workers()
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
    return True


if __name__ == "__main__":
    main()

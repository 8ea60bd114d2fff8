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

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import toys
from hangtag.model.predictor import load
from hangtag.prediction.job import Job, begin
from hangtag.prediction.units import UnitWorkers

KINDS = {"driver": 4, "worker": 4, "node": 3, "head": 1}
PATIENCE = 180.0  # seconds after which a command hangs


class Fleet:
    """A cluster of a head and two more nodes, each with one CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cluster, self.started = folder, None, 0
        self.start()

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        self.started += 1
        self.cluster: Any = Cluster()
        temporary = self.folder / f"r{self.started}"
        self.cluster.add_node(**self._settings(), temp_dir=str(temporary), include_dashboard=False)
        for _ in range(2):
            self.cluster.add_node(**self._settings())

    def _settings(self) -> dict[str, Any]:
        here = len(self.cluster.list_all_nodes()) if self.cluster else 0
        return {"num_cpus": 1, "object_store_memory": 100_000_000, "node_ip_address": f"127.0.0.{here + 1}"}

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_node(self, chance: random.Random) -> None:
        nodes = sorted(self.cluster.worker_nodes, key=lambda each: str(each.unique_id))
        lost = chance.choice(nodes)
        settings = {**self._settings(), "node_ip_address": lost.node_ip_address}
        self.cluster.remove_node(lost, allow_graceful=False)
        self.cluster.add_node(**settings)

    def kill_head(self) -> None:
        for node in self.cluster.list_all_nodes()[::-1]:
            self.cluster.remove_node(node, allow_graceful=False)
        self.start()

    def workers(self) -> list[int]:
        """The actors that answer, and their processes for pictures."""
        found = []
        for pid, parent, command in processes():
            if "ray::" in command and "Worker" in command and "hangtag" not in command:
                found.append(pid)
            elif "hangtag.prediction.worker" in command:
                found.append(pid)
        return found


def processes() -> list[tuple[int, int, str]]:
    """Process, parent and command line of all processes that this one has started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = (parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    ours, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, (parent, _) in found.items() if parent in ours} - ours
        grown = bool(more)
        ours |= more
    return [(pid, *found[pid]) for pid in sorted(ours) if pid in found]


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
    os.environ["PYTHONPATH"] = str(ROOT / "src")
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
    fleet = Fleet(folder)
    killed: Counter[str] = Counter()
    lost = doubled = 0
    said: Counter[str] = Counter()
    usual = 10.0  # seconds of a command that nothing disturbs
    number = 0
    try:
        while killed.total() < arguments.kills:
            number += 1
            out = new_job(f"out{number}")
            finished = False
            while not finished:
                log = (folder / "log").open("w+")
                began = time.monotonic()
                command = [sys.executable, "-m", "hangtag", "predict", str(model), str(photos), "--out", str(out)]
                driver = subprocess.Popen([*command, f"--ray={fleet.address}"], stdout=log, stderr=log, cwd=folder)
                disturbed = False
                while driver.poll() is None:
                    due = time.monotonic() + chance.uniform(0, usual)
                    if killed.total() >= arguments.kills:
                        due = began + PATIENCE
                    while time.monotonic() < due and driver.poll() is None:
                        time.sleep(0.05)
                    if driver.poll() is not None:
                        break
                    if time.monotonic() - began > PATIENCE:
                        driver.kill()
                        sys.exit(f"a command hangs after {dict(killed)}")
                    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
                    if kill(kind, fleet, driver, chance):
                        killed[kind] += 1
                        disturbed = True
                        print(f"{killed.total()} killed: {kind}, {len(shards(out))} shards there", flush=True)
                code = driver.wait()
                log.seek(0)
                text = log.read()
                log.close()
                if "Traceback" in text or code not in (0, 1, -signal.SIGKILL):
                    sys.exit(f"a command ended with {code} and said: {text[-3000:]}")
                finished = code == 0
                if code == 1:
                    said[text.strip().splitlines()[-1][:150]] += 1
                if finished and not disturbed:
                    usual = time.monotonic() - began
            found = rows(out)
            lost += (names - found).total()
            doubled += (found - names).total()
            if shards(out) != expected:
                sys.exit(f"{out.name}: the shards differ from those without Ray")
    finally:
        fleet.cluster.shutdown()
    print(json.dumps({"kills": killed, "jobs": number, "rows_lost": lost, "rows_doubled": doubled, "said": said}))


def kill(kind: str, fleet: Fleet, driver: "subprocess.Popen[Any]", chance: random.Random) -> bool:
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

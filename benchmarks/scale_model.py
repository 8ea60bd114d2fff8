"""What a job of very many images costs: a model, its constants measured here, checked by simulation against real runs.

    python -m benchmarks.scale_model RUN [--photos RUN] [--pictures 10000 100000 1000000] [--kinds files parquet]
        [--kills 4] [--folder DIR] [--json FILE]

RUN is a run of `fast` on Fashion-MNIST, the other one of a model for photos. docs/scale.md explains the model and shows
what this prints.

1. Constants: processor seconds of each step, on a few thousand images. What the steps do not explain (passing images
   and answers between processes) is the rest of two small runs of 500 and 2,000 files.
2. Runs: `hangtag predict RUN PLACE --out DIR` for each number of images, as PNG files in folders and as rows of Parquet
   files, predicted first and measured then. Compared are processor seconds, which other programs change little; on a
   quiet machine, seconds too. Loose files are left out where there would be more than 100,000 (0.5 GB).
3. Failures: the job of the smallest number again, killed whenever it has used a random amount of processor time, and
   begun again. The simulation gets the same amounts.
4. The plan: a billion images on a cluster of rented machines that fail, simulated event by event.
"""

import argparse
import heapq
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Others, Result, alone, options, ordinary_environment, publish
from benchmarks.serving import children, fashion

SOURCE = Path(__file__).resolve().parent.parent
COMMAND = ("-m", "hangtag", "predict")
SMALL = (500, 2000)
ROWS = 25_000  # of a Parquet file with bytes
MOST_FILES = 100_000  # loose files: a million would take 5 GB


@dataclass(frozen=True)
class Constants:
    """Processor seconds, and bytes.

    Attributes:
        start: of a command before the first image, and after the last.
        listing: per image: find it, and write it into the list of units.
        read, decode, infer: per image.
        row: per image: make its row and write it into a shard.
        passing: per image: what is left of a small run, mostly moving images and answers between processes.
        unit: per unit, whatever its size: read its list, write its shard.
        check: per finished unit, when a command goes on.
        row_bytes, image_bytes, list_bytes: per image: in a shard, encoded, in the list.
    """

    start: float = 0.0
    listing: float = 0.0
    read: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    row: float = 0.0
    passing: float = 0.0
    unit: float = 0.0
    check: float = 0.0
    row_bytes: float = 0.0
    image_bytes: float = 0.0
    list_bytes: float = 0.0

    @property
    def image(self) -> float:
        """Processor seconds of an image after it was listed."""
        return self.read + self.decode + self.infer + self.row + self.passing


@dataclass(frozen=True)
class Machines:
    """A cluster.

    Attributes:
        count, cores: machines, and worker processes of each.
        mean_life: seconds after which a machine fails, on average.
        replacement: seconds until another takes its place.
        spread: standard deviation of the logarithm of a machine's speed.
        dispatch: seconds in which the driver hands out one unit.
        restart: seconds in which a worker starts and opens the model.
    """

    count: int = 250
    cores: int = 4
    mean_life: float = 24 * 3600.0
    replacement: float = 180.0
    spread: float = 0.1
    dispatch: float = 0.005
    restart: float = 8.0


@dataclass(frozen=True)
class Cloud:
    """What is assumed of a cloud; not measured here. Dollars and seconds.

    Attributes:
        core_hour: of a rented core.
        get, put, page: of a request that reads an object, writes one, or lists 1,000.
        get_seconds, page_seconds: until such a request is answered.
        bytes_per_second: that a core can read.
    """

    core_hour: float = 0.04
    get: float = 0.4e-6
    put: float = 5e-6
    page: float = 5e-6
    get_seconds: float = 0.03
    page_seconds: float = 0.1
    bytes_per_second: float = 75e6


@dataclass(frozen=True)
class Case:
    """A kind of image: processor seconds for one, its bytes, how many are in one object, and in one unit."""

    name: str
    seconds: float
    bytes: float
    in_object: int
    unit: int


@dataclass
class Simulated:
    """What happened: seconds from the first unit to the last, processor seconds in all, those of units that were lost,
    units that were begun again, and seconds in which no unit was left to hand out."""

    seconds: float = 0.0
    busy: float = 0.0
    wasted: float = 0.0
    retries: int = 0
    tail: float = 0.0


@dataclass(frozen=True)
class Planned:
    """What a case costs: hours, dollars and bytes, and what the simulation of its units says."""

    listing_hours: float
    hours: float
    resume_hours: float
    dollars: float
    core_hours: float
    requests: float
    read_bytes: float
    list_bytes: float
    row_bytes: float
    simulated: Simulated


def simulate(units: Sequence[float], machines: Machines, seed: int = 0) -> Simulated:
    """Units, each of so many processor seconds, on machines that fail; event by event.

    A machine that fails loses the units that its workers have begun; they are handed out again first.
    """
    rng = random.Random(seed)
    found, now, free_at = Simulated(), 0.0, 0.0
    waiting = deque(range(len(units)))
    speed = [rng.lognormvariate(0.0, machines.spread) for _ in range(machines.count)]
    life = [0] * machines.count  # which life of the machine it is
    begun: list[dict[int, float]] = [{} for _ in range(machines.count)]
    idle: deque[int] = deque()
    left = len(units)
    events: list[tuple[float, int, int, int, int]] = []  # time, kind, machine, life, unit
    ends, fails, returns = 0, 1, 2
    for machine in range(machines.count):
        heapq.heappush(events, (machines.restart, returns, machine, 0, -1))

    def hand_out() -> None:
        nonlocal free_at
        while waiting and idle:
            machine, unit = idle.popleft(), waiting.popleft()
            free_at = max(free_at, now) + machines.dispatch
            begun[machine][unit] = free_at
            heapq.heappush(events, (free_at + units[unit] * speed[machine], ends, machine, life[machine], unit))
            if not waiting:
                found.tail = now

    while left:
        now, kind, machine, of_life, unit = heapq.heappop(events)
        if kind == returns:
            idle.extend([machine] * machines.cores)
            heapq.heappush(events, (now + rng.expovariate(1 / machines.mean_life), fails, machine, life[machine], -1))
        elif of_life != life[machine]:
            continue
        elif kind == ends:
            del begun[machine][unit]
            found.busy += units[unit] * speed[machine]
            idle.append(machine)
            left -= 1
        else:
            lost = sum(max(0.0, now - start) for start in begun[machine].values())
            found.wasted += lost
            found.busy += lost
            found.retries += len(begun[machine])
            waiting.extendleft(sorted(begun[machine], reverse=True))
            begun[machine] = {}
            idle = deque(each for each in idle if each != machine)
            life[machine] += 1
            heapq.heappush(events, (now + machines.replacement + machines.restart, returns, machine, life[machine], -1))
        hand_out()
    found.seconds, found.tail = now, now - found.tail
    return found


def killed(units: Sequence[int], constants: Constants, amounts: Sequence[float]) -> float:
    """Processor seconds of a job on one machine whose commands are killed after these amounts, one by one.

    A command lists (the first only), checks the shards that are there, and answers the other units in order.
    """
    total, done, listed = 0.0, 0, False
    for amount in [*amounts, float("inf")]:
        used = constants.start + done * constants.check
        if not listed:
            used += constants.listing * sum(units)
            listed = used <= amount
        while used <= amount and done < len(units):
            used += constants.unit + units[done] * constants.image
            if used <= amount:
                done += 1
        total += min(used, amount)
        if done == len(units):
            break
    return total


# --- constants -------------------------------------------------------------------------------------------------------


def constants_of(run: Path, folder: Path) -> Constants:
    """Measured on a few thousand small images."""
    from hangtag.data.shards import read_shard, shard_of
    from hangtag.model.predictor import load
    from hangtag.prediction.job import begin
    from hangtag.prediction.units import UnitWorkers

    predictor = load(run, threads=1)
    places = [folder / f"files-{count}" for count in SMALL]
    for place, count in zip(places, SMALL, strict=True):
        write_files(place, count)
    files = sorted(places[1].rglob("*.png"))
    read, contents = timed(lambda: [file.read_bytes() for file in files])
    decode, prepared = timed(lambda: [predictor.prepare(each, 1) for each in contents])
    infer, _ = timed(lambda: [predictor.together(prepared[at : at + 64]) for at in range(0, len(prepared), 64)])
    count = len(files)
    begin(predictor, [places[0]], str(folder / "first")).__enter__()  # what it imports is part of `start`
    listing, job = timed(lambda: begin(predictor, [places[1]], str(folder / "job")).__enter__(), times=1)
    with UnitWorkers(job, predictor, 1) as workers:
        units = list(job.units)
        list(workers.answer(units, count))
    shards = [table_of(folder / "job" / unit.shard) for unit in units]
    rows, about = [row for some, _ in shards for row in some], shards[0][1]
    row, content = timed(lambda: shard_of(job.columns, rows, about))
    small, _ = timed(lambda: shard_of(job.columns, rows[:1], about))
    lists, _ = timed(lambda: [job.pictures(unit) for unit in units])
    check, _ = timed(lambda: read_shard(content, "a shard"))
    list_bytes = sum(each.stat().st_size for each in (folder / "job" / "_units").iterdir())
    shutil.rmtree(folder / "job")
    found = Constants(
        listing=listing / count, read=read / count, decode=decode / count, infer=infer / count,
        row=(row + lists) / count, unit=small, check=check, row_bytes=len(content) / count,
        image_bytes=sum(map(len, contents)) / count, list_bytes=list_bytes / count,
    )  # fmt: skip
    used = [min(ran(run, place, folder / "out")[0] for _ in range(3)) for place in places]
    slope = (used[1] - used[0]) / (SMALL[1] - SMALL[0])
    passing = max(0.0, slope - found.listing - found.image)
    start = max(0.0, used[0] - SMALL[0] * slope - len(units) * found.unit)
    return replace(found, passing=passing, start=start)


def table_of(shard: Path) -> tuple[list[list[Any]], dict[str, Any]]:
    """The rows of a shard, and what it says about itself."""
    import pyarrow.parquet as pq

    from hangtag.data.shards import read_shard

    table = pq.read_table(shard)
    columns = [column.to_pylist() for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)], read_shard(shard.read_bytes(), str(shard))[1]


def decoding(run: Path) -> list[tuple[str, float, float]]:
    """Kind and size of a picture, its bytes, and the processor seconds to decode it."""
    from PIL import Image

    from hangtag.model.predictor import load

    predictor, rng, rows = load(run, threads=1), np.random.default_rng(0), []
    for side, kinds in ((28, ("PNG",)), (256, ("PNG", "JPEG")), (1024, ("PNG", "JPEG")), (3000, ("JPEG",))):
        rough = rng.integers(0, 256, (max(4, side // 16),) * 2 + (3,), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(picture, np.int16) + rng.normal(0, 4, (side, side, 3)), 0, 255).astype(np.uint8)
        for kind in kinds:
            file = io.BytesIO()
            Image.fromarray(noisy).save(file, kind)
            content = file.getvalue()
            times = max(3, 200_000 // side**2)
            seconds, _ = timed(lambda content=content, times=times: [predictor.prepare(content) for _ in range(times)])
            rows.append((f"{kind} {side}x{side}", float(len(content)), seconds / times))
    return rows


def inferring(run: Path) -> float:
    """Processor seconds of an image in the model, in batches of 64."""
    from hangtag.model.predictor import load

    predictor = load(run, threads=1)
    blank = [predictor.prepare(np.full((256, 256, 3), number, np.uint8)) for number in range(64)]
    return timed(lambda: predictor.together(blank))[0] / len(blank)


def timed(work: Any, times: int = 3) -> tuple[float, Any]:
    """The least processor seconds of some repetitions, and the result."""
    found = []
    for _ in range(times):
        began = time.process_time()
        result = work()
        found.append(time.process_time() - began)
    return min(found), result


# --- real runs -------------------------------------------------------------------------------------------------------


def write_files(folder: Path, count: int) -> None:
    """Small grey PNG files, 1,000 in a folder."""
    for number, content in enumerate(pngs(count)):
        place = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{number:07d}.png").write_bytes(content)


def write_parquet(folder: Path, count: int) -> None:
    """The same as rows of Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    contents = pngs(count)
    for number in range(0, count, ROWS):
        some = [next(contents) for _ in range(min(ROWS, count - number))]
        names = [f"{number + place:07d}.png" for place in range(len(some))]
        pq.write_table(pa.table({"image": some, "name": names}), folder / f"{number // ROWS:05d}.parquet")


def pngs(count: int) -> Iterator[bytes]:
    from PIL import Image

    encoded = []
    for pixels in fashion(min(count, 10_000)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        encoded.append(file.getvalue())
    return (encoded[number % len(encoded)] for number in range(count))


def ran(run: Path, place: Path, out: Path) -> tuple[float, float, bool]:
    """As `command`, from the beginning."""
    shutil.rmtree(out, ignore_errors=True)
    return command(run, place, out)


def command(run: Path, place: Path, out: Path, amount: float = float("inf")) -> tuple[float, float, bool]:
    """Processor seconds and seconds of the command, which goes on with what is in `out`, and whether it finished; it is
    killed once it has used the amount."""
    environment = {**ordinary_environment(), "PYTHONPATH": str(SOURCE / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *COMMAND, str(run), str(place), "--out", str(out)]
    began, used = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        while amount < float("inf") and process.poll() is None:
            used = running_seconds(process.pid)
            if used >= amount:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return used, time.perf_counter() - began, False
            time.sleep(0.02)
        _, status, usage = os.wait4(process.pid, 0) if process.returncode is None else (0, process.returncode, None)
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(words)}: {log.read()[-2000:].decode(errors='replace')}")
    total = used if usage is None else usage.ru_utime + usage.ru_stime
    return total, time.perf_counter() - began, True


def running_seconds(pid: int) -> float:
    """Processor seconds of a process and those below it, also of those that have ended."""
    ticks = 0
    for each in [pid, *children(pid)]:
        try:
            fields = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def units_of(out: Path, count: int) -> list[int]:
    """The numbers of images in the units of a finished job, which must have answered all of them."""
    manifest = json.loads((out / "_manifest.json").read_text(encoding="utf-8"))
    if (manifest["counts"]["images"], manifest["counts"]["failed"]) != (count, 0):
        raise SystemExit(f"{out}: {manifest['counts']} instead of {count:,} images")
    return list(manifest["units"])


# --- together --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A prediction beside what was measured."""

    what: str
    predicted: float
    measured: float
    seconds: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def checked(settings: argparse.Namespace, constants: Constants, folder: Path) -> Iterator[Row]:
    """Runs without failures."""
    write = {"files": write_files, "parquet": write_parquet}
    for kind in settings.kinds:
        for count in settings.pictures:
            if kind == "files" and count > MOST_FILES:
                continue
            written, out = folder / f"{kind}-{count}-of", folder / "out"
            write[kind](written, count)
            place = written / "*.parquet" if kind == "parquet" else written
            used, seconds, _ = ran(settings.run, place, out)
            units = units_of(out, count)
            each = constants.listing + constants.image - (constants.read if kind == "parquet" else 0)
            predicted = constants.start + count * each + len(units) * constants.unit
            yield Row(f"{kind}, {count:,} images, {len(units)} units", predicted, used, seconds)
            if kind == settings.kinds[0] and count == min(settings.pictures) and settings.kills:
                yield with_kills(settings, constants, place, folder / "killed", units)
                units_of(folder / "killed", count)
            shutil.rmtree(written)


def with_kills(settings: argparse.Namespace, constants: Constants, place: Path, out: Path, units: list[int]) -> Row:
    """The same job, killed at random moments, and what the simulation makes of the same moments."""
    rng = random.Random(settings.seed)
    work = constants.start + sum(units) * (constants.listing + constants.image)
    least = constants.start + sum(units) * constants.listing
    amounts = [least + rng.expovariate(3 / work) for _ in range(settings.kills)]
    used, seconds = 0.0, 0.0
    for amount in [*amounts, float("inf")]:
        took, lasted, is_done = command(settings.run, place, out, amount)
        used, seconds = used + took, seconds + lasted
        if is_done:
            break
    return Row(f"the same, killed {settings.kills} times", killed(units, constants, amounts), used, seconds)


def planned(case: Case, constants: Constants, images: int, machines: Machines, cloud: Cloud, seed: int) -> Planned:
    """A job on a cluster, its images in an object store.

    The driver alone lists, page after page, and checks finished units when a job goes on. A worker reads its images one
    after the other.
    """
    units, objects = -(-images // case.unit), -(-images // case.in_object)
    waits = cloud.get_seconds / case.in_object + case.bytes / cloud.bytes_per_second
    of_unit = constants.unit + 2 * cloud.get_seconds + case.unit * (case.seconds + waits)
    found = simulate([of_unit] * units, machines, seed)
    listing = objects / 1000 * cloud.page_seconds + images * constants.listing + units * cloud.get_seconds
    cores = machines.count * machines.cores
    core_hours = (cores * found.seconds + listing) / 3600
    requests = objects * cloud.get + units * (cloud.get + 2 * cloud.put) + objects / 1000 * cloud.page
    return Planned(
        listing / 3600, found.seconds / 3600, units * (constants.check + cloud.get_seconds) / 3600,
        core_hours * cloud.core_hour + requests, core_hours, requests, images * case.bytes,
        images * constants.list_bytes, images * constants.row_bytes, found,
    )  # fmt: skip


def cases(settings: argparse.Namespace, constants: Constants) -> list[Case]:
    """The small images of the runs, and photos of 1024x1024 loose and in large files."""
    from hangtag.prediction.job import _UNIT_BYTES, _UNIT_ROWS

    around = constants.row + constants.passing
    small = constants.decode + constants.infer + around
    found = [Case("PNG 28x28, 25,000 in a tar or Parquet file", small, constants.image_bytes, ROWS, _UNIT_ROWS)]
    if settings.photos is not None:
        decoded = {kind: (size, seconds) for kind, size, seconds in decoding(settings.photos)}
        size, seconds = decoded["JPEG 1024x1024"]
        seconds += inferring(settings.photos) + around
        unit = int(_UNIT_BYTES / size)
        found.append(Case("JPEG 1024x1024, 1,000 in a tar file", seconds, size, 1000, unit))
        found.append(Case("JPEG 1024x1024, one in an object", seconds, size, 1, unit))
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["files", "parquet"], choices=("files", "parquet"))
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--images", type=int, default=10**9, help="of the plan")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where files are made and deleted; the system's folder otherwise")
    settings = parser.parse_args()
    settings.run = settings.run.absolute()
    others = Others()
    with alone(), tempfile.TemporaryDirectory(prefix="hangtag-scale-", dir=settings.folder) as name:
        constants = constants_of(settings.run, Path(name))
        for key, value in asdict(constants).items():
            print(key, f"{value:.3g}", flush=True)
        rows = []
        for row in checked(settings, constants, Path(name)):
            rows.append(row)
            print(row, f"{row.error:+.1%}", flush=True)
        publish(describe(settings, constants, rows, others.share()), settings.json)


def describe(settings: argparse.Namespace, constants: Constants, rows: list[Row], others: float) -> Result:
    table: list[tuple[str, ...]] = [
        (row.what, f"{row.predicted:.1f}", f"{row.measured:.1f}", f"{row.error:+.1%}", f"{row.seconds:.1f}")
        for row in rows
    ]
    says = [f"Others used {others:.0%} of the machine meanwhile."]
    for name, value in asdict(constants).items():
        says.append(f"{name}: {value:,.0f} bytes" if name.endswith("bytes") else f"{name}: {1e6 * value:,.0f} us")
    says += [
        f"decode {kind} ({size / 1e3:,.0f} kB): {1000 * took:.2f} ms" for kind, size, took in decoding(settings.run)
    ]
    numbers: dict[str, Any] = {"constants": asdict(constants), "rows": [asdict(row) for row in rows], "plan": []}
    for case in cases(settings, constants):
        for life in (1e9, 24.0, 1.0):
            machines = replace(Machines(), mean_life=life * 3600)
            found = planned(case, constants, settings.images, machines, Cloud(), settings.seed)
            numbers["plan"].append({"case": case.name, "life_hours": life, **asdict(found)})
            lost = found.simulated
            says.append(
                f"{settings.images:,} of {case.name}; "
                f"{'no failures' if life > 1e6 else f'a machine fails every {life:g} h'}: listing "
                f"{found.listing_hours:.1f} h, then {found.hours:.2f} h on {machines.count * machines.cores:,} cores, "
                f"${found.dollars:,.0f} (requests ${found.requests:,.0f}); {lost.retries:,} units again, "
                f"{lost.wasted / lost.busy:.2%} of the work lost, tail {lost.tail:.0f} s; resuming "
                f"{found.resume_hours:.1f} h; read {found.read_bytes / 1e12:.1f} TB, list "
                f"{found.list_bytes / 1e9:.0f} GB, rows {found.row_bytes / 1e9:.0f} GB"
            )
    columns = ("run", "predicted CPU s", "measured CPU s", "error", "seconds")
    return Result("scale_model", "The cost of very many images", columns, table, says, numbers)


if __name__ == "__main__":
    main()

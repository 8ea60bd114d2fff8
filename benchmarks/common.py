"""What the benchmarks share: a turn at the machine, a fresh process, a summary of numbers, and a `Result` to write.

A `Result` carries its table in words and its numbers raw, with hardware, versions and date. It measures nothing.
On a machine that others use too, name a file in `HANGTAG_BENCH_LOCK`: each timed stretch then waits for its lock
(flock), so that those who agree on the file do not disturb each other.
"""

import argparse
import fcntl
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hangtag.machine import hardware, now, versions

__all__ = [
    "NO_GPU", "Others", "Result", "alone", "in_fresh_process", "options", "ordinary_environment", "publish",
    "result_from_here", "summary",
]  # fmt: skip

NO_GPU = 3
"""Exit status of a benchmark that needs a GPU, where there is none."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: of the script.
        title: a heading.
        columns, rows: the table, in words.
        says: the conclusions, one sentence each.
        numbers: everything measured, for machines.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    says: list[str]
    numbers: dict[str, Any]
    date: str = field(default_factory=now)
    machine: dict[str, Any] = field(default_factory=hardware)
    versions: dict[str, str] = field(default_factory=versions)


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--json FILE`."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers")
    return parser


def publish(result: Result, file: Path | None) -> None:
    """Print a result, and write it to `file` if one is given."""
    table = [result.columns, *result.rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(result.columns))]
    print(f"\n{result.title}")
    for row in table:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for sentence in result.says:
        print(f"  {sentence}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


def result_from_here(file: Path) -> dict[str, Any]:
    """A `Result` as it was published to `file`.

    Raises:
        SystemExit: it was measured on another kind of machine or with other versions.
    """
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    here = {"machine": hardware(), "versions": versions()}
    there = {key: result[key] for key in here}
    if there != here:
        raise SystemExit(f"{file} was measured on {there}; this is {here}: leave out --go-on")
    return result


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sd, median, extremes and n of some measurements, and the measurements."""
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "n": len(values),
        "values": list(values),
    }


@contextmanager
def alone() -> Iterator[None]:
    """Time inside this block: nobody else who respects `HANGTAG_BENCH_LOCK` is measuring meanwhile."""
    name = os.environ.get("HANGTAG_BENCH_LOCK")
    if not name:
        yield
        return
    with Path(name).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `function`, a module's own, called in a new Python that inherits no memory from this one.

    Keep the caller small: on Linux a process's peak memory starts from that of the process that started it.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


class Others:
    """How much of the machine's processors everybody else used meanwhile, to tell a disturbed measurement by.

    Counts since it was made; processes started from this one count as ours once they have ended.
    """

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """From 0 to 1; 0 where the system does not say (Linux does)."""
        wall = (time.perf_counter() - self.began) * (os.cpu_count() or 1)
        used = _busy_seconds() - self.busy - (_own_seconds() - self.own)
        return max(0.0, used / wall)


def ordinary_environment() -> dict[str, str]:
    """This process's environment with Python's bytecode cache switched on, as on an ordinary machine."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _busy_seconds() -> float:
    """Seconds all processors were busy since the machine started, those lost to other virtual machines included."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 0.0
    user, nice, system, _idle, _waiting, irq, softirq, steal = stat.read_text(encoding="ascii").split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Processor seconds of this process and of those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

"""Short commands from process start to exit, with everything in the cache, against an earlier commit.

    python -m benchmarks.around_training [--old CHECKOUT] [--rounds 5] [--json FILE]

`hangtag train fashion-mnist --recipe quick`, and `hangtag evaluate RUN` and `hangtag report RUN` of that run, each once
per round and checkout, in turns. `first_run.py` measures trainings that begin with an empty cache.

CHECKOUT is another working copy of hangtag; both run in this Python, with its packages. Each has a cache of its own.
Wall-clock seconds mean something on a quiet machine only, so processor seconds are given as well.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import Others, Result, alone, options, ordinary_environment, publish, summary

HERE = Path(__file__).resolve().parents[1]
QUICK, EVALUATE, REPORT = "train fashion-mnist --recipe quick", "evaluate last", "report last"
AIMS = {QUICK: (10, 6), EVALUATE: None, REPORT: None}  # seconds: at least, aim


@dataclass
class Code:
    """A checkout, and what was measured with it.

    Attributes:
        seconds: wall-clock and processor seconds of each command, in the order of the rounds.
        accuracy: on the test images.
    """

    name: str
    checkout: Path
    folder: Path
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    accuracy: float = 0.0

    def run(self, *command: str) -> tuple[float, float]:
        """Run a command of this checkout; its wall-clock and processor seconds."""
        environment = ordinary_environment() | {
            "PYTHONPATH": str(self.checkout / "src"), "XDG_CACHE_HOME": str(self.folder / "cache"),
        }  # fmt: skip
        began, before = time.perf_counter(), _children_seconds()
        ended = subprocess.run(
            [sys.executable, "-m", "hangtag", *command], env=environment, cwd=self.folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if ended.returncode:
            raise SystemExit(f"{self.name}: hangtag {' '.join(command)} failed: {ended.stderr[-2000:]}")
        return time.perf_counter() - began, _children_seconds() - before

    def train(self) -> tuple[float, float]:
        """Train into the folder `quick`, anew; the seconds of the command."""
        shutil.rmtree(self.folder / "quick", ignore_errors=True)
        seconds = self.run("train", "fashion-mnist", "--recipe", "quick", "--out", "quick")
        self.accuracy = json.loads((self.folder / "quick" / "metrics.json").read_text())["accuracy"]
        return seconds

    def keep(self, what: str, seconds: tuple[float, float]) -> None:
        self.seconds.setdefault(what, []).append(seconds)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="a working copy of hangtag to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        codes = [Code("new", HERE, Path(name) / "new")]
        if settings.old:
            codes.insert(0, Code("old", settings.old.resolve(), Path(name) / "old"))
        for code in codes:
            code.folder.mkdir()
            _check_imports(code)
        with alone():
            others = Others()
            measure(codes, settings.rounds)
            busy = others.share()
    publish(compare(codes, busy), settings.json)


def measure(codes: list[Code], rounds: int) -> None:
    """All commands in turns; a first round, which fills the cache and Python's bytecode, is not counted."""
    for number in range(rounds + 1):
        for code in codes if number % 2 else codes[::-1]:
            for what, seconds in (
                (QUICK, code.train()), (EVALUATE, code.run("evaluate", "quick")), (REPORT, code.run("report", "quick")),
            ):  # fmt: skip
                if number:
                    code.keep(what, seconds)


def compare(codes: list[Code], busy: float) -> Result:
    """Medians and spread of each command; the share of the old code's time that the new one takes."""
    columns = (
        "command", "code", "seconds (median)", "least", "most", "processor seconds", "n", "of old", "at least", "aim",
    )  # fmt: skip
    rows, numbers = [], dict[str, Any]()
    for what, aims in AIMS.items():
        old = None
        for code in (each for each in codes if what in each.seconds):
            walls, processors = (summary(values) for values in zip(*code.seconds[what], strict=True))
            numbers.setdefault(what, {})[code.name] = {"wall": walls, "processors": processors}
            share = "-" if old is None else f"{walls['median'] / old:.2f}"
            old = walls["median"] if code.name == "old" else old
            wanted = [f"{aim}" for aim in aims] if aims else ["-", "-"]
            spread = [f"{walls[part]:.2f}" for part in ("median", "least", "most")]
            rows.append((what, code.name, *spread, f"{processors['median']:.2f}", str(walls["n"]), share, *wanted))
    says = [f"Others used {busy:.0%} of the machine meanwhile."]
    numbers |= {"busy": busy, "accuracy": {code.name: code.accuracy for code in codes}}
    return Result("around_training", "What takes time around a training", columns, rows, says, numbers)


def _check_imports(code: Code) -> None:
    """Stop if Python would import another hangtag than that of the checkout."""
    environment = ordinary_environment() | {"PYTHONPATH": str(code.checkout / "src")}
    command = [sys.executable, "-c", "import hangtag; print(hangtag.__file__)"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_relative_to(code.checkout):
        raise SystemExit(f"{code.checkout} is not a checkout of hangtag: Python imports {found}")


def _children_seconds() -> float:
    """Processor seconds of the processes that this one started and that have ended."""
    used = os.times()
    return used.children_user + used.children_system


if __name__ == "__main__":
    main()

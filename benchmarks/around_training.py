"""What takes time around a training: from process start to exit, against an earlier commit.

    python -m benchmarks.around_training [--old CHECKOUT] [--rounds 5] [--first-rounds 5] [--recipe fast] [--json FILE]

Five whole commands, as a user starts them, each once per round and checkout, in turns:

- `hangtag train fashion-mnist --recipe quick`, with everything in the cache; and from an empty cache;
- `hangtag evaluate RUN` and `hangtag report RUN` of that run;
- `hangtag train fashion-mnist` from an empty cache, less its training (`seconds.train` of its config.json). It takes
  minutes; `--recipe quick` replaces it for a trial, and `--first-rounds 0` leaves out both that begin with an empty
  cache.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import Others, Result, alone, options, ordinary_environment, publish, summary

HERE = Path(__file__).resolve().parents[1]
QUICK, FIRST = "train fashion-mnist --recipe quick", "train fashion-mnist --recipe quick, empty cache"
EVALUATE, REPORT, AROUND = "evaluate last", "report last", "train fashion-mnist, empty cache, less its training"
AIMS = {QUICK: (10, 6), FIRST: None, AROUND: (30, 15), EVALUATE: None, REPORT: None}  # seconds: at least, aim


@dataclass
class Code:
    """A checkout, and what was measured with it.

    Attributes:
        seconds: wall-clock and processor seconds of each command, in the order of the rounds.
        accuracy: on the test images, of each recipe.
    """

    name: str
    checkout: Path
    folder: Path
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)

    def run(self, *command: str, cache: str = "cache") -> tuple[float, float]:
        """Run a command of this checkout; its wall-clock and processor seconds."""
        environment = ordinary_environment() | {
            "PYTHONPATH": str(self.checkout / "src"), "XDG_CACHE_HOME": str(self.folder / cache),
        }  # fmt: skip
        began, before = time.perf_counter(), _children_seconds()
        ended = subprocess.run(
            [sys.executable, "-m", "hangtag", *command], env=environment, cwd=self.folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if ended.returncode:
            raise SystemExit(f"{self.name}: hangtag {' '.join(command)} failed: {ended.stderr[-2000:]}")
        return time.perf_counter() - began, _children_seconds() - before

    def train(self, recipe: str, run: str, cache: str = "cache") -> tuple[tuple[float, float], float]:
        """Train into this folder, anew; the seconds of the command, and those of its training alone."""
        shutil.rmtree(self.folder / run, ignore_errors=True)
        seconds = self.run("train", "fashion-mnist", "--recipe", recipe, "--out", run, cache=cache)
        config, metrics = (
            json.loads((self.folder / run / f"{name}.json").read_text()) for name in ("config", "metrics")
        )
        self.accuracy[recipe] = metrics["accuracy"]
        return seconds, config["seconds"]["train"]

    def keep(self, what: str, seconds: tuple[float, float]) -> None:
        self.seconds.setdefault(what, []).append(seconds)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="a working copy of hangtag to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-rounds", type=int, default=5, help="rounds that begin with an empty cache")
    parser.add_argument("--recipe", default="fast", help="of the training whose own time is left out")
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
            measure(codes, settings.rounds, settings.first_rounds, settings.recipe)
            busy = others.share()
    publish(compare(codes, busy, settings.recipe), settings.json)


def measure(codes: list[Code], rounds: int, first_rounds: int, recipe: str) -> None:
    """All commands in turns; a first round, which fills the cache and Python's bytecode, is not counted."""
    for number, code in _turns(codes, rounds + 1):
        quick, _ = code.train("quick", "quick")
        for what, seconds in (
            (QUICK, quick), (EVALUATE, code.run("evaluate", "quick")), (REPORT, code.run("report", "quick")),
        ):  # fmt: skip
            if number:
                code.keep(what, seconds)
    for number, code in _turns(codes, first_rounds):
        cache = f"empty-{number}"
        code.keep(FIRST, code.train("quick", "first", cache)[0])
        shutil.rmtree(code.folder / cache)
        (wall, processors), training = code.train(recipe, "around", cache)
        code.keep(AROUND, (wall - training, processors))
        shutil.rmtree(code.folder / cache)


def compare(codes: list[Code], busy: float, recipe: str) -> Result:
    """Medians and spread of each command; the share of the old code's time that the new one takes."""
    columns = (
        "command",
        "code",
        "seconds (median)",
        "least",
        "most",
        "processor seconds",
        "n",
        "of old",
        "at least",
        "aim",
    )
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
            middle = f"{processors['median']:.2f}" if what != AROUND else "-"  # of the whole command
            rows.append((what, code.name, *spread, middle, str(walls["n"]), share, *wanted))
    says = [f"Others used {busy:.0%} of the machine meanwhile."]
    if recipe != "fast":
        says.append(f"The training whose time was left out was that of recipe '{recipe}'.")
    numbers |= {"busy": busy, "recipe": recipe, "accuracy": {code.name: code.accuracy for code in codes}}
    return Result("around_training", "What takes time around a training", columns, rows, says, numbers)


def _turns(codes: list[Code], rounds: int) -> Iterator[tuple[int, Code]]:
    """Each code once per round, in alternating order."""
    for number in range(rounds):
        yield from ((number, code) for code in (codes if number % 2 else codes[::-1]))


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

"""`hangtag train fashion-mnist` from start to exit: on data never read before, and on the same data again.

    python -m benchmarks.first_run [--recipes quick fast] [--rounds 5] [--epochs N] [--first-only]
        [--before CHECKOUT] [--json FILE]

Each round trains twice with each recipe: first with an empty cache folder, so that the images are read, compared with
each other and kept, and the C code of the training is compiled; then with what the first training left there. The
same seed each time: only time is measured. With few epochs a round is short, and the time around the training is the
same. CHECKOUT is another version's folder, measured in the same rounds.
Matplotlib's list of fonts, which it makes once on a machine, is there already. One unmeasured training of `quick`
warms the disk's cache and Python's bytecode.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Others, Result, alone, options, ordinary_environment, publish, summary

SOURCE = Path(__file__).resolve().parent.parent
WAYS = ("first", "again")


@dataclass(frozen=True)
class Took:
    """Seconds from start to exit; those of them spent training; processor seconds; share of the machine others used."""

    seconds: float
    training: float
    processor: float
    others: float


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipes", nargs="+", default=["quick", "fast"], metavar="RECIPE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="of every training (default: the recipe's own)")
    parser.add_argument("--first-only", action="store_true", help="do not train again on the same data")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="also measure the version in this folder")
    settings = parser.parse_args()
    more = [] if settings.epochs is None else ["--set", f"epochs={settings.epochs}"]
    ways = WAYS[:1] if settings.first_only else WAYS
    versions = {"now": SOURCE, **({"before": settings.before.resolve()} if settings.before else {})}
    found: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        for folder in versions.values():
            train(folder, "quick", Path(name), Path(name) / "warm", [])
        for number in range(settings.rounds):
            for what, took in one_round(versions, settings.recipes, ways, more, Path(name)):
                found.setdefault(what, []).append(took)
                print(f"round {number}: {what}: {took}", flush=True)
            publish(describe(found), settings.json)


def one_round(
    versions: dict[str, Path], recipes: list[str], ways: tuple[str, ...], more: list[str], folder: Path
) -> Iterator[tuple[str, Took]]:
    """Each recipe with each version, on data never read before and, if `ways` says so, again."""
    for recipe in recipes:
        for version, source in versions.items():
            with alone(), tempfile.TemporaryDirectory(dir=folder) as empty:
                for way in ways:
                    yield f"{recipe}, {version}, {way}", train(source, recipe, folder, Path(empty), more)


def train(source: Path, recipe: str, folder: Path, cache: Path, more: list[str]) -> Took:
    """One training in a process of its own, which ends with the report.

    Args:
        source: the folder of the version.
        folder: where runs and Matplotlib's fonts go.
        cache: the folder of the cache.
        more: options of the command.
    """
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    environment = ordinary_environment() | {
        "PYTHONPATH": str(source / "src"), "XDG_CACHE_HOME": str(cache), "MPLCONFIGDIR": str(folder / "matplotlib"),
    }  # fmt: skip
    command = [sys.executable, "-m", "hangtag", "train", "fashion-mnist", "--recipe", recipe, "--device", "cpu", *more]
    others, began, before = Others(), time.perf_counter(), os.times()
    subprocess.run([*command, "--out", str(run)], check=True, capture_output=True, env=environment, cwd=folder)
    seconds, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return Took(seconds, config["seconds"]["train"], used, others.share())


def describe(found: dict[str, list[Took]]) -> Result:
    columns = ("recipe, version, which time", "seconds (median)", "sd", "training", "around it", "processor", "n")
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, Any] = {}
    for what, each in found.items():
        around = [one.seconds - one.training for one in each]
        numbers[what] = {
            "seconds": summary([one.seconds for one in each]), "training": summary([one.training for one in each]),
            "around": summary(around), "processor": summary([one.processor for one in each]),
            "others": summary([one.others for one in each]),
        }  # fmt: skip
        medians = {name: f"{numbers[what][name]['median']:.1f}" for name in ("training", "around", "processor")}
        seconds = numbers[what]["seconds"]
        sd = "-" if seconds["sd"] is None else f"{seconds['sd']:.1f}"
        rows.append((what, f"{seconds['median']:.1f}", sd, *medians.values(), str(seconds["n"])))
    says = []
    for name in dict.fromkeys(what.rpartition(", ")[0] for what in found):
        if f"{name}, {WAYS[1]}" not in found:
            continue
        both = (found[f"{name}, {way}"] for way in WAYS)
        added = numbers[f"{name}, added"] = summary(
            [first.seconds - again.seconds for first, again in zip(*both, strict=True)]
        )
        says.append(f"{name}: the first time adds {added['median']:.1f} s (median).")
    says.append("Wanted on two cores: the first time adds 10 s at most, better 5 s.")
    return Result("first_run", "Training on data never read before, and again", columns, rows, says, numbers)


if __name__ == "__main__":
    main()

"""Read random layouts of data sets, whose pictures, labels and parts are known, and count what hangtag reads wrong.

    make soak
    python scripts/soak_layouts.py --layouts 20000 --seed 1
    python scripts/soak_layouts.py --only 1/4711 --keep FOLDER     (one layout again; its files stay in FOLDER)

`tests/layouts.py` makes the layouts. Each is right, refused (an error that says what to do), noted (two readings are
possible, and a note says which one was taken), or a failure: another reading in silence, something left out without a
note, or an exception that is not hangtag's. For each kind of failure the smallest layout is shown, after every choice
that does not matter for it was made plain. Ends with 1 if anything failed.
"""

import argparse
import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import hangtag
from hangtag.errors import HangtagError
from known_layouts import FAMILIES, family_of
from layouts import SILENT, Draw, Outcome, checked, kept_workers

CLEARED_EVERY = 20  # layouts; a large cache would slow the reading of small layouts
PLACES = itertools.count()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layouts", type=int, default=2000, help="how many")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--family", choices=FAMILIES, help="only layouts of this family")
    parser.add_argument("--only", metavar="SEED", help="a single layout, by the seed that was printed")
    parser.add_argument("--plain", nargs="*", default=[], help="choices to make plain, with --only")
    parser.add_argument("--keep", type=Path, help="folder for the files of a single layout")
    parser.add_argument("--refusals", type=int, default=12, help="how many kinds of refusals to show")
    settings = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="hangtag-layouts-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        tempfile.tempdir = str(folder)
        with kept_workers() as workers:
            if settings.only:
                failed = single(settings.only, settings.plain, settings.keep or folder, settings.family)
            else:
                failed = campaign(settings, folder, workers)
    sys.exit(failed)


def single(seed: str, plain: list[str], folder: Path, family: str | None) -> int:
    outcome, draw = attempt(seed, folder, plain, family)
    print(f"{seed} ({family or family_of(seed)}): {draw.made}\n{outcome.kind}: {outcome.detail}")
    return int(outcome.kind in SILENT)


def campaign(settings: argparse.Namespace, folder: Path, workers: list[Any]) -> int:
    kinds: Counter[str] = Counter()
    by_family: Counter[tuple[str, str]] = Counter()
    shown: dict[str, Counter[str]] = {name: Counter() for name in ("plain layouts refused", "refused", "noted")}
    first: dict[tuple[str, str], str] = {}
    failures: dict[tuple[str, str], tuple[int, str, Outcome, Draw]] = {}
    began = time.perf_counter()
    for number in range(settings.layouts):
        seed = f"{settings.seed}/{number}"
        family = settings.family or family_of(seed)
        outcome, draw = attempt(seed, folder, (), family)
        kinds[outcome.kind] += 1
        by_family[family, outcome.kind] += 1
        text = pattern(outcome.detail)
        if outcome.kind in ("refused", "noted"):
            title = "plain layouts refused" if outcome.kind == "refused" and not outcome.doubtful else outcome.kind
            shown[title][text] += 1
            first.setdefault((title, text), f"{seed} ({family}): {outcome.detail[:300]}")
        elif outcome.kind in SILENT:
            print(f"{outcome.kind}: {seed} ({family})", flush=True)
            key = (family, outcome.kind + text[:60])
            if key not in failures or len(draw.made) < failures[key][0]:
                failures[key] = (len(draw.made), seed, outcome, draw)
        if number % CLEARED_EVERY == 0:
            while workers:
                workers.pop().end()
            shutil.rmtree(folder / "cache", ignore_errors=True)
        if (number + 1) % 500 == 0:
            print(f"{number + 1:,}: {dict(kinds)}, {time.perf_counter() - began:.0f} s", flush=True)
    for family in FAMILIES:
        counts = {kind: count for (of, kind), count in by_family.items() if of == family}
        if counts:
            print(f"{family:16} {counts}")
    plain = shown["plain layouts refused"].total()
    print(f"refused: {kinds['refused']:,}; of these although only one reading is possible: {plain:,}")
    for title, some in shown.items():
        print(f"\n{title}:")
        for text, count in some.most_common(settings.refusals):
            print(f"  {count:5} {first[title, text]}")
    for (family, _), (_, seed, _, draw) in failures.items():
        smaller, outcome = shrunk(seed, family, draw, folder)
        print(f"\n{outcome.kind} ({family}): --only {seed} --family {family!r} --plain {' '.join(map(repr, smaller))}")
        print(f"  choices: {attempt(seed, folder / 'layout', smaller, family)[1].made}\n  {outcome.detail[:600]}")
    failed = sum(kinds[kind] for kind in SILENT)
    print(f"\n{settings.layouts:,} layouts in {time.perf_counter() - began:.0f} s: {dict(kinds)}; failed: {failed}")
    return int(failed > 0)


def attempt(seed: str, folder: Path, plain: "list[str] | tuple[str, ...]", family: str | None) -> tuple[Outcome, Draw]:
    draw = Draw(seed, plain)
    make, _ = FAMILIES[family or family_of(seed)]
    place = folder / str(next(PLACES))  # never the same path twice: decoding processes keep archives open
    place.mkdir(parents=True)
    try:
        return checked(hangtag.read, HangtagError, make(draw, place)), draw
    finally:
        if "--keep" not in sys.argv:
            shutil.rmtree(place)


def shrunk(seed: str, family: str, draw: Draw, folder: Path) -> tuple[list[str], Outcome]:
    """The choices that can be plain while the layout fails in the same way, and how it then fails."""
    outcome, _ = attempt(seed, folder, (), family)
    plain: list[str] = []
    for name in list(draw.made):
        again, _ = attempt(seed, folder, [*plain, name], family)
        if again.kind == outcome.kind and pattern(again.detail)[:40] == pattern(outcome.detail)[:40]:
            plain, outcome = [*plain, name], again
    return plain, outcome


def pattern(text: str) -> str:
    """A message without names and numbers, for counting."""
    return re.sub(r"/\S+|\d+|'[^']*'|\"[^\"]*\"|[^\x20-\x7e]+", "*", text)[:90]


if __name__ == "__main__":
    main()

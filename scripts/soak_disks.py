"""Read and train on disks of random sizes, with kills and damage; with room again, the result must be the truth.

    make soak                 (after `soak.py`: 200 rounds)
    python scripts/soak_disks.py --rounds 1000 --seed 1

Each round has a small disk of its own (a tmpfs; without root, or on other systems than Linux, a limit on the size of a
file). It holds the cache, the folder for temporary files and the run. Some attempts follow, each on a disk of another
size: the command is killed or interrupted at a random moment, its decoding processes are killed or stopped, a file of
the cache is cut or gets a wrong bit. An attempt may fail with one line and may leave no temporary file, unless it was
killed. If it ends well, its result must be right, but for images that it says were set aside because their decoding
process ended. At last the disk has room, and the same command must give the same images, bits, labels, names and notes,
or the same run folder, as it did undisturbed.

Commands run in forked processes, so that importing costs nothing. They read pictures of a few pixels in several forms,
two of them damaged for real, and some rounds train a small network, with a checkpoint as often as possible.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hangtag.cli.main import main as hangtag
from hangtag.data.picture_facts import PASSING
from hangtag.data.store import process
from soak import contents, differences  # type: ignore[import-not-found]

FORMS = ("folder", "set.zip", "set.tar.gz", "set.parquet")
IMAGES, SIDE = 48, 24  # per class and part
ATTEMPTS = {"data": 3, "train": 2}  # at most, before the one with room
ROOM = 256 << 20  # bytes
SIZES = {"data": 800_000, "train": 6_000_000}  # bytes of disk that suffice for a command
TIGHT = 0.5  # share of attempts whose disk is about as large as what the command leaves there
HANGS = 3.0  # seconds after which a decoding process counts as hung
PATIENCE = 300.0  # seconds for one attempt; more is a failure
EVERY = 16  # rounds of which one trains


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    prepare()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # or the disks would stay mounted
    began, happened = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="hangtag-soak-") as name:
        sources = make_sources(Path(name) / "sources")
        truths = {}
        for command, source in [("data", each) for each in sources] + [("train", sources[0])]:
            with disk(Path(name) / "disk") as place:
                ended = attempt(place, command, source, None, happened)
                used = sum(path.stat().st_blocks * 512 for path in place.rglob("*"))
                truths[command, source] = result(place, command, ended), used
        for number in range(settings.rounds):
            seed = settings.seed * 1_000_000 + number
            chance = random.Random(seed)
            command = "train" if number % EVERY == 0 else "data"
            source = sources[0] if command == "train" else chance.choice(sources)
            with disk(Path(name) / "disk") as place:
                if wrong := play(place, command, source, *truths[command, source], chance, happened):
                    sys.exit(f"round {number} (seed {seed}), {command} {source.name}: {wrong}")
            passed = time.monotonic() - began
            print(f"{number + 1} of {settings.rounds} right after {passed:.0f} s; {dict(happened)}", flush=True)


class Ended(NamedTuple):
    """How a command ended."""

    code: int  # negative for a signal
    stdout: str
    stderr: str
    disturbed: bool  # whether one of its decoding processes was killed or stopped


def prepare() -> None:
    """Import everything once, and make checkpoints frequent and hangs short; forked processes inherit it."""
    import torch

    import hangtag.reports.report
    import hangtag.training.run
    from hangtag.training.engine import batches, checkpoints

    del hangtag
    torch.set_num_threads(1)
    batches._CHUNK_PIXELS = 100_000
    checkpoints._FIRST_SECONDS, checkpoints._COST = 0.0, 1e9
    process._SECONDS, process._START_SECONDS = HANGS, 3 * HANGS
    os.environ |= {"HANGTAG_NATIVE": "off", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def make_sources(folder: Path) -> list[Path]:
    """The same pictures as a folder, a zip file, a packed tar file and a table with row groups."""
    import pyarrow
    import pyarrow.parquet

    chance = np.random.default_rng(0)
    root = folder / FORMS[0]
    for number in range(4 * IMAGES):
        part, label = ("train", "test")[number % 2], "ab"[number // 2 % 2]
        path = root / part / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 200, (SIDE, SIDE + number % 3, 3), dtype=np.uint8)
        pixels[:, :8] += 50 * (label == "b")
        Image.fromarray(pixels).save(path)
    for path in (root / "train" / "a" / "0.png", root / "test" / "b" / "3.png"):
        path.write_bytes(path.read_bytes()[:300])
    paths = sorted(root.rglob("*.png"))
    with zipfile.ZipFile(folder / FORMS[1], "w") as zipped, tarfile.open(folder / FORMS[2], "w:gz") as tar:
        for path in paths:
            zipped.write(path, path.relative_to(root))
            tar.add(path, str(path.relative_to(root)))
    columns = {
        "image": [path.read_bytes() for path in paths],
        "label": [path.parent.name for path in paths],
        "split": [path.parent.parent.name for path in paths],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / FORMS[3], row_group_size=50)
    return [folder / form for form in FORMS]


@contextlib.contextmanager
def disk(place: Path) -> Any:
    """An empty disk with room, in memory where that is possible."""
    place.mkdir()
    mounted = not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "hangtag-soak", str(place)], stderr=subprocess.DEVNULL
    )
    try:
        yield place
    finally:
        if mounted:
            subprocess.check_call(["umount", "--lazy", str(place)])
        shutil.rmtree(place)


def play(
    place: Path, command: str, source: Path, truth: Any, used: int, chance: random.Random, happened: "Counter[str]"
) -> str | None:
    """Some attempts on small disks and one with room; returns what is wrong, or None."""
    for _ in range(chance.randint(1, ATTEMPTS[command])):
        tight = chance.random() < TIGHT
        limit = int(chance.uniform(0.9, 1.2) * used if tight else chance.uniform(0.02, 1.2) * SIZES[command])
        ended = attempt(place, command, source, (limit, chance), happened)
        if why := unclean(place, ended):
            return f"{why}: {ended}"
        if ended.code == 0 and (found := result(place, command, ended)) != truth and not excused(found, ended):
            return f"ended well with a wrong result: {found}"
        damage(place / "cache", chance, happened)
    ended = attempt(place, command, source, None, happened)
    if ended.code:
        return f"fails with room: {ended}"
    found = result(place, command, ended)
    return None if found == truth else f"wrong with room: {found}\\nright: {truth}"


def attempt(
    place: Path, command: str, source: Path, disturb: "tuple[int, random.Random] | None", happened: "Counter[str]"
) -> Ended:
    """Run a command; `disturb` is the size of the disk, and the source of chance."""
    resize(place, disturb[0] if disturb else None)
    logs = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]  # noqa: SIM115
    process = os.fork()
    if process == 0:
        child(place, command, source, [log.fileno() for log in logs], disturb[0] if disturb else None)
    began, code, disturbed = time.monotonic(), None, False
    plan = schedule(command, disturb[1]) if disturb else []
    stopped: list[int] = []
    while code is None:
        time.sleep(0.005)
        now = time.monotonic() - began
        while plan and plan[0][0] <= now:
            _, action = plan.pop(0)
            disturbed |= act(action, process, stopped)
            happened[action] += 1
        if now > PATIENCE:
            os.kill(process, signal.SIGKILL)
        ended, status = os.waitpid(process, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
    for decoder in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(decoder, signal.SIGCONT)
    texts = []
    for log in logs:
        log.seek(0)
        texts.append(log.read().decode())
        log.close()
    happened["ended well" if code == 0 else "full disk" if "full" in texts[1] else f"exit {code}"] += bool(disturb)
    return Ended(code, texts[0], texts[1], disturbed)


def schedule(command: str, chance: random.Random) -> list[tuple[float, str]]:
    """What is done to the command, and when."""
    longest = 1.5 if command == "data" else 6.0
    plan = [
        (chance.uniform(0, longest), chance.choice(("kill decoder", "stop decoder", "continue")))
        for _ in range(chance.randint(0, 4))
    ]
    if chance.random() < 0.5:
        name = chance.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"))
        plan.append((chance.uniform(0, longest), name))
    return sorted(plan)


def act(action: str, process: int, stopped: list[int]) -> bool:
    """Returns whether a decoding process was disturbed."""
    with contextlib.suppress(ProcessLookupError):
        if action.startswith("SIG"):
            os.kill(process, getattr(signal, action))
        elif action == "continue":
            while stopped:
                os.kill(stopped.pop(), signal.SIGCONT)
        elif decoders := children(process):
            decoder = random.choice(decoders)
            os.kill(decoder, signal.SIGKILL if action == "kill decoder" else signal.SIGSTOP)
            stopped += [decoder] if action == "stop decoder" else []
            return True
    return False


def children(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(path.parent.name))
    return found


def resize(place: Path, size: int | None) -> None:
    subprocess.call(
        ["mount", "-o", f"remount,size={size or ROOM}", str(place)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def child(place: Path, command: str, source: Path, logs: list[int], limit: int | None) -> None:
    """The command, in this forked process."""
    code: Any = 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for folder in (place / "tmp", place / "work"):
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
        os.chdir(place / "work" if (place / "work").is_dir() else place)
        os.environ |= {"XDG_CACHE_HOME": str(place / "cache"), "TMPDIR": str(place / "tmp")}
        tempfile.tempdir = str(place / "tmp")
        for number, log in enumerate(logs, 1):
            os.dup2(log, number)
        sys.stdout, sys.stderr = (io.TextIOWrapper(open(number, "wb", 0, closefd=False)) for number in (1, 2))  # noqa: SIM115
        if limit is not None and not os.path.ismount(place):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit // 2, resource.RLIM_INFINITY))
        sys.argv = ["hangtag", "data", str(source), "--json"]
        if command == "train":
            options = ["--recipe", "quick", "--set", "epochs=3", "--set", "min_steps=0", "--out", "run", "--json"]
            sys.argv = ["hangtag", "train", str(source), *options]
            if (Path("run") / "config.json").is_file():
                status = json.loads((Path("run") / "config.json").read_text())["status"]
                sys.argv = ["hangtag", "train", "--resume", "run", "--json"]
                if status == "finished":
                    sys.argv = ["hangtag", "report", "run"]
        hangtag()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def unclean(place: Path, ended: Ended) -> str | None:
    """What is wrong with the way a command ended, or None."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("hangtag:")]
    if "Traceback" in ended.stderr or "Warning" in ended.stderr:
        return "a traceback or warning"
    if ended.code in (1, 2) and len(lines) != 1:
        return f"{len(lines)} messages"
    if ended.code < 0 and ended.code not in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
        return "it crashed"
    leftovers = [path.name for path in (place / "tmp").glob("hangtag-*")] if ended.code >= 0 else []
    if leftovers:
        return f"temporary files stay: {leftovers}"
    shutil.rmtree(place / "tmp", ignore_errors=True)
    return None


def result(place: Path, command: str, ended: Ended) -> Any:
    """What must be equal to the truth."""
    if command == "data":
        return json.loads(ended.stdout)
    run = place / "work" / "run"
    found = contents(run)
    extra = {name: found.pop(name, "missing") for name in ("report.html", "figures", "skipped.csv")}
    figures = {path.name: path.read_bytes() for path in sorted((run / "figures").glob("*"))}
    whole = (run / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    wrong = differences(found, found)
    return {"files": found, "wrong": wrong, "figures": [*figures], "report": whole, "extra": [*extra]}


def excused(found: Any, ended: Ended) -> bool:
    """Whether images were set aside, and said to be, because their decoding processes were disturbed."""
    skipped = found.get("skipped", []) if isinstance(found, dict) else []
    return ended.disturbed and any(each["kind"] in PASSING for each in skipped)


def damage(cache: Path, chance: random.Random, happened: "Counter[str]") -> None:
    """Sometimes cut a file of the cache, or turn one of its bits."""
    files = sorted(path for path in cache.rglob("*") if path.is_file() and path.stat().st_size)
    if not files or chance.random() < 0.5:
        return
    path = chance.choice(files)
    harm: Callable[[bytearray], bytes] = chance.choice((turned, cut, lambda content: b""))
    content = harm(bytearray(path.read_bytes()))
    with contextlib.suppress(OSError):  # a full disk
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
        happened["damaged file"] += 1


def turned(content: bytearray) -> bytes:
    place = random.randrange(len(content))
    content[place] ^= 1 << random.randrange(8)
    return bytes(content)


def cut(content: bytearray) -> bytes:
    return bytes(content[: random.randrange(len(content))])


if __name__ == "__main__":
    main()

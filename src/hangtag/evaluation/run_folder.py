"""A run folder: what is in it, and how it is made, found and described.

    model.onnx            ship this
    weights.safetensors   go on training from this
    report.html           read this
    metrics.json          the evaluation
    history.jsonl         one line per epoch
    figures/*.png         pictures
    neighbours.npz        some training pictures, small, to explain answers with
    stress.json           how it breaks, once `hangtag stress` was asked
    skipped.csv           what was set aside while reading, if anything was
    checkpoints/          where an unfinished training goes on
    config.json           recipe, seed, data fingerprint, versions, machine, how it ended

Each file is whole or not there (`files.py`). It does not train, evaluate or draw.
"""

import glob
import json
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hangtag.errors import RunError, SaveError
from hangtag.files import append_line, is_partial, new_folder, user_path, write_bytes, write_json, write_text
from hangtag.model.artifact import MODEL_FILE

__all__ = [
    "SKIPPED",
    "STOPPED",
    "TRAINING",
    "Lock",
    "Run",
    "find_run",
    "new_run",
    "newest_unfinished",
    "unfinished",
]

RUNS = Path("runs")
SKIPPED = "skipped.csv"
"""What was set aside while reading the data."""
TRAINING = "training"
"""The status of a run from its beginning to its end."""
STOPPED = "stopped early"
"""The status of a run that was asked to end before its last step."""


@dataclass(frozen=True)
class Run:
    """The folder of one training."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def config(self) -> dict[str, Any]:
        return self._read_table("config.json")

    def metrics(self) -> dict[str, Any]:
        return self._read_table("metrics.json")

    def history(self) -> list[dict[str, Any]]:
        """One table per finished epoch; a last line without its end was never finished and is skipped."""
        whole_lines = self._text("history.jsonl").split("\n")[:-1]
        try:
            return [json.loads(line) for line in whole_lines]
        except ValueError as error:
            raise RunError(f"{self.path / 'history.jsonl'}: damaged: {error}", "train again") from None

    def stress(self) -> dict[str, Any] | None:
        """What `hangtag stress` found; None where it was not asked."""
        return self._read_table("stress.json") if (self.path / "stress.json").is_file() else None

    def write_stress(self, found: dict[str, Any]) -> None:
        write_json(self.path / "stress.json", found)

    def write_config(self, config: dict[str, Any]) -> None:
        write_json(self.path / "config.json", config)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.path / "metrics.json", metrics)

    def write_model(self, content: bytes) -> None:
        write_bytes(self.model, content)

    def write_weights(self, content: bytes) -> None:
        write_bytes(self.weights, content)

    def discard(self) -> None:
        """Take the folder away again where nothing was trained: it holds no more than what a run begins with."""
        begun = [self.path / name for name in ("config.json", SKIPPED)]
        try:
            if set(self.path.iterdir()) <= set(begun):
                for file in begun:
                    file.unlink(missing_ok=True)
                self.path.rmdir()
        except OSError:  # an empty folder more is no loss
            pass

    def lock(self) -> "Lock | None":
        """For the one process that trains here; None while another one has it."""
        try:
            import fcntl
        except ModuleNotFoundError:  # not on Windows: there nobody is kept out
            return Lock(-1)
        lock = Lock(os.open(self.path, os.O_RDONLY))  # of the folder itself
        try:
            fcntl.flock(lock.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
        return lock

    def is_locked(self) -> bool:
        """Whether another process trains here at this moment."""
        lock = self.lock()
        if lock is not None:
            lock.close()
        return lock is None

    def write_history(self, epochs: list[dict[str, Any]]) -> None:
        """Replace what `add_epoch` wrote."""
        lines = (json.dumps(epoch, ensure_ascii=False, allow_nan=False) + "\n" for epoch in epochs)
        write_text(self.path / "history.jsonl", "".join(lines))

    def add_epoch(self, epoch: dict[str, Any]) -> None:
        append_line(self.path / "history.jsonl", epoch)

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunError(f"{self.path}: there is no {name} in this folder", "it is incomplete: train again") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{self.path / name}: cannot be read: {error}", "check the file") from error

    def _read_table(self, name: str) -> dict[str, Any]:
        try:
            table = json.loads(self._text(name))
        except ValueError as error:
            raise RunError(f"{self.path / name}: damaged: {error}", "train again") from None
        if not isinstance(table, dict):
            raise RunError(f"{self.path / name}: damaged: not a table", "train again")
        return table


class Lock:
    """Held until closed, or until nobody refers to it, or until the process ends in whatever way."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __del__(self) -> None:
        self.close()


def new_run(wanted: Path | None, default_name: str) -> Run:
    """A new folder: `wanted`, which must be empty or not exist, or the first free of runs/NAME, runs/NAME-2, ...

    Raises:
        RunError: `wanted` holds something.
        SaveError: it cannot be made.
    """
    if wanted is None:
        names = (default_name if number == 1 else f"{default_name}-{number}" for number in range(1, 1_000_000))
        return Run(next(RUNS / name for name in names if _made(RUNS / name)))
    if not _made(wanted) and not _is_empty(wanted):
        hint = "choose another name; earlier runs are never overwritten"
        with suppress(RunError):
            if Run(wanted).config().get("status") == STOPPED:
                hint = f"go on with it: hangtag train --resume {shlex.quote(str(wanted))}; or {hint}"
        raise RunError(f"{wanted}: already exists", hint)
    return Run(wanted)


def _made(folder: Path) -> bool:
    """Whether this call made the folder; another process may take the name at any moment."""
    if os.path.lexists(folder):
        return False
    try:
        new_folder(folder)
    except SaveError:
        if os.path.lexists(folder):
            return False
        raise
    return True


def _is_empty(folder: Path) -> bool:
    """Whether it is a folder that holds nothing but what a process left there that was killed before it said more."""
    try:
        return all(is_partial(path) or path.name == SKIPPED for path in folder.iterdir())
    except OSError:
        return False


def unfinished(wanted: Path | None, default_name: str) -> list[Run]:
    """Runs whose training began and neither ended nor was stopped: `wanted`, or those `new_run` gave this name."""
    paths = [wanted] if wanted else [RUNS / default_name, *sorted(RUNS.glob(f"{glob.escape(default_name)}-*"))]
    found = []
    for path in paths:
        try:
            if Run(path).config().get("status") == TRAINING:
                found.append(Run(path))
        except RunError:
            continue
    return found


def newest_unfinished() -> Run:
    """The newest run under runs/ that was killed or stopped and that nobody is working on.

    Raises:
        RunError: there is none.
    """
    found = []
    for path in RUNS.glob("*/"):
        run = Run(path)
        try:
            config = run.config()
        except RunError:
            continue
        if config.get("status") in (TRAINING, STOPPED) and "seeds" not in config and not run.is_locked():
            found.append((str(config.get("created", "")), run.path))
    if not found:
        raise RunError("there is no unfinished run here", "name the run: hangtag train --resume RUN")
    return Run(max(found)[1])


def find_run(name: str | Path) -> Run:
    """The run at this path, or of this name under runs/; `last` is the newest finished one."""
    given = user_path(name)
    if str(name) == "last" and not given.exists():
        return _newest()
    try:
        for path in (given, RUNS / given):
            if path.is_dir():
                return Run(path)
        is_file = given.is_file()
    except OSError as error:
        raise RunError(f"{given}: cannot be read: {error.strerror}", "check the path") from error
    if is_file:
        raise RunError(f"{given}: is a file, not a run folder", "name the folder that `hangtag train` made")
    known = ", ".join(sorted(path.name for path in RUNS.glob("*/") if not path.name.startswith("."))) or "none yet"
    raise RunError(f"{name}: no such run", f"runs here: {known}")


def _newest() -> Run:
    finished = sorted(RUNS.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise RunError("there is no finished run here", "make one: hangtag train fashion-mnist")
    return Run(finished[-1].parent)

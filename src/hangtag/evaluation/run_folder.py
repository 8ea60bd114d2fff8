"""Run folders: their files, and how they are created, found and locked.

    model.onnx            the model to ship
    weights.safetensors   the weights, to continue training
    report.html           the report
    metrics.json          the evaluation
    history.jsonl         one line per epoch
    figures/*.png         figures, and .drawn, by which `hangtag report` sees that they need not be drawn again
    neighbours.npz        small copies of some training images, to explain answers
    reference.npz         answers to the images that the model was judged on, for `hangtag drift`
    tuning.json           trials of `hangtag tune`, and trials.csv the same as a table, if it found the settings
    stress.json           results of `hangtag stress`, if it was run
    skipped.csv           files that were skipped while reading, if any
    checkpoints/          the state of an unfinished training
    .hangtag              marks the folder, so that its figures are never read as data
    config.json           recipe, seed, data fingerprint, versions, machine, status

Each file is either complete or absent (`files.py`). A folder may come from a stranger: its files are read through
schemas, with limits on size and depth, and links that lead out of the folder are not followed.
"""

import glob
import json
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Required, TypedDict
from urllib.parse import quote

import msgspec

from hangtag.errors import RunError, RunNotFound, SaveError
from hangtag.files import (
    MARKER,
    append_line,
    inside,
    is_partial,
    mark_own,
    new_folder,
    user_path,
    write_bytes,
    write_json,
    write_text,
)
from hangtag.model.artifact import MODEL_FILE
from hangtag.serializable import Serializable, checked, parse_json, read_json, read_text
from hangtag.version import __version__
from hangtag.words import amount

if TYPE_CHECKING:
    from hangtag.evaluation.tuning_results import Trials

__all__ = [
    "REFERENCE", "SKIPPED", "STOPPED", "TRAINING", "Lock", "Run", "check_new", "find_run", "new_run",
    "newest_unfinished", "unfinished",
]  # fmt: skip

RUNS = Path("runs")
REFERENCE = "reference.npz"
"""The answers to the images that the model was judged on; see `drift.py`."""
SKIPPED = "skipped.csv"
"""The list of files that were skipped while reading the data."""
TRAINING = "training"
"""Status of a run whose training has not ended."""
STOPPED = "stopped early"
"""Status of a run that was stopped before its last step."""


@dataclass(frozen=True)
class Run:
    """The folder of one training. It can be given wherever a path can be.

    Attributes:
        path: of the folder.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", user_path(self.path))  # a program may give a `str`

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    def _repr_html_(self) -> str:
        from hangtag.html import curve, render

        config, history = dict[str, Any](), list[dict[str, Any]]()
        with suppress(RunError):
            config, history = self.config(), self.history()
        result = ""
        with suppress(RunError, KeyError, TypeError, ValueError):
            metrics = self.metrics()
            share, (low, high) = metrics["accuracy"], metrics["accuracy_interval"]
            result = (
                f"{metrics['part']} accuracy {share:.4f} [{low:.4f}, {high:.4f}], {amount(metrics['images'], 'image')}"
            )
        recipe, data = (config.get(key, {}).get("name") for key in ("recipe", "data"))
        facts = [data, recipe and f"recipe {recipe}", config.get("status")]
        files = [("report", self.report), ("model.onnx", self.model), ("folder", self.path)]
        finished = [epoch for epoch in history if epoch.get("finished", True)]
        charts = [curve(finished, "loss", "Loss", 1, ""), curve(finished, "accuracy", "Accuracy", 100, "%")]
        values = {
            "name": self.path.name,
            "facts": [each for each in facts if each],
            "result": result,
            "links": [(title, _address(path)) for title, path in files if path.exists()],
            "charts": [each for each in charts if each],
        }
        return render("notebook_run.html", values)

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

    def config(self, *required: str) -> dict[str, Any]:
        """The content of config.json, in which the keys of `_Config` have the right types.

        Raises:
            RunError: the file is missing or damaged, or lacks a required key.
        """
        config, where = read_json(self.path, "config.json"), str(self.path / "config.json")
        checked(lambda: msgspec.convert(config, _Config), where, RunError, Serializable.HINT)
        if missing := [key for key in required if key not in config]:
            raise RunError(f"{where} is incomplete: it has no `{missing[0]}`", Serializable.HINT)
        return config

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; raises RunError if the file is missing or damaged."""
        metrics, where = read_json(self.path, "metrics.json"), str(self.path / "metrics.json")
        checked(lambda: msgspec.convert(metrics, _Metrics), where, RunError, Serializable.HINT)
        return metrics

    def history(self) -> list[dict[str, Any]]:
        """One object per finished epoch; an incomplete last line is skipped. Raises RunError if the file is damaged."""
        where = self.path / "history.jsonl"
        whole_lines = read_text(self.path, where.name).split(b"\n")[:-1]
        epochs = [parse_json(line, f"{where}, line {number}") for number, line in enumerate(whole_lines, 1)]
        checked(lambda: msgspec.convert(epochs, list[_Epoch]), str(where), RunError, Serializable.HINT)
        return epochs

    def stress(self) -> dict[str, Any] | None:
        """Results of `hangtag stress`; None if it was not run."""
        return read_json(self.path, "stress.json") if (self.path / "stress.json").is_file() else None

    def trials(self) -> "Trials | None":
        """The trials of `hangtag tune`; None for a run without a search. Raises RunError if the file is damaged."""
        from hangtag.evaluation.tuning_results import read_trials

        return read_trials(self.path)

    def check_resumable(self, network: str | None = None) -> None:
        """Raise RunError unless this is an interrupted or stopped run that `--resume` can continue.

        Args:
            network: the custom network `module:function` that may be imported; a run folder alone imports nothing.
        """
        config = self.config("recipe", "seed", "data")
        if "seeds" in config:
            raise RunError(
                f"{self.path}: this run has several seeds", "to resume it, repeat the command that started it"
            )
        if is_searching(config):
            raise RunError(
                f"{self.path}: the search for its settings is not finished", "to continue it, repeat the command"
            )
        if config.get("status") not in (TRAINING, STOPPED):
            raise RunError(
                f"{self.path}: this run cannot be resumed: its status is '{config.get('status')}'",
                "only interrupted and stopped runs can be resumed",
            )
        if (version := config.get("hangtag")) != __version__:
            raise RunError(
                f"{self.path}: this run was started with hangtag {version}, but this is hangtag {__version__}",
                "resume it with that version, or train again",
            )
        if config.get("network_from_python") or config.get("from_python"):
            raise RunError(
                f"{self.path}: this run trains with a network, loss, augmentation or class weights given in Python",
                "repeat the Python code that began it to resume it",
            )
        named = config["recipe"].get("network", "")
        if ":" in named and named != network:
            raise RunError(
                f"{self.path}: this run trains the custom network {named!r}, which is imported only if you name it",
                f"if you trust this code: hangtag train --resume {shlex.quote(str(self.path))} "
                f"--model {shlex.quote(named)}",
            )

    def check_links(self) -> None:
        """Raise RunError if a link in the folder leads out of it; before anything is written below the folder."""
        for path in self.path.iterdir():
            if path.is_symlink() and not inside(self.path, path):
                raise RunError(
                    f"{path}: is a link that leads out of the run folder", "remove it, or copy what it names"
                )

    def write_stress(self, results: dict[str, Any]) -> None:
        write_json(self.path / "stress.json", results)

    def write_config(self, config: dict[str, Any]) -> None:
        write_json(self.path / "config.json", config)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.path / "metrics.json", metrics)

    def write_model(self, content: bytes) -> None:
        write_bytes(self.model, content)

    def write_weights(self, content: bytes) -> None:
        write_bytes(self.weights, content)

    def discard(self) -> None:
        """Remove the folder if it holds nothing but the files a run begins with."""
        begun = [self.path / name for name in ("config.json", SKIPPED, MARKER)]
        with suppress(OSError):  # a leftover folder does no harm
            if set(self.path.iterdir()) <= set(begun):
                for file in begun:
                    file.unlink(missing_ok=True)
                self.path.rmdir()

    def lock(self) -> "Lock | None":
        """The lock for the one process that trains here; None if another process holds it."""
        try:
            return Lock(self.path)
        except OSError:
            return None

    def is_locked(self) -> bool:
        """Whether another process is training here."""
        lock = self.lock()
        if lock:
            lock.close()
        return lock is None

    def write_history(self, epochs: list[dict[str, Any]]) -> None:
        """Replace the whole history."""
        lines = (json.dumps(epoch, ensure_ascii=False, allow_nan=False) + "\n" for epoch in epochs)
        write_text(self.path / "history.jsonl", "".join(lines))

    def add_epoch(self, epoch: dict[str, Any]) -> None:
        append_line(self.path / "history.jsonl", epoch)


class _Recipe(TypedDict, total=False):
    name: Required[str]
    network: str
    validation: float
    folds: int | None
    patience: int
    given: list[str]


class _Source(TypedDict, total=False):
    what: str | None
    path: str | None
    options: dict[str, str | int | bool | list[int]]


class _Data(TypedDict, total=False):
    name: Required[str]
    fingerprint: Required[str]
    origin: str
    images: int
    parts: dict[str, int]
    counts: dict[str, list[int]]
    bytes: int | None


class _Model(TypedDict, total=False):
    bytes: int
    sha256: str
    fingerprint: str


class _Network(TypedDict, total=False):
    name: str
    parameters: int
    layers: list[dict[str, Any]]


class _Speed(TypedDict, total=False):
    images_per_second: float
    peak_memory_bytes: int | None


class _Split(TypedDict, total=False):
    train: int
    validation: int
    folds: int
    judged: int


class _Tuning(TypedDict, total=False):
    recipe: Required[dict[str, Any]]
    search: dict[str, Any]
    trials: int
    tried: int
    chosen: int


class _Config(TypedDict, total=False):
    """The keys of config.json that hangtag reads."""

    hangtag: str
    created: str
    status: str
    recipe: _Recipe
    network_from_python: bool
    from_python: dict[str, Any]
    seed: int
    seeds: list[int]
    kept_seed: int
    split_seed: int | None
    kept_epoch: int
    source: _Source
    data: _Data
    model: _Model
    network: _Network
    speed: _Speed
    split: _Split
    seconds: dict[str, float]
    machine: dict[str, str | int | float]
    device: str
    notes: list[str]
    test_opened: list[str]
    plan: dict[str, Any]
    tuning: _Tuning


class _Metrics(TypedDict, total=False):
    """The keys of metrics.json that no class of its own checks."""

    part: str
    training_accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)] | None
    guarantees: dict[str, Any]
    before_decisions: dict[str, Any]
    notes: list[str]


class _Epoch(TypedDict, total=False):
    """The keys of a line of history.jsonl that hangtag reads; `Epoch` in training/engine/loop.py writes them."""

    number: Required[int]
    loss: float
    accuracy: float
    learning_rate: float
    val_loss: float | None
    val_accuracy: float | None
    finished: bool


class Lock:
    """An exclusive lock on a run folder, held until it is closed or garbage-collected, or the process ends.

    It is a `flock` on the folder itself, because filelock would leave a lock file in the run folder and could not lock
    a read-only one. On Windows there is no `flock`, and the lock excludes nobody.

    Raises:
        OSError: another process holds the lock, or the folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._handle = -1
        with suppress(ModuleNotFoundError):
            import fcntl

            self._handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


def new_run(wanted: Path | None, default_name: str) -> Run:
    """Create a run folder: `wanted`, which must be empty or not exist, or the first free of runs/NAME, runs/NAME-2, ...

    Raises:
        RunError: `wanted` is not empty.
        SaveError: the folder cannot be created.
    """
    if wanted is None:
        names = (default_name if number == 1 else f"{default_name}-{number}" for number in range(1, 1_000_000))
        wanted = next(RUNS / name for name in names if _made(RUNS / name))
    elif not _made(wanted):
        check_new(wanted)
    mark_own(wanted)
    return Run(wanted)


def check_new(wanted: Path, resumable: bool = False) -> None:
    """Raise RunError unless a run can begin in this folder, which may exist if it is empty.

    Args:
        resumable: accept an interrupted run, too.
    """
    if not os.path.lexists(wanted) or _is_empty(wanted) or (resumable and unfinished(wanted, "")):
        return
    hint = "choose another name; earlier runs are never overwritten"
    with suppress(RunError):
        if Run(wanted).config().get("status") == STOPPED:
            hint = f"continue it: hangtag train --resume {shlex.quote(str(wanted))}; or {hint}"
    raise RunError(f"{wanted}: already exists", hint)


def _made(folder: Path) -> bool:
    """Whether this call created the folder; another process may take the name at any moment."""
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
    """Whether it is a folder with nothing but the remains of a process that was killed at its beginning."""
    try:
        return all(is_partial(path) or path.name in (SKIPPED, MARKER) for path in folder.iterdir())
    except OSError:
        return False


def unfinished(wanted: Path | None, default_name: str) -> list[Run]:
    """Runs with the status `TRAINING`: `wanted`, or those that `new_run` created under this name."""
    paths = [wanted] if wanted else [RUNS / default_name, *sorted(RUNS.glob(f"{glob.escape(default_name)}-*"))]
    runs = []
    for run in map(Run, paths):
        with suppress(RunError):
            if run.config().get("status") == TRAINING:
                runs.append(run)
    return runs


def is_searching(config: dict[str, Any]) -> bool:
    """Whether the run is a search for settings that has not ended; see `hangtag tune`."""
    return "tuning" in config and "chosen" not in config["tuning"]


def newest_unfinished() -> Run:
    """The newest run under runs/ that was killed or stopped and is not locked.

    Raises:
        RunError: there is none.
    """
    runs = []
    for run in map(Run, RUNS.glob("*/")):
        with suppress(RunError):
            config = run.config()
            if (
                config.get("status") in (TRAINING, STOPPED)
                and "seeds" not in config
                and not (is_searching(config) or run.is_locked())
            ):
                runs.append((str(config.get("created", "")), run.path))
    if not runs:
        raise RunNotFound("there is no unfinished run under runs/", "name the run: hangtag train --resume RUN")
    return Run(max(runs)[1])


def find_run(name: "str | os.PathLike[str]" = "last") -> Run:
    """The run at this path, or of this name under runs/; `last` is the newest finished one.

    Raises:
        RunError: there is no such run.
    """
    if isinstance(name, Run):
        return name
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
        raise RunError(f"{given}: is a file, not a run folder", "name the folder that `hangtag train` created")
    known = ", ".join(sorted(path.name for path in RUNS.glob("*/") if not path.name.startswith(".")))
    hint = f"under runs/: {known}" if known else "there is none under runs/ yet; train one: hangtag train fashion-mnist"
    raise RunNotFound(f"{name}: no such run", hint)


def _address(path: Path) -> str:
    """A link to a file: relative to the current folder, where a notebook usually is, or else from the root."""
    with suppress(ValueError):
        return quote(path.resolve().relative_to(Path.cwd()).as_posix())
    return path.resolve().as_uri()


def _newest() -> Run:
    finished = sorted(RUNS.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise RunNotFound("there is no finished run under runs/", "train one: hangtag train fashion-mnist")
    return Run(finished[-1].parent)

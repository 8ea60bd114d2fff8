"""A job: very many pictures -> a folder of Parquet shards, here or in an object store; resumable at any time.

    DIR/_manifest.json           model, policy, places, options; counts once all shards are there
    DIR/_units/000000.json.gz    the frozen list: the pictures of each unit of work
    DIR/_pictures/000001         what a compressed tar file or the cells of a table hold
    DIR/part-000000.parquet      the answers of a unit, complete or not there

A shard's name follows from its unit's number, and its rows from the unit alone, so every process
that computes them writes the same. After a kill at any instant, the same command answers the units that have no shard.
Programs that read folders of Parquet files ignore names that begin with _.
"""

import gzip
import hashlib
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from hangtag.data.picture_list import Listed, list_each
from hangtag.data.shards import read_shard, shard_of
from hangtag.data.store.containers import Spans
from hangtag.data.store.remote import Store, is_address, locked, need_pyarrow, store_of, without_query
from hangtag.errors import DataError, DataNotFound, UsageError
from hangtag.machine import now
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Predictor, load
from hangtag.prediction.table import columns
from hangtag.progress import Progress
from hangtag.serializable import Serializable
from hangtag.version import __version__
from hangtag.words import amount

__all__ = ["MOST_PROBLEMS", "Done", "Job", "Manifest", "Unit", "UnitPictures", "begin"]

_MANIFEST, _UNITS, _PICTURES = "_manifest.json", "_units", "_pictures"
_SCHEMA = 1
MOST_PROBLEMS = 20
"""Pictures that a `Done` names."""

_UNIT_ROWS, _LEAST_ROWS = 10_000, 32  # the most in a unit, and the fewest unless a picture is large
_FIRST_UNITS, _SHARE = 16, 8  # units of a job of up to _UNIT_ROWS pictures; later, a unit is 1/8 of all before it
_UNIT_BYTES = 256_000_000  # of pictures: a few seconds of work, which is what a kill can cost
_UNKNOWN_BYTES = 250_000  # of a picture whose size the list does not say
_MOST_NAMED = 100  # places that a manifest names; of more, it holds a digest


@dataclass(frozen=True)
class Unit:
    """A unit of work: its number, the number of its first picture in the list, and how many it has."""

    number: int
    first: int
    images: int

    @property
    def shard(self) -> str:
        """The name of its shard."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class UnitPictures:
    """The pictures of a unit, in order.

    Attributes:
        names: for the user.
        containers: where their bytes are, as JSON for `containers.container_of`.
        places: index of each picture's container.
        keys: of each picture in its container.
        problems: why a picture cannot be read, where that is known already, by its position.
    """

    names: list[str]
    containers: list[list[Any]]
    places: list[int]
    keys: list[Any]
    problems: dict[int, str]


@dataclass(frozen=True)
class Done:
    """What the shard of a unit holds.

    Attributes:
        unit: its number.
        images, failed: counts of all pictures and of those not read.
        unsure, strange: of the others, counts of those not sure and of those unfamiliar.
        labels, sure: counts by label, of all answers and of sure ones.
        problems: the first pictures not read, and why.
    """

    unit: int = -1
    images: int = 0
    failed: int = 0
    unsure: int = 0
    strange: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    sure: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Done":
        return cls(**{**value, "labels": Counter(value["labels"]), "sure": Counter(value["sure"])})

    def __add__(self, other: "Done") -> "Done":
        """The counts of both."""
        mine, theirs = vars(self), vars(other)
        both = {name: mine[name] + theirs[name] for name in mine}
        return Done(**both | {"unit": -1, "problems": both["problems"][:MOST_PROBLEMS]})


@dataclass(frozen=True)
class Manifest(Serializable):
    """What a job is about, as `_manifest.json` says.

    Attributes:
        status: "listing", "answering" or "finished".
        id: what shards of this job say they belong to: a digest of the request and of the list of pictures.
        model, fingerprint: SHA-256 of the model file, and its first 12 digits.
        places: what the user named; of very many, a digest.
        units: the number of pictures of each unit.
        counts: those of all answers, once the job is finished.
        device: on which the model answers.
    """

    model: str
    fingerprint: str
    policy: dict[str, Any]
    doctor: bool | None
    top: int
    places: list[str]
    columns: dict[str, str]
    image_column: str | None = None
    root: str | None = None
    status: str = "listing"
    id: str = ""
    units: list[int] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    created: str = ""
    hangtag: str = __version__
    schema: int = _SCHEMA
    device: str = "cpu"

    FAILURE = DataError
    HINT = "choose another folder, or delete this one"

    @property
    def images(self) -> int:
        return sum(self.units)


_REQUEST = {
    "schema": "was written by another version of hangtag", "model": "is about another model",
    "policy": "has another coverage, target accuracy, cost, set method or OOD rate",
    "doctor": "has another setting of --as-is", "top": "has another --top", "places": "is about other pictures",
    "image_column": "has another --image-column", "root": "has another --root",
    "device": "has another --device",
}  # fmt: skip
"""The fields that must agree before a job is continued, and what an error says if one differs."""


class Job:
    """A job whose list of pictures is complete.

    Attributes:
        store: where it is.
        manifest: what it is about.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.columns = _typed(manifest.columns)

    @classmethod
    def open(cls, place: str) -> Self:
        """A job that was begun, to work on its units.

        Raises:
            DataError: there is none, it is damaged, or its list is not complete.
        """
        store = store_of(place)
        manifest = Manifest.read(store.read(_MANIFEST), f"{without_query(place)}/{_MANIFEST}")
        if manifest.status == "listing":
            raise DataError(f"{place}: the list of pictures is not complete", "run hangtag predict again")
        return cls(store, manifest)

    @property
    def units(self) -> list[Unit]:
        """All units of work, in order."""
        found, first = [], 0
        for number, images in enumerate(self.manifest.units):
            found.append(Unit(number, first, images))
            first += images
        return found

    def predictor(self, model: str | os.PathLike[str] | bytes, threads: int | None = None) -> Predictor:
        """The job's model with its policy, on the CPU; `UnitWorkers` start it on the job's device.

        Args:
            model: a run folder, a model file or its bytes.

        Raises:
            DataError: it is another model.
        """
        predictor = load(model, threads=threads).with_policy(AnswerPolicy(**self.manifest.policy))
        if predictor.sha256 != self.manifest.model:
            raise DataError(f"{self.store.place}: the job is about another model", "give the same model")
        return predictor.with_doctor(self.manifest.doctor)

    def finished(self, progress: Progress | None = None) -> dict[int, Done]:
        """What the shards that are there hold, by unit; each is read and checked.

        Shards that are damaged are deleted, so that they are made again.

        Raises:
            DataError: a shard belongs to another job.
        """
        units = {unit.shard: unit for unit in self.units}
        names = [each.name for each in self.store.files() if each.name in units]
        found: dict[int, Done] = {}
        for count, name in enumerate(names, 1):
            done = self._checked(units[name])
            if done is None:
                self.store.delete(name)
            else:
                found[done.unit] = done
            if progress is not None:
                progress("checking shards", count, len(names))
        return found

    def pending(self, progress: Progress | None = None) -> Iterator[Unit]:
        """The units that have no shard, in order; see `finished`."""
        done = self.finished(progress)
        yield from (unit for unit in self.units if unit.number not in done)

    def pictures(self, unit: Unit) -> UnitPictures:
        """The pictures of a unit.

        Raises:
            DataError: the list is damaged.
        """
        name = f"{_UNITS}/{unit.number:06d}.json.gz"
        try:
            listed = json.loads(gzip.decompress(self.store.read(name)))
            listed["problems"] = {int(place): text for place, text in listed["problems"].items()}
            pictures = UnitPictures(**listed)
            if not len(pictures.names) == len(pictures.keys) == len(pictures.places) == unit.images:
                raise ValueError("incomplete")
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.store.place}/{name}: the list of pictures is damaged", "delete the folder, and begin again"
            ) from error
        return pictures

    def write(self, unit: Unit, rows: list[list[Any]], done: Done) -> None:
        """Write the shard of a unit.

        Args:
            rows: a value for each column of each picture.
            done: the counts of these rows.

        Raises:
            SaveError, DataError: it cannot be written.
        """
        about = {"job": self.manifest.id, "counts": done.to_json()}
        self.store.write(unit.shard, shard_of(self.columns, rows, about))

    def finish(self, counts: Done) -> None:
        """Note in the manifest that all shards are there, and what they hold."""
        if self.manifest.status != "finished":
            self.manifest = replace(self.manifest, status="finished", counts=counts.to_json())
            _write(self.store, self.manifest)

    def _checked(self, unit: Unit) -> Done | None:
        """What a shard holds; None if it is damaged."""
        place = f"{without_query(self.store.place)}/{unit.shard}"
        try:
            rows, about = read_shard(self.store.read(unit.shard), place)
            done = Done.from_json(about["counts"])
        except (DataNotFound, KeyError, TypeError):
            return None
        except DataError as error:
            if error.message.startswith(f"{place}: damaged"):
                return None
            raise
        if about.get("job") != self.manifest.id:
            raise DataError(f"{place}: belongs to another job", "choose another folder, or delete this file")
        return done if rows == unit.images and done.unit == unit.number else None


@contextmanager
def begin(
    predictor: Predictor,
    places: Iterable[str | os.PathLike[str]],
    out: str,
    *,
    top: int = 1,
    image_column: str | None = None,
    root: Path | None = None,
    unit_images: int = _UNIT_ROWS,
    refuse: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Job]:
    """Begin a job, or continue the same one; inside the block, no other command on this machine can do either.

    Args:
        predictor: the model with its policy.
        places: files, folders, patterns, archives, tables, addresses.
        out: the job's folder or address, which is empty, does not exist, or holds this job.
        top: number of classes in an answer.
        image_column, root: of tables: the column of pictures, and the folder to which its paths are relative.
        unit_images: the most pictures in one shard.
        refuse: whether a place that cannot be read raises an error; False: it becomes a row with an error.
        device: on which the model answers; None: the predictor's.
        progress: called with ("listing images", number, 0).

    Raises:
        UsageError: `out` holds another job or other files, or another command works on it.
        DataError: a place has no picture or cannot be read, or the object store does not answer.
        MissingExtra: pyarrow, which writes Parquet files, is not installed.
    """
    need_pyarrow()
    named = [os.fspath(place) for place in places]
    store = store_of(out)
    wanted = _request(predictor, named, top, image_column, root, device or predictor.device)
    _found(store, wanted)  # before anything is written there
    with locked(out):
        for folder in ("", _UNITS):
            store.clean(folder)
        manifest = _found(store, wanted)
        if manifest is None:
            manifest = _freeze(store, wanted, named, unit_images, refuse, progress)
        yield Job(store, manifest)


def _request(
    predictor: Predictor, places: list[str], top: int, image_column: str | None, root: Path | None, device: str
) -> Manifest:
    kinds = columns(top, len(predictor.class_names))
    names = [place if is_address(place) else os.path.abspath(Path(place).expanduser()) for place in places]  # noqa: PTH100
    if len(names) > _MOST_NAMED:
        digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        names = [f"{amount(len(names), 'place')} with the SHA-256 {digest}"]
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return Manifest(
        predictor.sha256, predictor.fingerprint, asdict(predictor.policy), predictor.doctor, top, names,
        {name: kind.__name__ for name, kind in kinds.items()}, image_column,
        None if root is None else str(root.absolute()), created=now(), device=device,
    )  # fmt: skip


def _found(store: Store, wanted: Manifest) -> Manifest | None:
    """The manifest in the folder, if it is of the wanted job; None if there is none whose list is complete."""
    place = without_query(store.place)
    try:
        content = store.read(_MANIFEST)
    except DataNotFound:
        others = [each.name for each in store.files() if each.name[0] not in "._"]
        if others:
            raise UsageError(
                f"{place}: holds other files, such as {others[0]}", "choose an empty or new folder for the shards"
            ) from None
        return None
    found = Manifest.read(content, f"{place}/{_MANIFEST}")
    if found.status == "listing":  # nothing was answered
        return None
    for name, sentence in _REQUEST.items():
        if getattr(found, name) != getattr(wanted, name):
            raise UsageError(f"{place}: the job in this folder {sentence}", "choose another folder")
    return found


def _freeze(
    store: Store, manifest: Manifest, places: list[str], unit_images: int, refuse: bool, progress: Progress | None
) -> Manifest:
    """Write the list of all pictures, unit by unit, and then the manifest that says it is complete."""
    _write(store, manifest)
    digest = hashlib.sha256(json.dumps([getattr(manifest, name) for name in _REQUEST]).encode())
    units: list[int] = []
    total = 0
    notes: list[str] = []
    root = None if manifest.root is None else Path(manifest.root)
    with store.kept(_PICTURES) as (scratch, keep):
        listed = list_each(places, scratch, manifest.image_column, root, notes, refuse, in_place=True)
        for pictures in _in_units(_kept(listed, scratch, keep), unit_images):
            content = json.dumps(vars(pictures)).encode()
            digest.update(content)
            store.write(f"{_UNITS}/{len(units):06d}.json.gz", gzip.compress(content, 1, mtime=0))
            units.append(len(pictures.names))
            total += units[-1]
            if progress is not None:
                progress("listing images", total, 0)
    manifest = replace(manifest, status="answering", id=digest.hexdigest()[:32], units=units, notes=notes)
    _write(store, manifest)
    return manifest


def _kept(pictures: Iterable[Listed], scratch: Path, keep: Callable[[Path], str]) -> Iterator[Listed]:
    """The pictures, with those in temporary files moved to where the job can read them again."""
    kept: dict[str, Spans] = {}
    for each in pictures:
        path = each.container.path if isinstance(each.container, Spans) else ""
        if path and Path(path).parent == scratch:
            if path not in kept:
                kept[path] = Spans(keep(Path(path)))
            yield each._replace(container=kept[path])
        else:
            yield each


def _in_units(pictures: Iterator[Listed], most: int) -> Iterator[UnitPictures]:
    """Pictures in pieces of at most a few seconds of work, which are smaller if there are few, so that all workers of
    a cluster have some. The pieces follow from the list alone.
    """
    start = list(itertools.islice(pictures, _UNIT_ROWS))
    rows = min(most, max(_LEAST_ROWS, -(-len(start) // _FIRST_UNITS)))
    unit, size, before = UnitPictures([], [], [], [], {}), 0, 0
    known: dict[str, int] = {}
    last, where, name = None, list[Any](), ""
    for each in itertools.chain(start, pictures):
        if len(unit.names) >= rows or (unit.names and size > _UNIT_BYTES):
            yield unit
            before += len(unit.names)
            if before >= _UNIT_ROWS:
                rows = min(most, _UNIT_ROWS, before // _SHARE)
            unit, size, known = UnitPictures([], [], [], [], {}), 0, {}
        if each.container is not last:
            last, where = each.container, each.container.to_json()
            name = repr(where)
        if name not in known:
            known[name] = len(unit.containers)
            unit.containers.append(where)
        if each.problem:
            unit.problems[len(unit.names)] = each.problem[0]
        unit.names.append(each.name)
        unit.places.append(known[name])
        unit.keys.append(each.key)
        size += _UNKNOWN_BYTES if each.size is None else each.size
    if unit.names:
        yield unit


def _write(store: Store, manifest: Manifest) -> None:
    store.write(_MANIFEST, (json.dumps(manifest.to_json(), indent=2) + "\n").encode())


def _typed(names: dict[str, str]) -> dict[str, type]:
    kinds: dict[str, type] = {"str": str, "float": float, "bool": bool, "list": list}
    return {name: kinds[kind] for name, kind in names.items()}

"""`read`: whatever labelled images the user has -> `LabelledImages`.

Names of public sets, folders, archives, tables, files of arrays, frames, arrays and lists: which of them it is, and
whom to ask. What consists of picture files takes one way: gathered (`gather.py`), decoded once into the cache and
opened from there (`kept_pictures.py`).
"""

import csv
import gc
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.arrays import ArrayPart, is_idx, read_idx_folder, read_npy, read_npz
from hangtag.data.choose_size import Size, choose_spec, with_background
from hangtag.data.decisions import apply_decisions
from hangtag.data.describe import sentence_on
from hangtag.data.folder_layout import PART_NAMES, PICTURE_ENDINGS, Choose
from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.data.manifest import (
    Manifest,
    ReadOptions,
    from_listing,
    from_pairs,
    from_table,
    refuse,
    refuse_needless,
)
from hangtag.data.not_found import is_there, not_found
from hangtag.data.picture_facts import CARRIES_COLOUR, COLOUR_FILE, FACTS
from hangtag.data.public import datasets
from hangtag.data.store.containers import FAILING, Container, Folder, Listing, archive_listing
from hangtag.data.store.materialize import decoded, key_of, open_kept
from hangtag.data.store.pool import Pool
from hangtag.data.tables import read_table, table_of_frame
from hangtag.errors import DataError, UnknownName, UsageError
from hangtag.files import user_path, write_text
from hangtag.pictures import FITS, Images, ImageSpec, carries_colour, check_images, in_channels
from hangtag.progress import Progress
from hangtag.resize import Sizer

__all__ = ["read", "write_skipped"]

_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
_TARS = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")


def read(
    what: Any,
    path: str | Path | None = None,
    progress: Progress | None = None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    root: str | Path | None = None,
    classes: str | None = None,
    group_by: str | None = None,
    size: int | tuple[int, int] | None = None,
    fit: str | None = None,
    colour: bool | None = None,
    spec: ImageSpec | None = None,
    strict: bool = False,
    decisions: str | Path | None = None,
    choose: Choose = refuse,
) -> LabelledImages:
    """Labelled images from whatever the user has.

    Args:
        what: the name of a public set; a folder with a folder per class; a zip or tar of one; a .csv, .tsv, .jsonl or
            .parquet table; a folder of Parquet files; a .npz, a .npy beside another, IDX files; a DataFrame; (images,
            labels); a list of (picture, label).
        path: the folder to take a named set's files from, instead of looking for them.
        progress: called with (what is going on, done, in all).
        image_column, label_column: of a table, where their content does not tell.
        root: where a table's relative paths start; None takes the table's folder.
        classes: "top" or "leaf": which of nested folders are the classes.
        group_by: a column, or a regular expression on the picture's name (its first group counts): pictures of one
            group never stand on both sides of a split.
        size: pixels of a side, or (height, width); None chooses by the pictures. Public sets stay as they are.
        fit: "squash", "pad" or "crop"; None chooses.
        colour: whether the model sees colour; None looks whether colour carries anything.
        spec: all four at once, for data that is not a public set.
        strict: raise at the first picture that cannot be read, instead of setting it aside.
        decisions: a CSV of what was decided about single pictures, see `decisions.py`.
        choose: asked where there are two readings; None raises an error that names both.

    Raises:
        UnknownName: neither a known name nor a file or folder.
        UsageError: two readings are possible, and nobody was there to ask; or an option means nothing for this data.
        DataError: it cannot be used as labelled images.
        DownloadError: the set is not on this machine and could not be fetched.

    >>> read("fashion-mnist").train.images.shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    if fit is not None and fit not in FITS:
        raise UnknownName.among("way to fit", fit, FITS)
    wanted = Size(spec, (size, size) if isinstance(size, int) else size, fit, colour)
    if wanted.side is not None and not all(8 <= side <= 1024 for side in wanted.side):
        raise UsageError(f"size {wanted.side} is out of range", "give 8 to 1024 pixels")
    asked = ReadOptions(image_column, label_column, str(root) if root else None, classes, group_by, choose)
    if isinstance(what, LabelledImages):
        refuse_needless(what.name, "what is not read yet", **asked.options(), **wanted.options())
        data = what
    elif isinstance(what, (str, Path)):
        if path is not None or _is_public(what):
            refuse_needless(what, "data of your own", **asked.options(), **wanted.options())
            data = _named(str(what), user_path(path) if path is not None else None, progress)
            if path is None:
                data = replace(data, notes=_not_read(str(what)))
        else:
            data = _of_path(user_path(what), str(what), asked, wanted, progress)
    else:
        data = _of_object(what, asked, wanted, progress)
    if strict and data.skipped:
        first = data.skipped[0]
        raise DataError(
            f"{first.name}: {first.reason} (and {len(data.skipped) - 1:,} more)",
            "mend or remove them, or read without --strict, which sets them aside",
        )
    return apply_decisions(data, user_path(decisions)) if decisions is not None else data


def write_skipped(data: LabelledImages, path: Path) -> None:
    """What was set aside, as a CSV table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "kind", "reason"])
    writer.writerows([each.name.encode("utf-8", "replace").decode(), each.kind, each.reason] for each in data.skipped)
    write_text(path, buffer.getvalue())


# --- by kind ---------------------------------------------------------------------------------------------------


def _is_public(what: str | Path) -> bool:
    """Whether a public set is meant: by its name, unless that is a `Path` to something."""
    return str(what) in datasets.NAMED and (isinstance(what, str) or not is_there(what))


def _not_read(name: str) -> tuple[str, ...]:
    """A note where something in this folder has the name of the public set that was taken."""
    here = Path(name)
    if not is_there(here):
        return ()
    kind = "folder" if here.is_dir() else "file"
    return (f"this is the public set {name}, not the {kind} of that name here: to read that, say ./{name}",)


def _named(name: str, path: Path | None, progress: Progress | None, proven: bool = False) -> LabelledImages:
    found = datasets.fetch(name, path, progress, proven)
    wanted = datasets.NAMED[name]
    return LabelledImages(
        images=found.images,
        labels=found.labels,
        class_names=wanted.class_names,
        name=wanted.name,
        origin=found.origin,
        parts=dict(found.parts),
    )


def _of_path(path: Path, said: str, asked: ReadOptions, size: Size, progress: Progress | None) -> LabelledImages:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        if is_folder and not any(path.iterdir()):
            raise DataError(f"{path}: the folder is empty", "a folder for each class, with its pictures")
    except PermissionError:
        raise DataError(f"{path}: may not be read", "check the permissions") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FAILING:
            raise DataError(
                f"{path}: the disk or network fails: {error.strerror}", "is it plugged in, mounted, reachable?"
            ) from None
        is_folder = is_file = False
    if is_folder:
        return _of_folder(path, asked, size, progress)
    if is_file:
        return _of_file(path, asked, size, progress)
    raise not_found(said, path)


def _of_folder(path: Path, asked: ReadOptions, size: Size, progress: Progress | None) -> LabelledImages:
    files = [child for child in sorted(path.iterdir()) if child.is_file() and not child.name.startswith(".")]
    if any(is_idx(file) for file in files if file.suffix in ("", ".gz") or "idx" in file.name):
        return _of_idx(path, asked, size, progress)
    with _without_collecting():
        container = Folder(str(path))
        listing = container.listing()
    parquet = [path / entry.name for entry in listing.entries if entry.name.endswith(".parquet")]
    pictures = any("/" in entry.name and entry.name.lower().endswith(PICTURE_ENDINGS) for entry in listing.entries)
    if parquet and not pictures:
        return _of_table(parquet, path, asked, size, progress)
    tables = [file for file in files if file.suffix.lower() in _TABLES and file.stem.lower() in _TABLE_NAMES]
    if tables and (asked.label_column or not _may_be_classes(listing)):
        return _of_table(_one_of(tables, path, asked.choose), path, asked, size, progress)
    if not pictures and any(file.suffix == ".npy" for file in files):
        return _of_array_parts(read_npy(path), path, "a pair of .npy files", asked, size)
    return _listed(container, listing, path, "", asked, size, progress)


def _may_be_classes(listing: Listing) -> bool:
    """Whether there are folders of pictures, at least two, that are not parts such as train and test."""
    folders = {entry.name.rpartition("/")[0] for entry in listing.entries if "/" in entry.name}
    parts = all(folder.lower() in PART_NAMES for folder in folders)
    return len({folder.split("/")[0] for folder in folders}) > 1 and not parts


def _one_of(tables: list[Path], where: Path, choose: Choose) -> list[Path]:
    """The one of several tables in a folder that is meant."""
    if len(tables) > 1:
        answers = [(file.name, f"the table {file.name}") for file in tables]
        said = choose(
            f"{where}: holds several tables; which one says the labels? (name it instead of the folder)", answers
        )
        return [file for file in tables if file.name == said]
    return tables


_TABLE_NAMES = ("labels", "label", "metadata", "train", "data", "annotations", "index", "classes", "images")


def _of_file(path: Path, asked: ReadOptions, size: Size, progress: Progress | None) -> LabelledImages:
    name = path.name.lower()
    if name.endswith(_TABLES):
        return _of_table([path], path, asked, size, progress)
    if name.endswith(".npz"):
        return _of_array_parts(read_npz(path), path, "arrays in a .npz file", asked, size)
    if name.endswith(".npy"):
        return _of_array_parts(read_npy(path), path, "a pair of .npy files", asked, size)
    if is_idx(path):
        return _of_idx(path, asked, size, progress)
    if name.endswith((".zip", *_TARS)):
        with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
            container, listing = archive_listing(path, Path(temporary) / "tar")
            kind = "a zip file" if name.endswith(".zip") else "a tar file"
            return _listed(container, listing, path, kind, asked, size, progress)
    raise DataError(
        f"{path}: is a file of a kind hangtag does not read",
        "it reads folders, .zip, .tar, .csv, .tsv, .jsonl, .parquet, .npz, .npy and IDX files",
    )


def _of_idx(path: Path, asked: ReadOptions, size: Size, progress: Progress | None) -> LabelledImages:
    name = datasets.identify(path)
    if name is not None:
        with suppress(DataError):
            data = _named(name, path, progress, proven=True)
            own = f"data of your own, and these are the files of {datasets.NAMED[name].title}"
            refuse_needless(path, own, **asked.options(), **size.options())
            return data
    return _of_array_parts(read_idx_folder(path), path, "IDX files", asked, size)


def _of_table(
    paths: list[Path], where: Path, asked: ReadOptions, size: Size, progress: Progress | None
) -> LabelledImages:
    refuse_needless(where, "folders in folders", classes=asked.classes)
    table = read_table(paths, user_path(asked.root) if asked.root else None)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        manifest = from_table(table, where.name if where.is_dir() else where.stem, asked, _spool(temporary))
        return _tabled(manifest, str(where.resolve()), asked, size, progress)


def _of_object(what: Any, asked: ReadOptions, size: Size, progress: Progress | None) -> LabelledImages:
    if isinstance(what, tuple) and len(what) == 2 and hasattr(what[0], "shape"):
        return _of_array_parts([ArrayPart(None, np.asarray(what[0]), np.asarray(what[1]))], None, "arrays", asked, size)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        if hasattr(what, "columns") or isinstance(what, Mapping):
            table = table_of_frame(what, user_path(asked.root) if asked.root else None)
            return _tabled(from_table(table, "frame", asked, _spool(temporary)), "memory", asked, size, progress)
        if isinstance(what, Sequence) and len(what):
            return _tabled(from_pairs(what, asked, _spool(temporary)), "memory", asked, size, progress)
    raise DataError(
        f"cannot read labelled images from {type(what).__name__}",
        "give a name, a path, a DataFrame, (images, labels), or a list of (picture, label)",
    )


def _spool(folder: str) -> Any:
    def opened() -> IO[bytes]:
        return (Path(folder) / "pictures").open("wb")

    return opened


# --- arrays ----------------------------------------------------------------------------------------------------


def _of_array_parts(
    parts: list[ArrayPart], path: Path | None, kind: str, asked: ReadOptions, size: Size
) -> LabelledImages:
    """Arrays take the way of pictures: looked at, and brought to size and colours by the same rules."""
    refuse_needless(path or "arrays", "pictures or tables", **asked.options())
    where = str(path) if path else "arrays"
    arrays = [check_images(_channels_last(part.images), where) for part in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise DataError(f"{where}: its parts have images of different shapes", "give all images one size")
    images = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    labels = np.concatenate([np.asarray(part.labels) for part in parts]) if len(parts) > 1 else parts[0].labels
    data = from_arrays(images, np.asarray(labels))
    facts = _facts_of(images)
    spec = choose_spec(facts, len(images), size)
    if spec.shape != images.shape[1:]:
        sizer = Sizer(spec)
        data = replace(data, images=np.stack([sizer(in_channels(image, spec.channels)) for image in images]))
    spec = with_background(spec, data.images, np.arange(len(images)), facts)
    ends = np.cumsum([0, *(len(part.labels) for part in parts)])
    given = {str(part.part): slice(int(ends[i]), int(ends[i + 1])) for i, part in enumerate(parts) if part.part}
    data = replace(
        data, name=path.stem if path else "arrays", origin=where, parts=given, facts=facts, made_with=spec
    )  # fmt: skip
    return replace(data, understood=sentence_on(data, kind, facts))


def _channels_last(images: NDArray[Any]) -> NDArray[Any]:
    """(N, C, H, W), as PyTorch keeps images, as (N, H, W, C)."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return images


def _facts_of(images: Images) -> NDArray[Any]:
    facts = np.zeros(len(images), FACTS)
    facts["height"], facts["width"] = images.shape[1:3]
    if images.ndim == 4:
        facts["flags"] = [COLOUR_FILE | CARRIES_COLOUR * carries_colour(image) for image in images]
    return facts


# --- pictures --------------------------------------------------------------------------------------------------


def _listed(
    container: Container, listing: Listing, path: Path, kind: str, asked: ReadOptions, size: Size,
    progress: Progress | None,
) -> LabelledImages:  # fmt: skip
    """Pictures in folders; what was understood of exactly these before is not thought about again."""
    refuse_needless(path, "a table", image_column=asked.image_column, label_column=asked.label_column, root=asked.root)
    with _without_collecting():
        key = key_of(str(path.resolve()), listing.digest(), asked.said(), size)
        kept = open_kept(key, container)
        if kept is not None:
            return kept
    with Pool([container]) as pool:
        pool.start()
        with _without_collecting():
            manifest = from_listing(container, listing, path, asked, kind)
        return decoded(pool, manifest, str(path.absolute()), key, size, progress)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """No search for garbage meanwhile: it looks through all names again whenever there are a quarter more of them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _tabled(
    manifest: Manifest, origin: str, asked: ReadOptions, size: Size, progress: Progress | None
) -> LabelledImages:
    key = key_of(
        origin, manifest.kind, manifest.digest, manifest.labels, manifest.parts, manifest.groups, asked.said(), size
    )
    kept = open_kept(key, manifest.containers[0])
    if kept is not None:
        return kept
    with Pool(manifest.containers) as pool:
        return decoded(pool, manifest, origin, key, size, progress)

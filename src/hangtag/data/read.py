"""`read`: any form of labelled images -> `LabelledImages`.

It finds out which form the data has (a public set, a folder, an archive, a table, arrays, a frame, a list) and calls
its reader. All picture files go the same way: listed (`manifest.py`), decoded once into the cache and opened from there
(`store/materialize.py`).
"""

import gc
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.arrays import ArrayPart, is_idx, read_idx_folder, read_npy, read_npz
from hangtag.data.choose_size import Size, check_levels, choose_spec, with_background
from hangtag.data.decisions import apply_decisions
from hangtag.data.describe import notes_on, sentence_on
from hangtag.data.folder_layout import PART_NAMES, PICTURE_ENDINGS, Choose
from hangtag.data.labelled_images import LabelledImages, Source, from_arrays
from hangtag.data.manifest import (
    Manifest,
    ReadOptions,
    from_listing,
    from_pairs,
    from_table,
    refuse,
)
from hangtag.data.not_found import exists, not_found
from hangtag.data.picture_facts import CARRIES_COLOUR, COLOUR_FILE, FACTS
from hangtag.data.public import datasets
from hangtag.data.store.containers import FAILING, Container, Folder, Listing, archive_listing
from hangtag.data.store.materialize import decoded, key_of, open_kept
from hangtag.data.store.pool import Pool
from hangtag.data.tables import read_table, table_of_frame
from hangtag.errors import DataError, UnknownName, UsageError
from hangtag.files import user_path, write_text
from hangtag.levels import measure, to_8_bits
from hangtag.pictures import FITS, Change, Images, ImageSpec, carries_colour, finite, in_channels, stacked
from hangtag.progress import Progress
from hangtag.resize import Sizer
from hangtag.words import csv_text

__all__ = ["read", "write_skipped"]

_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
_TABLE_NAMES = ("labels", "label", "metadata", "train", "data", "annotations", "index", "classes", "images")
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
    color: bool | None = None,
    spec: ImageSpec | None = None,
    strict: bool = False,
    decisions: str | Path | None = None,
    choose: Choose = refuse,
) -> LabelledImages:
    """Read labelled images from whatever form they have.

    Args:
        what: the name of a public set; a folder with a folder per class; a zip or tar of one; a .csv, .tsv, .jsonl or
            .parquet table; a folder of Parquet files; a .npz, a pair of .npy, IDX files; a DataFrame; (images,
            labels); a list of (picture, label). IDX files are read as arrays, so their classes are numbers, even if
            they are those of a public set; name the set, and give their folder as `path`, to get its class names.
        path: the folder that holds the files of a public set; None searches for them.
        progress: called with (what is happening, done, total).
        image_column, label_column: columns of a table; None recognises them by their content.
        root: the folder to which a table's paths are relative; None: the table's folder.
        classes: "top" or "leaf": which level of nested folders holds the classes.
        group_by: a column, or a regular expression on the picture's name (its first group counts): pictures of one
            group are never split between training and validation.
        size: side in pixels, or (height, width); None chooses one that suits the pictures. Public sets keep their size.
        fit: how pictures of other proportions are fitted: "squash", "pad" or "crop"; None chooses.
        colour, color: whether the model sees colour, in either spelling; None: if the pictures have any.
        spec: size, colours and fit of an existing model, instead of `size`, `fit` and `colour`; not for public sets.
        strict: raise an error at the first picture that cannot be read, instead of setting it aside.
        decisions: a CSV of decisions about single pictures, see `decisions.py`.
        choose: called if data can be read in two ways; by default an error names both.

    Raises:
        UnknownName: `what` is neither a known name nor a file or folder.
        UsageError: the data can be read in two ways, or an option does not apply to this form of data.
        DataError: the data cannot be used as labelled images.
        DownloadError: the public set is not on this machine and could not be downloaded.

    >>> read("fashion-mnist").train.images.shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    if fit is not None and fit not in FITS:
        raise UnknownName.among("way to fit", fit, FITS)
    if colour is not None and color not in (None, colour):
        raise UsageError(f"colour={colour} contradicts color={color}", "pass one of them")
    colour = color if colour is None else colour
    wanted = Size(spec, (size, size) if isinstance(size, int) else size, fit, colour)
    if wanted.side is not None and not all(8 <= side <= 1024 for side in wanted.side):
        raise UsageError(f"size must be 8 to 1024 pixels, got {size}", "choose a size in this range")
    options = ReadOptions(
        image_column, label_column, user_path(root) if root else None, classes, group_by, wanted, choose, progress
    )
    data = _read(what, user_path(path) if path is not None else None, options)
    skipped = data.source.skipped
    if strict and skipped:
        more = f" (and {len(skipped) - 1:,} more)" if len(skipped) > 1 else ""
        raise DataError(
            f"{skipped[0].name}: {skipped[0].reason}{more}",
            "repair or remove the files, or leave out --strict to skip them",
        )
    return apply_decisions(data, user_path(decisions)) if decisions is not None else data


def write_skipped(data: LabelledImages, path: Path) -> None:
    """Write what was set aside as a CSV table."""
    rows = [(each.name, each.kind, each.reason) for each in data.source.skipped]
    write_text(path, csv_text(["name", "kind", "reason"], rows))


# --- by form ---------------------------------------------------------------------------------------------------


def _read(what: Any, path: Path | None, options: ReadOptions) -> LabelledImages:
    if isinstance(what, LabelledImages):
        options.refuse_all(what.name, "data that has not been read yet")
        return what
    if not isinstance(what, (str, Path)):
        return _read_object(what, options)
    if path is not None or _is_public(what):
        options.refuse_all(what, "your own data")
        return _read_public(str(what), path, options.progress)
    return _read_path(user_path(what), str(what), options)


def _is_public(what: str | Path) -> bool:
    """Whether the name of a public set is meant; a `Path` to something that exists is not one."""
    return str(what) in datasets.NAMED and (isinstance(what, str) or not exists(what))


def _read_public(name: str, path: Path | None, progress: Progress | None) -> LabelledImages:
    public = datasets.fetch(name, path, progress)
    kind = datasets.NAMED[name]
    notes: tuple[str, ...] = ()
    if path is None and exists(Path(name)):
        own = "folder" if Path(name).is_dir() else "file"
        notes = (f"read the public dataset {name}, not the {own} of that name; to read the {own}, write ./{name}",)
    source = Source(public.origin, notes=notes)
    return LabelledImages(
        public.images, public.labels, kind.class_names, kind.name, parts=dict(public.parts), source=source
    )


def _read_path(path: Path, name: str, options: ReadOptions) -> LabelledImages:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        if is_folder and not any(path.iterdir()):
            raise DataError(f"{path}: the folder is empty", "it must contain one folder of images per class")
    except PermissionError:
        raise DataError(f"{path}: permission denied", "check the permissions") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FAILING:
            raise DataError(
                f"{path}: disk or network error: {error.strerror}", "check that it is connected and mounted"
            ) from None
        is_folder = is_file = False
    if is_folder:
        return _read_folder(path, options)
    if is_file:
        return _read_file(path, options)
    raise not_found(name, path)


def _read_folder(path: Path, options: ReadOptions) -> LabelledImages:
    files = [child for child in sorted(path.iterdir()) if child.is_file() and not child.name.startswith(".")]
    if any(is_idx(file) for file in files if file.suffix in ("", ".gz") or "idx" in file.name):
        return _read_arrays(read_idx_folder(path), path, "IDX files", options)
    with _without_garbage_collection():
        folder = Folder(str(path))
        listing = folder.listing()
    parquet = [path / entry.name for entry in listing.entries if entry.name.endswith(".parquet")]
    pictures = any("/" in entry.name and entry.name.lower().endswith(PICTURE_ENDINGS) for entry in listing.entries)
    if parquet and not pictures:
        return _read_table(parquet, path, options)
    tables = [file for file in files if file.suffix.lower() in _TABLES and file.stem.lower() in _TABLE_NAMES]
    if tables and (options.label_column or not _may_be_classes(listing)):
        return _read_table([_choose_table(tables, path, options.choose)], path, options)
    if not pictures and any(file.suffix == ".npy" for file in files):
        return _read_arrays(read_npy(path), path, "a pair of .npy files", options)
    return _read_listing(folder, listing, path, "", options)


def _may_be_classes(listing: Listing) -> bool:
    """Whether there are at least two folders of pictures that are not parts such as train and test."""
    folders = {entry.name.rpartition("/")[0] for entry in listing.entries if "/" in entry.name}
    parts = all(folder.lower() in PART_NAMES for folder in folders)
    return len({folder.split("/")[0] for folder in folders}) > 1 and not parts


def _choose_table(tables: list[Path], where: Path, choose: Choose) -> Path:
    if len(tables) == 1:
        return tables[0]
    answers = [(file.name, f"the table {file.name}") for file in tables]
    answer = choose(f"{where} contains several tables; which one has the labels? (or name the table itself)", answers)
    return next(file for file in tables if file.name == answer)


def _read_file(path: Path, options: ReadOptions) -> LabelledImages:
    name = path.name.lower()
    if name.endswith(_TABLES):
        return _read_table([path], path, options)
    if name.endswith(".npz"):
        return _read_arrays(read_npz(path), path, "arrays in a .npz file", options)
    if name.endswith(".npy"):
        return _read_arrays(read_npy(path), path, "a pair of .npy files", options)
    if is_idx(path):
        return _read_arrays(read_idx_folder(path), path, "IDX files", options)
    if name.endswith((".zip", *_TARS)):
        with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
            container, listing = archive_listing(path, Path(temporary) / "tar")
            kind = "a zip file" if name.endswith(".zip") else "a tar file"
            return _read_listing(container, listing, path, kind, options)
    raise DataError(
        f"{path}: hangtag cannot read this kind of file",
        "it reads folders, .zip, .tar, .csv, .tsv, .jsonl, .parquet, .npz, .npy and IDX files",
    )


def _read_table(paths: list[Path], where: Path, options: ReadOptions) -> LabelledImages:
    options.refuse(where, "nested folders", "classes")
    table = read_table(paths, options.root)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        manifest = from_table(table, where.name if where.is_dir() else where.stem, options, Path(temporary))
        return _read_manifest(manifest, str(where.resolve()), options)


def _read_object(what: Any, options: ReadOptions) -> LabelledImages:
    if isinstance(what, tuple) and len(what) == 2 and hasattr(what[0], "shape"):
        return _read_arrays([ArrayPart(None, np.asarray(what[0]), np.asarray(what[1]))], None, "arrays", options)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        if hasattr(what, "columns") or isinstance(what, Mapping):
            manifest = from_table(table_of_frame(what, options.root), "frame", options, Path(temporary))
        elif isinstance(what, Sequence) and len(what):
            manifest = from_pairs(what, options, Path(temporary))
        else:
            raise DataError(
                f"cannot read labelled images from {type(what).__name__}",
                "give a name, a path, a DataFrame, (images, labels), or a list of (image, label)",
            )
        return _read_manifest(manifest, "memory", options)


# --- arrays ----------------------------------------------------------------------------------------------------


def _read_arrays(parts: list[ArrayPart], path: Path | None, kind: str, options: ReadOptions) -> LabelledImages:
    """Arrays; their size and colours are chosen by the same rules as those of pictures."""
    where = str(path) if path else "arrays"
    options.refuse(where, "images or tables", "image_column", "label_column", "root", "classes", "group_by")
    arrays = [stacked(_channels_last(part.images), where) for part in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise DataError(f"{where}: the parts have images of different shapes", "give all images the same size")
    if len({array.dtype if array.dtype == np.uint8 else array.dtype.kind for array in arrays}) > 1:
        types = ", ".join(str(array.dtype) for array in arrays)
        raise DataError(f"{where}: the parts have pixels of different types: {types}", "give all images the same type")
    images = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    labels = np.concatenate([np.asarray(part.labels) for part in parts]) if len(parts) > 1 else parts[0].labels
    part_of = np.repeat(np.arange(len(parts)), [len(array) for array in arrays])
    images, facts = _in_8_bits(images, where, options.size, {str(p.part): part_of == i for i, p in enumerate(parts)})
    data = from_arrays(images, np.asarray(labels), path.stem if path else "arrays")
    spec = choose_spec(facts, len(images), options.size)
    if spec.shape != images.shape[1:]:
        sizer = Sizer(spec)
        data = replace(data, images=np.stack([sizer(in_channels(image, spec.channels)) for image in images]))
    spec = with_background(spec, data.images, np.arange(len(images)), facts)
    ends = np.cumsum([0, *(len(part.labels) for part in parts)])
    notes = tuple(notes_on(spec, facts, set(), (), options.size))
    slices = {str(part.part): slice(int(ends[i]), int(ends[i + 1])) for i, part in enumerate(parts) if part.part}
    data = replace(data, parts=slices, picture_facts=facts, source=Source(where, notes=notes, spec=spec))
    return replace(data, source=replace(data.source, description=sentence_on(data, kind, facts)))


def _channels_last(images: NDArray[Any]) -> NDArray[Any]:
    """(N, C, H, W), as PyTorch keeps images, as (N, H, W, C)."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return images


def _in_8_bits(
    images: NDArray[Any], where: str, size: Size, parts: Mapping[str, NDArray[np.bool_]]
) -> tuple[Images, NDArray[Any]]:
    """The images as uint8, and facts about them; numbers of other types get one scale, as pictures do."""
    facts = np.zeros(len(images), FACTS)
    facts["height"], facts["width"] = images.shape[1:3]
    if images.dtype != np.uint8 and len(images):
        is_float = images.dtype.kind == "f"
        facts["values"] = finite(measure(images), where)
        facts["flags"] = int(Change.DEEP | Change.FLOAT if is_float else Change.DEEP)
        spec = choose_spec(facts, len(images), size)
        check_levels(facts, spec, size, where, {name: facts[which] for name, which in parts.items()})
        levels = spec.levels(is_float)[0]
        assert levels is not None
        images = to_8_bits(images, levels)
    if images.ndim == 4:
        facts["flags"] |= np.array([COLOUR_FILE | CARRIES_COLOUR * carries_colour(image) for image in images], np.uint8)
    return images, facts


# --- pictures --------------------------------------------------------------------------------------------------


def _read_listing(
    container: Container, listing: Listing, path: Path, kind: str, options: ReadOptions
) -> LabelledImages:
    """Pictures in folders; an unchanged listing is opened from the cache."""
    options.refuse(path, "tables", "image_column", "label_column", "root")
    with _without_garbage_collection():
        key = key_of(str(path.resolve()), listing.digest(), options.key())
        kept = open_kept(key, container)
        if kept is not None:
            return kept
    with Pool([container]) as pool:
        pool.start()
        with _without_garbage_collection():
            manifest = from_listing(container, listing, path, options, kind)
        return decoded(pool, manifest, str(path.absolute()), key, options.size, options.progress)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pauses the collector, which would look through all names again each time there are a quarter more of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_manifest(manifest: Manifest, origin: str, options: ReadOptions) -> LabelledImages:
    """Pictures of a table or list; an unchanged manifest is opened from the cache."""
    key = key_of(
        origin, manifest.kind, manifest.digest, manifest.labels, manifest.parts, manifest.groups, options.key()
    )
    kept = open_kept(key, manifest.containers[0])
    if kept is not None:
        return kept
    with Pool(manifest.containers) as pool:
        return decoded(pool, manifest, origin, key, options.size, options.progress)

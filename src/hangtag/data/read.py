"""`read`: any form of labelled images -> `LabelledImages`.

It finds out which form the data has (a public set, a folder, an archive, a table, arrays, a frame, a list) and calls
its reader. All picture files go the same way: listed (`manifest.py`), decoded once into the cache and opened from there
(`store/materialize.py`).
"""

import gc
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.arrays import (
    ArrayPart,
    Arrays,
    flat_labels,
    is_idx,
    read_idx_folder,
    read_npy,
    read_npz,
    read_npz_folder,
)
from hangtag.data.choose_size import Size, check_levels, choose_spec, with_background
from hangtag.data.columns import gives_split
from hangtag.data.decisions import apply_decisions
from hangtag.data.describe import notes_on, notes_on_copies, notes_on_parts, sentence_on
from hangtag.data.folder_layout import CLASSES, Choose, is_picture_name, refuse
from hangtag.data.labelled_images import LabelledImages, Source, from_arrays
from hangtag.data.manifest import Answers, Manifest, ReadOptions, from_listing, from_pairs, from_tables
from hangtag.data.not_found import exists, not_found
from hangtag.data.parts import part_in_file_name, part_named
from hangtag.data.picture_facts import CARRIES_COLOUR, COLOUR_FILE, FACTS, NO_CLASS
from hangtag.data.public import datasets
from hangtag.data.store.containers import FAILING, Container, Folder, Listing, archive_listing, stamp_of
from hangtag.data.store.materialize import decoded, key_of, open_kept
from hangtag.data.store.pool import Pool
from hangtag.data.table_paths import FilesBelow, part_in_path
from hangtag.data.tables import TABLE_ENDINGS, Table, read_table, table_of_frame
from hangtag.data.tables_in_archive import in_archive, mirrored, naming
from hangtag.data.tables_in_folder import (
    TableReading,
    are_class_folders,
    is_parquet,
    missing_shards,
    parquet_readings,
    readings_of,
    split_lists,
    tables_beside,
    unread_note,
)
from hangtag.errors import DataError, HangtagError, UnknownName, UsageError
from hangtag.files import user_path
from hangtag.levels import measure, to_8_bits
from hangtag.machine import processors
from hangtag.pictures import (
    FITS,
    PICTURE_ENDINGS,
    Change,
    Images,
    ImageSpec,
    carries_colour,
    finite,
    has_channels_first,
    in_channels,
    stacked,
)
from hangtag.progress import Progress
from hangtag.resize import Sizer
from hangtag.words import amount, csv_text, first_few

__all__ = ["read", "skipped_table"]

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_OTHER_FILES = {
    PICTURE_ENDINGS: "hangtag predict classifies single pictures",
    (".xlsx", ".xls", ".ods"): "save the table as CSV (in Excel: CSV UTF-8)",
    _PICKLES: "pickles can run code and are never loaded; save arrays with numpy.savez",
    (".h5", ".hdf5", ".mat", ".tfrecord", ".arrow", ".feather"): "save its arrays with numpy.savez, or a Parquet file",
    (".rar", ".7z", ".csv.gz", ".jsonl.gz", ".zst"): "unpack it",
}
"""What to do with some files that are not read, by the endings of their names."""

_TARS = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")


def read(
    what: Any,
    path: str | Path | None = None,
    progress: Progress | None = None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    root: str | Path | None = None,
    classes: str | None = None,
    group_by: str | None = None,
    size: int | tuple[int, int] | None = None,
    fit: str | None = None,
    colour: bool | None = None,
    color: bool | None = None,
    photo_side: int | None = None,
    photos: bool | None = None,
    spec: ImageSpec | None = None,
    strict: bool = False,
    decisions: str | Path | None = None,
    choose: Choose | None = None,
) -> LabelledImages:
    """Read labelled images from whatever form they have.

    Args:
        what: the name of a public set; a folder with a folder per class; a zip or tar of one; a .csv, .tsv, .jsonl or
            .parquet table; a folder of Parquet files; a .npz, a pair of .npy, IDX files; a DataFrame; (images,
            labels); ((images, labels), (test_images, test_labels)); a list of (picture, label). IDX files are read as
            arrays, so their classes are numbers, even if they are those of a public set; name the set, and give their
            folder as `path`, to get its class names.
        path: the folder that holds the files of a public set; None searches for them.
        progress: called with (what is happening, done, total).
        image_column, label_column: columns of a table; None recognises them by their content. Several columns of
            zeros and ones, one for each class, are separated by commas.
        split_column: the column of a table that gives the parts; COLUMN=VALUE: rows with this value are the test part,
            all others are for training; "none": the table is not divided; None recognises it by its content.
        root: the folder to which a table's paths are relative; None: the table's folder.
        classes: where the classes are, if folders can be read in two ways: "top" (the outermost folders), "leaf"
            (the innermost folders with their path), "name" (the innermost folders without it), "file" (the
            beginning of file names: cat.123.jpg), or "parts" (in folders such as train; others are left out).
        group_by: a column, or a regular expression on the picture's name (its first group counts): pictures of one
            group are never split between training and validation.
        size: side in pixels, or (height, width); None chooses one that suits the pictures. Public sets keep their size.
        fit: how pictures of other proportions are fitted: "squash", "pad" or "crop"; None chooses.
        colour, color: whether the model sees colour, in either spelling; None: if the pictures have any.
        photo_side: side in pixels, instead of at most 96, for pictures that suit a pretrained network.
        photos: whether they do; None: if they are photographs (in colour, larger than 64 pixels) or fewer than 2,000.
        spec: size, colours and fit of an existing model, instead of `size`, `fit` and `colour`; not for public sets.
        strict: raise an error at the first picture that cannot be read, instead of setting it aside.
        decisions: a CSV of decisions about single pictures, see `decisions.py`.
        choose: called if data can be read in two ways; None raises an error that names both.

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
    if classes is not None and classes not in CLASSES:
        raise UnknownName.among("value of --classes:", classes, CLASSES)
    colour = color if colour is None else colour
    wanted = Size(spec, _sides(size), fit, colour, photo_side, photos)
    options = ReadOptions(
        image_column, label_column, split_column, user_path(root) if root is not None else None, classes, group_by,
        wanted, choose or refuse, progress,
    )  # fmt: skip
    data = _read(what, user_path(path) if path is not None else None, options)
    if photo_side is not None and max(data.spec.shape[:2]) == photo_side:  # so that a run can read its data again
        answers = {**data.source.answers, "photo_side": photo_side, **({} if photos is None else {"photos": photos})}
        data = replace(data, source=replace(data.source, answers=answers))
    skipped = [each for each in data.source.skipped if each.kind != NO_CLASS]
    if strict and skipped:
        more = f" (and {len(skipped) - 1:,} more)" if len(skipped) > 1 else ""
        raise DataError(
            f"{skipped[0].name}: {skipped[0].reason}{more}",
            "repair or remove the files, or leave out --strict to skip them",
        )
    return apply_decisions(data, user_path(decisions)) if decisions is not None else data


def _sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of a side or of both."""
    if size is None:
        return None
    sides = (
        (size, size) if isinstance(size, (int, np.integer)) else tuple(size) if isinstance(size, (tuple, list)) else ()
    )
    if len(sides) != 2 or not all(isinstance(side, (int, np.integer)) for side in sides):
        raise UsageError(f"size must be a number of pixels, or (height, width), got {size!r}", "for example: size=64")
    if not all(8 <= side <= 1024 for side in sides):
        raise UsageError(f"size must be 8 to 1024 pixels, got {size}", "choose a size in this range")
    return int(sides[0]), int(sides[1])


def skipped_table(data: LabelledImages) -> str:
    """What was set aside, as a CSV table."""
    rows = [(each.name, each.kind, each.reason) for each in data.source.skipped]
    return csv_text(["name", "kind", "reason"], rows)


# --- by form ---------------------------------------------------------------------------------------------------


def _read(what: Any, path: Path | None, options: ReadOptions) -> LabelledImages:
    if isinstance(what, LabelledImages):
        options.refuse_all(what.name, "data that has not been read yet")
        return what
    if not isinstance(what, (str, Path)):
        return _read_object(what, options)
    if path is not None or _is_public(what):
        options.refuse_all(what, "your own data")
        return datasets.read_public(str(what), path, options.progress)
    return _read_path(user_path(what), str(what), options)


def _is_public(what: str | Path) -> bool:
    """Whether the name of a public set is meant; a `Path` to something that exists is not one."""
    return str(what) in datasets.NAMED and (isinstance(what, str) or not exists(what))


def _read_path(path: Path, name: str, options: ReadOptions) -> LabelledImages:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        if is_folder and not any(path.iterdir()):
            raise DataError(f"{path}: the folder is empty", "it must contain one folder of images per class")
    except PermissionError:
        raise DataError(f"{path}: permission denied", "check the permissions") from None
    except DataError:
        raise
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
        return _read_arrays(read_idx_folder(path, options.choose), path, "IDX files", options)
    with _without_garbage_collection():
        folder = Folder(str(path))
        listing = folder.listing()
    names = [entry.name for entry in listing.entries]
    pictures = any("/" in name and name.lower().endswith(PICTURE_ENDINGS) for name in names)
    if any(map(is_parquet, names)) and not pictures:
        return _read_tables(_chosen_reading(parquet_readings(names), path, options), path, options, listing)
    chosen = _tables_beside_pictures(_readings_beside(names, options), listing, path, path, options)
    if chosen is not None:
        return _read_tables(chosen, path, options, listing)
    if any(file.suffix == ".npz" for file in files) and not any(n.lower().endswith(PICTURE_ENDINGS) for n in names):
        return _read_arrays(read_npz_folder(path, *options.arrays()), path, "arrays in .npz files", options)
    if not pictures and any(file.suffix == ".npy" for file in files):
        return _read_arrays(read_npy(path, *options.arrays()), path, "a pair of .npy files", options)
    data = _read_listing(path, listing.digest(), lambda: (folder, listing), "", options)
    own = listing.notes_on_own()
    return replace(data, source=replace(data.source, notes=(*own, *data.source.notes))) if own else data


def _readings_beside(names: Sequence[str], options: ReadOptions) -> list[TableReading]:
    """The ways to read tables beside pictures; none if the user says that the folders are the classes."""
    return [] if options.classes else readings_of(names, not are_class_folders(filter(is_picture_name, names)))


def _tables_beside_pictures(
    readings: list[TableReading], listing: Listing, folder: Path, where: Path, options: ReadOptions
) -> TableReading | None:
    """The tables in a folder that have the labels; None if the folders have them. `where` is named in questions."""
    if not readings:
        return None
    classes = are_class_folders(entry.name for entry in listing.entries if is_picture_name(entry.name))
    chosen = _chosen_reading(readings, where, options) if options.label_column or not classes else None
    return chosen or _table_or_folders(readings, listing, folder, where, options)


def _notes_on_tables(listing: Listing, what_to_do: str, used: Sequence[str] = ()) -> list[str]:
    """Notes on tables and lists of splits that were not read."""
    names = [entry.name for entry in listing.entries]
    tables = tables_beside(names, used)
    lists = [] if used or any(map(part_in_path, filter(is_picture_name, names))) else split_lists(names, tables)
    notes = [unread_note(tables, what_to_do)] if tables else []
    return notes + ([f"{first_few(lists, 4)}: a split may be listed there, which was not read"] if lists else [])


def _chosen_reading(readings: list[TableReading], where: Path, options: ReadOptions) -> TableReading:
    if len(readings) == 1:
        return readings[0]
    answers = [(each.answer, f"the table{'s' * (len(each.files) > 1)} {first_few(each.files, 4)}") for each in readings]
    question = f"{where} contains several tables; which has the labels? (or name a table or folder inside)"
    answer = options.choose(question, answers)
    return next(each for each in readings if each.answer == answer)


def _table_or_folders(
    readings: list[TableReading], listing: Listing, folder: Path, where: Path, options: ReadOptions
) -> TableReading | None:
    """The tables beside folders of pictures if they say more than the folders; None if they do not.

    Raises:
        UsageError: they say something else, and `choose` cannot decide.
    """
    differ, unclear = [], []
    for reading in readings:
        tables: list[Table] = []
        with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
            try:
                tables = _tables_of(reading, folder, options)
                manifest = from_tables(tables, "", replace(options, choose=refuse), Path(temporary))
            except UsageError:  # it may be read in several ways
                unclear += [reading] if gives_split(tables) else []
                continue
            except HangtagError:
                continue  # another kind of table
        if not are_class_folders(sample.name for sample in manifest.wanted):
            return reading
        folders = [sample.name.split("/")[:-1] for sample in manifest.wanted]
        if not all(folders):
            continue  # not the pictures in the folders
        rows = [row for row, each in enumerate(folders) if part_named(each[-1]) is None]
        same = any(
            all(_plain_name(manifest.labels[row]) == _plain_name(folders[row][at]) for row in rows) for at in (0, -1)
        )
        divided = any(part_in_path(entry.name) for entry in listing.entries)
        if same and any(manifest.parts) and (not divided or len(rows) < len(folders)):
            return reading
        if not same:
            differ.append(reading)
    if not (differ or unclear):
        return None
    answers = [(each.answer, f"the labels in {first_few(each.files, 4)}") for each in differ or unclear]
    answers.append(("folders", "the names of the folders"))
    says = "the tables and the folders give different labels" if differ else "a table beside the folders gives a split"
    answer = options.choose(
        f"{where}: {says}; which are right? (the table: name it or --label-column; the folders: --classes top)", answers
    )
    return next((each for each in differ or unclear if each.answer == answer), None)


def _plain_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _read_file(path: Path, options: ReadOptions) -> LabelledImages:
    name = path.name.lower()
    if name.endswith(TABLE_ENDINGS):
        part = part_in_file_name(path.stem)
        reading = TableReading(path.name, (((path.name,), part if part != "train" or is_parquet(name) else None),))
        return _read_tables(reading, path, options)
    if name.endswith(".npz"):
        return _read_arrays(read_npz(path, *options.arrays()), path, "arrays in a .npz file", options)
    if name.endswith(".npy"):
        return _read_arrays(read_npy(path, *options.arrays()), path, "a pair of .npy files", options)
    if is_idx(path):
        return _read_arrays(read_idx_folder(path, options.choose), path, "IDX files", options)
    if name.endswith((".zip", *_TARS)):
        stamp = _stamp(path)
        with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
            kind = "a zip file" if name.endswith(".zip") else "a tar file"
            listed = cache(lambda: archive_listing(path, Path(temporary) / "tar"))
            data = _read_listing(path, stamp, listed, kind, options)
        if _stamp(path) != stamp:
            raise DataError(f"{path}: the file changed while it was read", "run the same command again")
        return data
    known = "it reads folders, .zip, .tar, .csv, .tsv, .jsonl, .parquet, .npz, .npy and IDX files"
    advice = next((f"{what}; " for endings, what in _OTHER_FILES.items() if name.endswith(endings)), "")
    raise DataError(f"{path}: hangtag cannot read this kind of file", f"{advice}{known}")


def _read_tables(
    reading: TableReading, where: Path, options: ReadOptions, listing: Listing | None = None
) -> LabelledImages:
    """The images of one reading of tables; notes name the tables and images in the folder that were not read."""
    options.refuse(where, "nested folders", "classes")
    folder = where.parent if listing is None else where
    tables = _tables_of(reading, folder, options)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        manifest = from_tables(tables, where.stem if listing is None else where.name, options, Path(temporary))
        if listing is not None:
            manifest.notes += _notes_on_tables(listing, "name it", reading.files)
            if missing := missing_shards(reading.files):
                manifest.notes.append(f"{amount(len(missing), 'file')} of the dataset missing: {first_few(missing, 3)}")
            manifest.notes += _notes_on_unused(manifest, listing, folder)
        else:
            siblings = readings_of(child.name for child in folder.iterdir() if child.is_file())
            unread = {name for each in siblings if where.name in each.files for name in each.files} - {where.name}
            manifest.notes += [unread_note(sorted(unread), "name it, or the folder for all parts")] if unread else []
        return _read_manifest(manifest, str(where.resolve()), options)


def _notes_on_unused(manifest: Manifest, listing: Listing, folder: Path) -> list[str]:
    """A note on pictures in the folder that the tables do not name, or that have no label."""
    roots = [each.root if isinstance(each, Folder) else None for each in manifest.containers]
    if None in roots:
        return []
    used = {os.path.normpath(os.path.join(str(roots[each.container]), each.key)) for each in manifest.wanted}  # noqa: PTH118
    pictures = [entry.name for entry in listing.entries if entry.name.lower().endswith(PICTURE_ENDINGS)]
    unused = [name for name in pictures if os.path.normpath(f"{folder}/{name}") not in used]
    where = sorted({name.split("/")[0] if "/" in name else "the folder itself" for name in unused})
    said = f"{len(unused):,} of {amount(len(pictures), 'image')} left out (in {first_few(where)})"
    return [f"{said}: the table does not name them, or gives no label or part"] if unused else []


def _tables_of(reading: TableReading, folder: Path, options: ReadOptions) -> list[Table]:
    tables = [read_table([folder / name for name in names], options.root, part) for names, part in reading.tables]
    if len(tables) > 1 and options.root is None:
        below = FilesBelow(str(folder))
        for table in tables:
            table.files = below
    return tables


def _read_object(what: Any, options: ReadOptions) -> LabelledImages:
    if isinstance(what, tuple) and len(what) == 2:
        if all(map(_is_part, what)):
            parts = [_array_part(part, *each) for part, each in zip(("train", "test"), what, strict=True)]
            return _read_arrays(Arrays(parts), None, "arrays of a training and a test part", options)
        if _is_array(what[0]):
            return _read_arrays(Arrays([_array_part(None, *what)]), None, "arrays", options)
        if all(isinstance(each, list) or getattr(each, "ndim", 0) == 1 for each in what):
            what = _pairs_of(*what)
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        if hasattr(what, "columns") or isinstance(what, Mapping):
            manifest = from_tables([table_of_frame(what, options.root)], "frame", options, Path(temporary))
        elif isinstance(what, Sequence) and len(what):
            manifest = from_pairs(what, options, Path(temporary))
        else:
            raise DataError(
                f"cannot read labelled images from {type(what).__name__}",
                "give a name, a path, a DataFrame, (images, labels), or a list of (image, label)",
            )
        return _read_manifest(manifest, "memory", options)


def _is_part(value: Any) -> bool:
    """Whether this is (images, labels), and not one image with its label."""
    if not (isinstance(value, tuple) and len(value) == 2 and _is_array(value[0])):
        return False
    labels = value[1]
    return getattr(labels, "ndim", 0) > 0 or (isinstance(labels, (list, tuple)) and len(labels) == len(value[0]))


def _is_array(images: Any) -> bool:
    return hasattr(images, "shape") and len(images.shape) != 1


def _array_part(part: str | None, images: Any, labels: Any) -> ArrayPart:
    array = np.asarray(images)
    return ArrayPart(part, array, flat_labels(labels, len(array) if array.ndim else 0))


def _pairs_of(pictures: Any, labels: Any) -> list[tuple[Any, Any]]:
    """Pictures and labels in two lists as one list of pairs."""
    if len(pictures) != len(labels):
        raise DataError(f"{len(pictures):,} images but {len(labels):,} labels", "give one label for each image")
    return list(zip(pictures, labels, strict=True))


# --- arrays ----------------------------------------------------------------------------------------------------


def _read_arrays(found: Arrays, path: Path | None, kind: str, options: ReadOptions) -> LabelledImages:
    """Arrays; their size and colours are chosen by the same rules as those of pictures."""
    where = str(path) if path else "arrays"
    named = () if kind.startswith(("arrays in", "a pair")) else ("image_column", "label_column")
    options.refuse(where, "images or tables", *named, "split_column", "root", "classes", "group_by")
    parts, notes = found.parts, list(found.notes)
    if any(has_channels_first(part.images) for part in parts):
        count, *sides = parts[0].images.shape
        notes.append(f"images of shape {(count, *sides)} were read as (images, channels, height, width)")
    arrays = [stacked(part.images, where) for part in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise DataError(f"{where}: the parts have images of different shapes", "give all images the same size")
    if len({array.dtype if array.dtype == np.uint8 else array.dtype.kind for array in arrays}) > 1:
        types = ", ".join(str(array.dtype) for array in arrays)
        raise DataError(f"{where}: the parts have pixels of different types: {types}", "give all images the same type")
    images = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    labels = np.concatenate([np.asarray(part.labels) for part in parts]) if len(parts) > 1 else parts[0].labels
    part_of = np.repeat(np.arange(len(parts)), [len(array) for array in arrays])
    images, facts = _in_8_bits(images, where, options.size, {str(p.part): part_of == i for i, p in enumerate(parts)})
    name, least = path.stem if path else "arrays", 1 if options.size.spec else 2
    data = from_arrays(images, np.asarray(labels), name, least_classes=least)
    spec = choose_spec(facts, len(images), options.size)
    if spec.shape != images.shape[1:]:
        sizer = Sizer(spec)
        data = replace(data, images=np.stack([sizer(in_channels(image, spec.channels)) for image in images]))
    spec = with_background(spec, data.images, np.arange(len(images)), facts)
    ends = np.cumsum([0, *(len(part.labels) for part in parts)])
    slices = {str(part.part): slice(int(ends[i]), int(ends[i + 1])) for i, part in enumerate(parts) if part.part}
    notes += [
        *data.source.notes,
        *notes_on_parts(data.class_names, {name: data.labels[at] for name, at in slices.items()}),
        *notes_on_copies(data.contents, data.labels, part_of),
        *notes_on(spec, facts, set(), (), options.size),
    ]
    contents = data.contents
    data = replace(data, parts=slices, picture_facts=facts, source=Source(where, "", tuple(notes), spec=spec))
    data = replace(data, source=replace(data.source, description=sentence_on(data, kind, facts)))
    vars(data)["contents"] = contents  # no image is hashed twice
    return data


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


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
        return f"{status.st_size} {stamp_of(path, status)}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", "check the file") from error


def _read_listing(
    path: Path, stamp: str, listed: Callable[[], tuple[Container, Listing]], kind: str, options: ReadOptions
) -> LabelledImages:
    """Pictures in folders; an unchanged folder or archive is opened from the cache."""
    for_tables = ("image_column", "label_column", "split_column")
    options.refuse(path, "tables", "root", *(() if kind else for_tables))
    options = replace(options, choose=(answers := Answers(options.choose)))
    with _without_garbage_collection():
        key = key_of(str(path.resolve()), stamp, options.key())
        kept = open_kept(key, lambda: [listed()[0]], answers)
        if kept is not None:
            return kept
        container, listing = listed()
    with Pool([container], _processes(listing)) as pool:
        pool.start()
        with _without_garbage_collection():
            tabular = _manifest_of_tables(container, listing, path, options, kind) if kind else None
            if kind and tabular is None:
                options.refuse(path, "tables", *for_tables)
            manifest = tabular or from_listing(container, listing, path, options, kind)
            if tabular is None:
                manifest.notes += _notes_on_tables(listing, "unpack the archive and name it" if kind else "name it")
            manifest.asked = answers
        return decoded(pool, manifest, str(path.absolute()), key, options.size, options.progress)


def _processes(listing: Listing) -> int:
    """How many processes decode these files: one takes as long to start as to decode 200 kB or 200 small pictures."""
    files = listing.entries
    return min(processors(), 1 + sum(file.size for file in files) // 200_000 + len(files) // 200)


def _manifest_of_tables(
    container: Container, listing: Listing, path: Path, options: ReadOptions, kind: str
) -> Manifest | None:
    """The images of an archive by the tables in it; None if its folders name the classes."""
    readings = _readings_beside([entry.name for entry in listing.entries], options)
    if not readings:
        return None
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary, naming(root := Path(temporary, "a"), path):
        mirrored(container, listing, (name for each in readings for name in each.files), root)
        reading = _tables_beside_pictures(readings, listing, root, path, options)
        if reading is None:
            return None
        tables = _tables_of(reading, root, options)
        for table in tables:
            table.where = table.where.replace(str(root), str(path))
        manifest = from_tables(tables, path.stem.removesuffix(".tar"), options, Path(temporary))
        manifest.kind = f"{manifest.kind} in {kind}"
        manifest.notes += _notes_on_tables(listing, "unpack the archive and name it", reading.files)
        manifest.notes += _notes_on_unused(manifest, listing, root)
        return in_archive(manifest, container, listing, root, path)


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
        origin,
        manifest.kind,
        manifest.digest,
        manifest.labels,
        manifest.parts,
        manifest.groups,
        manifest.notes,
        [(each.name, each.kind) for each in manifest.skipped],
        options.key(),
    )
    kept = open_kept(key, lambda: manifest.containers)
    if kept is not None:
        return kept
    with Pool(manifest.containers) as pool:
        return decoded(pool, manifest, origin, key, options.size, options.progress)

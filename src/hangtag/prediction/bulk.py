"""Any number of pictures -> their answers, one after the other, in bounded memory, on all cores.

A few pictures are answered in this process, which is quicker than starting others. For more, processes of `worker.py`
read, decode and classify; each has one thread, because several threads in one small network mostly wait for each other.
The answers are those of `Predictor(path)`, bit for bit. A process that dies or hangs is replaced, and the picture it
was at is tried again alone; only if that fails again is it a row with an error.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hangtag.data.picture_list import PictureList, list_pictures
from hangtag.data.store.containers import Container, Folder, Sample
from hangtag.errors import GpuError, HangtagError, PictureError, StoreError, UsageError
from hangtag.model.doctor import Repair
from hangtag.model.predictor import Answer, Predictor, load
from hangtag.progress import Progress

__all__ = ["FEW", "FileAnswer", "Row", "answers", "predict", "problem_of", "source_of"]

FEW = 8
"""Up to this many pictures are answered in this process."""


class FileAnswer(NamedTuple):
    """A picture's file, as the user named it or where it was found, and its answer.

    The answer of a picture that cannot be read has no label, and its `error` says why.
    """

    file: str
    answer: Answer


class Row(NamedTuple):
    """A picture of a list, its answer, and what to do about a picture that cannot be read."""

    sample: Sample
    answer: Answer
    hint: str = ""


def predict(
    model: Predictor | str | os.PathLike[str] | bytes,
    *places: str | os.PathLike[str],
    top: int = 3,
    image_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[FileAnswer]:
    """Classify files, folders, zip and tar files and tables, on all cores, in bounded memory.

    Answers come in the order of the places, and in a folder in the order of the names. They are those of
    `load(model)(path)`. A file that cannot be read has an answer, too, which says why.

    Args:
        model: a `Predictor`, or what `load` takes.
        places: files; folders, with all folders in them; patterns such as "photos/*.jpg"; zip and tar files; tables
            (.csv, .tsv, .jsonl, .parquet) with a column of paths or of pictures.
        top: number of classes in `Answer.top`, at least 1.
        image_column, root: of tables: the column of pictures, and the folder to which its paths are relative.
        workers: number of processes; None: one per core, on a GPU at most 4.
        progress: called with ("classifying images", done, total).

    Raises:
        DataError: a folder, archive or table has no picture, or cannot be read.
        UsageError: `top` or `workers` is out of range.
        RunError, ArtifactError: as for `load`.
        GpuError: the GPU fails, or has no memory left.

    >>> for file, answer in predict("runs/photos", "photos/", "more.zip"):  # doctest: +SKIP
    ...     print(file, answer.label, answer.sure)
    """
    if workers is not None and not (isinstance(workers, int) and workers >= 1):
        raise UsageError(f"workers must be at least 1, got {workers!r}", "leave it out to use all cores")
    if not isinstance(top, int) or top < 1:
        raise UsageError(f"top must be at least 1, got {top!r}", "it is the number of classes to show")
    predictor = model if isinstance(model, Predictor) else load(model)
    temporary = tempfile.TemporaryDirectory(prefix="hangtag-")
    try:
        pictures = list_pictures(places, Path(temporary.name), image_column, None if root is None else Path(root))
    except BaseException:
        temporary.cleanup()
        raise
    return _until_the_end(answers(predictor, pictures, top, workers, progress), temporary)


def _until_the_end(rows: Iterator[Row], temporary: "tempfile.TemporaryDirectory[str]") -> Iterator[FileAnswer]:
    with temporary:
        for row in rows:
            yield FileAnswer(row.sample.name, row.answer)


def answers(
    predictor: Predictor,
    pictures: PictureList,
    top: int = 3,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """The answers for listed pictures, in their order.

    Args:
        workers: number of processes; None: one per core, and none for a few pictures.
        progress: called with ("classifying images", done, total).

    Raises:
        DataError: no process can be started.
    """
    total = len(pictures.samples)
    if workers is None and total <= FEW:
        found = _here(predictor, pictures, top)
    else:
        found = _in_processes(predictor, pictures, top, workers)
    for done, (sample, fields) in enumerate(zip(pictures.samples, found, strict=True), 1):
        known = pictures.problems.get(done - 1)
        yield Row(sample, *_answer(predictor, dict(zip(("error", "hint"), known, strict=True)) if known else fields))
        if progress is not None:
            progress("classifying images", done, total)


def source_of(container: Container, key: Any) -> str | bytes:
    """A picture as `Predictor` takes it: the path of a file, or its bytes.

    Raises:
        DataError: the container is damaged at this place.
    """
    if not isinstance(container, Folder):
        return container.content(key)
    return str(key) if str(key).startswith("/") else f"{container.root}/{key}"


def problem_of(error: HangtagError) -> dict[str, str]:
    """Why a picture has no answer, without its name, and what to do next.

    Raises:
        StoreError, GpuError: it is one, so that no other picture has an answer, either.
    """
    if isinstance(error, (StoreError, GpuError)):
        raise error
    return {"error": error.reason if isinstance(error, PictureError) else error.message, "hint": error.hint}


def _here(predictor: Predictor, pictures: PictureList, top: int) -> Iterator[dict[str, Any]]:
    limited = predictor.with_limits()
    for sample in pictures.samples:
        try:
            yield limited(source_of(pictures.containers[sample.container], sample.key), top).to_json()
        except HangtagError as error:
            yield problem_of(error)


def _in_processes(
    predictor: Predictor, pictures: PictureList, top: int, workers: int | None
) -> Iterator[dict[str, Any]]:
    from hangtag.prediction.crew import Crew, Wanted

    containers = [each.to_json() for each in pictures.containers]
    wanted = (Wanted(row, containers[each.container], each.key) for row, each in enumerate(pictures.samples))
    with Crew(predictor, top, workers) as crew:
        yield from crew.answers(wanted, len(pictures.samples))


def _answer(predictor: Predictor, found: dict[str, Any]) -> tuple[Answer, str]:
    """An answer that came as JSON, and a hint if there is none."""
    if "label" not in found:
        return Answer(None, None, (), (), predictor.fingerprint, error=found["error"]), found.get("hint", "")
    values: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in found.items()}
    values["top"] = tuple((each["label"], each["probability"]) for each in found["top"])
    values["repairs"] = tuple(Repair(**each) for each in found["repairs"])
    return Answer(**values), ""

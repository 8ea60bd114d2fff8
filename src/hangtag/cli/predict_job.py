"""`hangtag predict RUN PLACE... --out DIR`: very many pictures into a folder of Parquet shards."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hangtag.data.store.remote import is_address, without_query
from hangtag.data.table_writer import ENDINGS
from hangtag.errors import HangtagError, UsageError
from hangtag.files import user_path
from hangtag.prediction.job import MOST_PROBLEMS, Done, Job, Unit, begin
from hangtag.words import amount, seconds_in_words

if TYPE_CHECKING:
    from hangtag.model.predictor import Predictor
    from hangtag.progress import Progress

__all__ = ["AnswerUnits", "answer_here", "answer_on_ray", "folder_of", "predict_into"]

AnswerUnits: TypeAlias = "Callable[[Job, Predictor, Iterable[Unit], int, Progress], Iterator[Done]]"
"""Answers units of a job: called with the job, its model, the units, the number of their images and a progress."""

_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


def folder_of(out: str) -> str | None:
    """The folder or address in --out; None if it is a table.

    An address, a folder that exists, a name with / at its end and a name without an ending are folders.

    Raises:
        UsageError: a table at an address.
    """
    if is_address(out):
        if without_query(out).lower().endswith(ENDINGS):
            raise UsageError(f"{out}: a table can be written on this machine only", "for shards, name a folder there")
        return out
    path = user_path(out)
    return str(path) if path.is_dir() or out.endswith("/") or not path.suffix else None


@contextmanager
def answer_here(predictor: "Predictor", top: int, workers: int | None) -> Iterator[AnswerUnits]:
    """A function that answers units on this machine, with this number of processes or one for each core."""
    from hangtag.prediction.crew import Crew
    from hangtag.prediction.units import UnitWorkers

    with Crew(predictor, top, workers, as_rows=True) as crew:
        crew.start()

        def answer(
            job: Job, predictor: "Predictor", units: Iterable[Unit], images: int, progress: "Progress"
        ) -> Iterator[Done]:
            yield from UnitWorkers(job, predictor, crew).answer(units, images, progress)

        yield answer


@contextmanager
def answer_on_ray(address: str, workers: int | None, device: str) -> Iterator[AnswerUnits]:
    """A function that answers units on a Ray cluster, while connected to it; at the end, prints each node's speed."""
    from hangtag.cli.options import on_cluster
    from hangtag.cluster.answering import GPU_SHARE, Speed, answer_on

    speed = Speed()
    with on_cluster(address, workers or 1, 1, GPU_SHARE if device == "cuda" else 0) as cluster:
        yield answer_on(cluster, workers, speed, device)
        if len(cluster.nodes) > 1 and speed.images:
            print(f"images a second: {speed}", file=sys.stderr)


def predict_into(
    out: str, predictor: "Predictor", places: list[str], answer: AnswerUnits, *, top: int, image_column: str | None,
    root: Path | None, refuse: bool, device: str, as_json: bool,
) -> Done:  # fmt: skip
    """Begin or continue the job in `out`, and print what its shards hold, which is returned."""
    with (
        _progress() as progress,
        begin(predictor, places, out, top=top, image_column=image_column, root=root, refuse=refuse,
              device=device, progress=progress) as job,
    ):  # fmt: skip
        if not as_json:
            for sentence in (*predictor.guarantees.limitations, *job.manifest.notes):
                print(f"note: {sentence}", file=sys.stderr)
        done = job.finished(progress)
        units = [unit for unit in job.units if unit.number not in done]
        before = job.manifest.images - sum(unit.images for unit in units)
        if done and units and not as_json:
            print(f"answered before: {before:,} of {amount(job.manifest.images, 'image')}", file=sys.stderr)

        def report(what: str, count: int, _: int) -> None:
            progress(what, before + count, job.manifest.images)

        if units:
            for each in answer(job, predictor, units, job.manifest.images - before, report):
                done[each.unit] = each
        total = sum((done[number] for number in sorted(done)), Done())
        job.finish(total)
    _print(out, job, total, predictor, as_json)
    return total


def _print(out: str, job: Job, total: Done, predictor: "Predictor", as_json: bool) -> None:
    from hangtag.cli import screen
    from hangtag.cli.options import print_error
    from hangtag.cli.tally import Tally

    shards = len(job.manifest.units)
    if as_json:
        screen.print_json({"out": without_query(out), "shards": shards, **total.to_json()})
        return
    for problem in total.problems[:MOST_PROBLEMS]:
        print_error(HangtagError(problem, ""))
    if total.failed > MOST_PROBLEMS:
        print(f"and {total.failed - MOST_PROBLEMS:,} more images that cannot be read", file=sys.stderr)
    tally = Tally(predictor.can_abstain, False, total.labels, total.sure, total.images, total.unsure, total.strange,
                  total.failed)  # fmt: skip
    screen.print_tally(tally)
    print(f"wrote {amount(shards, 'shard')} in {without_query(out)}", file=sys.stderr)


@contextmanager
def _progress() -> Iterator["Progress"]:
    """A progress bar in a terminal; elsewhere a line now and then."""
    if sys.stderr.isatty():
        from hangtag.cli.tally import late_progress

        with late_progress() as bar:
            yield bar
        return
    began: dict[str, tuple[float, int]] = {}  # each kind of work: when it began, and with how many done
    last = time.monotonic()

    def line(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        start, first = began.setdefault(what.rpartition(": ")[2], (now, done))  # nodes and their speeds may precede it
        if now - last < _LINE_SECONDS:
            return
        last = now
        speed = (done - first) / max(now - start, 1e-9)
        left = f", about {seconds_in_words((total - done) / speed)} left" if total and speed else ""
        of = f" of {total:,}" if total else ""
        print(f"{what}: {done:,}{of}, {speed:,.0f} a second{left}", file=sys.stderr, flush=True)

    yield line

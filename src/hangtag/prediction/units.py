"""Units of a job -> their shards: read, decode, answer and write, on the processes of a crew.

Without Ray, one `UnitWorkers` with a process for each core answers all units. On a cluster, each actor has one with a
single process. The rows are the same.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, Self

from hangtag.model.predictor import Predictor
from hangtag.prediction.crew import Crew, Wanted
from hangtag.prediction.job import MOST_PROBLEMS, Done, Job, Unit, UnitPictures
from hangtag.progress import Progress

__all__ = ["UnitWorkers", "answer_unit"]

_REPORTED = 50  # images between two reports of progress


class UnitWorkers:
    """Processes that answer units of a job; a context manager.

    Args:
        job: whose units.
        predictor: the job's model; see `Job.predictor`.
        workers: number of processes, None: one per core; or a crew for the same model that gives rows.
    """

    def __init__(self, job: Job, predictor: Predictor, workers: int | Crew | None = None) -> None:
        self.job, self.fingerprint = job, predictor.fingerprint
        self.crew = (
            workers
            if isinstance(workers, Crew)
            else Crew(predictor, job.manifest.top, workers, as_rows=True, device=job.manifest.device)
        )
        names = list(job.columns)
        self._empty = [None] * len(names)
        self._label, self._sure, self._ood = (names.index(name) for name in ("label", "sure", "is_ood"))
        self._error, self._notes, self._repairs = (names.index(name) for name in ("error", "warnings", "repairs"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.crew.__exit__(*error)

    def answer(self, units: Iterable[Unit], images: int, progress: Progress | None = None) -> Iterator[Done]:
        """Answer units one after the other, without a pause between them, and write their shards.

        Args:
            units: which.
            images: how many they have together.
            progress: called with ("classifying images", done, total).

        Raises:
            DataError: no process can be started, a list is damaged, or no picture can be read any more.
            SaveError: a shard cannot be written.
        """
        begun: deque[tuple[Unit, UnitPictures]] = deque()

        def wanted() -> Iterator[Wanted]:
            for unit in units:
                pictures = self.job.pictures(unit)
                begun.append((unit, pictures))
                for place, (where, key) in enumerate(zip(pictures.places, pictures.keys, strict=True)):
                    yield Wanted(unit.first + place, pictures.containers[where], key)

        rows: list[list[Any]] = []
        for count, found in enumerate(self.crew.answers(wanted(), images), 1):
            unit, pictures = begun[0]
            rows.append(self._row(pictures, len(rows), found))
            if progress is not None and count % _REPORTED == 0:
                progress("classifying images", count, images)
            if len(rows) == unit.images:
                begun.popleft()
                done = self._counts(unit, rows)
                self.job.write(unit, rows, done)
                rows = []
                yield done

    def _row(self, pictures: UnitPictures, place: int, found: Any) -> list[Any]:
        problem = pictures.problems.get(place) or (found["error"] if isinstance(found, dict) else None)
        if problem is None:
            return [pictures.names[place], *found, self.fingerprint]
        row: list[Any] = [pictures.names[place], *self._empty[1:-1], self.fingerprint]
        row[self._error], row[self._notes], row[self._repairs] = problem, [], []
        return row

    def _counts(self, unit: Unit, rows: list[list[Any]]) -> Done:
        read = [row for row in rows if row[self._error] is None]
        return Done(
            unit.number, len(rows), len(rows) - len(read), sum(not row[self._sure] for row in read),
            sum(bool(row[self._ood]) for row in read), Counter(row[self._label] for row in read),
            Counter(row[self._label] for row in read if row[self._sure]),
            [f"{row[0]}: {row[self._error]}" for row in rows if row[self._error] is not None][:MOST_PROBLEMS],
        )  # fmt: skip


def answer_unit(unit: Unit, workers: UnitWorkers) -> Done:
    """Read, decode and answer the pictures of one unit, and write its shard; errors as for `UnitWorkers.answer`."""
    (done,) = workers.answer([unit], unit.images)
    return done

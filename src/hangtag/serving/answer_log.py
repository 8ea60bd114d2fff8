"""`--log-answers FILE`: a line of JSON for an answer, which `hangtag drift` reads. No pixels, no file names."""

import os
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from hangtag.errors import HangtagError
from hangtag.serving.line_log import LineLog

if TYPE_CHECKING:
    from hangtag.model.predictor import Answer
    from hangtag.serving.metrics import Metrics

__all__ = ["AnswerLog"]


class AnswerLog:
    """Answers, or a random sample of them, in a file.

    Args:
        path: the file; several processes may append to it.
        metrics: counts lines that cannot be written.
        sample: the share of answers that are written.
        most_bytes: the size at which the file is renamed to NAME.1, which replaces an earlier one.

    Raises:
        SaveError: the file cannot be opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], metrics: "Metrics", sample: float = 1.0, most_bytes: int | None = None
    ) -> None:
        self.sample, self._random = sample, random.Random()  # seeded by the system: processes draw differently
        self._log = LineLog(Path(path), _line, lambda: metrics.lost_line("answers"), most_bytes)

    def answered(self, model: str, answers: "Sequence[Answer | HangtagError]") -> None:
        """Log a sample of these answers to pictures that could be read; can be called on any thread."""
        now = time.time()
        for answer in answers:
            if not isinstance(answer, HangtagError) and (self.sample >= 1 or self._random.random() < self.sample):
                self._log.write((now, model, answer))

    def close(self) -> None:
        self._log.close()


def _line(entry: Any) -> bytes:
    moment, name, answer = entry
    return orjson.dumps(
        {
            "time": datetime.fromtimestamp(moment, UTC),
            "name": name,
            "model": answer.model,
            "label": answer.label,
            "probability": answer.probability,
            "top": [{"label": label, "probability": share} for label, share in answer.top],
            "sure": answer.sure,
            "is_ood": answer.is_ood,
            "ood_score": answer.ood_score,
            "repairs": [{"name": each.name, "before": each.before} for each in answer.repairs],
        },
        option=orjson.OPT_UTC_Z,
    )

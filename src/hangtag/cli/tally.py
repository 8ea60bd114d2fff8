"""How far `hangtag predict` is: counts of answers, and a progress bar. It imports nothing that takes time."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hangtag.words import amount

if TYPE_CHECKING:
    from hangtag.model.predictor import Answer
    from hangtag.progress import Progress

__all__ = ["Tally", "late_progress"]

_BAR_SECONDS = 2.0  # work that takes longer has a progress bar


@dataclass
class Tally:
    """How many answers there are of each kind.

    Attributes:
        can_abstain: whether answers say if they are sure.
        sure_only: whether the others are left out.
        labels, sure: counts by label; those that are sure.
        done, unsure, strange, failed: all pictures; those not sure, and of them the unfamiliar; those not read.
    """

    can_abstain: bool
    sure_only: bool = False
    labels: Counter[str] = field(default_factory=Counter)
    sure: Counter[str] = field(default_factory=Counter)
    done: int = 0
    unsure: int = 0
    strange: int = 0
    failed: int = 0

    def add(self, answer: "Answer") -> None:
        self.done += 1
        if answer.label is None:
            self.failed += 1
            return
        self.unsure += not answer.sure
        self.strange += bool(answer.is_ood)
        if answer.sure or not self.sure_only:
            self.labels[answer.label] += 1
            self.sure[answer.label] += bool(answer.sure)

    @property
    def in_words(self) -> str:
        said = [amount(self.done, "image")]
        if self.can_abstain:
            left_out = ", left out" if self.sure_only and self.unsure else ""
            strange = f" ({self.strange:,} of them unfamiliar)" if self.strange else ""
            said.append(f"{self.unsure:,} not sure{strange}{left_out}")
        if self.failed:
            said.append(f"{self.failed:,} could not be read")
        return ", ".join(said)


@contextmanager
def late_progress() -> Iterator["Progress"]:
    """A progress bar that appears if the work takes longer than a moment."""
    began = time.monotonic()
    with ExitStack() as stack:
        bars: list[Progress] = []

        def progress(what: str, done: int, total: int) -> None:
            if not bars and time.monotonic() - began > _BAR_SECONDS:
                from hangtag.cli import live

                bars.append(stack.enter_context(live.byte_progress()))
            if bars:
                bars[0](what, done, total)

        yield progress

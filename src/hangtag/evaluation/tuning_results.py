"""The results of `hangtag tune`: trials, their settings and losses, and which of them was chosen.

`tuning.json` in a run folder holds them. It is replaced after each trial, and an interrupted search continues from it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from hangtag.files import write_json, write_text
from hangtag.serializable import Serializable, read_json
from hangtag.words import amount, csv_text

__all__ = ["FILE", "TABLE", "Setting", "Trial", "Trials", "read_trials", "write_trials"]

FILE, TABLE = "tuning.json", "trials.csv"

Setting: TypeAlias = bool | int | float | str | None

_Number = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Loss = Annotated[float, msgspec.Meta(ge=0, le=1e30)]
_HOW = {"completed": "trained to the end", "pruned": "stopped as worse than others", "failed": "could not be trained"}


@dataclass(frozen=True)
class Trial(Serializable):
    """One setting that was tried.

    Attributes:
        number: from 0; trial 0 has the recipe's own settings, if the search space contains them.
        settings: the values that were tried, by name.
        state: "completed"; "pruned", stopped early because its loss was worse than that of others; or "failed", for the
            reason in `reason`.
        loss: the mean cross-entropy of the held-out images after temperature scaling, which the model file does, too;
            None if the trial failed.
        accuracy: on these images.
        epochs: how many it was planned for.
        curve: the validation loss after each epoch, before temperature scaling.
        rungs: the loss when the trial was compared with others, by the number of the comparison.
        seconds: how long it took.
    """

    HINT = "restore the file, or start the search over in another folder"

    number: _Number
    settings: dict[str, Setting]
    state: Literal["completed", "pruned", "failed"]
    loss: _Loss | None = None
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    epochs: _Number = 0
    curve: tuple[_Loss, ...] = ()
    rungs: tuple[_Loss, ...] = ()
    seconds: _Loss = 0.0
    reason: str = ""

    def __repr__(self) -> str:
        found = "" if self.loss is None or self.state == "failed" else f", loss {self.loss:.4f}"
        return f"<Trial {self.number}: {self.in_words}{found}>"

    @property
    def in_words(self) -> str:
        if self.state == "pruned":
            return f"pruned after {len(self.curve)} of {self.epochs} epochs"
        return self.state + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Trials(Serializable):
    """All finished trials of a search.

    Attributes:
        space: what is searched, in words, by the name of the setting.
        judged_by: where the loss comes from, "validation" or "cross-validation".
        trials: in order of their numbers.
        seconds: how long the search has taken.
        chosen: the number of the trial whose settings the model was trained with; None while the search is unfinished.
    """

    HINT = Trial.HINT

    space: dict[str, str]
    judged_by: Literal["validation", "cross-validation"]
    trials: tuple[Trial, ...] = ()
    seconds: _Loss = 0.0
    chosen: _Number | None = None

    def __post_init__(self) -> None:
        numbers = [trial.number for trial in self.trials]
        if numbers != sorted(set(numbers)):
            raise ValueError("its trials must be in order, each once")
        if self.chosen is not None and self.chosen not in numbers:
            raise ValueError("the chosen trial must be one of its trials")

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __repr__(self) -> str:
        best = self.best
        found = "" if best is None else f", the best is {best.number} with loss {best.loss:.4f}"
        return f"<Trials: {amount(len(self), 'trial')}{found}>"

    def with_trial(self, trial: Trial) -> "Trials":
        """These trials and one more; if its number is there already, the earlier trial is kept."""
        trials = {trial.number: trial} | {each.number: each for each in self.trials}
        return replace(self, trials=tuple(trials[number] for number in sorted(trials)))

    @property
    def best(self) -> Trial | None:
        """The completed trial with the lowest loss; of equals, the first. None if there is none."""
        completed = [(trial.loss, trial.number, trial) for trial in self.trials if trial.state == "completed"]
        return min(completed, key=lambda each: each[:2])[2] if completed else None

    def ranked(self) -> list[Trial]:
        """All trials, the best first: completed ones by loss, then those that were pruned, then failures."""
        order = list(_HOW)
        return sorted(self.trials, key=lambda each: (order.index(each.state), each.loss or 0.0, each.number))

    @property
    def in_words(self) -> str:
        counts = Counter[str](trial.state for trial in self.trials)
        states = ", ".join(f"{counts[state]} {state}" for state in _HOW if counts[state])
        return f"{amount(len(self.trials), 'trial')} ({states})"

    def caution(self, part: str) -> str:
        """How the search affects the numbers of the model's evaluation, in a sentence.

        Args:
            part: what the model was judged on, as in `Judgement`.
        """
        if part == "test":
            return "The test images took no part in the search."
        return (
            "The images that chose the settings also judge the model, because there is no test part, so its numbers "
            "are optimistic."
        )

    def to_csv(self) -> str:
        """A row for each trial."""
        head = ["trial", "state", "loss", "accuracy", "epochs", "seconds", *self.space, "reason"]
        rows: list[list[Any]] = [
            [
                trial.number, trial.state, trial.loss, trial.accuracy, len(trial.curve), round(trial.seconds, 3),
                *(trial.settings.get(name) for name in self.space), trial.reason,
            ]
            for trial in self.trials
        ]  # fmt: skip
        return csv_text(head, [["" if cell is None else cell for cell in row] for row in rows])


def read_trials(folder: Path) -> Trials | None:
    """The trials in a run folder; None for a run without a search.

    Raises:
        RunError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    return Trials.from_json(read_json(folder, FILE), str(folder / FILE))


def write_trials(folder: Path, trials: Trials) -> None:
    """Write `tuning.json` and `trials.csv`; raises SaveError if the disk is full."""
    write_json(folder / FILE, trials.to_json())
    write_text(folder / TABLE, trials.to_csv())

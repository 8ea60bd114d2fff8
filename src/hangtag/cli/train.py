"""`hangtag train`: one training, several seeds, a time to train in, or an interrupted one gone on with."""

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hangtag.cli.options import (
    DATA_HELP,
    AsJson,
    DataPath,
    Device,
    Reading,
    look_for_near,
    notes_at_once,
    read_data,
    say_understood,
)
from hangtag.errors import HangtagError, UsageError
from hangtag.files import user_path

if TYPE_CHECKING:
    from rich.console import Console

    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement
    from hangtag.training.classifier import ImageClassifier
    from hangtag.training.engine.recipes import Recipe
    from hangtag.training.run import Training
    from hangtag.training.trackers import Tracking

__all__ = ["train"]

BEGAN = time.perf_counter()
"""When the command began; `--minutes` counts from here."""

RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="How to train: fast (when not given), accurate, best, quick, tutorial.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the images; the recipe's when not given.")]


def train(
    reading: Reading,
    what: Annotated[
        str | None,
        typer.Argument(help=DATA_HELP, show_default="fashion-mnist"),
    ] = None,
    path: DataPath = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Images per step; the recipe's when not given.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", help="Stop after so many epochs without a smaller validation loss; keep the best."),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option("--balance", help="For uneven classes: auto, off, weights or sampling."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Another network: mlp, cnn, or your own as module:function."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change any number of the recipe, name=value; can be given again."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Same seed, machine and versions: same model.", show_default="0", min=0)
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", help="Train with so many seeds; say mean and spread, keep the best by validation."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Choose recipe, network and epochs to be done in this time, all included."),
    ] = None,
    log_to: Annotated[
        str | None, typer.Option("--log-to", help="Also tell each epoch to tensorboard or mlflow.")
    ] = None,
    device: Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The run folder to make; an earlier run is never overwritten.",
            parser=user_path,
            metavar="<path>",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", help="Go on with this interrupted run, as it was begun; 'last' is the newest."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train, export, verify and judge a classifier; everything lands in one run folder. Ctrl-C keeps what there is.

    A training that was killed goes on where it was when the same command is given again, or with --resume.
    """
    from hangtag.cli import screen

    console = screen.console(stderr=as_json)
    changes = {
        "network": model, "epochs": epochs, "batch_size": batch_size, "patience": patience, "balance": balance,
    }  # fmt: skip
    asked = _TrainRequest(what, path, reading, recipe, changes, settings or [], seed, device, out)
    _refuse_together(asked, seeds, minutes, resume)
    with notes_at_once():
        log = _log(log_to)
        if seeds is not None:
            return _train_seeds(console, asked, seeds, log, as_json)
        if minutes is not None:
            training = _in_minutes(console, asked, minutes)
        else:
            training = _training(asked) if resume is None else _resumed(asked, resume)
        judged, stopped = _through(console, training, log)
        from hangtag.reports.report import write_report_and_pictures

        report = write_report_and_pictures(training.run, training.data, judged)
        _end(console, log, judged)
    if as_json:
        screen.print_json({"run": str(training.run.path), "seconds": training.seconds, **judged.to_json()})
    else:
        screen.print_summary(console, training, judged, report)
    if stopped:
        raise typer.Exit(130)
    return None


def _refuse_together(asked: "_TrainRequest", seeds: int | None, minutes: float | None, resume: str | None) -> None:
    """Raises UsageError where options exclude each other, or ask for no time; no data are read for that."""
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes {minutes:g} makes no sense", "give a number above 0")
    changed = asked.recipe or asked.settings or any(value is not None for value in asked.changes.values())
    if minutes is not None and (seeds is not None or resume is not None or changed):
        raise UsageError("--minutes chooses the recipe itself", "give it without other settings of the training")
    if seeds is not None and resume is not None:
        raise UsageError("--resume and --seeds exclude each other", "give the command that began the seeds again")


def _log(name: str | None) -> "Tracking":
    from hangtag.training.trackers import Tracking

    return Tracking(name)


def _end(console: "Console", log: "Tracking", judged: "Judgement") -> None:
    """The log of one training is complete."""
    where = log.end(judged.evaluation)
    if where:
        console.print(f"logged: {where}")


def _in_minutes(console: "Console", asked: "_TrainRequest", minutes: float) -> "Training":
    """A training planned to end in this time; or one planned so before, and killed."""
    from hangtag.training.classifier import ImageClassifier
    from hangtag.training.engine.loop import choose_device
    from hangtag.training.engine.recipes import DEFAULT, find_recipe
    from hangtag.training.run import Training, find_planned
    from hangtag.training.time_budget import plan

    device = choose_device(asked.device)
    data = asked.data()
    seed = asked.seed or 0
    before = find_planned(data, minutes, seed, asked.out)
    if before is not None:
        return Training.resume(before, asked.device)
    look_for_near(data, find_recipe(DEFAULT))  # before the plan, so that its time counts
    console.print("measuring this machine ...")
    chosen = plan(data, minutes, BEGAN, device, seed)
    console.print(chosen.in_words)
    training = Training.begin(
        ImageClassifier(chosen.recipe, seed=seed, device=asked.device), data, asked.source, asked.out
    )
    training.record(plan=chosen.to_json())
    return training


def _through(console: "Console", training: "Training", log: "Tracking") -> tuple["Judgement", bool]:
    """Train to the end, or to Ctrl-C, and judge; returns whether it was stopped."""
    from hangtag.cli import screen

    data, name = training.data, training.config["recipe"]["name"]
    console.print(f"training recipe '{name}' on {len(data.train):,} images of {data.name}, into {training.run.path}")
    if training.resume_message:
        console.print(training.resume_message)
    with _stop_on_interrupt() as stop:
        epochs = log.track(training.epochs(stop), training.run, training.config["recipe"])
        screen.show_epochs(console, epochs, training.notes)
        stopped = stop() and training.stopped  # asked for in the last steps, it came too late
        if stopped:
            console.print(
                "stopped; keeping what was learned so far. "
                f"To go on later: hangtag train --resume {shlex.quote(str(training.run.path))}"
            )
        stop.finishing = True
        console.print("exporting, verifying and judging the model file ...")
        return training.finish(), stopped


def _train_seeds(console: "Console", asked: "_TrainRequest", count: int, log: "Tracking", as_json: bool) -> None:
    """One training after the other, then what they have in common."""
    classifier, data = _to_train(asked)
    from hangtag.cli import screen
    from hangtag.training.run import Training
    from hangtag.training.seeds import Seeds

    seeds = Seeds(classifier, data, asked.source, asked.out, count)
    console.print(f"{count} seeds, into {seeds.run.path}{'; resuming' if seeds.resumed else ''}")
    try:
        for number, step in seeds.trainings():
            if not isinstance(step, Training):
                console.print(f"seed {number}: done before; {step.part} {step.evaluation}")
                continue
            console.print(f"seed {number}:")
            judged, stopped = _through(console, step, log)
            console.print(f"seed {number}: {judged.part} {judged.evaluation}")
            _end(console, log, judged)
            if stopped:
                console.print("all seeds go on when the same command is given again")
                raise typer.Exit(130)
    except HangtagError:
        seeds.discard()
        raise
    kept, judged = seeds.finish()
    from hangtag.reports.report import write_report_and_pictures

    report = write_report_and_pictures(seeds.run, data, judged)
    if as_json:
        return screen.print_json({"run": str(seeds.run.path), **seeds.run.metrics()})
    screen.print_seeds(seeds, kept, judged, report)
    return None


@dataclass(frozen=True)
class _TrainRequest:
    """What `hangtag train` was given; None and {} where the user said nothing."""

    what: str | None
    path: Path | None
    reading: Reading
    recipe: str | None
    changes: Mapping[str, Any]
    settings: Sequence[str]
    seed: int | None
    device: str
    out: Path | None

    def chosen(self) -> "Recipe":
        from hangtag.training.engine.recipes import DEFAULT, find_recipe, with_settings

        return find_recipe(with_settings(find_recipe(self.recipe or DEFAULT), self.settings), **self.changes)

    @property
    def source(self) -> dict[str, Any]:
        from hangtag.data.public.datasets import NAMED

        what = self.what or "fashion-mnist"
        absolute = str(Path(what).resolve()) if Path(what).exists() and what not in NAMED else what
        said: dict[str, Any] = {"what": absolute, "path": str(self.path.absolute()) if self.path else None}
        options = {name: value for name, value in self.reading.options().items() if name != "strict"}
        options |= {name: _absolute(options[name]) for name in ("root", "decisions") if name in options}
        return said | ({"options": options} if options else {})

    def read_otherwise(self, begun: Mapping[str, Any]) -> list[str]:
        """What was said about how to read the data, but not where they are, and is not what a run was begun with."""
        there = begun.get("options", {})
        return [
            f"{name} {there.get(name)} there, {value} here"
            for name, value in self.source.get("options", {}).items()
            if value is not None and value != there.get(name)
        ]

    def data(self) -> "LabelledImages":
        data = read_data(self.what, self.path, self.reading)
        say_understood(data, sys.stderr)
        return data


def _absolute(path: str) -> str:
    """So that a run can be judged from any folder."""
    return str(user_path(path).absolute())


def _training(asked: _TrainRequest) -> "Training":
    """A new training, or one of exactly this kind that was killed."""
    classifier, data = _to_train(asked)
    from hangtag.training.run import Training

    return Training.begin(classifier, data, asked.source, asked.out)


def _to_train(asked: _TrainRequest) -> tuple["ImageClassifier", "LabelledImages"]:
    """What was asked for, unfitted, and its data."""
    recipe = asked.chosen()  # a wrong name is said before anything heavy starts
    from hangtag.training.classifier import ImageClassifier
    from hangtag.training.engine.loop import choose_device

    choose_device(asked.device)  # likewise, before any data are read
    classifier = ImageClassifier(recipe=recipe, seed=asked.seed or 0, device=asked.device)
    data = asked.data()
    look_for_near(data, recipe)
    return classifier, data


def _resumed(asked: _TrainRequest, name: str) -> "Training":
    """The named training, as it was begun; whatever else was asked for must be what it was begun with.

    Its data may lie elsewhere now, and are proved to be the same.
    """
    from hangtag.evaluation.run_folder import find_run, newest_unfinished

    if asked.out is not None:
        raise UsageError(
            f"--resume {name} and --out {asked.out} exclude each other", "a resumed run stays in its folder"
        )
    run = newest_unfinished() if name == "last" and not Path(name).exists() else find_run(name)
    begun = run.config()
    wanted = {key: value for key, value in asked.changes.items() if value is not None}
    if asked.recipe or asked.settings:
        wanted |= asked.chosen().to_json()
    differ = [
        f"{key} {begun.get('recipe', {}).get(key)} there, {value} here"
        for key, value in wanted.items()
        if begun.get("recipe", {}).get(key) != value
    ]
    if asked.seed is not None and asked.seed != begun.get("seed"):
        differ.append(f"seed {begun.get('seed')} there, {asked.seed} here")
    source = begun.get("source", {})
    differ += asked.read_otherwise(source)
    if differ:
        raise UsageError(
            f"{run.path}: was begun otherwise ({'; '.join(differ)})",
            "go on as it was begun, with --resume alone; or begin another run without --resume",
        )
    from hangtag.training.run import Training

    if asked.what is None and asked.path is None:
        return Training.resume(run, asked.device)
    said = {name: asked.source[name] for name in ("path", *(["what"] if asked.what is not None else []))}
    return Training.resume(run, asked.device, source | said)


@dataclass
class _Interrupt:
    """Whether Ctrl-C was pressed: to be asked while training.

    Attributes:
        finishing: all steps are taken, and there is nothing left to stop.
    """

    pressed: bool = False
    finishing: bool = False

    def __call__(self) -> bool:
        return self.pressed


@contextmanager
def _stop_on_interrupt() -> Iterator[_Interrupt]:
    """The first Ctrl-C asks for a clean end, a second one is an ordinary KeyboardInterrupt."""
    interrupt = _Interrupt()

    def ask(signum: int, frame: object) -> None:
        interrupt.pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        does = "almost done" if interrupt.finishing else "stopping after this moment's steps"
        print(f"\n{does}; press Ctrl-C again to abandon the run", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)

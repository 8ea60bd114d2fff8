"""The command line: one small command per public verb, each of which parses, calls one function and prints.

Errors become one line on stderr and an exit code in `main` alone: 2 for a request that cannot be right, 1 for a
failure, 130 for Ctrl-C. Heavy packages are imported inside the commands, so that `--help` stays quick.
"""

import functools
import inspect
import json
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import hangtag
from hangtag.errors import HangtagError, MissingExtra, UsageError
from hangtag.files import make_folder

if TYPE_CHECKING:
    from rich.console import Console

    from hangtag.classifier import ImageClassifier
    from hangtag.images import ImageSpec
    from hangtag.labelled import LabelledImages
    from hangtag.lesson import Section
    from hangtag.lifecycle import Judged, Training
    from hangtag.loggers import Logger
    from hangtag.predictor import Predictor
    from hangtag.recipes import Recipe
    from hangtag.runs import Run
    from hangtag.train import Epoch

_BEGAN = time.perf_counter()
_DATA_HELP = (
    "A public set's name (fashion-mnist), or your own: a folder per class, a zip or tar of it, a table (.csv, .tsv, "
    ".jsonl, .parquet), arrays (.npz, .npy, IDX)."
)

app = typer.Typer(
    name="hangtag",
    help="From labelled images to a classifier you can trust, in one command, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[str, typer.Argument(help=_DATA_HELP)]
DataPath = Annotated[Path | None, typer.Option("--path", help="Take the set's files from this folder.")]
RunName = Annotated[str, typer.Argument(help="A run folder, its name under runs/, or 'last'.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write.")]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="How to train: fast (when not given), accurate, best, quick, tutorial.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the images; the recipe's when not given.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, machine and versions: same model.", min=0)]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


@dataclass(frozen=True)
class Reading:
    """The options that say how to read data, the same for every command that takes some."""

    image_column: Annotated[str | None, typer.Option(help="The table's column of pictures.")] = None
    label_column: Annotated[str | None, typer.Option(help="The table's column of labels.")] = None
    root: Annotated[Path | None, typer.Option(help="Where the table's relative paths start.")] = None
    classes: Annotated[str | None, typer.Option(help="Of nested folders, the classes: top or leaf.")] = None
    group_by: Annotated[
        str | None,
        typer.Option(help="A column or regular expression on names: equal ones never on both sides of a split."),
    ] = None
    size: Annotated[str | None, typer.Option(help="Pixels of a side, or HEIGHTxWIDTH; chosen when not given.")] = None
    fit: Annotated[str | None, typer.Option(help="Other proportions: squash, pad or crop; chosen when not given.")] = (
        None
    )
    colour: Annotated[
        bool | None, typer.Option("--colour/--grey", help="Whether the model sees colour; chosen when not given.")
    ] = None
    decisions: Annotated[
        Path | None, typer.Option(help="A CSV of pictures to keep, drop or relabel, as hangtag audit writes it.")
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a file that cannot be read.")] = False

    def options(self) -> dict[str, Any]:
        """What was given, as `read` takes it and JSON can hold it."""
        given: dict[str, Any] = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self).items()
            if (value is not None and value is not False) or (name == "colour" and value is not None)
        }
        if self.classes not in (None, "top", "leaf"):
            raise UsageError(f"--classes {self.classes}: neither top nor leaf", "say which folders are the classes")
        if self.size is not None:
            sides = self.size.lower().split("x")
            if len(sides) > 2 or not all(side.isdigit() for side in sides):
                raise UsageError(f"--size {self.size}: no size", "give pixels, 64, or height and width, 48x64")
            given["size"] = int(sides[0]) if len(sides) == 1 else [int(side) for side in sides]
        return given


def _reads(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Reading` in place of its parameter `reading`."""

    @functools.wraps(command)
    def taking_options(**given: Any) -> Any:
        names = [field.name for field in fields(Reading)]
        return command(reading=Reading(**{name: given.pop(name) for name in names}), **given)

    own = [each for each in inspect.signature(command).parameters.values() if each.name != "reading"]
    options = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in inspect.signature(Reading).parameters.values()
    ]
    taking_options.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    taking_options.__annotations__ = {each.name: each.annotation for each in (*own, *options)}
    return taking_options


@app.callback(invoke_without_command=True)
def hangtag_itself(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error came from.")] = False,
) -> None:
    if version:
        print(f"hangtag {hangtag.__version__}")
        raise typer.Exit


@app.command(
    name="data",
    short_help="Fetch a data set and describe it.",
    epilog="Example: hangtag data photos/ --size 64",
)
@_reads
def data_command(
    reading: Reading,
    what: Data = "fashion-mnist",
    path: DataPath = None,
    export: Annotated[Path | None, typer.Option(help="Also write the images as PNG files, a folder per class.")] = None,
    part: Annotated[str, typer.Option(help="The part to export, where there are parts.")] = "test",
    first: Annotated[int | None, typer.Option(help="Export only the first so many.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Read data and say how it was understood, what was set aside and why, and its fingerprint."""
    data = _read(what, path, reading)
    if export:
        _export((data.part(part) if data.parts else data).take(slice(first)), export)
    if as_json:
        return _print_json(data.to_json())
    _say_understood(data)
    parts = ", ".join(f"{name} {len(data.part(name)):,}" for name in data.parts)
    parts = f" ({parts})" if parts else ""
    print(f"{data.name}: {len(data):,} images of {data.spec}, {len(data.class_names)} classes{parts}")
    print(f"from         {data.origin}")
    print(f"size         {data.images.nbytes / 1e6:,.1f} MB of pixels")
    print(f"fingerprint  {data.fingerprint}")
    if data.skipped:
        from hangtag.labelled import amount
        from hangtag.runs import SKIPPED
        from hangtag.sources import write_skipped

        write_skipped(data, Path(SKIPPED))
        print(f"set aside    {amount(len(data.skipped), 'file')}, see {SKIPPED}")
    return None


@app.command(
    short_help="Look at the images: pictures and a table of classes.",
    epilog="Example: hangtag look fashion-mnist --out pictures",
)
@_reads
def look(
    reading: Reading, what: Data = "fashion-mnist", path: DataPath = None, out: Out = None, as_json: AsJson = False
) -> None:
    """Look at the images: two pictures, a table of the classes, and a contact sheet in the terminal."""
    from hangtag import figures, screen

    data = _read(what, path, reading)
    folder = out or Path("pictures")
    make_folder(folder)
    train = data.train
    pictures = {
        "1-one-image.png": figures.one_image(train.images[0], data.class_names[train.labels[0]]),
        "2-grid.png": figures.image_grid(train.images[:25], train.labels[:25], data.class_names),
    }
    for name, figure in pictures.items():
        figures.save(figure, folder / name)
    table = {name: data.part(name).counts().tolist() for name in data.parts} or {"all": data.counts().tolist()}
    if as_json:
        return _print_json({"classes": list(data.class_names), "counts": table, "pictures": [*pictures]})
    console = screen.console()
    _say_understood(data)
    screen.print_class_table(console, data.class_names, table)
    screen.print_contact_sheet(console, data)
    for name in pictures:
        print(f"wrote {folder / name}")
    return None


@app.command(short_help="Show a network layer by layer.", epilog="Example: hangtag model tutorial")
def model(
    recipe: Annotated[str, typer.Argument(help="A recipe: fast, accurate, best, quick, tutorial.")] = "fast",
    as_json: AsJson = False,
) -> None:
    """Show the network of a recipe, layer by layer, for 28x28 grey images and ten classes."""
    from hangtag import screen
    from hangtag.images import ImageSpec
    from hangtag.models import build, layers, parameter_count
    from hangtag.recipes import find_recipe

    found = find_recipe(recipe)
    spec = ImageSpec(28, 28)
    network = build(found.network, spec, 10, seed=0)
    rows, total = layers(network, spec), parameter_count(network)
    if as_json:
        return _print_json({"network": found.network, "layers": [vars(row) for row in rows], "parameters": total})
    table = screen.table_of("layer", "kind", ">output shape", ">parameters")
    for row in rows:
        table.add_row(row.name, row.kind, f"(N, {', '.join(map(str, row.shape))})", f"{row.parameters:,}")
    table.add_section()
    table.add_row("in all", "", "", f"{total:,}")
    print(f"{found.network}: the network of recipe '{found.name}' ({found.says})")
    screen.console().print(table)
    return None


@app.command(
    short_help="Find what is wrong with pictures and labels.",
    epilog="Example: hangtag audit photos/ --out audit",
)
@_reads
def audit(
    reading: Reading,
    what: Data = "fashion-mnist",
    path: DataPath = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the findings and the page.")] = Path("audit"),
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Also look for wrong labels, which takes most of the time.")
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the same pictures, wrong labels, bad files and small classes; write findings, a page and decisions to make.

    Nothing is changed. Fill in decisions.csv (keep, drop, relabel: CLASS), then: hangtag train DATA --decisions FILE
    """
    from hangtag import screen

    data = _read(what, path, reading)
    if not as_json:
        _say_understood(data)
    make_folder(out)  # before the work, so that it is not in vain
    with screen.byte_progress() as progress:
        from hangtag.audit import audit as look_for
        from hangtag.audit import write_audit
        from hangtag.audit_page import write_page

        found = look_for(data, labels, seed, device, progress)
        written = [*write_audit(found, out), write_page(found, out / "audit.html")]
    if as_json:
        return _print_json(found.to_json())
    screen.print_audit(screen.console(), found, written)
    return None


@app.command(
    short_help="Train, verify and judge a classifier.",
    epilog="Example: hangtag train fashion-mnist --recipe tutorial --out runs/lesson",
)
@_reads
def train(
    reading: Reading,
    what: Annotated[
        str | None,
        typer.Argument(help=_DATA_HELP, show_default="fashion-mnist"),
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
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to make; must not exist.")] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Go on with this interrupted run, as it was begun.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train, export, verify and judge a classifier; everything lands in one run folder. Ctrl-C keeps what there is.

    A training that was killed goes on where it was when the same command is given again, or with --resume.
    """
    from hangtag import screen

    console = screen.console(stderr=as_json)
    changes = {
        "network": model, "epochs": epochs, "batch_size": batch_size, "patience": patience, "balance": balance,
    }  # fmt: skip
    asked = _Asked(what, path, reading, recipe, changes, settings or [], seed, device, out)
    if minutes is not None and (seeds is not None or resume is not None or recipe or settings or any(changes.values())):
        raise UsageError("--minutes chooses the recipe itself", "give it without other settings of the training")
    if seeds is not None:
        if resume is not None:
            raise UsageError("--resume and --seeds exclude each other", "give the command that began the seeds again")
        return _train_seeds(console, asked, seeds, as_json)
    with _notes():
        if minutes is not None:
            training = _in_minutes(console, asked, minutes)
        else:
            training = _training(asked) if resume is None else _resumed(asked, resume)
    logger = _logger(log_to, training)
    judged, stopped = _through(console, training, logger)
    report = _write_report(training.run, training.data, judged)
    if logger is not None:
        logger.end(judged.evaluation)
        console.print(f"logged: {logger.where}")
    if as_json:
        _print_json({"run": str(training.run.path), "seconds": training.seconds, **judged.to_json()})
    else:
        screen.print_summary(console, training, judged, report)
    if stopped:
        raise typer.Exit(130)
    return None


@app.command(short_help="Judge a run's model file again.", epilog="Example: hangtag evaluate last")
@_reads
def evaluate(
    reading: Reading,
    run: RunName = "last",
    what: Annotated[str | None, typer.Argument(help="Other data to judge on; the run's own when not given.")] = None,
    path: DataPath = None,
    as_json: AsJson = False,
) -> None:
    """Judge a run's model file: loss, accuracy with its interval, per-class numbers, confusion matrix."""
    from hangtag import screen
    from hangtag.lifecycle import judge
    from hangtag.runs import find_run

    found = find_run(run)
    data = None
    if what or path:
        from hangtag.predictor import load

        data = _read(what, path, reading, load(found.path).spec)
    judged = judge(found, data)
    cleaned = _cleaned(found, reading) if reading.decisions and data is None else None
    if as_json:
        said = judged.to_json()
        return _print_json(said if cleaned is None else {"as_distributed": said, "cleaned": cleaned.to_json()})
    screen.print_evaluation(screen.console(), judged.evaluation, judged.part)
    screen.print_promises(judged.promises, judged.part)
    if judged.distributed:
        print(f"as distributed, before your decisions: {judged.distributed}")
    if cleaned is not None:
        print(f"cleaned by your decisions: {cleaned.evaluation}")
    return None


@app.command(short_help="Say what is on pictures.", epilog="Example: hangtag predict last shoe.png bag.jpg --top 3")
def predict(
    run: Annotated[str, typer.Argument(help="A run folder, its name under runs/, 'last', or a model.onnx.")],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files.")],
    top: Annotated[int, typer.Option("--top", help="How many classes to name.", min=1)] = 3,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="The share of pictures whose set of labels shall hold the true one: 0.95."),
    ] = None,
    right: Annotated[
        float | None, typer.Option("--right", help="The share of sure answers that shall be right: 0.9 to 0.999.")
    ] = None,
    cost: Annotated[
        float | None, typer.Option("--cost", help="A wrong answer costs so many times as much as none.")
    ] = None,
    sets: Annotated[
        str | None, typer.Option("--sets", help="How sets are made: threshold (smallest), raps or aps.")
    ] = None,
    false_alarms: Annotated[
        float | None, typer.Option("--false-alarms", help="The share of familiar pictures called unfamiliar: 0.05.")
    ] = None,
    sure_only: Annotated[bool, typer.Option("--sure-only", help="Answer only where the model is sure.")] = False,
    why: Annotated[
        Path | None, typer.Option("--why", help="Also write a picture of what the answer rests on; a folder for many.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is on pictures, and how sure that is. What cannot be read is reported; the others are still answered.

    An answer is sure if its set holds one label and the picture is familiar; --right or --cost put that otherwise.
    """
    from hangtag import screen
    from hangtag.trust import Asking

    given = {"coverage": coverage, "method": sets, "false_alarms": false_alarms, "cost": cost, "right": right}
    asking = Asking(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    predictor = _predictor(run).asked(asking)
    if sure_only and not predictor.knows_sure:
        raise UsageError(f"{run} cannot say what is sure", "; ".join(predictor.trust.missing))
    if not as_json:
        for sentence in predictor.trust.missing:
            print(f"note: {sentence}", file=sys.stderr)
    explained = _explainer(run, predictor, why, len(pictures)) if why else None
    failed = left_out = 0
    answers = []
    for picture in pictures:
        try:
            answer = predictor(picture, top)
            written = explained(picture) if explained else None
        except HangtagError as error:
            failed += 1
            answers.append({"file": str(picture), **error.to_json()})
            _print_error(error)
            continue
        if sure_only and not answer.sure:
            left_out += 1
            continue
        answers.append({"file": str(picture), **answer.to_json(), **({"why": str(written)} if written else {})})
        if not as_json:
            screen.print_answer(picture, answer)
            if written:
                print(f"wrote {written}")
    if as_json:
        _print_json(answers)
    if left_out:
        print(f"left out, because it is not sure: {left_out:,} of {len(pictures):,} pictures", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command(
    short_help="Say whether one of two models is better.",
    epilog="Example: hangtag compare runs/a runs/b --out diff.html",
)
@_reads
def compare(
    reading: Reading,
    first: Annotated[str, typer.Argument(help="A run folder, its name under runs/, or 'last'.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    what: Annotated[str | None, typer.Argument(help="Data to judge both on; their own when not given.")] = None,
    path: DataPath = None,
    out: Annotated[Path, typer.Option("--out", help="The page with the pictures on which they differ.")] = Path(
        "comparison.html"
    ),
    as_json: AsJson = False,
) -> None:
    """Judge two models on the same pictures: is the difference real (paired test), and on which pictures is it?"""
    from hangtag.compare import compared, name_pair
    from hangtag.compare_page import write_comparison
    from hangtag.lifecycle import judge
    from hangtag.predictor import load
    from hangtag.runs import find_run

    _needs_data(what, path, reading)
    runs = find_run(first), find_run(second)
    data = [_read(what, path, reading, load(run.path).spec) if what or path else None for run in runs]
    one, two = (judge(run, theirs) for run, theirs in zip(runs, data, strict=True))
    found, rows = compared(name_pair(runs[0].path, runs[1].path), one, two)
    written = write_comparison(found, one.data, one.probabilities, rows, out)
    if as_json:
        return _print_json({**found.to_json(), "page": str(written)})
    for name, (share, low, high) in zip(found.names, found.accuracies, strict=True):
        print(f"{name}: accuracy {share:.4f} [{low:.4f}, {high:.4f}]")
    print(found.in_words)
    print(f"wrote {written}")
    return None


@app.command(short_help="Find out how a model breaks.", epilog="Example: hangtag stress last --images 1000")
@_reads
def stress(
    reading: Reading,
    run: RunName = "last",
    what: Annotated[str | None, typer.Argument(help="Other data; the run's own when not given.")] = None,
    path: DataPath = None,
    images: Annotated[int, typer.Option("--images", help="Pictures to corrupt, at most.", min=10)] = 2000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Corrupt pictures in 15 ways and 5 strengths, find the groups it is worst on, and add both to the run's report.

    With data of your own, --group-by COLUMN also tries the groups of that column.
    """
    from hangtag import screen
    from hangtag.lifecycle import judge
    from hangtag.predictor import load
    from hangtag.runs import find_run

    _needs_data(what, path, reading)
    found = find_run(run)
    predictor = load(found.path)
    given = _read(what, path, reading, predictor.spec) if what or path else None
    judged = judge(found, given)
    columns = _columns(judged.data, reading.group_by)
    with screen.share_progress() as progress:
        progress("corrupting pictures", 0.0)
        from hangtag.stress import stress as break_it

        broken = break_it(predictor, judged.data, images, seed, columns, progress)
    if given is None:
        from hangtag.lifecycle import read_again

        found.write_stress(broken.to_json())
        report = _write_report(found, read_again(found), judged)
    if as_json:
        return _print_json(broken.to_json())
    screen.print_stress(screen.console(), broken)
    if given is None:
        print(f"wrote {found.path / 'stress.json'}\nwrote {report}")
    return None


@app.command(
    short_help="Check that pictures keep their labels.", epilog="Example: hangtag check runs/clothes expectations/"
)
def check(
    run: Annotated[str, typer.Argument(help="A run folder, its name under runs/, 'last', or a model.onnx.")],
    expectations: Annotated[Path, typer.Argument(help="A folder with a subfolder of pictures for each label.")],
    as_json: AsJson = False,
) -> None:
    """Check that pictures keep the labels they must keep; names those that do not, and then ends with exit code 1."""
    from hangtag.check import check as ask

    found = ask(_predictor(run), expectations)
    if as_json:
        _print_json(found.to_json())
    else:
        for broken in found.broken:
            print(f"{broken.file}: must be {broken.expected}, {broken.reason}")
        kept = found.pictures - len(found.broken)
        print(f"{kept:,} of {found.pictures:,} pictures keep their labels (model {found.model})")
    if not found.kept:
        raise typer.Exit(1)


@app.command(short_help="Write a run's report again.", epilog="Example: hangtag report last")
def report(run: RunName = "last") -> None:
    """Write a run's report and pictures again."""
    from hangtag.lifecycle import judge, read_again
    from hangtag.runs import find_run

    found = find_run(run)
    print(f"wrote {_write_report(found, read_again(found), judge(found))}")


@app.command(
    name="cache", short_help="Show or clear what hangtag keeps on disk.", epilog="Example: hangtag cache --clear"
)
def cache_command(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of it; it is made again when needed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what hangtag keeps on disk: decoded pictures and public sets. HANGTAG_CACHE_GB bounds it (20)."""
    from hangtag import cache, screen

    if clear:
        freed = cache.clear()
        if as_json:
            return _print_json({"freed_bytes": freed})
        print(f"freed {freed / 1e6:,.1f} MB")
        return None
    found = cache.entries()
    if as_json:
        return _print_json({"most_bytes": cache.most_bytes(), "entries": [entry.to_json() for entry in found]})
    screen.print_cache(screen.console(), found, cache.most_bytes())
    return None


@app.command(short_help="Measure this machine.", epilog="Example: hangtag bench --json > this-machine.json")
def bench(
    what: Data = "fashion-mnist",
    path: DataPath = None,
    seconds: Annotated[float, typer.Option("--seconds", help="About how long to measure.", min=1.0)] = 25.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure this machine in half a minute: training, predicting, and the processor's best matrix product.

    benchmarks/RESULTS.md in the source has the same numbers of a known machine, beside those of other frameworks.
    """
    from hangtag import screen

    data = _read(what, path)
    with screen.share_progress() as progress:
        progress("starting", 0.0)
        from hangtag.bench import bench as measure

        found = measure(data, device, seconds, progress)
    if as_json:
        return _print_json(found.to_json())
    screen.print_bench(screen.console(), found)
    return None


@app.command(short_help="Walk through the lesson on the real images.", epilog="Example: hangtag tutorial --out lesson")
def tutorial(
    path: DataPath = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the six pictures.")] = Path("tutorial-pictures"),
    seed: Seed = 0,
) -> None:
    """Walk through the lesson "Basic image classification" on the real images, in about a minute."""
    from hangtag import screen
    from hangtag.lesson import Section, walk

    classifier = _classifier("tutorial", None, seed, "cpu")
    data = _read("fashion-mnist", path)
    make_folder(out)
    console = screen.console()
    for step in _in_groups(walk(data, classifier, out)):
        if isinstance(step, Section):
            screen.print_section(console, step)
        else:
            screen.show_epochs(console, step)
    print(
        "What the lesson leaves open, and where hangtag goes on:\n"
        "  your own pictures    hangtag predict RUN photo.jpg takes any size and colour, prepared as in training\n"
        "  a better model       hangtag train fashion-mnist      (recipe 'fast', about 93 % instead of 88 %)\n"
        "  a file that ships    every run holds model.onnx, verified to answer exactly as the trained network\n"
        "  an honest number     accuracy comes with its 95 % interval, and with the gap to training explained\n"
        "  answers to trust     hangtag predict says sure, not sure or unfamiliar, where pictures were held out\n"
        "                       (as in every recipe but the lesson's); --why draws a picture of the reasons"
    )


def main() -> None:
    """Run the command line; the one place where exceptions become messages and exit codes."""
    try:
        app(prog_name="hangtag")
    except HangtagError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        extra = MissingExtra.for_module(error.name)
        if extra is None or "--debug" in sys.argv:
            raise
        _fail(extra)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(error: HangtagError) -> NoReturn:
    if "--debug" in sys.argv:
        raise error
    _print_error(error)
    sys.exit(2 if isinstance(error, UsageError) else 1)


def _print_error(error: HangtagError) -> None:
    print(f"hangtag: {' '.join(str(error).split())}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings, each as one line."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        yield
    for note in notes:
        print(f"hangtag: note: {note.message}", file=sys.stderr)


def _logger(name: str | None, training: "Training") -> "Logger | None":
    if name is None:
        return None
    from hangtag.loggers import open_logger
    from hangtag.recipes import Recipe

    return open_logger(name, training.run, Recipe(**training.config["recipe"]))


def _in_minutes(console: "Console", asked: "_Asked", minutes: float) -> "Training":
    """A training planned to end in this time; or one planned so before, and killed."""
    data = asked.data()
    from hangtag.budget import plan
    from hangtag.classifier import ImageClassifier
    from hangtag.lifecycle import Training, planned_before
    from hangtag.recipes import DEFAULT, find_recipe
    from hangtag.train import choose_device

    seed = asked.seed or 0
    before = planned_before(data, minutes, seed, asked.out)
    if before is not None:
        return Training.of(before, asked.device)
    _look_for_near(data, find_recipe(DEFAULT))  # before the plan, so that its time counts
    console.print("measuring this machine ...")
    chosen = plan(data, minutes, _BEGAN, choose_device(asked.device), seed)
    console.print(chosen.in_words)
    training = Training(ImageClassifier(chosen.recipe, seed=seed, device=asked.device), data, asked.source, asked.out)
    training.say(plan=chosen.to_json())
    return training


def _through(console: "Console", training: "Training", logger: "Logger | None" = None) -> tuple["Judged", bool]:
    """Train to the end, or to Ctrl-C, and judge; returns whether it was stopped."""
    from hangtag import screen
    from hangtag.loggers import logged

    data, name = training.data, training.config["recipe"]["name"]
    console.print(f"training recipe '{name}' on {len(data.train):,} images of {data.name}, into {training.run.path}")
    if training.goes_on:
        console.print(training.goes_on)
    with _stop_on_interrupt() as stop:
        screen.show_epochs(console, logged(training.epochs(stop), logger), training.notes)
        stopped = stop()
        if stopped:
            console.print(
                "stopped; keeping what was learned so far. "
                f"To go on later: hangtag train --resume {shlex.quote(str(training.run.path))}"
            )
        console.print("exporting, verifying and judging the model file ...")
        return training.finish(), stopped


def _train_seeds(console: "Console", asked: "_Asked", count: int, as_json: bool) -> None:
    """One training after the other, then what they have in common."""
    from hangtag.classifier import ImageClassifier

    classifier = ImageClassifier(recipe=asked.chosen(), seed=asked.seed or 0, device=asked.device)
    data = asked.data()
    from hangtag import screen
    from hangtag.lifecycle import Training
    from hangtag.seeds import Seeds

    with _notes():
        seeds = Seeds(classifier, data, asked.source, asked.out, count)
    console.print(f"{count} seeds, into {seeds.run.path}{'; going on with it' if seeds.goes_on else ''}")
    for number, step in seeds.trainings():
        if not isinstance(step, Training):
            console.print(f"seed {number}: done before; {step.part} {step.evaluation}")
            continue
        judged, stopped = _through(console, step)
        console.print(f"seed {number}: {judged.part} {judged.evaluation}")
        if stopped:
            console.print("all seeds go on when the same command is given again")
            raise typer.Exit(130)
    kept, judged = seeds.finish()
    report = _write_report(seeds.run, data, judged)
    if as_json:
        return _print_json({"run": str(seeds.run.path), **seeds.run.metrics()})
    screen.print_seeds(seeds, kept, judged, report)
    return None


@dataclass(frozen=True)
class _Asked:
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
        from hangtag.recipes import DEFAULT, find_recipe, with_settings

        return find_recipe(with_settings(find_recipe(self.recipe or DEFAULT), self.settings), **self.changes)

    @property
    def source(self) -> dict[str, Any]:
        from hangtag.datasets import NAMED

        what = self.what or "fashion-mnist"
        absolute = str(Path(what).resolve()) if Path(what).exists() and what not in NAMED else what
        said: dict[str, Any] = {"what": absolute, "path": str(self.path.absolute()) if self.path else None}
        options = {name: value for name, value in self.reading.options().items() if name != "strict"}
        options |= {name: _absolute(options[name]) for name in ("root", "decisions") if name in options}
        return said | ({"options": options} if options else {})

    def data(self) -> "LabelledImages":
        data = _read(self.what, self.path, self.reading)
        _say_understood(data, sys.stderr)
        return data


def _absolute(path: str) -> str:
    """So that a run can be judged from any folder."""
    from hangtag.files import user_path

    return str(user_path(path).absolute())


def _training(asked: _Asked) -> "Training":
    """A new training, or one of exactly this kind that was killed."""
    recipe = asked.chosen()  # a wrong name is said before anything heavy starts
    from hangtag.classifier import ImageClassifier

    classifier = ImageClassifier(recipe=recipe, seed=asked.seed or 0, device=asked.device)
    data = asked.data()
    _look_for_near(data, recipe)
    from hangtag.lifecycle import Training

    return Training(classifier, data, asked.source, asked.out)


def _resumed(asked: _Asked, name: str) -> "Training":
    """The named training, as it was begun; whatever else was asked for must be what it was begun with."""
    from hangtag.runs import find_run

    run = find_run(name)
    begun = run.config()
    wanted = {key: value for key, value in asked.changes.items() if value is not None}
    if asked.recipe or asked.settings:
        wanted |= asked.chosen().to_json()
    differ = [
        f"{key} {begun['recipe'].get(key)} there, {value} here"
        for key, value in wanted.items()
        if begun.get("recipe", {}).get(key) != value
    ]
    if asked.seed is not None and asked.seed != begun.get("seed"):
        differ.append(f"seed {begun.get('seed')} there, {asked.seed} here")
    if asked.what is not None and asked.source["what"] != begun.get("source", {}).get("what"):
        differ.append(f"data {begun.get('source', {}).get('what')} there, {asked.what} here")
    if differ:
        raise UsageError(
            f"{run.path}: was begun otherwise ({'; '.join(differ)})",
            "go on as it was begun, with --resume alone; or begin another run without --resume",
        )
    if asked.out is not None:
        raise UsageError(
            f"--resume {name} and --out {asked.out} exclude each other", "a resumed run stays in its folder"
        )
    from hangtag.lifecycle import Training

    return Training.of(run, asked.device)


def _classifier(recipe: str, epochs: int | None, seed: int, device: str) -> "ImageClassifier":
    from hangtag.recipes import find_recipe

    find_recipe(recipe, epochs=epochs)  # a wrong name is said before anything heavy starts
    from hangtag.classifier import ImageClassifier

    return ImageClassifier(recipe=recipe, epochs=epochs, seed=seed, device=device)


def _read(
    what: str | None, path: Path | None, reading: Reading | None = None, spec: "ImageSpec | None" = None
) -> "LabelledImages":
    from hangtag import screen
    from hangtag.sources import read

    options = (reading or Reading()).options()
    size = options.get("size")
    options |= {"size": tuple(size)} if isinstance(size, list) else {}
    with _notes(), screen.byte_progress() as progress:
        try:
            return read(what or "fashion-mnist", path, progress, spec=spec, choose=_ask, **options)
        except KeyboardInterrupt:
            print("stopped reading; what is decoded is kept, the same command goes on from there", file=sys.stderr)
            raise


def _look_for_near(data: "LabelledImages", recipe: "Recipe") -> None:
    """Find nearly equal pictures once, with a bar, before a split needs to know them."""
    if not recipe.validation or "validation" in data.parts:
        return
    from hangtag import screen
    from hangtag.splits import near_groups

    with screen.byte_progress() as progress:
        near_groups(data.train, progress)


def _ask(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """Ask in a terminal; refuse elsewhere."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        from hangtag.gather import refuse

        return refuse(question, answers)
    print(question, file=sys.stderr)
    for number, (_, meaning) in enumerate(answers, 1):
        print(f"  {number}  {meaning}", file=sys.stderr)
    while True:
        print("which? ", end="", file=sys.stderr, flush=True)
        said = sys.stdin.readline()
        if not said:
            raise UsageError("nothing was chosen", "say which of them")
        if said.strip().isdigit() and 1 <= int(said) <= len(answers):
            return answers[int(said) - 1][0]


def _say_understood(data: "LabelledImages", file: Any = None) -> None:
    """How the data was understood, and what had to be decided about it."""
    if data.understood:
        print(data.understood, file=file)
    for note in data.notes:
        print(f"note: {note}", file=file)


def _export(data: "LabelledImages", folder: Path) -> None:
    from hangtag import screen
    from hangtag.labelled import export_folder

    with screen.byte_progress() as progress:
        paths = export_folder(data, folder, progress)
    print(f"wrote {len(paths):,} pictures under {folder}", file=sys.stderr)


def _needs_data(what: str | None, path: Path | None, reading: Reading) -> None:
    """Raises UsageError where it is said how to read data, but not which."""
    if what is None and path is None and reading.options():
        options = ", ".join(f"--{name.replace('_', '-')}" for name in reading.options())
        raise UsageError(f"{options}: a run's own data is read as it was for the training", "name the data as well")


def _columns(data: "LabelledImages", group_by: str | None) -> dict[str, Any]:
    """What is known about each picture beside its label: the groups it was read with, by name."""
    if data.groups is None:
        return {}
    named = [data.group_names[number] if data.group_names else str(number) for number in data.groups]
    import numpy as np

    return {group_by or "group": np.array(named, object)}


def _cleaned(run: "Run", reading: Reading) -> "Judged":
    """The run judged on its own data after these decisions about single pictures."""
    from hangtag.lifecycle import judge
    from hangtag.predictor import load

    source = run.config().get("source", {})
    options = Reading(decisions=reading.decisions)
    path = source.get("path")
    data = _read(source.get("what"), Path(path) if path else None, options, load(run.path).spec)
    if "test" not in data.parts:  # all other pictures may be those it learned from
        raise UsageError(
            f"--decisions {reading.decisions}: {data.name} has no test part to judge on after them",
            "train with them: hangtag train DATA --decisions FILE",
        )
    return judge(run, data)


def _predictor(run: str) -> "Predictor":
    from hangtag.predictor import load
    from hangtag.runs import find_run

    return load(run) if run.endswith(".onnx") else load(find_run(run).path)


def _explainer(run: str, predictor: "Predictor", out: Path, pictures: int) -> Callable[[Path], Path]:
    """Writes a picture of why; beside a run folder, with the nearest of the training pictures kept there."""
    from hangtag.figures import save
    from hangtag.neighbours import read_neighbours
    from hangtag.runs import find_run
    from hangtag.why import explain
    from hangtag.why_picture import why_picture

    kept = None
    if not run.endswith(".onnx") and predictor.tells("embedding"):
        size = predictor.outputs(_blank(predictor), "embedding")["embedding"].shape[1]
        kept = read_neighbours(find_run(run).path, len(predictor.class_names), size)
    many = pictures > 1 or out.suffix.lower() != ".png"
    if many:
        make_folder(out)
    taken: set[str] = set()

    def write(picture: Path) -> Path:
        name, number = picture.stem, 2
        while name in taken:
            name, number = f"{picture.stem}-{number}", number + 1
        taken.add(name)
        path = out / f"{name}.png" if many else out
        save(why_picture(explain(predictor, picture, kept)), path)
        return path

    return write


def _blank(predictor: "Predictor") -> Any:
    import numpy as np

    return np.zeros((1, *predictor.spec.shape), np.uint8)


def _write_report(run: "Run", data: "LabelledImages", judged: "Judged") -> Path:
    from hangtag import figures
    from hangtag.report import write_report

    images, labels, rows = judged.data.images, judged.data.labels, judged.probabilities
    make_folder(run.figures)
    train = data.train
    for name, figure in figures.lesson(train.images, train.labels, images, labels, rows, data.class_names).items():
        figures.save(figure, run.figures / f"{name}.png")
    return write_report(run, images, labels, rows)


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks for a clean end, a second one is an ordinary KeyboardInterrupt."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping after this moment's steps; press Ctrl-C again to abandon the run", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _in_groups(steps: Iterator["Section | Epoch"]) -> Iterator["Section | Iterator[Epoch]"]:
    """Sections one by one; each stretch of epochs as one iterator, so that it can have one live bar."""
    from itertools import chain

    from hangtag.train import Epoch

    waiting: list[Section] = []

    def stretch(first: Epoch) -> Iterator[Epoch]:
        yield first
        for step in steps:
            if isinstance(step, Epoch):
                yield step
            else:
                waiting.append(step)
                return

    for step in steps:
        if isinstance(step, Epoch):
            yield stretch(step)
            yield from chain(waiting)
            waiting.clear()
        else:
            yield step

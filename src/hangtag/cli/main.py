"""The command line: one small command per public verb, each of which parses, calls one function and prints.

Errors become one line on stderr and an exit code in `main` alone: 2 for a request that cannot be right, 1 for a
failure, 130 for Ctrl-C. Heavy packages are imported inside the commands, so that `--help` stays quick.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hangtag.cli.options import (
    AsJson,
    Data,
    DataPath,
    Device,
    Out,
    Reading,
    RunName,
    Seed,
    needs_data,
    read_data,
    reads,
    say_understood,
)
from hangtag.cli.train import train
from hangtag.errors import HangtagError, MissingExtra, UsageError
from hangtag.files import make_folder, user_path
from hangtag.version import __version__

if TYPE_CHECKING:
    from hangtag.cli.lesson import Section
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement
    from hangtag.evaluation.run_folder import Run
    from hangtag.model.predictor import Predictor
    from hangtag.training.classifier import ImageClassifier
    from hangtag.training.engine.loop import Epoch

app = typer.Typer(
    name="hangtag",
    help="From labelled images to a classifier you can trust, in one command, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def hangtag_itself(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error came from.")] = False,
) -> None:
    if version:
        print(f"hangtag {__version__}")
        raise typer.Exit


@app.command(
    name="data",
    short_help="Fetch a data set and describe it.",
    epilog="Example: hangtag data photos/ --size 64",
)
@reads
def data_command(
    reading: Reading,
    what: Data = "fashion-mnist",
    path: DataPath = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Also write the images as PNG files, a folder per class.", parser=user_path, metavar="<path>"
        ),
    ] = None,
    part: Annotated[str, typer.Option(help="The part to export, where there are parts.")] = "test",
    first: Annotated[int | None, typer.Option(help="Export only the first so many.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Read data and say how it was understood, what was set aside and why, and its fingerprint."""
    from hangtag.cli import screen

    data = read_data(what, path, reading)
    if export:
        _export((data.part(part) if data.parts else data).take(slice(first)), export)
    if as_json:
        return screen.print_json(data.to_json())
    say_understood(data)
    parts = ", ".join(f"{name} {size:,}" for name, size in data.sizes().items())
    parts = f" ({parts})" if parts else ""
    print(f"{data.name}: {len(data):,} images of {data.spec}, {len(data.class_names)} classes{parts}")
    print(f"from         {data.source.origin}")
    print(f"size         {data.images.nbytes / 1e6:,.1f} MB of pixels")
    print(f"fingerprint  {data.fingerprint}")
    if data.source.skipped:
        from hangtag.data.read import write_skipped
        from hangtag.evaluation.run_folder import SKIPPED
        from hangtag.words import amount

        write_skipped(data, Path(SKIPPED))
        print(f"set aside    {amount(len(data.source.skipped), 'file')}, see {SKIPPED}")
    return None


@app.command(
    short_help="Look at the images: pictures and a table of classes.",
    epilog="Example: hangtag look fashion-mnist --out pictures",
)
@reads
def look(
    reading: Reading, what: Data = "fashion-mnist", path: DataPath = None, out: Out = None, as_json: AsJson = False
) -> None:
    """Look at the images: two pictures, a table of the classes, and a contact sheet in the terminal."""
    from hangtag.cli import screen
    from hangtag.reports import figures

    data = read_data(what, path, reading)
    folder = out or Path("pictures")
    make_folder(folder)
    train = data.train
    pictures = {
        "1-one-image.png": figures.one_image(train.images[0], data.class_names[train.labels[0]]),
        "2-grid.png": figures.image_grid(train.images[:25], train.labels[:25], data.class_names),
    }
    for name, figure in pictures.items():
        figures.save(figure, folder / name)
    table = {name: data.counts(name).tolist() for name in data.parts} or {"all": data.counts().tolist()}
    if as_json:
        return screen.print_json({"classes": list(data.class_names), "counts": table, "pictures": [*pictures]})
    console = screen.console()
    say_understood(data)
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
    from hangtag.cli import screen
    from hangtag.pictures import ImageSpec
    from hangtag.training.engine.build import build_network
    from hangtag.training.engine.networks import layers, parameter_count
    from hangtag.training.engine.recipes import find_recipe

    found = find_recipe(recipe)
    spec = ImageSpec(28, 28)
    network = build_network(found.network, spec, 10, seed=0)
    rows, total = layers(network, spec), parameter_count(network)
    if as_json:
        return screen.print_json({"network": found.network, "layers": [vars(row) for row in rows], "parameters": total})
    table = screen.table_of("layer", "kind", ">output shape", ">parameters")
    for row in rows:
        table.add_row(row.name, row.kind, f"(N, {', '.join(map(str, row.shape))})", f"{row.parameters:,}")
    table.add_section()
    table.add_row("in all", "", "", f"{total:,}")
    print(f"{found.network}: the network of recipe '{found.name}' ({found.description})")
    screen.console().print(table)
    return None


@app.command(
    short_help="Find what is wrong with pictures and labels.",
    epilog="Example: hangtag audit photos/ --out audit",
)
@reads
def audit(
    reading: Reading,
    what: Data = "fashion-mnist",
    path: DataPath = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the findings and the page.", parser=user_path, metavar="<path>")
    ] = Path("audit"),
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
    from hangtag.cli import screen

    data = read_data(what, path, reading)
    if not as_json:
        say_understood(data)
    make_folder(out)  # before the work, so that it is not in vain
    with screen.byte_progress() as progress:
        from hangtag.data.audit import audit as look_for
        from hangtag.data.audit import write_audit
        from hangtag.reports.audit_page import write_audit_page

        find_label_errors = None
        if labels:
            from hangtag.training.label_errors import label_error_finder

            find_label_errors = label_error_finder(seed, device)
        found = look_for(data, find_label_errors, progress)
        written = [*write_audit(found, out), write_audit_page(found, out / "audit.html")]
    if as_json:
        return screen.print_json(found.to_json())
    screen.print_audit(screen.console(), found, written)
    return None


app.command(
    short_help="Train, verify and judge a classifier.",
    epilog="Example: hangtag train fashion-mnist --recipe tutorial --out runs/lesson",
)(reads(train))


@app.command(short_help="Judge a run's model file again.", epilog="Example: hangtag evaluate last")
@reads
def evaluate(
    reading: Reading,
    run: RunName = "last",
    what: Annotated[str | None, typer.Argument(help="Other data to judge on; the run's own when not given.")] = None,
    path: DataPath = None,
    as_json: AsJson = False,
) -> None:
    """Judge a run's model file: loss, accuracy with its interval, per-class numbers, confusion matrix."""
    from hangtag.cli import screen
    from hangtag.evaluation.judge import judge
    from hangtag.evaluation.run_folder import find_run

    found = find_run(run)
    data = None
    if what or path:
        from hangtag.model.predictor import load

        data = read_data(what, path, reading, load(found.path).spec)
    judged = judge(found, data)
    cleaned = _cleaned(found, reading) if reading.decisions and data is None else None
    if as_json:
        said = judged.to_json()
        return screen.print_json(said if cleaned is None else {"before_decisions": said, "cleaned": cleaned.to_json()})
    screen.print_evaluation(screen.console(), judged.evaluation, judged.part)
    screen.print_promises(judged.guarantees, judged.part)
    if judged.before_decisions:
        print(f"as distributed, before your decisions: {judged.before_decisions}")
    if cleaned is not None:
        print(f"cleaned by your decisions: {cleaned.evaluation}")
    return None


@app.command(short_help="Say what is on pictures.", epilog="Example: hangtag predict last shoe.png bag.jpg --top 3")
def predict(
    run: Annotated[str, typer.Argument(help="A run folder, its name under runs/, 'last', or a model.onnx.")],
    pictures: Annotated[list[Path], typer.Argument(help="ReportFigure files.")],
    top: Annotated[int, typer.Option("--top", help="How many classes to name.", min=1)] = 3,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="The share of pictures whose set of labels shall hold the true one: 0.95."),
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option("--target-accuracy", help="The share of sure answers that shall be right: 0.9 to 0.999."),
    ] = None,
    cost: Annotated[
        float | None, typer.Option("--cost", help="A wrong answer costs so many times as much as none.")
    ] = None,
    set_method: Annotated[
        str | None, typer.Option("--set-method", help="How sets are made: threshold (smallest), raps or aps.")
    ] = None,
    ood_false_positive_rate: Annotated[
        float | None,
        typer.Option("--ood-false-positive-rate", help="The share of familiar pictures called unfamiliar: 0.05."),
    ] = None,
    sure_only: Annotated[bool, typer.Option("--sure-only", help="Answer only where the model is sure.")] = False,
    why: Annotated[
        Path | None,
        typer.Option(
            "--why",
            help="Also write a picture of what the answer rests on; a folder for many.",
            parser=user_path,
            metavar="<path>",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is on pictures, and how sure that is. What cannot be read is reported; the others are still answered.

    An answer is sure if its set holds one label and the picture is familiar; --target-accuracy or --cost put that
    otherwise.
    """
    from hangtag.cli import screen
    from hangtag.model.guarantees import AnswerPolicy

    given = {
        "coverage": coverage,
        "method": set_method,
        "ood_false_positive_rate": ood_false_positive_rate,
        "cost": cost,
        "target_accuracy": target_accuracy,
    }
    policy = AnswerPolicy(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    predictor = _predictor(run).with_policy(policy)
    if sure_only and not predictor.can_abstain:
        raise UsageError(f"{run} cannot say what is sure", "; ".join(predictor.guarantees.limitations))
    if not as_json:
        for sentence in predictor.guarantees.limitations:
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
        screen.print_json(answers)
    if left_out:
        print(f"left out, because it is not sure: {left_out:,} of {len(pictures):,} pictures", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command(
    short_help="Say whether one of two models is better.",
    epilog="Example: hangtag compare runs/a runs/b --out diff.html",
)
@reads
def compare(
    reading: Reading,
    first: Annotated[str, typer.Argument(help="A run folder, its name under runs/, or 'last'.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    what: Annotated[str | None, typer.Argument(help="Data to judge both on; their own when not given.")] = None,
    path: DataPath = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The page with the pictures on which they differ.", parser=user_path, metavar="<path>"
        ),
    ] = Path("comparison.html"),
    as_json: AsJson = False,
) -> None:
    """Judge two models on the same pictures: is the difference real (paired test), and on which pictures is it?"""
    from hangtag.cli import screen
    from hangtag.evaluation.comparison import compare_judgements, name_pair
    from hangtag.evaluation.judge import judge
    from hangtag.evaluation.run_folder import find_run
    from hangtag.model.predictor import load
    from hangtag.reports.compare_page import write_comparison

    needs_data(what, path, reading)
    runs = find_run(first), find_run(second)
    data = [read_data(what, path, reading, load(run.path).spec) if what or path else None for run in runs]
    one, two = (judge(run, theirs) for run, theirs in zip(runs, data, strict=True))
    found, rows = compare_judgements(name_pair(runs[0].path, runs[1].path), one, two)
    written = write_comparison(found, one.data, one.probabilities, rows, out)
    if as_json:
        return screen.print_json({**found.to_json(), "page": str(written)})
    for name, (share, low, high) in zip(found.names, found.accuracies, strict=True):
        print(f"{name}: accuracy {share:.4f} [{low:.4f}, {high:.4f}]")
    print(found.in_words)
    print(f"wrote {written}")
    return None


@app.command(short_help="Find out how a model breaks.", epilog="Example: hangtag stress last --images 1000")
@reads
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
    from hangtag.cli import screen
    from hangtag.evaluation.judge import judge
    from hangtag.evaluation.run_folder import find_run
    from hangtag.model.predictor import load

    needs_data(what, path, reading)
    found = find_run(run)
    predictor = load(found.path)
    given = read_data(what, path, reading, predictor.spec) if what or path else None
    judged = judge(found, given)
    columns = _columns(judged.data, reading.group_by)
    with screen.share_progress() as progress:
        progress("corrupting pictures", 0.0)
        from hangtag.evaluation.stress_test import stress as break_it

        broken = break_it(predictor, judged.data, images, seed, columns, progress)
    if given is None:
        from hangtag.evaluation.judge import read_again

        found.write_stress(broken.to_json())
        from hangtag.reports.report import write_report_and_pictures

        report = write_report_and_pictures(found, read_again(found), judged)
    if as_json:
        return screen.print_json(broken.to_json())
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
    from hangtag.cli import screen
    from hangtag.evaluation.regression_check import check as ask

    found = ask(_predictor(run), expectations)
    if as_json:
        screen.print_json(found.to_json())
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
    from hangtag.evaluation.judge import judge, read_again
    from hangtag.evaluation.run_folder import find_run
    from hangtag.reports.report import write_report_and_pictures

    found = find_run(run)
    print(f"wrote {write_report_and_pictures(found, read_again(found), judge(found))}")


@app.command(
    name="cache", short_help="Show or clear what hangtag keeps on disk.", epilog="Example: hangtag cache --clear"
)
def cache_command(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of it; it is made again when needed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what hangtag keeps on disk: decoded pictures and public sets. HANGTAG_CACHE_GB bounds it (20)."""
    from hangtag.cli import screen
    from hangtag.data.store import cache

    if clear:
        freed = cache.clear()
        if as_json:
            return screen.print_json({"freed_bytes": freed})
        print(f"freed {freed / 1e6:,.1f} MB")
        return None
    found = cache.entries()
    if as_json:
        return screen.print_json({"most_bytes": cache.most_bytes(), "entries": [entry.to_json() for entry in found]})
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
    from hangtag.cli import screen

    data = read_data(what, path)
    with screen.share_progress() as progress:
        progress("starting", 0.0)
        from hangtag.cli.bench import measure_machine as measure

        found = measure(data, device, seconds, progress)
    if as_json:
        return screen.print_json(found.to_json())
    screen.print_bench(screen.console(), found)
    return None


@app.command(short_help="Walk through the lesson on the real images.", epilog="Example: hangtag tutorial --out lesson")
def tutorial(
    path: DataPath = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the six pictures.", parser=user_path, metavar="<path>")
    ] = Path("tutorial-pictures"),
    seed: Seed = 0,
) -> None:
    """Walk through the lesson "Basic image classification" on the real images, in about a minute."""
    from hangtag.cli import screen
    from hangtag.cli.lesson import Section, walk

    classifier = _classifier("tutorial", None, seed, "cpu")
    data = read_data("fashion-mnist", path)
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


def _classifier(recipe: str, epochs: int | None, seed: int, device: str) -> "ImageClassifier":
    from hangtag.training.engine.recipes import find_recipe

    find_recipe(recipe, epochs=epochs)  # a wrong name is said before anything heavy starts
    from hangtag.training.classifier import ImageClassifier

    return ImageClassifier(recipe=recipe, epochs=epochs, seed=seed, device=device)


def _export(data: "LabelledImages", folder: Path) -> None:
    from hangtag.cli import screen
    from hangtag.data.labelled_images import export_folder

    with screen.byte_progress() as progress:
        paths = export_folder(data, folder, progress)
    print(f"wrote {len(paths):,} pictures under {folder}", file=sys.stderr)


def _columns(data: "LabelledImages", group_by: str | None) -> dict[str, Any]:
    """What is known about each picture beside its label: the groups it was read with, by name."""
    if data.groups is None:
        return {}
    named = [data.group_names[number] if data.group_names else str(number) for number in data.groups]
    import numpy as np

    return {group_by or "group": np.array(named, object)}


def _cleaned(run: "Run", reading: Reading) -> "Judgement":
    """The run judged on its own data after these decisions about single pictures."""
    from hangtag.evaluation.judge import judge
    from hangtag.model.predictor import load

    source = run.config().get("source", {})
    options = Reading(decisions=reading.decisions)
    path = source.get("path")
    data = read_data(source.get("what"), Path(path) if path else None, options, load(run.path).spec)
    if "test" not in data.parts:  # all other pictures may be those it learned from
        raise UsageError(
            f"--decisions {reading.decisions}: {data.name} has no test part to judge on after them",
            "train with them: hangtag train DATA --decisions FILE",
        )
    return judge(run, data)


def _predictor(run: str) -> "Predictor":
    from hangtag.evaluation.run_folder import find_run
    from hangtag.model.predictor import load

    return load(run) if run.endswith(".onnx") else load(find_run(run).path)


def _explainer(run: str, predictor: "Predictor", out: Path, pictures: int) -> Callable[[Path], Path]:
    """Writes a picture of why; beside a run folder, with the nearest of the training pictures kept there."""
    from hangtag.evaluation.run_folder import find_run
    from hangtag.model.explanation import explain
    from hangtag.model.neighbours import read_neighbours
    from hangtag.reports.explain_figure import draw_explanation
    from hangtag.reports.figures import save

    kept = None
    if not run.endswith(".onnx") and predictor.has_output("embedding"):
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
        save(draw_explanation(explain(predictor, picture, kept)), path)
        return path

    return write


def _blank(predictor: "Predictor") -> Any:
    import numpy as np

    return np.zeros((1, *predictor.spec.shape), np.uint8)


def _in_groups(steps: Iterator["Section | Epoch"]) -> Iterator["Section | Iterator[Epoch]"]:
    """Sections one by one; each stretch of epochs as one iterator, so that it can have one live bar."""
    from itertools import chain

    from hangtag.training.engine.loop import Epoch

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

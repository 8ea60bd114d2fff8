"""`hangtag evaluate`, `report`, `compare`, `stress` and `check`: how good a model is."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hangtag.cli import options
from hangtag.errors import UsageError

if TYPE_CHECKING:
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement
    from hangtag.evaluation.run_folder import Run
    from hangtag.model.predictor import Predictor

__all__ = ["check", "compare", "evaluate", "report", "stress"]


@options.with_data_options
def evaluate(
    data_options: options.DataOptions,
    run: options.RunName = "last",
    what: options.OtherData = None,
    path: options.DataPath = None,
    page: Annotated[Path | None, options.path_option("Also write a report on this dataset.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a run's model: loss, accuracy with its interval, per-class numbers, confusion matrix.

    Other data may have fewer classes than the model, or more: classes are matched by name, and images of classes that
    the model does not know are counted apart.
    """
    from hangtag.cli import screen
    from hangtag.evaluation.run_folder import find_run

    folder = find_run(run)
    if page is not None and what is None and path is None:
        raise UsageError("--page needs a dataset", "the report on the run's own data: hangtag report")
    _check_options(what, path, data_options, "decisions")
    judged, own, model = _judge(folder, what, path, data_options)
    if page is not None:
        from hangtag.reports.report import write_other_report

        write_other_report(folder, judged, page)
    cleaned = _after_decisions(folder, model, data_options) if data_options.decisions and own is not None else None
    if as_json:
        result = judged.to_json()
        return screen.print_json(
            result if cleaned is None else {"before_decisions": result, "cleaned": cleaned.to_json()}
        )
    screen.print_notes(judged.notes)
    screen.print_evaluation(judged.evaluation, judged.part)
    screen.print_guarantees(judged.guarantees, judged.part)
    if judged.before_decisions:
        print(f"before your decisions: {judged.before_decisions}")
    if cleaned is not None:
        print(f"after your decisions: {cleaned.evaluation}")
    if page is not None:
        print(f"wrote {page}")
    return None


def _judge(
    run: "Run", what: str | None, path: Path | None, data_options: options.DataOptions,
    read: "LabelledImages | None" = None,
) -> "tuple[Judgement, LabelledImages | None, Predictor]":  # fmt: skip
    """The run's model judged on the named dataset, or on its own data; also its own data, if used, and the model.

    Args:
        read: data of another run, which is not read again if it is also this run's.
    """
    from hangtag.model.predictor import load_for_many

    with ThreadPoolExecutor(1) as beside:
        opened = beside.submit(load_for_many, run.path)  # meanwhile, modules are imported and images are checked
        from hangtag.evaluation.judge import evaluate, judge_own, read_again

        if what is not None or path is not None:
            model = opened.result()
            return evaluate(model, options.read_data(what, path, data_options, model.spec)), None, model
        if read is None or read.fingerprint != run.config("data")["data"]["fingerprint"]:
            read = read_again(run)
    model = opened.result()
    return judge_own(run, read, model), read, model


def _after_decisions(run: "Run", model: "Predictor", data_options: options.DataOptions) -> "Judgement":
    """The run judged on its own data after these decisions about single images."""
    from hangtag.evaluation.judge import evaluate

    source = run.config().get("source", {})
    path = source.get("path")
    decisions = options.DataOptions(decisions=data_options.decisions)
    data = options.read_data(source.get("what"), Path(path) if path else None, decisions, model.spec)
    if "test" not in data.parts:  # the model may have been trained on all other images
        raise UsageError(
            f"--decisions {data_options.decisions}: this run's data has no test part to evaluate on",
            "apply the decisions in training: hangtag train DATA --decisions FILE",
        )
    return evaluate(model, data)


def report(run: options.RunName = "last") -> None:
    """Rewrite a run's report and figures."""
    from hangtag.cli import screen
    from hangtag.evaluation.run_folder import find_run
    from hangtag.reports.report import no_figures, write_report_and_pictures

    folder = find_run(run)
    judged, own, _ = _judge(folder, None, None, options.DataOptions())
    assert own is not None
    print(f"wrote {write_report_and_pictures(folder, own, judged)}")
    screen.print_notes(no_figures())


@options.with_data_options
def compare(
    data_options: options.DataOptions,
    first: options.RunName,
    second: Annotated[str, typer.Argument(help="The other run.", autocompletion=options.complete_run)],
    what: options.OtherData = None,
    path: options.DataPath = None,
    out: Annotated[Path, options.path_option("The page that shows where the models differ.")] = Path("comparison.html"),
    as_json: options.AsJson = False,
) -> None:
    """Compare two models on the same images: is the difference significant (paired test), and where do they differ?"""
    from hangtag.cli import screen
    from hangtag.evaluation.comparison import compare_judgements, name_pair
    from hangtag.evaluation.run_folder import find_run
    from hangtag.reports.compare_page import write_comparison

    _check_options(what, path, data_options)
    runs = find_run(first), find_run(second)
    one, own, _ = _judge(runs[0], what, path, data_options)
    two, _, _ = _judge(runs[1], what, path, data_options, own)
    result, rows = compare_judgements(name_pair(runs[0].path, runs[1].path), one, two)
    page = write_comparison(result, one.data, one.probabilities, rows, out)
    if as_json:
        return screen.print_json({**result.to_json(), "page": str(page)})
    _print_left_out(one)
    screen.print_notes([note for note in two.notes if note not in one.notes])
    for name, (share, low, high) in zip(result.names, result.accuracies, strict=True):
        print(f"{name}: accuracy {share:.4f} [{low:.4f}, {high:.4f}]")
    print(result.in_words)
    print(f"wrote {page}")
    return None


@options.with_data_options
def stress(
    data_options: options.DataOptions,
    run: options.RunName = "last",
    what: options.OtherData = None,
    path: options.DataPath = None,
    images: Annotated[int, typer.Option(help="Corrupt at most this many images.", min=10)] = 2000,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Corrupt images in 15 ways at 5 severities, find groups with low accuracy, and add the results to the report.

    If you name a dataset, the report stays unchanged; --group-by COLUMN then also tests the groups in that column.
    """
    from hangtag.cli import live, screen
    from hangtag.evaluation.run_folder import find_run

    _check_options(what, path, data_options, groups=True)
    folder = find_run(run)
    judged, own, model = _judge(folder, what, path, data_options)
    with live.share_progress() as progress:
        progress("corrupting images", 0.0)
        from hangtag.evaluation import stress_test

        groups = _groups(judged.data, data_options.group_by)
        result = stress_test.stress(model, judged.data, images, seed, groups, progress, judged.folds)
    report = None
    if own is not None:
        from hangtag.reports.report import no_figures, write_report_and_pictures

        folder.write_stress(result.to_json())
        report = write_report_and_pictures(folder, own, judged)
    if as_json:
        return screen.print_json(result.to_json())
    _print_left_out(judged)
    screen.print_stress(result)
    if report:
        print(f"wrote {folder.path / 'stress.json'}\nwrote {report}")
        screen.print_notes(no_figures())
    return None


def _print_left_out(judged: "Judgement") -> None:
    """How class names were matched, and which images are of no class of the model."""
    from hangtag.cli import screen

    left_out = [f"left out: {judged.evaluation.strangers}"] if judged.evaluation.strangers else []
    screen.print_notes([*judged.notes, *left_out])


def _check_options(
    what: str | None, path: Path | None, data_options: options.DataOptions, *own: str, groups: bool = False
) -> None:
    """Raise UsageError for options that would change nothing.

    Args:
        own: the options that also apply to the run's own data.
        groups: whether the command uses the groups of another dataset.
    """
    given = data_options.given()
    if what is None and path is None:
        options.refuse(
            [name for name in given if name not in own],
            "not possible with the run's own data, which is read as in training",
            "leave it out, or name a dataset that needs it",
        )
    elif not groups:
        options.refuse(
            [name for name in given if name == "group_by"],
            "this command does not use groups of images",
            "leave it out; hangtag stress RUN DATA tests groups",
        )


def _groups(data: "LabelledImages", group_by: str | None) -> dict[str, Any]:
    """The group of each image, by the name of the column; empty for data without groups."""
    if data.groups is None:
        return {}
    import numpy as np

    names = [data.group_names[number] if data.group_names else str(number) for number in data.groups]
    return {group_by or "group": np.array(names, object)}


def check(
    run: options.Model,
    expectations: Annotated[Path, typer.Argument(help="A folder with one subfolder of images per label.")],
    as_json: options.AsJson = False,
) -> None:
    """Check that a model labels images as expected. If it does not, print the differences and exit with code 1."""
    from hangtag.cli import screen
    from hangtag.evaluation import regression_check

    result = regression_check.check(options.open_model(run), expectations)
    if as_json:
        screen.print_json(result.to_json())
    else:
        for broken in result.broken:
            print(f"{broken.file}: must be {broken.expected}, {broken.reason}")
        print(result)
    if not result.kept:
        raise typer.Exit(1)

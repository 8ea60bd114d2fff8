"""`hangtag evaluate`, `report`, `compare`, `stress` and `check`: how good a model is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hangtag.cli import options
from hangtag.errors import UsageError

if TYPE_CHECKING:
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement
    from hangtag.evaluation.run_folder import Run

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
    from hangtag.evaluation.judge import judge
    from hangtag.evaluation.run_folder import find_run

    folder = find_run(run)
    if page is not None and what is None and path is None:
        raise UsageError("--page needs a dataset", "the report on the run's own data: hangtag report")
    data = _other_data(folder, what, path, data_options)
    judged = judge(folder, data)
    if page is not None:
        from hangtag.reports.report import write_other_report

        write_other_report(folder, judged, page)
    cleaned = _after_decisions(folder, data_options) if data_options.decisions and data is None else None
    if as_json:
        result = judged.to_json()
        return screen.print_json(
            result if cleaned is None else {"before_decisions": result, "cleaned": cleaned.to_json()}
        )
    screen.print_notes(judged.notes)
    screen.print_evaluation(screen.console(), judged.evaluation, judged.part)
    screen.print_guarantees(judged.guarantees, judged.part)
    if judged.before_decisions:
        print(f"before your decisions: {judged.before_decisions}")
    if cleaned is not None:
        print(f"after your decisions: {cleaned.evaluation}")
    if page is not None:
        print(f"wrote {page}")
    return None


def _other_data(
    run: "Run", what: str | None, path: Path | None, data_options: options.DataOptions
) -> "LabelledImages | None":
    """The named dataset in the size that the run's model takes; None without a name."""
    if what is None and path is None:
        return None
    from hangtag.model.predictor import load

    return options.read_data(what, path, data_options, load(run.path).spec)


def _after_decisions(run: "Run", data_options: options.DataOptions) -> "Judgement":
    """The run judged on its own data after these decisions about single images."""
    from hangtag.evaluation.judge import judge

    source = run.config().get("source", {})
    path = source.get("path")
    decisions = options.DataOptions(decisions=data_options.decisions)
    data = _other_data(run, source.get("what") or "fashion-mnist", Path(path) if path else None, decisions)
    if data is None or "test" not in data.parts:  # the model may have been trained on all other images
        raise UsageError(
            f"--decisions {data_options.decisions}: this run's data has no test part to evaluate on",
            "apply the decisions in training: hangtag train DATA --decisions FILE",
        )
    return judge(run, data)


def report(run: options.RunName = "last") -> None:
    """Rewrite a run's report and figures."""
    from hangtag.cli import screen
    from hangtag.evaluation.judge import judge, read_again
    from hangtag.evaluation.run_folder import find_run
    from hangtag.reports.report import no_figures, write_report_and_pictures

    folder = find_run(run)
    print(f"wrote {write_report_and_pictures(folder, read_again(folder), judge(folder))}")
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
    from hangtag.evaluation.judge import judge
    from hangtag.evaluation.run_folder import find_run
    from hangtag.reports.compare_page import write_comparison

    _require_data(what, path, data_options)
    runs = find_run(first), find_run(second)
    data = [_other_data(run, what, path, data_options) for run in runs]
    one, two = map(judge, runs, data)
    result, rows = compare_judgements(name_pair(runs[0].path, runs[1].path), one, two)
    page = write_comparison(result, one.data, one.probabilities, rows, out)
    if as_json:
        return screen.print_json({**result.to_json(), "page": str(page)})
    _print_left_out(one)
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
    from hangtag.cli import screen
    from hangtag.evaluation.judge import judge
    from hangtag.evaluation.run_folder import find_run

    _require_data(what, path, data_options)
    folder = find_run(run)
    data = _other_data(folder, what, path, data_options)
    judged = judge(folder, data)
    with screen.share_progress() as progress:
        progress("corrupting images", 0.0)
        from hangtag.evaluation import stress_test

        groups = _groups(judged.data, data_options.group_by)
        result = stress_test.stress(options.open_model(run), judged.data, images, seed, groups, progress)
    report = None
    if data is None:
        from hangtag.evaluation.judge import read_again
        from hangtag.reports.report import no_figures, write_report_and_pictures

        folder.write_stress(result.to_json())
        report = write_report_and_pictures(folder, read_again(folder), judged)
    if as_json:
        return screen.print_json(result.to_json())
    _print_left_out(judged)
    screen.print_stress(screen.console(), result)
    if report:
        print(f"wrote {folder.path / 'stress.json'}\nwrote {report}")
        screen.print_notes(no_figures())
    return None


def _print_left_out(judged: "Judgement") -> None:
    """How class names were matched, and which images are of no class of the model."""
    from hangtag.cli import screen

    left_out = [f"left out: {judged.evaluation.strangers}"] if judged.evaluation.strangers else []
    screen.print_notes([*judged.notes, *left_out])


def _require_data(what: str | None, path: Path | None, data_options: options.DataOptions) -> None:
    """Raises UsageError if options for reading data are given, but no dataset."""
    if what is None and path is None and (given := data_options.given()):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"{names}: not possible with the run's own data, which is read as in training", "name a dataset"
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

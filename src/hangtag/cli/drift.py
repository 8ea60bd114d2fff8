"""`hangtag drift`: whether what comes in still looks like what the model was judged on."""

from pathlib import Path
from typing import Annotated

import typer

from hangtag.cli import options

__all__ = ["drift"]


def drift(
    run: options.RunName,
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS...",
            help="Files that hangtag serve --log-answers or hangtag predict --out wrote: .jsonl, .csv or .parquet.",
        ),
    ],
    out: Annotated[Path | None, options.path_option("Also write a page with charts.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare a model's answers in use with its answers to the images it was judged on.

    The share of unfamiliar pictures and the distributions of OOD scores, confidence and labels are tested, with
    p-values adjusted for the number of tests: without any drift, a difference is reported at most once in 20 times.
    True labels are unknown here, so drift does not prove that accuracy fell, and no drift does not prove that it held.

    The exit code is 1 if OOD scores or confidence have drifted, and 0 if not, if only the mix of labels has changed, or
    if there are too few answers.
    """
    from hangtag.cli import screen
    from hangtag.evaluation.drift import compare, read_answers, reference_of
    from hangtag.evaluation.run_folder import find_run
    from hangtag.model.predictor import load

    folder = find_run(run)
    model = load(folder.path)
    found = read_answers(answers, model)
    result = compare(model, *reference_of(folder, model), found)
    if out is not None:
        from hangtag.reports.drift_page import write_drift_page

        write_drift_page(result, folder.path.name, out)
    if as_json:
        screen.print_json({**result.to_json(), "page": None if out is None else str(out)})
    else:
        print(result)
        if out is not None:
            print(f"wrote {out}")
    if result.has_drifted:
        raise typer.Exit(1)

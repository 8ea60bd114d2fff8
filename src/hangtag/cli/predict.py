"""`hangtag predict`: classify images."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hangtag.cli.options import AsJson, Model, open_model, path_option, print_error
from hangtag.errors import HangtagError, UsageError
from hangtag.files import make_own_folder

if TYPE_CHECKING:
    from hangtag.model.predictor import Predictor

__all__ = ["predict"]


def predict(
    run: Model,
    pictures: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 3,
    coverage: Annotated[
        float, typer.Option(help="Target share of images whose prediction set contains the true label.")
    ] = 0.95,
    target_accuracy: Annotated[
        float | None, typer.Option(help="Target accuracy of sure answers: 0.9, 0.95, 0.98, 0.99, 0.995 or 0.999.")
    ] = None,
    cost: Annotated[float | None, typer.Option(help="Cost of a wrong answer relative to abstaining.")] = None,
    set_method: Annotated[
        str, typer.Option(help="How sets are made: threshold (smallest sets), raps or aps.")
    ] = "threshold",
    ood_false_positive_rate: Annotated[
        float, typer.Option(help="Share of familiar images that may be called unfamiliar.")
    ] = 0.05,
    sure_only: Annotated[bool, typer.Option("--sure-only", help="Print only answers the model is sure of.")] = False,
    why: Annotated[
        Path | None, path_option("Also draw what each answer is based on: a .png file, or a folder for several images.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify images and say how sure each answer is. Files that cannot be read are reported and skipped.

    An answer is sure if its prediction set contains a single label and the image does not look unfamiliar.
    --target-accuracy or --cost replaces the first condition.
    """
    from hangtag.cli import screen
    from hangtag.model.guarantees import AnswerPolicy

    if why is not None:
        from hangtag.reports import figures  # noqa: F401 - raises MissingExtra before the model is opened

    policy = AnswerPolicy(
        coverage=coverage, method=set_method, ood_false_positive_rate=ood_false_positive_rate, cost=cost,
        target_accuracy=target_accuracy,
    )  # fmt: skip
    predictor = open_model(run).with_policy(policy)
    if sure_only and not predictor.can_abstain:
        raise UsageError(
            f"--sure-only: {run} cannot tell which answers are sure", "; ".join(predictor.guarantees.limitations)
        )
    if not as_json:
        for sentence in predictor.guarantees.limitations:
            print(f"note: {sentence}", file=sys.stderr)
    draw = _explainer(run, predictor, why, len(pictures)) if why else None
    failed = unsure = 0
    answers = []
    for picture in pictures:
        try:
            answer = predictor(picture, top)
            figure = draw(picture) if draw else None
        except HangtagError as error:
            failed += 1
            answers.append({"file": str(picture), **error.to_json()})
            print_error(error)
            continue
        if sure_only and not answer.sure:
            unsure += 1
            continue
        answers.append({"file": str(picture), **answer.to_json(), **({"why": str(figure)} if figure else {})})
        if not as_json:
            screen.print_answer(picture, answer)
            if figure:
                print(f"wrote {figure}")
    if as_json:
        screen.print_json(answers)
    if unsure:
        print(f"left out {unsure:,} of {len(pictures):,} images because the model is not sure", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _explainer(run: str, predictor: "Predictor", out: Path, pictures: int) -> Callable[[Path], Path]:
    """A function that draws the explanation of one answer; with similar training images if the run kept some."""
    import numpy as np

    from hangtag.evaluation.run_folder import find_run
    from hangtag.model.explanation import explain
    from hangtag.model.neighbours import read_neighbours
    from hangtag.reports.explain_figure import draw_explanation
    from hangtag.reports.figures import save

    neighbours = None
    if not run.endswith(".onnx") and predictor.has_output("embedding"):
        blank = np.zeros((1, *predictor.spec.shape), np.uint8)
        size = predictor.outputs(blank, "embedding")["embedding"].shape[1]
        neighbours = read_neighbours(find_run(run).path, len(predictor.class_names), size)
    into_folder = pictures > 1 or out.suffix.lower() != ".png"
    if into_folder:
        make_own_folder(out)
    used: set[str] = set()

    def draw(picture: Path) -> Path:
        name, number = picture.stem, 2
        while name in used:
            name, number = f"{picture.stem}-{number}", number + 1
        used.add(name)
        path = out / f"{name}.png" if into_folder else out
        save(draw_explanation(explain(predictor, picture, neighbours)), path)
        return path

    return draw

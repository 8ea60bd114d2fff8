"""`hangtag predict`: classify images."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hangtag.cli.options import AsJson, Model, Ray, open_model, path_option, print_error
from hangtag.cli.tally import Tally, late_progress
from hangtag.errors import HangtagError, UsageError
from hangtag.files import make_own_folder, user_path
from hangtag.words import amount

if TYPE_CHECKING:
    from hangtag.data.picture_list import PictureList
    from hangtag.data.table_writer import TableWriter
    from hangtag.model.predictor import Predictor
    from hangtag.prediction.bulk import Row
    from hangtag.progress import Progress

__all__ = ["predict"]

_MOST_LINES = 50  # answers that are printed one by one in a terminal
_MOST_ERRORS = 20  # files that cannot be read, named on the screen
_DOCTOR = Path("doctor")  # the folder for drawings of repairs


def predict(
    run: Model,
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES...",
            help="Image files, folders, patterns in quotes, zip or tar files, tables (.csv, .tsv, .jsonl, .parquet), "
            "addresses of those such as s3://bucket/photos, or - for standard input: a list of names, or one image.",
        ),
    ],
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
    sure_only: Annotated[bool, typer.Option("--sure-only", help="Keep only answers the model is sure of.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            help="Write the answers, a row for each image: to a new table (.csv, .jsonl or .parquet), or as Parquet "
            "shards into a folder or to an address such as s3://bucket/answers.",
            metavar="<path>",
        ),
    ] = None,
    sort_into: Annotated[
        Path | None, path_option("Put the images into a new folder, one folder per label and one named 'not sure'.")
    ] = None,
    link: Annotated[bool, typer.Option("--link/--copy", help="How --sort-into does that. [default: copy]")] = False,
    sheet: Annotated[
        Path | None, path_option("Write a contact sheet, a new .html page with the least sure images first.")
    ] = None,
    why: Annotated[
        Path | None, path_option("Also draw what each answer is based on: a .png file, or a folder for several images.")
    ] = None,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Also draw each image before and after repairs, into the folder doctor.")
    ] = False,
    doctor_into: Annotated[Path | None, path_option("The same, into another folder.")] = None,
    as_is: Annotated[bool, typer.Option("--as-is", help="Do not repair images unlike the training images.")] = False,
    image_column: Annotated[str | None, typer.Option(help="The table's column of image paths.")] = None,
    root: Annotated[
        Path | None, path_option("The folder to which the table's paths are relative. [default: the table's]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes or, with --ray, workers. [default: one per core, on a GPU at most 4; none for a "
            "few images]",
            min=1,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA GPU (needs onnxruntime-gpu).")] = "cpu",
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--not-strict",
            help="Exit with code 1 if an image cannot be read. [default: --not-strict for shards, otherwise --strict]",
        ),
    ] = None,
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Classify images and say how sure each answer is. Files that cannot be read are reported and skipped.

    An answer is sure if its prediction set contains a single label, its probability is high enough and the image does
    not look unfamiliar. --target-accuracy or --cost replaces the first two conditions.

    An image unlike the training images is repaired if that makes it more familiar: inverted, cropped to its object or
    laid on their background. What was done is printed; --as-is turns it off.

    More than 50 images are counted by label in a terminal; --out, --sort-into and --sheet keep the answers.

    For very many images, give --out a folder (a name without an ending, with / at its end, or one that exists) or an
    address: the answers are written there as Parquet shards. After an interruption, even a kill, the same command
    continues where it stopped. With --ray, all nodes of a cluster work; they must see images and folder at the same
    paths.
    """
    from hangtag.data.picture_list import list_pictures, places_in
    from hangtag.model.gpu import check_device
    from hangtag.model.guarantees import AnswerPolicy

    check_device(device)
    policy = AnswerPolicy(
        coverage=coverage, method=set_method, ood_false_positive_rate=ood_false_positive_rate, cost=cost,
        target_accuracy=target_accuracy,
    )  # fmt: skip
    drawings = doctor_into or (_DOCTOR if doctor else None)
    if drawings and as_is:
        raise UsageError("--doctor and --as-is contradict each other", "give only one of them")
    shards, table = _shards_or_table(out, sort_into, sheet, why, drawings, sure_only)
    if ray is not None:
        from hangtag.cluster.connect import check_address

        if shards is None:
            raise UsageError("--ray needs --out with a folder or an address for shards", "for example --out answers/")
        check_address(ray)
    if shards is not None:
        from hangtag.data.store.remote import need_pyarrow

        need_pyarrow()
    _check_outputs(table, sort_into, sheet, why, drawings)
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="hangtag-"))
        predictor = (
            open_model(run, device if ray is None else "cpu").with_policy(policy).with_doctor(False if as_is else None)
        )
        if sure_only and not predictor.can_abstain:
            raise UsageError(
                f"--sure-only: {run} cannot tell which answers are sure", "; ".join(predictor.guarantees.limitations)
            )
        refuse = "-" not in places
        if not refuse:
            place = places.index("-")
            named = places_in(sys.stdin.buffer.read(), None if shards else Path(temporary))
            places = [*places[:place], *named, *places[place + 1 :]]
        if shards is not None:
            from hangtag.cli.predict_job import answer_here, answer_on_ray, predict_into

            answering = answer_here(predictor, top, workers) if ray is None else answer_on_ray(ray, workers, device)
            total = predict_into(shards, predictor, places, stack.enter_context(answering), top=top,
                                 image_column=image_column, root=root, refuse=refuse, device=device,
                                 as_json=as_json)  # fmt: skip
            raise typer.Exit(1 if total.failed and (strict or total.failed == total.images) else 0)
        pictures = list_pictures(places, Path(temporary), image_column, root, refuse)
        if not as_json:
            for sentence in (*predictor.guarantees.limitations, *pictures.notes):
                print(f"note: {sentence}", file=sys.stderr)
        tally = Tally(predictor.can_abstain, sure_only)
        outputs = _Outputs(predictor, pictures, top, run, tally)
        outputs.open(stack, table, sort_into, link, sheet, why, drawings, as_json)
        _run(predictor, pictures, top, workers, tally, outputs)
    if tally.failed and strict is not False:
        raise typer.Exit(1)


def _shards_or_table(
    out: str | None,
    sort_into: Path | None,
    sheet: Path | None,
    why: Path | None,
    drawings: Path | None,
    sure_only: bool,
) -> tuple[str | None, Path | None]:  # fmt: skip
    """The folder of shards or the table that --out names."""
    if out is None:
        return None, None
    from hangtag.cli.predict_job import folder_of

    folder = folder_of(out)
    if folder is None:
        return None, user_path(out)
    others = {"--sort-into": sort_into, "--sheet": sheet, "--why": why, "--doctor": drawings, "--sure-only": sure_only}
    for option, value in others.items():
        if value:
            hint = "filter its column 'sure'" if value is True else "give it a table: --out answers.csv"
            raise UsageError(f"{option} and --out with a folder of shards cannot be combined", hint)
    return folder, None


def _check_outputs(
    out: Path | None, sort_into: Path | None, sheet: Path | None, why: Path | None, drawings: Path | None
) -> None:
    """Raise an error for an output that cannot be written, before the model is opened and pictures are listed."""
    if out is not None:
        from hangtag.data.table_writer import check_new_table

        check_new_table(out)
    if sheet is not None:
        if sheet.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"{sheet}: the ending must be .html", "for example --sheet sheet.html")
        if os.path.lexists(sheet):
            raise UsageError(f"{sheet}: already exists", "choose another name, or delete it")
        if not sheet.absolute().parent.is_dir():
            raise UsageError(f"{sheet}: its folder does not exist", f"create it: mkdir -p {sheet.parent}")
    if sort_into is not None:
        from hangtag.prediction.sorting import check_sortable

        check_sortable(sort_into)
    if why is not None or drawings is not None:
        from hangtag.reports import figures  # noqa: F401 - raises MissingExtra


class _Outputs:
    """Where answers go: lines, JSON, a table, sorted folders, a contact sheet, drawings."""

    def __init__(self, predictor: "Predictor", pictures: "PictureList", top: int, run: str, tally: Tally) -> None:
        self.predictor, self.pictures, self.top, self.run, self.tally = predictor, pictures, top, run, tally
        self.each: list[Callable[[Row], object]] = []
        self.end: list[Callable[[Progress], None]] = []
        self.draw: Callable[[Row], Path | None] = lambda row: None
        self.draw_repairs: Callable[[str, str | bytes], Path] | None = None
        self.notes: Counter[str] = Counter()
        self.lines = self.json = False

    def open(
        self, stack: ExitStack, out: Path | None, sort_into: Path | None, link: bool, sheet: Path | None,
        why: Path | None, drawings: Path | None, as_json: bool,
    ) -> None:  # fmt: skip
        from hangtag.cli.answers import json_list

        count, self.json = len(self.pictures.samples), as_json
        kept = any((out, sort_into, sheet))
        self.lines = not as_json and not kept and (count <= _MOST_LINES or not sys.stdout.isatty())
        if why is not None:
            draw = _explainer(self.run, self.predictor, why, count)
            self.draw = lambda row: draw(row.sample.name, self._source(row))
        if drawings is not None:
            self.draw_repairs = _repairs_drawer(self.predictor, drawings)
        if out is not None:
            self._open_table(stack, out)
        if sort_into is not None:
            from hangtag.prediction.sorting import Sorter

            sorter = Sorter(sort_into, self.predictor.class_names, link, self.pictures)
            containers = self.pictures.containers
            self.each.append(lambda row: sorter.put(row.sample, containers[row.sample.container], row.answer))
            self.end.append(lambda _: print(f"sorted into {sort_into}", file=sys.stderr))
        if sheet is not None:
            from hangtag.reports.contact_sheet import ContactSheet

            page = ContactSheet(self.predictor)
            self.each.append(lambda row: page.add(row.sample, row.answer))
            self.end.append(lambda progress: page.write(sheet, self.pictures, progress))
            self.end.append(lambda _: print(f"wrote {sheet}", file=sys.stderr))
        if as_json:
            add = stack.enter_context(json_list())
            self.each.append(lambda row: add(self._json(row)))
        elif self.lines or why is not None or drawings is not None:
            self.each.append(self._print)

    def _open_table(self, stack: ExitStack, out: Path) -> None:
        from hangtag.data.table_writer import TableWriter
        from hangtag.prediction.table import columns, row_of

        writer = TableWriter(out, columns(self.top, len(self.predictor.class_names)))
        stack.callback(self._say_written, writer)  # after the next line's end
        stack.enter_context(writer)
        self.each.append(lambda row: writer.write(row_of(row.sample.name, row.answer)))

    def _say_written(self, writer: "TableWriter") -> None:
        if writer.partial:
            total = amount(len(self.pictures.samples), "image")
            print(f"the answers for {self.tally.done:,} of {total} are in {writer.partial}", file=sys.stderr)
        elif writer.path.is_file():
            print(f"wrote {writer.path}", file=sys.stderr)

    def _source(self, row: "Row") -> str | bytes:
        from hangtag.prediction.bulk import source_of

        return source_of(self.pictures.containers[row.sample.container], row.sample.key)

    def _json(self, row: "Row") -> dict[str, Any]:
        if row.answer.error is not None:
            return {"file": row.sample.name, "error": f"{row.sample.name}: {row.answer.error}", "hint": row.hint}
        figure = self.draw(row)
        drawn = {"why": figure, "doctor": self._drawn(row)}
        files = {name: str(path) for name, path in drawn.items() if path is not None}
        return {"file": row.sample.name, **row.answer.to_json(), **files}

    def _drawn(self, row: "Row") -> Path | None:
        return self.draw_repairs(row.sample.name, self._source(row)) if self.draw_repairs else None

    def _print(self, row: "Row") -> None:
        from hangtag.cli.answers import print_answer

        if row.answer.error is None:
            if self.lines:
                print_answer(row.sample.name, row.answer, self.notes)
            for figure in (self.draw(row), self._drawn(row)):
                if figure is not None:
                    print(f"wrote {figure}")


def _run(
    predictor: "Predictor", pictures: "PictureList", top: int, workers: int | None, tally: Tally, outputs: _Outputs
) -> None:
    from hangtag.prediction.bulk import answers

    with late_progress() as progress:
        for row in answers(predictor, pictures, top, workers, progress):
            tally.add(row.answer)
            if row.answer.error is not None:
                _report(row, tally.failed)
            elif tally.sure_only and not row.answer.sure:
                continue
            for use in outputs.each:
                use(row)
        for finish in outputs.end:
            finish(progress)
    if outputs.notes:
        from hangtag.cli.answers import print_frequent

        print_frequent(outputs.notes)
    if tally.failed > _MOST_ERRORS:
        print(f"and {tally.failed - _MOST_ERRORS:,} more images that cannot be read", file=sys.stderr)
    if not outputs.lines and not outputs.json:
        from hangtag.cli import screen

        screen.print_tally(tally)
    elif tally.sure_only and tally.unsure:
        print(f"left out {tally.unsure:,} of {tally.done:,} images because the model is not sure", file=sys.stderr)


def _report(row: "Row", number: int) -> None:
    """One line on stderr for each of the first pictures that cannot be read."""
    if number <= _MOST_ERRORS:
        print_error(HangtagError(f"{row.sample.name}: {row.answer.error}", row.hint))


def _explainer(run: str, predictor: "Predictor", out: Path, pictures: int) -> Callable[[str, str | bytes], Path]:
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
    free_name = _name_giver()

    def draw(picture: str, source: str | bytes) -> Path:
        path = out / f"{free_name(picture)}.png" if into_folder else out
        save(draw_explanation(explain(predictor, source, neighbours)), path)
        return path

    return draw


def _repairs_drawer(predictor: "Predictor", folder: Path) -> Callable[[str, str | bytes], Path]:
    """A function that draws one image before and after repairs."""
    from hangtag.reports.doctor_figure import draw_repairs
    from hangtag.reports.figures import save

    make_own_folder(folder)
    free_name = _name_giver()

    def draw(picture: str, source: str | bytes) -> Path:
        path = folder / f"{free_name(picture)}.png"
        save(draw_repairs(*predictor.before_and_after(source)), path)
        return path

    return draw


def _name_giver() -> Callable[[str], str]:
    """A function that gives each image the name of its file without the ending, and a number if it is taken."""
    used: set[str] = set()

    def free(picture: str) -> str:
        stem, number = Path(picture).stem, 2
        name = stem
        while name in used:
            name, number = f"{stem}-{number}", number + 1
        used.add(name)
        return name

    return free

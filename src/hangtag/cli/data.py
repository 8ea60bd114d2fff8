"""`hangtag data`, `look`, `audit` and `cache`: read, show and check datasets, and manage the cache."""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hangtag.cli import options
from hangtag.errors import MissingExtra
from hangtag.files import make_own_folder, write_new

if TYPE_CHECKING:
    from hangtag.data.labelled_images import LabelledImages

__all__ = ["audit", "cache", "describe", "look"]


@options.with_data_options
def describe(
    data_options: options.DataOptions,
    what: options.Data = "fashion-mnist",
    path: options.DataPath = None,
    export: Annotated[
        Path | None, options.path_option("Also write the images as PNG files, one folder per class.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="The part to export, if the dataset has parts. [default: test]")
    ] = None,
    first: Annotated[int | None, typer.Option(help="Export at most this many images.", min=1)] = None,
    as_json: options.AsJson = False,
) -> None:
    """Read a dataset and print how it was read, which files were skipped and why, and its fingerprint."""
    from hangtag.cli import screen

    if export is None:
        given = {"part": part, "first": first}
        unused = [name for name, value in given.items() if value is not None]
        options.refuse(unused, "says what to export", "add --export FOLDER, or leave it out")
    data = options.read_data(what, path, data_options)
    if export:
        _export((data.part(part or "test") if data.parts else data).take(slice(first)), export)
    if as_json:
        return screen.print_json(data.to_json())
    options.print_description(data)
    parts = ", ".join(f"{name} {size:,}" for name, size in data.sizes().items())
    parts = f" ({parts})" if parts else ""
    print(f"{data.name}: {len(data):,} images of {data.spec}, {len(data.class_names)} classes{parts}")
    print(f"from         {data.source.origin}")
    print(f"size         {data.images.nbytes / 1e6:,.1f} MB of pixels")
    print(f"fingerprint  {data.fingerprint}")
    if data.source.skipped:
        from hangtag.data.read import skipped_table
        from hangtag.evaluation.run_folder import SKIPPED
        from hangtag.words import amount

        written = write_new(Path(SKIPPED), skipped_table(data))
        print(f"skipped      {amount(len(data.source.skipped), 'file')}, see {written}")
    return None


def _export(data: "LabelledImages", folder: Path) -> None:
    from hangtag.cli import live
    from hangtag.data.labelled_images import export_folder

    with live.byte_progress() as progress:
        paths = export_folder(data, folder, progress)
    print(f"wrote {len(paths):,} images under {folder}", file=sys.stderr)


@options.with_data_options
def look(
    data_options: options.DataOptions,
    what: options.Data = "fashion-mnist",
    path: options.DataPath = None,
    out: Annotated[Path, options.path_option("Folder for the two figures.")] = Path("pictures"),
    as_json: options.AsJson = False,
) -> None:
    """Draw one image and a grid of 25, and print a table of the classes and a contact sheet."""
    from hangtag.cli import live, screen
    from hangtag.reports.report import no_figures

    missing, drawn = no_figures(), list[str]()
    data = options.read_data(what, path, data_options)
    if not missing:
        drawn = _draw(data.train, out)
    counts = {name: data.counts(name).tolist() for name in data.parts} or {"all": data.counts().tolist()}
    if as_json:
        return screen.print_json({"classes": list(data.class_names), "counts": counts, "pictures": drawn})
    console = live.console()
    options.print_description(data)
    screen.print_class_table(data.class_names, counts)
    live.print_contact_sheet(console, data)
    for name in drawn:
        print(f"wrote {out / name}")
    screen.print_notes(missing)
    return None


def _draw(data: "LabelledImages", out: Path) -> list[str]:
    """Save one image and a grid of 25 in the folder; returns the names of the files."""
    from hangtag.reports import figures
    from hangtag.reports.facts import examples

    make_own_folder(out)
    some = examples(data.labels, 25)
    drawn = {
        "1-one-image.png": figures.one_image(data.images[0], data.class_names[data.labels[0]]),
        "2-grid.png": figures.image_grid(data.images[some], data.labels[some], data.class_names),
    }
    for name, figure in drawn.items():
        figures.save(figure, out / name)
    return [*drawn]


@options.with_data_options
def audit(
    data_options: options.DataOptions,
    what: options.Data = "fashion-mnist",
    path: options.DataPath = None,
    out: Annotated[Path, options.path_option("Folder for the findings and the page.")] = Path("audit"),
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Also look for wrong labels, which takes most of the time.")
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Determines how images are divided to find wrong labels. [default: 0]", min=0, max=options.MAX_SEED
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")] = None,
    ray: options.Ray = None,
    cpus: Annotated[
        int | None, typer.Option(help="With --ray: CPUs of each network that checks labels. [default: 1]", min=1)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Find duplicates, wrong labels, damaged files and small classes; write the findings and a page that shows them.

    The data is not changed. Decide about images on the page and save decisions.csv, or fill it in (keep, drop,
    relabel: CLASS), then run hangtag train DATA --decisions FILE.
    """
    from hangtag.cli import live, screen

    find_label_errors = None
    options.refuse(["cpus"] if cpus and ray is None else [], "has no effect without --ray", "add --ray, or remove it")
    with ExitStack() as stack:
        if labels:  # before reading, because the device or the cluster may not be available
            MissingExtra.check_training(", or leave the labels unchecked: --no-labels")
            from hangtag.training.label_errors import label_error_finder

            run = None
            if ray is not None:
                from hangtag.cluster.trainings import label_fold_runner

                nodes = stack.enter_context(options.on_nodes(ray, cpus or 1, device or "auto"))
                run = label_fold_runner(nodes, partial(print, file=sys.stderr))
            find_label_errors = label_error_finder(seed or 0, device or "auto", run)
        else:
            given = {"seed": seed, "device": device, "ray": ray}
            unused = [name for name, value in given.items() if value is not None]
            options.refuse(unused, "has no effect with --no-labels", "remove one of them")
        data = options.read_data(what, path, data_options)
        if not as_json:
            options.print_description(data)
        make_own_folder(out)  # an unwritable folder is an error before the work, not after it
        with live.byte_progress() as progress:
            from hangtag.data import audit as auditing
            from hangtag.reports.audit_page import write_audit_page

            result = auditing.audit(data, find_label_errors, progress)
            written = [*auditing.write_audit(result, out), write_audit_page(result, out / "audit.html")]
    if as_json:
        return screen.print_json(result.to_json())
    screen.print_audit(result, written)
    return None


def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete everything; hangtag makes or downloads it again when needed.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what hangtag keeps on disk: decoded images, features of pretrained networks and public datasets.

    The environment variable HANGTAG_CACHE_GB sets the limit for images and features (default: 20).
    """
    from hangtag.cli import screen
    from hangtag.data.store import cache as store

    if clear:
        freed = store.clear()
        if as_json:
            return screen.print_json({"freed_bytes": freed})
        print(f"freed {freed / 1e6:,.1f} MB")
        return None
    entries = store.entries()
    if as_json:
        return screen.print_json(
            {"limit_bytes": store.limit_bytes(), "entries": [entry.to_json() for entry in entries]}
        )
    screen.print_cache(entries, store.limit_bytes())
    return None

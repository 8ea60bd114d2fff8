"""What several commands share: options, completion of names, reading data, opening a model, and error lines.

Questions and notes go to stderr. Heavy packages are imported inside functions to keep `--help` fast.
"""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hangtag.errors import HangtagError, UsageError
from hangtag.files import user_path
from hangtag.words import is_whole_number, visible

if TYPE_CHECKING:
    from hangtag.cluster.connect import Cluster
    from hangtag.cluster.trainings import Nodes
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.model.predictor import Predictor
    from hangtag.pictures import ImageSpec

__all__ = [
    "DATA_HELP",
    "MAX_SEED",
    "AsJson",
    "Data",
    "DataOptions",
    "DataPath",
    "Device",
    "Model",
    "OtherData",
    "Ray",
    "RunName",
    "Seed",
    "complete_data",
    "complete_recipe",
    "complete_run",
    "join_ray",
    "model_path",
    "on_cluster",
    "on_nodes",
    "open_model",
    "path_option",
    "print_description",
    "print_error",
    "print_warnings",
    "read_data",
    "refuse",
    "with_data_options",
]


def path_option(text: str) -> Any:
    """An option that takes a path, in which ~ is the home folder."""
    return typer.Option(help=text, parser=_path, metavar="<path>")


def _path(text: str) -> Path:
    try:
        return user_path(text)
    except UsageError as error:  # click discards the message of a ValueError
        raise typer.BadParameter(f"{error.message}; {error.hint}") from None


# --- completion in the shell ---------------------------------------------------------------------------------------


def complete_data(incomplete: str) -> list[str]:
    from hangtag.data.public.catalog import NAMED

    return _matching(NAMED, incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    from hangtag.training.engine.recipes import RECIPES

    return _matching(RECIPES, incomplete)


def complete_run(incomplete: str) -> list[str]:
    return _matching(["last", *(path.parent.name for path in Path("runs").glob("*/config.json"))], incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    """The names that begin this way; none if a file does, so that the shell completes its path."""
    if incomplete and any(path.name.startswith(incomplete) for path in Path().iterdir()):
        return []
    return sorted(name for name in names if name.startswith(incomplete))


# --- options -------------------------------------------------------------------------------------------------------

MAX_SEED = 2**63 - 1
"""The random generators in use take every seed up to this one."""

DATA_HELP = (
    "The name of a public dataset (fashion-mnist), or your own data: a folder per class, a zip or tar of such folders, "
    "a table (.csv, .tsv, .jsonl, .parquet), or arrays (.npz, .npy, IDX)."
)

Data = Annotated[str, typer.Argument(help=DATA_HELP, autocompletion=complete_data)]
OtherData = Annotated[
    str | None,
    typer.Argument(help="Evaluate on this dataset instead of the run's own test images.", autocompletion=complete_data),
]
DataPath = Annotated[Path | None, typer.Option("--path", help="The folder that holds the public dataset's files.")]
RunName = Annotated[
    str, typer.Argument(help="A run folder, its name under runs/, or 'last'.", autocompletion=complete_run)
]
Model = Annotated[
    str,
    typer.Argument(help="A run folder, its name under runs/, 'last', or a model.onnx.", autocompletion=complete_run),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Seed = Annotated[
    int, typer.Option(help="The same seed, machine and versions give the same result.", min=0, max=MAX_SEED)
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Use a Ray cluster: HOST:PORT on one of its nodes, ray://HOST:PORT from elsewhere. Without an address, "
        "start Ray on this machine.",
    ),
]


def join_ray(arguments: Sequence[str]) -> list[str]:
    """Arguments in which --ray always has a value, so that it does not swallow the next argument.

    The next argument is its value only if it looks like ray://HOST:PORT or HOST:PORT. After an equals sign, any text
    is.

    >>> join_ray(["predict", "last", "--ray", "photos/"])
    ['predict', 'last', '--ray=local', 'photos/']
    >>> join_ray(["predict", "--ray", "head:6379", "last", "photos/"])
    ['predict', '--ray=head:6379', 'last', 'photos/']
    """
    joined: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            return [*joined, argument, *waiting]
        if argument == "--ray":
            from hangtag.cluster.connect import LOCAL, is_address

            argument = f"--ray={waiting.pop(0) if waiting and is_address(waiting[0]) else LOCAL}"
        joined.append(argument)
    return joined


@contextmanager
def on_cluster(address: str, workers: int = 1, cpus: float = 1, gpus: float = 0) -> "Iterator[Cluster]":
    """The cluster of --ray, with a note of its size and dashboard on stderr; see `cluster.connect.connected`."""
    from hangtag.cluster.connect import Resources, connected

    with print_warnings(), connected(address, Resources(workers, cpus, gpus)) as cluster:
        print(cluster, file=sys.stderr)
        yield cluster


@contextmanager
def on_nodes(address: str, cpus: int, device: str) -> "Iterator[Nodes]":
    """The cluster of --ray for many trainings; prints it, and how many trainings can run at once."""
    with on_cluster(address, 1, cpus) as cluster:
        from hangtag.cluster.trainings import Nodes

        nodes = Nodes(cluster, cpus, device)
        print(nodes, file=sys.stderr)
        yield nodes


@dataclass(frozen=True)
class DataOptions:
    """The options that say how to read data, the same for every command that reads some."""

    image_column: Annotated[str | None, typer.Option(help="The table's column of image paths.")] = None
    label_column: Annotated[str | None, typer.Option(help="The table's column of labels.")] = None
    split_column: Annotated[
        str | None,
        typer.Option(help="The table's column of parts; COLUMN=VALUE: test on these rows; none: no split."),
    ] = None
    root: Annotated[Path | None, typer.Option(help="The folder to which the table's paths are relative.")] = None
    classes: Annotated[
        str | None,
        typer.Option(
            help="Where the classes are: top or leaf folders, name of the leaf alone, file names, or parts alone."
        ),
    ] = None
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Group images by a column or a regular expression on file names; a split keeps each group together."
        ),
    ] = None
    size: Annotated[str | None, typer.Option(help="Image size: pixels or HEIGHTxWIDTH. [default: automatic]")] = None
    fit: Annotated[
        str | None,
        typer.Option(help="How to fit images of other proportions: squash, pad or crop. [default: automatic]"),
    ] = None
    colour: Annotated[
        bool | None,
        typer.Option("--colour/--grey", "--color/--gray", help="Keep or drop colour. [default: automatic]"),
    ] = None
    decisions: Annotated[
        Path | None, typer.Option(help="A CSV of images to keep, drop or relabel, made with hangtag audit.")
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that cannot be read.")] = False

    def given(self) -> dict[str, Any]:
        """The options that were given, as arguments of `read` that JSON can hold."""
        values: dict[str, Any] = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self).items()
            if value is not None and (value is not False or name == "colour")
        }
        if self.classes not in (None, "top", "leaf", "name", "file", "parts"):
            raise UsageError(
                f"--classes must be top, leaf, name, file or parts, got {self.classes}", "top is the outermost folder"
            )
        if self.size is not None:
            sides = self.size.lower().split("x")
            if len(sides) > 2 or not all(is_whole_number(side) for side in sides):
                raise UsageError(
                    f"--size must be a number of pixels, or height and width, got {self.size}",
                    "for example --size 64 or --size 48x64",
                )
            values["size"] = int(sides[0]) if len(sides) == 1 else [int(side) for side in sides]
        return values


def with_data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a command's parameter `data_options` by the options of `DataOptions`."""

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> Any:
        options = DataOptions(**{field.name: arguments.pop(field.name) for field in fields(DataOptions)})
        return command(data_options=options, **arguments)

    parameters = [each for each in inspect.signature(command).parameters.values() if each.name != "data_options"]
    parameters += [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in inspect.signature(DataOptions).parameters.values()
    ]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped


# --- reading data, opening a model ---------------------------------------------------------------------------------


def read_data(
    what: str | None,
    path: Path | None,
    options: DataOptions | None = None,
    spec: "ImageSpec | None" = None,
    photo_side: int | None = None,
    photos: bool | None = None,
) -> "LabelledImages":
    """Read a dataset, fashion-mnist by default, with a progress bar; the terminal shows any questions.

    Args:
        spec, photo_side, photos: see `read`.
    """
    from hangtag.cli import live
    from hangtag.data.read import read

    arguments = (options or DataOptions()).given()
    if spec is not None:
        refuse(
            [name for name in arguments if name in ("size", "fit", "colour")],
            f"images are read in the size and colours that the model takes ({spec})",
            "leave it out",
        )
    if isinstance(arguments.get("size"), list):
        arguments["size"] = tuple(arguments["size"])
    arguments |= {"spec": spec, "photo_side": photo_side, "photos": photos}
    with print_warnings(), live.byte_progress() as progress:

        def ask(question: str, answers: Sequence[tuple[str, str]]) -> str:
            progress.hide()
            return _ask(question, answers)

        try:
            return read(what or "fashion-mnist", path, progress, choose=ask, **arguments)
        except KeyboardInterrupt:
            print(
                "stopped reading; images decoded so far are kept. To continue, run the same command again",
                file=sys.stderr,
            )
            raise


def refuse(names: Sequence[str], why: str, hint: str) -> None:
    """Raise UsageError for options that were given and would change nothing; `names` are those of parameters."""
    if names:
        options = ["--colour/--grey" if name == "colour" else f"--{name.replace('_', '-')}" for name in names]
        raise UsageError(f"{', '.join(options)}: {why}", hint)


def _ask(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """Ask in a terminal; raise an error where nobody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        from hangtag.data.folder_layout import refuse

        return refuse(question, answers)
    print(visible(question), file=sys.stderr)
    for number, (_, meaning) in enumerate(answers, 1):
        print(f"  {number}  {visible(meaning)}", file=sys.stderr)
    while True:
        print(f"Enter a number from 1 to {len(answers)}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise UsageError("there was no answer to the question", f"enter a number from 1 to {len(answers)}")
        if is_whole_number(line.strip()) and 1 <= int(line) <= len(answers):
            return answers[int(line) - 1][0]


def model_path(name: str) -> Path:
    """The folder of a run, or a .onnx file."""
    from hangtag.evaluation.run_folder import find_run

    return user_path(name) if name.endswith(".onnx") else find_run(name).path


def open_model(name: str, device: str = "cpu") -> "Predictor":
    """The model of a run, or of a .onnx file, on this device."""
    from hangtag.model.predictor import load

    return load(model_path(name), device=device).with_limits()


# --- lines on the screen -------------------------------------------------------------------------------------------


def print_description(data: "LabelledImages", file: Any = None) -> None:
    """Print how the data was read, and notes on what was decided."""
    if data.source.description:
        print(data.source.description, file=file)
    for note in data.source.notes:
        print(f"note: {note}", file=file)


def print_error(error: HangtagError) -> None:
    print(f"hangtag: {' '.join(str(error).split())}", file=sys.stderr)


@contextmanager
def print_warnings() -> Iterator[None]:
    """Print each warning at once as one line, and no warning twice."""
    printed: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in printed:
            print(f"hangtag: note: {message}", file=sys.stderr)
            printed.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield

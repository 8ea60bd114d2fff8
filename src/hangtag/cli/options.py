"""What several commands share: the options that say how to read data, and reading as they say.

What has to be asked or told meanwhile goes to stderr. Heavy packages are imported inside the functions, so that
`--help` stays quick.
"""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hangtag.errors import UsageError
from hangtag.files import user_path

if TYPE_CHECKING:
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.pictures import ImageSpec
    from hangtag.training.engine.recipes import Recipe

__all__ = [
    "DATA_HELP",
    "AsJson",
    "Data",
    "DataPath",
    "Device",
    "Out",
    "Reading",
    "RunName",
    "Seed",
    "look_for_near",
    "needs_data",
    "notes_at_once",
    "read_data",
    "reads",
    "say_understood",
]

DATA_HELP = (
    "A public set's name (fashion-mnist), or your own: a folder per class, a zip or tar of it, a table (.csv, .tsv, "
    ".jsonl, .parquet), arrays (.npz, .npy, IDX)."
)

Data = Annotated[str, typer.Argument(help=DATA_HELP)]
DataPath = Annotated[Path | None, typer.Option("--path", help="Take the set's files from this folder.")]
RunName = Annotated[str, typer.Argument(help="A run folder, its name under runs/, or 'last'.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write.", parser=user_path, metavar="<path>")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, machine and versions: same result.", min=0)]
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


def reads(command: Callable[..., Any]) -> Callable[..., Any]:
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


def read_data(
    what: str | None, path: Path | None, reading: Reading | None = None, spec: "ImageSpec | None" = None
) -> "LabelledImages":
    """The named data, fashion-mnist where none is named, with a bar and with what has to be asked."""
    from hangtag.cli import screen
    from hangtag.data.read import read

    options = (reading or Reading()).options()
    size = options.get("size")
    options |= {"size": tuple(size)} if isinstance(size, list) else {}
    with notes_at_once(), screen.byte_progress() as progress:
        try:
            return read(what or "fashion-mnist", path, progress, spec=spec, choose=_ask, **options)
        except KeyboardInterrupt:
            print("stopped reading; what is decoded is kept, the same command goes on from there", file=sys.stderr)
            raise


def _ask(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """Ask in a terminal; refuse elsewhere."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        from hangtag.data.manifest import refuse

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


def say_understood(data: "LabelledImages", file: Any = None) -> None:
    """How the data was understood, and what had to be decided about it."""
    if data.source.description:
        print(data.source.description, file=file)
    for note in data.source.notes:
        print(f"note: {note}", file=file)


def needs_data(what: str | None, path: Path | None, reading: Reading) -> None:
    """Raises UsageError where it is said how to read data, but not which."""
    if what is None and path is None and reading.options():
        options = ", ".join(f"--{name.replace('_', '-')}" for name in reading.options())
        raise UsageError(f"{options}: a run's own data is read as it was for the training", "name the data as well")


def look_for_near(data: "LabelledImages", recipe: "Recipe") -> None:
    """Find nearly equal pictures once, with a bar, before a split needs to know them."""
    if not recipe.validation or "validation" in data.parts:
        return
    from hangtag.cli import screen
    from hangtag.data.splits import near_groups

    _ = data.contents  # hashes every image once; the parts take their hashes along
    with screen.byte_progress() as progress:
        near_groups(data.train, progress)


@contextmanager
def notes_at_once() -> Iterator[None]:
    """Warnings, each as one line, the moment it is given; once, whatever a network says at every step."""
    said: set[str] = set()

    def say(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in said:
            print(f"hangtag: note: {message}", file=sys.stderr)
            said.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = say
        yield

"""The command line: the list of commands, and how exceptions end.

A command parses, calls one function of the library and prints. Errors become one line on stderr and an exit code here:
2 for an invalid request, 1 for any other failure, 128 plus its number for a signal (Ctrl-C: 130). Heavy packages are
imported inside the commands to keep `--help` fast.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from hangtag.cli.options import join_ray, print_error
from hangtag.errors import HangtagError, MissingExtra, SaveError, UsageError
from hangtag.files import is_full
from hangtag.version import __version__
from hangtag.words import printable


def _convert_lazily(command: Any, context: Any) -> None:
    """Import Pydantic, which takes longer than Typer itself, only for values that need converting.

    Typer asks a parameter for an object whose `coerce` converts its value; versions that do not ask are unaffected.
    """
    for parameter in command.get_params(context):
        original = getattr(parameter, "get_runtime_param", None)
        if original is not None and not isinstance(original, _Coercion):
            parameter.get_runtime_param = _Coercion(original)


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _convert_lazily(self, ctx)
        return super().parse_args(ctx, args)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _convert_lazily(self, ctx)
        return super().parse_args(ctx, join_ray(args))


_NUMBERS = {
    "Input should be a valid integer": "a whole number",
    "Input should be a valid number": "a number",
}
"""What Pydantic expects when text is not a number, and how hangtag says it."""


class _Coercion:
    """Leaves alone what needs no conversion, text and a value that was not given; Typer converts everything else."""

    def __init__(self, original: Callable[[], Any]) -> None:
        self._original = original

    def __call__(self) -> "_Coercion":
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        is_single = not param.multiple and param.nargs == 1
        descriptor = param.type_descriptor
        if is_single and descriptor.parameter_info.parser is None and descriptor.annotation is str:
            if value is None or isinstance(value, str):
                return value
        elif is_single and value is None:
            return None
        try:
            return self._original().coerce(value, param=param, ctx=ctx)
        except typer.BadParameter as error:
            wanted = _NUMBERS.get(error.message.partition(",")[0])
            if wanted is None:
                raise
            raise typer.BadParameter(f"must be {wanted}, got '{value}'", ctx, param) from None


COMMANDS = (
    ("data.describe", "data", "Read a dataset and describe it.", "photos/ --size 64"),
    ("data.look", "look", "Look at images and class counts.", "fashion-mnist --out pictures"),
    ("data.audit", "audit", "Find problems in images and labels.", "photos/ --out audit"),
    ("train.train", "train", "Train and evaluate a classifier.", "photos/ --recipe fast --out runs/photos"),
    ("tune.tune", "tune", "Search for better settings.", "photos/ --trials 30 --search learning_rate=1e-4..1e-1"),
    ("evaluate.evaluate", "evaluate", "Evaluate a run's model.", "last"),
    ("evaluate.report", "report", "Rewrite a run's report.", "last"),
    ("predict.predict", "predict", "Classify images.", "last photos/ --out answers.csv --sheet sheet.html"),
    ("serve.serve", "serve", "Answer over HTTP.", "last --port 8000"),
    ("ship.ship", "ship", "Write a model for other servers or browsers.", "last --to web clothes-page"),
    ("drift.drift", "drift", "Find out whether pictures have changed.", "last answers.jsonl --out drift.html"),
    ("evaluate.compare", "compare", "Test whether one of two models is better.", "runs/a runs/b --out diff.html"),
    ("evaluate.stress", "stress", "Test a model on corrupted images.", "last --images 1000"),
    ("evaluate.check", "check", "Check that a model labels images as expected.", "runs/clothes expectations/"),
    ("learn.model", "model", "Show a recipe's network layer by layer.", "tutorial"),
    ("learn.tutorial", "tutorial", "Follow the lesson step by step.", "--out lesson"),
    ("learn.bench", "bench", "Measure the speed of this machine.", "--json > this-machine.json"),
    ("data.cache", "cache", "Show or clear the cache on disk.", "--clear"),
)
"""Module and function, name, summary and example of each command."""


def _global_options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        print(f"hangtag {__version__}")
        raise typer.Exit


def _app(arguments: Sequence[str]) -> typer.Typer:
    """The command line. If the first argument names a command, only that one is built, because this is quicker."""
    app = typer.Typer(
        name="hangtag",
        cls=_Group,
        help="From labelled images to a classifier you can trust, in one command, on your own machine.",
        epilog="Example: hangtag train photos/",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_global_options)
    called = [command for command in COMMANDS if command[1] in arguments[:1]]
    for place, name, summary, example in called or COMMANDS:
        module, function = place.split(".")
        command = getattr(import_module(f"hangtag.cli.{module}"), function)
        app.command(name, cls=_Command, short_help=summary, epilog=f"Example: hangtag {name} {example}")(command)
    return app


class _Careful:
    """A stream on which `print` shows names from strangers with escapes, in any encoding that a terminal has.

    Rich draws on the stream itself, which it finds under the name `rich_proxied_file`.
    """

    def __init__(self, stream: Any) -> None:
        if stream is None:  # it was closed before Python started
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self.rich_proxied_file = stream
        stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def main() -> None:
    """Run the command line; the one place where exceptions become messages and exit codes."""
    for name in ("SIGTERM", "SIGHUP"):  # as an exception, they leave no temporary files behind
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), _end)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Careful(sys.stdout), _Careful(sys.stderr)
    try:
        try:
            _refuse_empty(sys.argv[1:])
            _app(sys.argv[1:])(prog_name="hangtag")
        finally:
            sys.stdout.flush()
    except HangtagError as error:
        _fail(error)
    except (ImportError, KeyboardInterrupt) as error:
        if _is_interrupt(error):
            print("stopped", file=sys.stderr)
            sys.exit(130)
        extra = MissingExtra.for_module(error.name) if isinstance(error, ModuleNotFoundError) else None
        if extra is None or "--debug" in sys.argv:
            raise
        _fail(extra)
    except BrokenPipeError:
        _close_stdout()
        sys.exit(1)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        _close_stdout()
        where, why = error.filename or "the output", error.strerror or error
        if is_full(error):
            _fail(SaveError(f"{where}: cannot be written: {why}", "the disk is full; free some space"))
        _fail(HangtagError(f"{where}: cannot be read or written: {why}", "check the path and its permissions"))
    finally:
        sys.stdout, sys.stderr = before


def _close_stdout() -> None:
    """Drop what could not be written, so that Python does not try again at exit."""
    with contextlib.suppress(OSError, ValueError):  # there may be no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(number: int, frame: object) -> NoReturn:
    with contextlib.suppress(OSError):  # the terminal may be closed
        os.write(2, b"stopped\n")
    sys.exit(128 + number)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is Ctrl-C, or comes from it: in C code that is imported, Ctrl-C becomes an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _refuse_empty(arguments: list[str]) -> None:
    """Raises UsageError for an empty argument, which would otherwise mean the current folder or a default."""
    for place, argument in enumerate(arguments, 1):
        if argument == "" or (argument.startswith("--") and argument.endswith("=") and "=" not in argument[:-1]):
            what = f"argument {place}" if argument == "" else argument
            raise UsageError(f"{what} is empty", "give a value; a variable in quotes may not be set")


def _fail(error: HangtagError) -> NoReturn:
    if "--debug" in sys.argv:
        raise error
    print_error(error)
    sys.exit(2 if isinstance(error, UsageError) else 1)

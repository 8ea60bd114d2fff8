"""Build the pages that show what hangtag prints: output and pictures of their code, the help of every command, and the
Python interface.

    python scripts/build_docs.py            run everything and rewrite docs/ (about two minutes)
    python scripts/build_docs.py python.md  only the pages in whose group this one is
    python scripts/build_docs.py --check    train nothing; list stale pages and exit with 1 if there are any

The format of these pages, the same in every language; this script runs the code and writes the parts marked (*):

    ```python           all blocks share one namespace
    ```console          lines of `$ hangtag ...`, run in the same folder
    ```text             (*) directly below a block: its output; without it, a command is run but its output not shown
    ![...](pictures/NAME.png)   (*) directly below: the figure that the last line of the python block draws
    ```sh               shown, never run
"""

import argparse
import ast
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hangtag
from hangtag.cli import main as command_line
from hangtag.files import make_folder, write_text
from hangtag.reports import figures

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (DOCS / "tutorial.md", DOCS / "tutorial.ko.md")
KERAS_PAGES = (DOCS / "from-keras.md", DOCS / "from-keras.ko.md")
GROUPS = (PAGES, KERAS_PAGES)
"""Pages with the same code, in several languages; the code of each group starts anew."""
HELP, API = DOCS / "help.md", DOCS / "api.md"

_STEP = re.compile(
    r"^```(?P<language>python|console)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<text>.*?)^```\n)?"
    r"(?:\n!\[[^\]]+\]\((?P<picture>pictures/[\w-]+\.png)\)\n)?",
    re.MULTILINE | re.DOTALL,
)
_LONG = 100  # characters of a signature on one line
_ANY_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
_PROGRAM = (sys.executable, "-c", "from hangtag.cli.main import main; main()")
_PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}


class DocsError(Exception):
    """A page cannot be built."""


@dataclass(frozen=True)
class Step:
    """A block that is run, and the output and picture directly below it."""

    language: str  # python or console
    code: str
    text: str | None
    picture: str | None  # relative to docs/


def main() -> None:
    parser = argparse.ArgumentParser(description="Rewrite docs/ from what hangtag prints.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; list stale pages and exit with 1 if there are any"
    )
    parser.add_argument("pages", nargs="*", help="file names in docs/; without any, all pages and the help")
    try:
        if (arguments := parser.parse_args()).check:
            stale = problems()
            print("\n".join(stale) if stale else "docs/ is up to date")
            sys.exit(1 if stale else 0)
        build(arguments.pages)
    except DocsError as error:
        sys.exit(f"build_docs: {error}")


def build(names: Sequence[str] = ()) -> None:
    """Run the code of each group of pages and write its output and pictures into each page; then write the others."""
    for pages in GROUPS:
        if names and not {page.name for page in pages} & set(names):
            continue
        with tempfile.TemporaryDirectory(prefix="hangtag-docs-") as folder, chdir(folder):
            outputs = run(common_steps(pages), DOCS)
        for page in pages:
            write_text(page, with_outputs(page.read_text(encoding="utf-8"), outputs))
            print(f"wrote {page.relative_to(DOCS.parent)}")
    if not names:
        for path, written in GENERATED.items():
            write_text(path, written())
            print(f"wrote {path.relative_to(DOCS.parent)}")


def problems() -> list[str]:
    """Sentences about stale or broken pages; this trains nothing."""
    found = []
    for pages in GROUPS:
        try:
            steps = common_steps(pages)
        except DocsError as error:
            return [str(error)]
        texts = [[step.text for step in steps_of(page.read_text(encoding="utf-8"))] for page in pages]
        if any(text != texts[0] for text in texts):
            found.append(f"{' and '.join(page.name for page in pages)} show different outputs: run `make docs`")
        found += [f"no picture docs/{step.picture}" for step in steps if step.picture and not _exists(step.picture)]
    shown = {name for page in (*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md") for name in pictures_of(page)}
    kept = sorted((DOCS / "pictures").glob("*.png"))
    found += [f"no page shows docs/pictures/{path.name}" for path in kept if path.name not in shown]
    for path, written in GENERATED.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != written():
            found.append(f"docs/{path.name} differs from the code: run `make docs`")
    return found


# --- pages with code ----------------------------------------------------------------------------------------------


def common_steps(pages: Sequence[Path] = ()) -> list[Step]:
    """The steps of these pages, or of the tutorial; raises if code or pictures differ between languages."""
    pages = pages or PAGES
    first, *others = ([(page, step) for step in steps_of(page.read_text(encoding="utf-8"))] for page in pages)
    for other in others:
        if len(first) != len(other):
            raise DocsError(f"{first[0][0].name} has {len(first)} code blocks, {other[0][0].name} has {len(other)}")
        for (page, here), (other_page, there) in zip(first, other, strict=True):
            if (here.language, here.code, here.picture) != (there.language, there.code, there.picture):
                raise DocsError(f"{page.name} and {other_page.name} differ:\n{here.code}---\n{there.code}")
    return [step for _, step in first]


def steps_of(page: str) -> list[Step]:
    return [Step(**found.groupdict()) for found in _STEP.finditer(page)]


def pictures_of(page: Path) -> list[str]:
    """The file names of the pictures on a page."""
    if not page.is_file():
        return []
    return [Path(place).name for place in _ANY_PICTURE.findall(page.read_text(encoding="utf-8"))]


def run(steps: list[Step], out: Path) -> list[str]:
    """Run every step in the current folder, save pictures under `out`, and return the output of each step."""
    make_folder(out / "pictures")
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    outputs = []
    for step in steps:
        if step.language == "console":
            outputs.append("".join(_run_command(line) for line in step.code.splitlines()))
            continue
        printed, figure = _run_python(step.code, namespace)
        if (figure is None) != (step.picture is None):
            raise DocsError(f"a block needs a picture line below it exactly if it draws a figure:\n{step.code}")
        if (step.text is None) != (not printed):
            raise DocsError(f"a block needs a text block below it exactly if it prints:\n{step.code}{printed}")
        if figure is not None and step.picture:
            figures.save(figure, out / step.picture)
        outputs.append(printed)
    return outputs


def with_outputs(page: str, outputs: list[str]) -> str:
    """The page with each text block replaced by the output of its step."""
    parts, end = [], 0
    for found, output in zip(_STEP.finditer(page), outputs, strict=True):
        if found["text"] is not None:
            parts += [page[end : found.start("text")], _tidy(output)]
            end = found.end("text")
    return "".join([*parts, page[end:]])


def _run_python(code: str, namespace: dict[str, Any]) -> tuple[str, figures.ReportFigure | None]:
    """The output of a block, and the figure that its last line draws."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "tutorial", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "tutorial", "eval"), namespace)
    if value is not None and not isinstance(value, figures.ReportFigure):
        raise DocsError(f"the value of the last line is not shown; print it:\n{code}")
    return printed.getvalue(), value


def _run_command(line: str) -> str:
    """The stdout of `$ hangtag ...`."""
    prompt, program, *arguments = shlex.split(line)
    if (prompt, program) != ("$", "hangtag"):
        raise DocsError(f"a console block must contain only lines of `$ hangtag ...`, got: {line}")
    return _hangtag(*arguments)


def _hangtag(*arguments: str) -> str:
    done = subprocess.run(
        [*_PROGRAM, *arguments], env=os.environ | _PLAIN, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise DocsError(f"hangtag {shlex.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def _tidy(output: str) -> str:
    lines = [line.rstrip() for line in output.rstrip().splitlines()]
    while lines and not lines[0]:
        lines.pop(0)
    return "".join(f"{line}\n" for line in lines)


def _exists(picture: str) -> bool:
    return (DOCS / picture).is_file()


# --- the help page -----------------------------------------------------------------------------------------------


def help_page() -> str:
    """docs/help.md: the `--help` of every command."""
    parts = [
        "# The command line\n\nThe `--help` of every command. `make docs` writes this page from `src/hangtag/cli/`.\n",
        _section("hangtag", _hangtag("--help")),
        *(_section(f"hangtag {name}", _hangtag(name, "--help")) for name in command_names()),
    ]
    return "\n".join(parts)


def command_names() -> list[str]:
    """In the order of `hangtag --help`."""
    return [name for _, name, _, _ in command_line.COMMANDS]


def _section(title: str, output: str) -> str:
    return f"## {title}\n\n```text\n{_tidy(output)}```\n"


# --- the page of the Python interface ----------------------------------------------------------------------------


def api_page() -> str:
    """docs/api.md: every public name with its signature and docstring, as they stand in the source."""
    parts = [
        "# The Python interface\n\nEvery name in `hangtag.__all__`. `make docs` writes this page from the docstrings.\n"
    ]
    homes = {name: home for name, home in hangtag._HOME.items() if name in hangtag.__all__}
    functions = [name for name in homes if name.islower()]
    for title, names in (("Functions", functions), ("Classes", sorted(homes.keys() - set(functions)))):
        parts.append(f"## {title}\n")
        parts += [_entry(_definition(homes[name], name), f"hangtag.{name}", "###") for name in names]
    parts.append("## Modules\n")
    for name, home in hangtag._MODULES.items():
        tree = _source(home)
        parts.append(f"### hangtag.{name}\n\n{_markdown(ast.get_docstring(tree) or '')}")
        public = [node for node in tree.body if isinstance(node, _DEFINITIONS) and node.name in _exports(tree)]
        parts += [_entry(node, f"hangtag.{name}.{node.name}", "####") for node in public if node.name not in homes]
    return "\n".join(parts)


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def _source(home: str) -> ast.Module:
    path = DOCS.parent / "src" / "hangtag" / f"{home.replace('.', '/')}.py"
    return ast.parse(path.read_text(encoding="utf-8"))


def _exports(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(each) for each in ast.literal_eval(node.value)]
    return []


def _definition(home: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    """A class or function; a class that takes its docstring or constructor from another file takes everything there."""
    tree = _source(home)
    found = next(node for node in tree.body if isinstance(node, _DEFINITIONS) and node.name == name)
    imported = {
        alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    if isinstance(found, ast.ClassDef) and found.bases:
        base = ast.unparse(found.bases[0])
        if (imported.get(base) or "").startswith("hangtag."):
            inherited = _definition(str(imported[base]).removeprefix("hangtag."), base)
            if not ast.get_docstring(found):
                found.body = [*inherited.body, *found.body]
            elif any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in inherited.body):
                found.body = [found.body[0], *inherited.body[1:], *found.body[1:]]
    return found


def _entry(node: ast.ClassDef | ast.FunctionDef, title: str, level: str) -> str:
    """A heading, the signature, the docstring, and for a class its public methods."""
    docstring = _markdown(ast.get_docstring(node) or "")
    if isinstance(node, ast.FunctionDef):
        return f"{level} {title}\n\n{_signature(node, title.rpartition('.')[2])}\n{docstring}"
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    made = next((each for each in methods if each.name == "__init__"), None)
    parts = [f"{level} {title}\n"]
    if made is not None and ast.unparse(made.args).find("rtifact") < 0:
        parts.append(_signature(made, node.name))
    parts.append(docstring)
    for method in methods:
        if (method.name.startswith("_") and method.name != "__call__") or not ast.get_docstring(method):
            continue
        decorators = [ast.unparse(each) for each in method.decorator_list]
        shown = f"{node.name}.{method.name}" if method.name != "__call__" else f"{node.name}(...)"
        code = f"`{shown}`\n" if {"property", "cached_property"} & {*decorators} else _signature(method, method.name)
        parts.append(f"{level}# {shown}\n\n{code}\n{_markdown(ast.get_docstring(method) or '')}")
    return "\n".join(parts)


def _signature(node: ast.FunctionDef, name: str) -> str:
    """The signature as a block of Python, one parameter a line if it is long."""
    parameters = _parameters(node.args)
    end = f" -> {_annotation(node.returns)}" if node.returns and node.name != "__init__" else ""
    name = "model" if name == "__call__" else name
    line = f"{name}({', '.join(parameters)}){end}"
    if len(line) > _LONG:
        line = f"{name}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){end}"
    return f"```python\n{line}\n```\n"


def _annotation(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _parameters(given: ast.arguments) -> list[str]:
    plain, keywords = [*given.posonlyargs, *given.args], given.kwonlyargs
    defaults = [*[None] * (len(plain) - len(given.defaults)), *given.defaults]

    def shown(argument: ast.arg, default: ast.expr | None) -> str:
        text = argument.arg + (f": {_annotation(argument.annotation)}" if argument.annotation else "")
        sign = " = " if argument.annotation else "="
        return text + ("" if default is None else f"{sign}{ast.unparse(default)}")

    found = [shown(*each) for each in zip(plain, defaults, strict=True)]
    found += [f"*{ast.unparse(given.vararg)}"] if given.vararg else ["*"] if keywords else []
    found += [shown(*each) for each in zip(keywords, given.kw_defaults, strict=True)]
    return found[1:] if found and found[0] in ("self", "cls") else found


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: its sections as lists, its examples and drawings as code."""
    blocks = []
    for block in docstring.split("\n\n"):
        title, _, rest = block.partition("\n")
        if title in ("Args:", "Attributes:", "Raises:"):
            blocks.append(f"{title}\n\n{_items(textwrap.dedent(rest))}")
        elif block.lstrip().startswith(">>>"):
            blocks.append(f"```python\n{re.sub(r' *# doctest: .*', '', textwrap.dedent(block))}\n```")
        elif block.startswith("    "):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            blocks.append(block)
    return "\n\n".join(blocks) + "\n" if docstring else ""


def _items(text: str) -> str:
    """`name: what it is` lines, each with its indented continuation, as a list."""
    items = re.split(r"\n(?=\S)", text)
    lines = []
    for item in items:
        names, _, meaning = " ".join(item.split()).partition(": ")
        lines.append(f"- `{names}`: {meaning}" if meaning else f"- {names}")
    return "\n".join(lines)


GENERATED = {HELP: help_page, API: api_page}
"""Pages that are written as a whole, and the functions that make them."""


if __name__ == "__main__":
    main()

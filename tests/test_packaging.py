"""pyproject.toml declares every package that the code imports, `all` holds every extra, every file says one version."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

import hangtag

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRA_OUTPUTS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str | dict[str, str]]] = PROJECT["dependency-groups"]
FOLDERS = ("src", "tests", "scripts", "benchmarks")


def imported(folder: str) -> set[str]:
    """Top-level names of third-party packages; benchmarks/peers has environments of its own."""
    files = [file for file in (ROOT / folder).rglob("*.py") if "peers" not in file.parts]
    ours = {"hangtag", *FOLDERS, *(file.stem for file in (*files, *(ROOT / "tests").glob("*.py")))}
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - ours - set(sys.stdlib_module_names)


def declared(*, development: bool) -> set[str]:
    """Normalised names of the distributions asked for, the extras' included."""
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in EXTRA_OUTPUTS.values() for line in extra)]
    if development:
        lines += [line for group in GROUPS.values() for line in group if isinstance(line, str)]
    return {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_imported_package_is_declared(folder: str) -> None:
    of_module = importlib.metadata.packages_distributions()
    asked = declared(development=folder != "src")

    undeclared = {name for name in imported(folder) if not asked & {normal(each) for each in of_module.get(name, [])}}

    assert undeclared == set()


def test_all_holds_every_extra() -> None:
    (line,) = EXTRA_OUTPUTS["all"]

    assert set(re.findall(r"[a-z]+", line)) - {"hangtag"} == set(EXTRA_OUTPUTS) - {"all"}


def test_the_development_group_holds_every_other() -> None:
    included = {line["include-group"] for line in GROUPS["dev"] if isinstance(line, dict)}

    assert included == set(GROUPS) - {"dev"}


@pytest.mark.parametrize("package", sorted(declared(development=True) - {"hangtag"}))
def test_every_declared_package_has_a_tested_version(package: str) -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]

    assert package in {normal(line.partition("==")[0]) for line in pinned}


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [hangtag.__version__]
    assert re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)[0] == hangtag.__version__

"""The walls of the house (docs/design.md): who may import whom, and where heavy packages live."""

import ast
import functools
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hangtag

SOURCE = Path(hangtag.__file__).parent
GROUND = "ground floor"
MAY_IMPORT = {
    GROUND: set(),
    "data": {GROUND},
    "model": {GROUND},
    "evaluation": {GROUND, "data", "model"},
    "prediction": {GROUND, "data", "model"},
    "training/engine": {GROUND, "model"},
    "training": {GROUND, "data", "model", "evaluation", "training/engine"},
    "reports": {GROUND, "data", "model", "evaluation", "prediction"},
    "serving": {GROUND, "data", "model", "evaluation", "prediction"},
    "shipping": {GROUND, "data", "model", "evaluation"},
    "cluster": {
        GROUND,
        "data",
        "model",
        "evaluation",
        "prediction",
        "training",
        "training/engine",
        "serving",
        "shipping",
    },
    "cli": {
        GROUND,
        "data",
        "model",
        "evaluation",
        "prediction",
        "training",
        "training/engine",
        "reports",
        "serving",
        "shipping",
        "cluster",
    },
}
"""The rooms, from the ground up, and the rooms below that each may import from, beside itself."""

HOMES = {
    "PIL": "pictures",
    "jinja2": "html",
    "pillow_heif": "pictures",
    "matplotlib": "reports.figures",
    "torch": "training",
    "safetensors": "training",
    "mlflow": "training.trackers",
    "tensorboard": "training.trackers",
    "pyarrow": "data",
    "fsspec": "data.store.remote",
    "optuna": "training.sampler",
    "pooch": "data.public.download",
    "requests": "data.public.download",
    "threadpoolctl": "machine",
    "platformdirs": "files",
    "typer": "cli",
    "rich": "cli.live",
    "fastapi": "serving",
    "starlette": "serving",
    "uvicorn": "serving",
    "prometheus_client": "serving",
    "orjson": "serving",
    "ray": "cluster",
    "keras": "nobody",  # whoever brings a Keras model has imported it
}
"""The one module, or folder of modules, that imports a package."""

MODULES = tuple(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
)


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


@functools.cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(tree(module)))


@functools.cache
def imports(module: str, with_types: bool = True) -> frozenset[str]:
    """Every module named by an import statement anywhere in the file; types-only imports left out on request."""
    found = set()
    skipped = {
        id(node)
        for guard in nodes(module)
        if isinstance(guard, ast.If) and isinstance(guard.test, ast.Name) and guard.test.id == "TYPE_CHECKING"
        for node in ast.walk(guard)
    }
    for node in nodes(module):
        if not with_types and id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def own(module: str, with_types: bool = True) -> set[str]:
    return {name.removeprefix("hangtag.") for name in imports(module, with_types)} & set(MODULES)


def reached(module: str) -> set[str]:
    """The modules of ours that come along with this one."""
    found, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += own(current, with_types=False)
    return found


def room_of(module: str) -> str:
    folders = module.split(".")[:-1]
    return next((room for room in ("/".join(folders[:2]), *folders[:1]) if room in MAY_IMPORT), GROUND)


def packages(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module, with_types=False)}


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_from_its_own_room_and_the_rooms_below(module: str) -> None:
    room = room_of(module)

    assert {room_of(each) for each in own(module)} <= MAY_IMPORT[room] | {room}


def test_imports_run_in_no_circle() -> None:
    order = TopologicalSorter({module: own(module, with_types=False) for module in MODULES})

    assert set(order.static_order()) == set(MODULES)  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", MODULES)
def test_a_package_is_imported_in_its_home_alone(module: str) -> None:
    strangers = {each for each in packages(module) & HOMES.keys() if not f"{module}.".startswith(f"{HOMES[each]}.")}

    assert strangers == set()


@pytest.mark.parametrize("module", [each for each in MODULES if not each.startswith(("training.", "cluster.", "cli."))])
def test_reading_answering_judging_and_reporting_never_reach_torch(module: str) -> None:
    assert {each for each in reached(module) if packages(each) & {"torch", "safetensors"}} == set()


def test_predicting_reaches_neither_data_nor_what_training_needs() -> None:
    together = reached("model.predictor")

    assert {room_of(each) for each in together} == {GROUND, "model"}
    assert set().union(*map(packages, together)) & {"torch", "sklearn", "onnx", "safetensors", "matplotlib"} == set()


def test_training_from_the_command_line_begins_without_slow_imports() -> None:
    code = "import sys, hangtag.cli.train, hangtag.cli.live, hangtag.training.run; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    slow = {"sklearn", "scipy.stats", "scipy.optimize", "pandas", "sympy", "onnxscript", "matplotlib", "torch._dynamo"}
    assert "torch" in loaded and slow & set(loaded) == set()


@pytest.mark.parametrize("module", MODULES)
def test_every_file_says_what_it_holds_and_exports_what_exists(module: str) -> None:
    assert ast.get_docstring(tree(module))
    if module in ("cli.main", "cli.screen", "cli.live"):
        return
    loaded = importlib.import_module(f"hangtag.{module}")
    assert loaded.__all__ == sorted(loaded.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_pickled_and_only_the_command_line_prints(module: str) -> None:
    calls = {node.func.id for node in nodes(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}

    assert "pickle" not in imports(module)
    assert "print" not in calls or module.startswith("cli.")


def test_the_design_page_has_a_phrase_for_every_file() -> None:
    page = (Path(__file__).parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
    house = page.partition("## The house")[2].partition("\n## ")[0]

    assert [module for module in MODULES if not re.search(rf"\b{module.rpartition('.')[2]}\b", house)] == []


def test_tests_lie_in_the_same_folders() -> None:
    """A test file without a module of its name covers several, and lies in their folder."""
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}

    assert folders <= {path.parent.relative_to(SOURCE) for path in SOURCE.rglob("*.py")}


def test_every_public_name_of_the_package_can_be_had() -> None:
    assert all(getattr(hangtag, name) is not None for name in hangtag.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hangtag.nonsense  # noqa: B018

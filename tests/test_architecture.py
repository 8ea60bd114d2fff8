"""The house of docs/design.md: files import only upward, leaves stay leaves, heavy packages have one home."""

import ast
import importlib
from pathlib import Path

import pytest

import hangtag

SOURCE = Path(hangtag.__file__).parent
ORDER = (
    "errors", "version", "progress", "machine", "words", "files", "native", "mapped",
    "images", "duplicates", "sizing", "archives", "idx", "named", "mirrors", "datasets",
    "containers", "folders", "picture_facts", "labelled", "decoder", "decoding", "cache", "tables", "arrays",
    "decisions", "chosen_spec", "understood", "gather", "kept_pictures", "spelling", "sources",
    "splits", "foreign", "models", "recipes", "balance", "peak",
    "pruning", "batches", "captured", "dense", "muon", "steps", "checkpoints", "train", "speed",
    "calibration", "conformal", "unfamiliar", "features", "trust",
    "evaluate", "promises", "artifact", "export", "neighbours", "predictor", "why",
    "runs", "judge", "classifier", "lifecycle", "seeds", "budget",
    "audit", "suspects",
    "compare", "corruptions", "slices", "stress", "check",
    "figures", "why_picture", "page", "trust_page", "report", "audit_page", "compare_page",
    "lesson", "bench", "loggers", "screen", "cli_options", "cli_train", "cli",
)  # fmt: skip
LEAVES = {
    "figures", "why_picture", "page", "trust_page", "report", "audit_page", "compare_page",
    "lesson", "bench", "loggers", "screen", "cli_options", "cli_train", "cli",
}  # fmt: skip
MAY_IMPORT_LEAVES = {
    "cli": LEAVES,
    "cli_train": {"report", "loggers", "screen", "cli_options"},
    "cli_options": {"screen"},
    "report": {"figures", "page", "trust_page"},
    "trust_page": {"page"},
    "audit_page": {"page"},
    "compare_page": {"page"},
    "lesson": {"figures"},
    "why_picture": {"figures"},
}
HOMES = {
    "PIL": {"images"},
    "pillow_heif": {"images"},
    "matplotlib": {"figures"},
    "onnx": {"export", "sizing", "decoding"},
    "onnxruntime": {"artifact", "sizing"},
    "pyarrow": {"containers", "tables"},
    "platformdirs": {"files"},
    "pooch": {"mirrors"},
    "requests": {"mirrors"},
    "mlflow": {"loggers"},
    "rich": {"screen"},
    "scipy": {"seeds", "audit", "calibration", "trust", "compare", "corruptions", "slices"},
    "cleanlab": {"suspects"},
    "tensorboard": {"loggers"},
    "safetensors": {"checkpoints", "lifecycle"},
    "sklearn": {"classifier", "datasets", "unfamiliar"},
    "torch": {
        "foreign",
        "models",
        "balance",
        "peak",
        "pruning",
        "batches",
        "captured",
        "dense",
        "muon",
        "steps",
        "checkpoints",
        "train",
        "speed",
        "features",
        "export",
        "classifier",
        "lifecycle",
        "budget",
        "loggers",
        "suspects",
    },
    "typer": {"cli", "cli_options", "cli_train"},
}
LIGHT = (
    "errors",
    "files",
    "native",
    "images",
    "evaluate",
    "artifact",
    "predictor",
    "runs",
)  # what predicting may reach
FORBIDDEN_TO_LIGHT = {"torch", "sklearn", "onnx", "safetensors", "matplotlib"}


def tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))


def imports(module: str, with_types: bool = True) -> set[str]:
    """Every module named by an import statement anywhere in the file; types-only imports left out on request."""
    found = set()
    parsed = tree(module)
    skipped = {
        id(node)
        for guard in ast.walk(parsed)
        if isinstance(guard, ast.If) and isinstance(guard.test, ast.Name) and guard.test.id == "TYPE_CHECKING"
        for node in ast.walk(guard)
    }
    for node in ast.walk(parsed):
        if not with_types and id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "hangtag":
            found |= {f"hangtag.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def own(module: str, with_types: bool = True) -> set[str]:
    names = {name.removeprefix("hangtag.") for name in imports(module, with_types) if name.startswith("hangtag.")}
    return {name.split(".")[0] for name in names}


def reached(module: str) -> set[str]:
    """The modules of ours that come along with this one."""
    found, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += own(current, with_types=False)
    return found


def test_every_file_has_its_place() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} == {*ORDER, "__init__"}


@pytest.mark.parametrize("module", ORDER)
def test_a_file_imports_only_from_files_above_it(module: str) -> None:
    above = set(ORDER[: ORDER.index(module)])
    types_only = own(module) - own(module, with_types=False)

    assert own(module) - types_only <= above
    assert own(module) & LEAVES <= MAY_IMPORT_LEAVES.get(module, set()) | (types_only if module in LEAVES else set())


@pytest.mark.parametrize("module", ORDER)
def test_a_heavy_package_is_imported_in_its_home_alone(module: str) -> None:
    packages = {name.split(".")[0] for name in imports(module, with_types=False)}

    assert {package for package in packages if package in HOMES and module not in HOMES[package]} == set()


@pytest.mark.parametrize("module", LIGHT)
def test_predicting_reaches_neither_training_nor_data(module: str) -> None:
    packages = {name.split(".")[0] for each in reached(module) for name in imports(each, with_types=False)}

    assert packages & FORBIDDEN_TO_LIGHT == set()
    assert reached(module) & {"train", "models", "datasets", "sources"} == set()


@pytest.mark.parametrize("module", ORDER)
def test_every_file_says_what_it_holds_and_exports_what_exists(module: str) -> None:
    parsed = tree(module)
    assert ast.get_docstring(parsed)
    if module in ("cli", "screen"):
        return
    loaded = importlib.import_module(f"hangtag.{module}")
    assert loaded.__all__ == sorted(loaded.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize("module", ORDER)
def test_nothing_is_pickled_and_only_the_screen_prints(module: str) -> None:
    calls = {
        node.func.id
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }

    assert "pickle" not in imports(module)
    assert "print" not in calls or module in ("cli", "cli_options", "cli_train", "screen")


def test_every_public_name_of_the_package_can_be_had() -> None:
    assert all(getattr(hangtag, name) is not None for name in hangtag.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hangtag.nonsense  # noqa: B018

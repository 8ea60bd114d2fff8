"""Seven tasks in four tools: runs the programs `tasks_*.py` on the set `digits`, and counts their lines of code.

    python -m benchmarks.peers.tasks run hangtag       every task of one tool; needs it, scikit-learn and SciPy
    python -m benchmarks.peers.tasks count             the table of lines, in Markdown; needs nothing

Each task is one function of (images, labels, test images, test labels): uint8 (N, 8, 8), from 0 to 255. A task's lines
are those of its function and of every function, class, constant and import of its file that it uses, directly or not;
blank lines, comments and docstrings do not count. All files have the same formatter and line length (ruff, 120).
"""

import ast
import importlib
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = ("hangtag", "skorch", "keras", "fastai")
TASKS = {
    "search": "search over two settings, cross-validated",
    "pruning": "ten trials, bad ones pruned while they train",
    "own_network": "own network",
    "own_loss": "own loss",
    "own_augmentation": "own augmentation",
    "seeds": "five seeds, with an interval of the mean",
    "comparison": "paired comparison of two models",
}


def main() -> None:
    if sys.argv[1] == "count":
        print(table())
        return
    module = importlib.import_module(f"benchmarks.peers.tasks_{sys.argv[2]}")
    for task in sys.argv[3:] or TASKS:
        began = time.process_time()
        print(f"{task}: {getattr(module, task)(*digits())}  ({time.process_time() - began:.1f} s)", flush=True)


def digits() -> tuple[Any, Any, Any, Any]:
    """(1000, 8, 8) uint8 and labels to train on, and the 797 others to test on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * 15.9375).astype("uint8")
    return images[:1000], found.target[:1000], images[1000:], found.target[1000:]


def table() -> str:
    rows = ["| lines of code | " + " | ".join(TOOLS) + " |", "|---|" + "---:|" * len(TOOLS)]
    for task, words in TASKS.items():
        rows.append(f"| {words} | " + " | ".join(str(lines(tool, task)) for tool in TOOLS) + " |")
    return "\n".join(rows)


def lines(tool: str, task: str) -> int:
    """Lines of code of a task, with everything of its file that it uses."""
    source = (Path(__file__).parent / f"tasks_{tool}.py").read_text(encoding="utf-8")
    defined: dict[str, ast.stmt] = {}
    for node in ast.parse(source).body:
        for name in _names_defined(node):
            defined[name] = node
    used, waiting = {}, [task]
    while waiting:
        node = defined[waiting.pop()]
        if id(node) not in used:
            used[id(node)] = node
            waiting += [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and each.id in defined]
    return sum(_code_lines(node, source) for node in used.values())


def _names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]


def _code_lines(node: ast.stmt, source: str) -> int:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    rows = source.splitlines()[first - 1 : node.end_lineno]
    return sum(bool(row.strip()) and not row.strip().startswith(("#", '"""')) for row in rows)


if __name__ == "__main__":
    main()

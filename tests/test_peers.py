"""docs/python.md: its code is that of benchmarks/peers/tasks_hangtag.py, which runs; its table is the counted one."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers import tasks, tasks_hangtag

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")


def test_the_page_shows_the_code_of_every_task() -> None:
    source = Path(tasks_hangtag.__file__).read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    shown = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))

    assert {node.name for node in functions} >= set(tasks.TASKS)
    assert [node.name for node in functions if (ast.get_source_segment(source, node) or "?") not in shown] == []


def test_the_table_of_lines_is_the_counted_one() -> None:
    assert tasks.table() in PAGE


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_code_of_the_page_runs(task: str) -> None:
    found: Any = getattr(tasks_hangtag, task)(*tasks.digits())

    if task in ("own_network", "own_loss", "own_augmentation"):
        assert found > 0.8
    elif task == "search":
        assert found[0].keys() == {"learning_rate", "batch_size"} and found[1] > 0.8
    elif task == "pruning":
        assert min(found[0]) < max(found[0]) and found[1] > 0.8
    elif task == "seeds":
        assert found[1][0] < found[0] < found[1][1]
    else:
        difference, (low, high), p = found
        assert low <= difference <= high and 0 <= p <= 1

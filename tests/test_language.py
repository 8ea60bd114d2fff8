"""Plain English: phrases that are never right in what users and readers meet are nowhere in it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BANNED = (
    "makes no sense",
    "is no number",
    "no longer a number",
    "of which",
    "where there are any",
    "where there are none",
    "shall",
    "are asked",
    "is asked",
    "was told",
    "likewise",
    "promised nothing",
    "are to be expected",
    "that is meant",
    "in vain",
    "nobody knows",
    "whatever else",
    "goes on with",
    "gone on with",
    "of one's own",
    "of ones own",
    "of his own",
    "none of it",
    "said so",
)
PHRASE = re.compile(rf"\b(?:{'|'.join(BANNED)})\b".replace(" ", r"\s+"), re.IGNORECASE)
HISTORY = "log.md"  # its entries keep the words they were written in
PAGES = sorted(path for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md") if path.name != HISTORY)
MODULES = sorted((ROOT / "src").rglob("*.py"))
TEMPLATES = sorted(path for path in (ROOT / "src").rglob("*") if path.suffix in (".html", ".j2", ".jinja"))


def banned(text: str, first_line: int = 1) -> list[str]:
    """Each banned phrase in a text, with its line."""
    return [
        f"line {first_line + text.count(chr(10), 0, match.start())}: {' '.join(match[0].split())}"
        for match in PHRASE.finditer(text)
    ]


def banned_in_python(source: str) -> list[str]:
    """Each banned phrase in a module's string literals and docstrings; adjacent and formatted ones are read as one."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        found += banned(text, node.lineno)
    return found


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES], ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_in_plain_english(page: Path) -> None:
    found = banned(page.read_text(encoding="utf-8"))

    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_messages_and_docstrings_are_in_plain_english(module: Path) -> None:
    found = banned_in_python(module.read_text(encoding="utf-8"))

    assert not found, "\n".join(found)


def test_a_banned_phrase_is_found_across_lines_and_placeholders_but_not_in_code_or_longer_words() -> None:
    source = '''"""Says how, and
of
which."""

shall = 1
text = f"{shall} makes no " f"sense"
fine = "marshalling; shallow; she saw it"
nested = f"{'likewise' if shall else ''}"
'''

    assert banned_in_python(source) == ["line 2: of which", "line 6: makes no sense", "line 8: likewise"]

"""docs/: no page is stale, both languages teach the same, and the tutorial's code does what the page says."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.model.artifact import EXTRA_OUTPUTS, FORMAT, INPUT, OUTPUT, PIXELS, Metadata
from hangtag.pictures import encode_png
from toys import idx_files, toy_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs/tutorial.md", ROOT / "docs/tutorial.ko.md"]
PHOTO_PAGES = [ROOT / "docs/photos.md", ROOT / "docs/photos.ko.md"]
MOST_BYTES = 1_000_000  # of all pictures together
MOST_LINES = 6  # of a block of code
ACCURACY = re.compile(r"accuracy (0\.\d{4}) \[")
OF_ONE_MACHINE = re.compile(r"\d ?m?s\b|\d seconds|ms/step|/home/|/root/|/tmp/|/usr/|hangtag-docs-")


@pytest.fixture(scope="module")
def build_docs() -> ModuleType:
    """scripts/build_docs.py as a module."""
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "scripts/build_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_nothing_is_stale(build_docs: ModuleType) -> None:
    assert build_docs.problems() == []


def test_every_public_name_is_on_the_page_of_the_interface() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### hangtag\.(\w+)$", page, re.MULTILINE)

    assert sorted(headings) == sorted({*hangtag.__all__} - {"__version__"})
    assert re.search(r"^- `top`: number of classes in `Answer.top`", page, re.MULTILINE)


def test_every_command_is_on_the_help_page_with_an_example(build_docs: ModuleType) -> None:
    page = (ROOT / "docs/help.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## hangtag (\S+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))

    assert list(sections) == build_docs.command_names()
    for name, section in sections.items():
        assert f"  Example: hangtag {name}" in section


def test_both_languages_have_the_same_code_outputs_and_pictures(build_docs: ModuleType) -> None:
    english, korean = (build_docs.steps_of(page.read_text(encoding="utf-8")) for page in PAGES)

    assert english == korean
    assert len(english) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_short_and_directly_above_its_output(build_docs: ModuleType, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    steps = build_docs.steps_of(text)

    assert len(steps) == len(re.findall(r"^```(?:python|console)$", text, re.MULTILINE))
    assert sum(step.text is not None for step in steps) == len(re.findall(r"^```text$", text, re.MULTILINE))
    assert [Path(step.picture).name for step in steps if step.picture] == build_docs.pictures_of(page)
    for step in steps:
        assert len(step.code.splitlines()) <= MOST_LINES, step.code
        assert step.language == "console" or step.text or step.picture, step.code
        assert not OF_ONE_MACHINE.search(step.text or ""), step.text


def test_the_pages_about_photos_show_the_same_and_only_options_that_exist(build_docs: ModuleType) -> None:
    english, korean = (page.read_text(encoding="utf-8") for page in PHOTO_PAGES)
    steps = build_docs.steps_of(english)

    assert steps == build_docs.steps_of(korean) and len(steps) == 5
    for step in steps:
        (command,) = re.findall(r"^\$ hangtag (\w+)", step.code)
        known = build_docs.GENERATED[ROOT / "docs/help.md"]().split(f"\n## hangtag {command}\n")[1].split("\n## ")[0]
        assert {option for option in re.findall(r"--[\w-]+", step.code) if option not in known} == set()


@pytest.mark.parametrize("pages", [PAGES, PHOTO_PAGES], ids=["tutorial", "photos"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_page_links_to_the_other_language(pages: list[Path], at: int) -> None:
    page, other = pages[at], pages[1 - at]

    assert f"({other.name})" in page.read_text(encoding="utf-8")[:200]


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_links_of_the_pages_lead_to_files(page: Path) -> None:
    found = re.findall(r"\]\(([^)#\s]+)\)|<img [^>]*src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    targets = [target for pair in found for target in pair if target and "://" not in target]

    assert [target for target in targets if not (page.parent / target).is_file()] == []


def test_the_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "docs/pictures").glob("*.png")) < MOST_BYTES


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="there is no README")
def test_the_python_in_the_readme_is_python() -> None:
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL):
        ast.parse(code)


def test_languages_with_different_code_are_refused(
    build_docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.md", tmp_path / "other.md"
    one.write_text("```python\nprint(1)\n```\n\n```text\n1\n```\n", encoding="utf-8")
    other.write_text("```python\nprint(2)\n```\n\n```text\n2\n```\n", encoding="utf-8")
    monkeypatch.setattr(build_docs, "PAGES", (one, other))

    with pytest.raises(build_docs.DocsError, match=r"one\.md and other\.md differ"):
        build_docs.common_steps()


def test_outputs_replace_old_outputs_and_nothing_else(build_docs: ModuleType, tmp_path: Path) -> None:
    page = "before\n\n```python\nprint(6 * 7)\n```\n\n```text\nold\n```\n\nafter\n\n```sh\nrm nothing\n```\n"

    outputs = build_docs.run(build_docs.steps_of(page), tmp_path)

    assert build_docs.with_outputs(page, outputs) == page.replace("old", "42")


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\nprint(1)\n```\n", "text block below it exactly if it prints"),
        ("```python\nx = 1\n```\n\n```text\n1\n```\n", "text block below it exactly if it prints"),
        ("```python\n1 + 1\n```\n", "the value of the last line is not shown"),
        ("```python\nx = 1\n```\n\n![x](pictures/x.png)\n", "picture line below it exactly if it draws"),
        ("```console\n$ rm -r x\n```\n", "only lines of `\\$ hangtag"),
        ("```console\n$ hangtag nonsense\n```\n", "exit code 2"),
    ],
)
def test_a_page_that_cannot_be_built_is_refused(
    build_docs: ModuleType, tmp_path: Path, page: str, complaint: str
) -> None:
    with pytest.raises(build_docs.DocsError, match=complaint):
        build_docs.run(build_docs.steps_of(page), tmp_path)


@pytest.fixture
def fashion_as_a_user_has_it(fashion: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fashion-MNIST's files in HANGTAG_DATA, an empty current folder, and the folder `out`."""
    for name in ("data", "here", "out"):
        (tmp_path / name).mkdir()
    for name, content in idx_files(fashion.images, fashion.labels, train=60_000).items():
        (tmp_path / "data" / name).write_bytes(content)
    monkeypatch.setenv("HANGTAG_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_as_a_user_has_it")
def test_the_tutorial_runs_and_its_accuracy_is_the_documented_one(build_docs: ModuleType, tmp_path: Path) -> None:
    steps = build_docs.common_steps()

    outputs = build_docs.run(steps, tmp_path / "out")

    documented = ACCURACY.findall("".join(step.text or "" for step in steps))
    measured = ACCURACY.findall("".join(outputs[index] for index, step in enumerate(steps) if step.text))
    assert len(documented) == len(measured) == 2  # in Python and on the command line
    assert [float(number) for number in measured] == pytest.approx([float(number) for number in documented], abs=0.01)
    assert len(set(measured)) == 1  # same seed, same machine: same model
    assert len(list((tmp_path / "out/pictures").glob("*.png"))) == sum(bool(step.picture) for step in steps)


# --- the page about the model file -------------------------------------------------------------------------------


def model_file_program(language: str) -> str:
    page = (ROOT / "docs/model-file.md").read_text(encoding="utf-8")
    (program,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return program


def right_answer(folder: Path) -> str:
    """Write the files that the page's programs read; returns what they must print."""
    picture = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    (folder / "model.onnx").write_bytes(toy_model())
    (folder / "photo.png").write_bytes(encode_png(picture))
    (folder / "photo.raw").write_bytes(picture.tobytes())
    answer = hangtag.load(folder / "model.onnx")(picture)
    (folder / "names.json").write_text(json.dumps(hangtag.load(folder / "model.onnx").class_names))
    return f"{answer.label} {answer.probability:.4f}\n"


def test_the_python_program_of_the_model_file_page_gives_our_answer_and_no_warning(tmp_path: Path) -> None:
    expected = right_answer(tmp_path)
    (tmp_path / "program.py").write_text(model_file_program("python"))

    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )

    assert (done.stdout, done.stderr) == (expected, "")


def test_the_javascript_program_of_the_model_file_page_gives_our_answer(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    found = subprocess.run([node, "-e", "require('onnxruntime-node')"], capture_output=True, check=False, timeout=60)
    if found.returncode:
        pytest.skip("onnxruntime-node is not installed where Node.js looks (NODE_PATH)")
    expected = right_answer(tmp_path)
    (tmp_path / "program.js").write_text(model_file_program("javascript"))

    done = subprocess.run([node, "program.js"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    assert (done.stdout, done.stderr) == (expected, "")


def test_the_model_file_page_lists_every_output_and_key() -> None:
    page = (ROOT / "docs/model-file.md").read_text(encoding="utf-8")
    keys = {field.name for field in fields(Metadata)}

    assert {name for name in {INPUT, OUTPUT, PIXELS, *EXTRA_OUTPUTS, *keys} if f"`{name}`" not in page} == set()
    assert f"format {FORMAT}" in page


# --- the page about serving -------------------------------------------------------------------------------------------


def serving_programs() -> list[tuple[str, str]]:
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w+) run\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a model and a picture, and the address of a server of this model."""
    folder = tmp_path_factory.mktemp("served")
    right_answer(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "hangtag", "serve", "model.onnx", "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"127\.0\.0\.1:\d+", line)
        try:
            assert address, line
            yield folder, address[0]
        finally:
            server.terminate()
            server.communicate(timeout=60)


@pytest.mark.parametrize(("language", "program"), serving_programs(), ids=lambda value: value.split("\n")[0][:40])
def test_the_programs_of_the_serving_page_get_our_answer(served: tuple[Path, str], language: str, program: str) -> None:
    folder, address = served
    tool = {"sh": "sh", "python": sys.executable, "javascript": shutil.which("node")}[language]
    if tool is None or (language == "sh" and shutil.which("curl") is None):
        pytest.skip(f"the tool for {language} is not installed")
    (folder / "program").write_text(program.replace("127.0.0.1:8000", address))

    done = subprocess.run([tool, "program"], cwd=folder, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stderr
    answer = hangtag.load(folder / "model.onnx")(folder / "photo.png")
    place = hangtag.load(folder / "model.onnx").class_names.index(str(answer.label))
    assert str(answer.label) in done.stdout or done.stdout == f"{place}\n"


def test_the_serving_page_lists_every_option_metric_kind_of_error_and_field() -> None:
    from hangtag.serving.access_log import _NAMES
    from hangtag.serving.metrics import KINDS, Metrics

    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    options = (ROOT / "docs/help.md").read_text(encoding="utf-8").split("\n## hangtag serve\n")[1].split("\n## ")[0]
    metrics = {each.describe()[0].name for each in Metrics(lambda: (), lambda: 0)._of.values()}

    assert {each for each in re.findall(r"^  (--[\w-]+)", options, re.MULTILINE) if f"`{each}`" not in page} == set()
    assert {each for each in metrics if f"| `{each}` |" not in page and f"| `{each}_total` |" not in page} == set()
    assert {each for each in KINDS.values() if each not in page} == set()
    assert {status for status in KINDS if str(status) not in page} == set()
    assert {each for each in _NAMES if f"`{each}`" not in page} == set()


# --- pages whose code runs on a part of the data -------------------------------------------------------------------

NUMBER = re.compile(r"\d+\.\d+")


@pytest.mark.usefixtures("fashion_as_a_user_has_it")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # of Keras
def test_the_code_of_a_page_prints_what_the_page_shows(
    build_docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words and shapes exactly; decimal numbers, which depend on the machine, to within 0.05."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    steps = build_docs.common_steps(build_docs.KERAS_PAGES)

    printed = build_docs.run(steps, tmp_path / "out")

    for step, output in zip(steps, printed, strict=True):
        shown = step.text or ""
        assert NUMBER.sub("#", output) == NUMBER.sub("#", shown)
        found, documented = ([float(number) for number in NUMBER.findall(text)] for text in (output, shown))
        assert found == pytest.approx(documented, abs=0.05)

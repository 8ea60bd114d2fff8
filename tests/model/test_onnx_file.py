"""Changed model files are refused or answer, whatever was changed: a small round of scripts/mutated_models.py."""

import importlib.util
from pathlib import Path

import pytest

from hangtag.errors import ArtifactError
from hangtag.files import cache_home, make_folder
from hangtag.model.onnx_file import OnnxFile
from toys import toy_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutated_models.py"


@pytest.mark.parametrize(
    ("kind", "good"), [("bytes", ("refused", "same")), ("models", ("refused", "same", "answered"))]
)
def test_changed_files_are_refused_or_answer(kind: str, good: tuple[str, ...]) -> None:
    spec = importlib.util.spec_from_file_location("mutated_models", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    make_folder(cache_home("mutated-models"))
    for number, channels in enumerate((1, 3, 1)):
        (cache_home("mutated-models") / f"{number}.onnx").write_bytes(toy_model(channels))

    results = dict(script.campaign(kind, range(100), SCRIPT.parent))

    assert [(seed, result) for seed, result in results.items() if not result.startswith(good)] == []
    assert len(results) == 100 and len(set(results.values())) >= 2


@pytest.mark.parametrize(
    "content",
    [
        b"\x08" + b"\xff" * 11,  # a number without an end
        b"\x0a\xff\xff\xff\xff\x0f",  # a part that is longer than the file
        b"\x0b",  # a group, which no known file contains
        b"\x3a\x00" * 2,  # two graphs
        b"\x42\x02\x0a\x00" * 400_000,  # a million small parts
    ],
    ids=["number", "length", "group", "twice", "many"],
)
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="not an ONNX model, or a damaged one"):
        OnnxFile(content)

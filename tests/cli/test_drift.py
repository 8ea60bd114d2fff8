"""`hangtag drift` on what `hangtag predict --out` writes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hangtag.evaluation.run_folder import REFERENCE


def _written(trained: Path, in_trained: Any, name: str, change: Any) -> str:
    """A table of answers to all test images after a change."""
    folder = trained / f"drift-{name}"
    for path in (trained / "drawn" / "test").rglob("*.png"):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(np.asarray(Image.open(path)))).save(target)
    said = in_trained("predict", "runs/a", folder.name, "--out", f"drift-{name}.csv")
    assert said.code == 0, said.err
    return f"drift-{name}.csv"


def test_the_test_images_have_not_drifted_and_noise_has(in_trained: Any, trained: Path) -> None:
    random = np.random.default_rng(0)
    same = _written(trained, in_trained, "same", lambda image: image)
    noise = _written(trained, in_trained, "noise", lambda image: random.integers(0, 256, image.shape, dtype=np.uint8))

    assert (trained / "runs" / "a" / REFERENCE).is_file(), "training keeps it"
    kept = in_trained("drift", "runs/a", same)
    assert (kept.code, kept.out.partition(":")[0]) == (0, "no drift")

    drifted = in_trained("drift", "runs/a", noise, "--out", "drift.html", "--json")
    assert drifted.code == 1
    assert drifted.json["verdict"] == "drift"
    assert drifted.json["answers"] == 120
    assert "The pictures have drifted" in (trained / "drift.html").read_text()

    other = in_trained("drift", "runs/b", same)
    assert other.code == 2 and "other versions" in other.err


def test_a_run_without_the_reference_computes_it_from_its_data(in_trained: Any, trained: Path) -> None:
    same = _written(trained, in_trained, "again", lambda image: image)
    shutil.copytree(trained / "runs" / "a", trained / "runs" / "old")
    (trained / "runs" / "old" / REFERENCE).unlink()
    first = in_trained("drift", "runs/old", same, "--json").json

    assert first == in_trained("drift", "runs/a", same, "--json").json
    assert (trained / "runs" / "old" / REFERENCE).is_file()

    (trained / "runs" / "old" / REFERENCE).unlink()
    (trained / "drawn").rename(trained / "away")
    try:
        said = in_trained("drift", "runs/old", same)
    finally:
        (trained / "away").rename(trained / "drawn")
    assert said.code in (1, 2) and "run this command once where the data is" in said.err

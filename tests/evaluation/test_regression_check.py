"""A folder of expectations is matched with the model's classes: exactly first, then as file systems spell them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hangtag
from hangtag.errors import UnknownName, UsageError
from hangtag.evaluation.regression_check import check
from hangtag.model.predictor import Predictor
from hangtag.pictures import ImageSpec
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import export_model
from toys import SIDE, metadata


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """An untrained model; it answers every picture with the same class."""
    names = ("a-b", "a_b", ".net", "café", "T-shirt/top")
    spec = ImageSpec(SIDE, SIDE, background=0)
    return hangtag.load(export_model(build_network("mlp", spec, len(names), seed=0), metadata(spec, names)))


def expectations(root: Path, *labels: str) -> Path:
    for label in labels:
        (root / label).mkdir(parents=True)
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(root / label / "1.png")
    return root


def test_every_folder_stands_for_the_class_of_its_name(predictor: Predictor, tmp_path: Path) -> None:
    folders = {"a-b": "a-b", "a_b": "a_b", ".net": ".net", "cafe\u0301": "café", "T-shirt-top": "T-shirt/top"}

    result = check(predictor, expectations(tmp_path / "all", *folders, ".git"))

    expected = {broken.file.split("/")[0]: broken.expected for broken in result.broken}
    assert result.pictures == 5 and len(expected) == 4
    assert expected.items() <= folders.items()


def test_a_folder_that_fits_several_classes_or_none_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the folder a b fits several classes: a-b and a_b"):
        check(predictor, expectations(tmp_path / "several", "a b"))
    with pytest.raises(UnknownName, match="unknown class"):
        check(predictor, expectations(tmp_path / "none", "tea"))

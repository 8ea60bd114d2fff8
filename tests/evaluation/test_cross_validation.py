"""cross_validation.py: the answers come back as they were written, and nothing in the file is trusted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hangtag.errors import RunError
from hangtag.evaluation.cross_validation import (
    FILE,
    CrossValidation,
    as_held_out,
    read_cross_validation,
    write_cross_validation,
)
from hangtag.model.calibration import Calibrator
from hangtag.model.guarantees import Guarantees


def answers(count: int = 6, classes: int = 3) -> CrossValidation:
    rows = np.random.default_rng(0).dirichlet(np.ones(classes), count).astype(np.float32)
    outputs = {"probabilities": rows, "uncalibrated": rows[::-1].copy(), "ood_score": np.full(count, 0.5, np.float32)}
    return CrossValidation(np.arange(count)[::-1].copy(), np.arange(count) % 2, np.arange(count), outputs)


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = answers()
    write_cross_validation(tmp_path, written)

    found = read_cross_validation(tmp_path, 3)

    assert found.count == 2
    assert all((getattr(found, name) == getattr(written, name)).all() for name in ("ranks", "folds", "groups"))
    assert all((found.outputs[name] == rows).all() for name, rows in written.outputs.items())


@pytest.mark.parametrize("what", ["missing", "text", "other classes", "twice", "nan", "negative", "short", "pickle"])
def test_a_damaged_file_is_one_line(what: str, tmp_path: Path) -> None:
    good = answers()
    outputs, ranks = dict(good.outputs), good.ranks.copy()
    if what == "twice":
        ranks[0] = ranks[1]
    elif what == "nan":
        outputs["ood_score"] = np.full(6, np.nan, np.float32)
    elif what == "negative":
        ranks[0] = -1
    elif what == "short":
        outputs["ood_score"] = outputs["ood_score"][:-1]
    write_cross_validation(tmp_path, replace(good, ranks=ranks, outputs=outputs))
    if what == "missing":
        (tmp_path / FILE).unlink()
    elif what == "text":
        (tmp_path / FILE).write_text("no archive")
    elif what == "pickle":
        np.savez(tmp_path / FILE, ranks=np.array([{}], object))

    with pytest.raises(RunError, match=FILE):
        read_cross_validation(tmp_path, 4 if what == "other classes" else 3)


def test_the_network_of_the_own_fold_answers_for_a_held_out_image() -> None:
    by_fold = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.2, 0.8]]], np.float32)
    guarantees = Guarantees((1, 1), Calibrator.none(2))

    rows = as_held_out({"fold_uncalibrated": by_fold, "ood_score": np.zeros(2)}, np.array([1, 0]), guarantees)

    assert rows["probabilities"].argmax(axis=1).tolist() == [1, 0]
    assert np.allclose(rows["probabilities"], [[0.2, 0.8], [0.9, 0.1]]) and "fold_uncalibrated" not in rows


def test_folds_that_the_model_has_no_network_of_are_one_line() -> None:
    rows = {"fold_uncalibrated": np.full((2, 5, 3), 1 / 3, np.float32)}

    with pytest.raises(RunError, match="more folds"):
        as_held_out(rows, np.array([0, 5]), Guarantees.none(3, "not needed"))

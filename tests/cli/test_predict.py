"""`hangtag predict`."""

from pathlib import Path
from typing import Any

import numpy as np

from hangtag.pictures import encode_png
from toys import toy_model


def test_predict_answers_the_good_pictures_and_names_the_bad(hangtag: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    (tmp_path / "good.png").write_bytes(encode_png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "text.png").write_text("not a picture")

    shown = hangtag("predict", "model.onnx", "text.png", "good.png")

    assert shown.code == 1
    assert shown.out.startswith("good.png: ")
    note, error = shown.err.splitlines()
    assert note.startswith("note: this model file was exported without guarantees")
    assert error.startswith("hangtag: text.png: not an image")


def test_predict_marks_sure_answers_and_can_leave_the_rest_out(in_trained: Any, trained: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    (trained / "noise.png").write_bytes(encode_png(noise))
    pictures = ("drawn/test/bar/240.png", "noise.png")

    shown = in_trained("predict", "runs/a", *pictures, "--coverage", "0.9", "--json").json
    familiar, strange = shown

    assert familiar["label"] == "bar" and familiar["coverage"] == 0.9 and "bar" in familiar["prediction_set"]
    assert not familiar["is_ood"]
    assert strange["ood_score"] > 0.9
    # 24 held-out images: at most 23 of 24 can be more typical, so 5 % is just above the resolution
    only = in_trained(
        "predict", "runs/a", *pictures, "--cost", "1.5", "--ood-false-positive-rate", "0.2", "--sure-only"
    )
    assert only.code == 0 and "noise.png" not in only.out
    assert " of 2 images because the model is not sure" in only.err


def test_predict_draws_explanations(in_trained: Any, trained: Path) -> None:
    one = in_trained("predict", "runs/a", "drawn/test/dot/241.png", "--why", "why.png")
    two = in_trained(
        "predict", "runs/b/model.onnx", "drawn/test/dot/241.png", "drawn/test/bar/240.png", "--why", "both", "--json"
    )

    assert one.code == 0 and "wrote why.png" in one.out
    assert (trained / "why.png").stat().st_size > 10_000
    assert [answer["why"] for answer in two.json] == ["both/241.png", "both/240.png"]


def test_predict_draws_repairs_or_leaves_images_as_they_are(in_trained: Any, trained: Path) -> None:
    picture = "drawn/test/dot/241.png"

    drawn = in_trained("predict", "runs/a", picture, "--doctor", "--json").json
    as_is = in_trained("predict", "runs/a", picture, "--as-is", "--json").json
    both = in_trained("predict", "runs/a", picture, "--as-is", "--doctor")

    assert drawn[0]["doctor"] == "doctor/241.png"
    assert (trained / "doctor" / "241.png").read_bytes().startswith(b"\x89PNG")
    assert as_is[0]["repairs"] == []
    assert both.code == 2 and "contradict" in both.err

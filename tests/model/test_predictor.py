"""One picture in any form gives one answer, many keep their order, and nothing of training comes along."""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import hangtag
from hangtag.errors import HangtagError, PictureError, UsageError
from hangtag.levels import Levels
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Answer, Predictor, load
from hangtag.pictures import ImageSpec, decode, encode_png, picture_bytes
from toys import CLASSES, in_a_process, metadata, shapes, toy_model

IMAGES, _ = shapes(12)
PICTURE = IMAGES[0]


@pytest.fixture(scope="module")
def tag() -> Predictor:
    return load(toy_model())


def refused(tag: Predictor, picture: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        tag(picture)
    assert caught.value.hint
    return caught.value


def jpeg_of(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_an_answer_is_the_row_of_the_model_with_names(tag: Predictor) -> None:
    row = tag.probabilities(PICTURE[None])[0]
    order = np.argsort(-row)

    answer = tag(PICTURE)

    ranked = tuple((CLASSES[index], float(row[index])) for index in order)
    assert answer == Answer(ranked[0][0], ranked[0][1], ranked, (), tag.fingerprint)
    assert str(answer) == f"{ranked[0][0]} {ranked[0][1]:.1%}"


def test_every_form_of_one_picture_has_one_answer(tag: Predictor, tmp_path: Path) -> None:
    png = tmp_path / "picture.png"
    png.write_bytes(encode_png(PICTURE))
    forms: list[Any] = [
        PICTURE, PICTURE[None], PICTURE[..., None], PICTURE[None, ..., None], Image.fromarray(PICTURE),
        png, str(png), png.read_bytes(), io.BytesIO(png.read_bytes()), PICTURE.astype(int), PICTURE.tolist(),
    ]  # fmt: skip

    assert {tag(form) for form in forms} == {tag(PICTURE)}


def test_a_jpeg_file_has_the_answer_of_its_pixels(tag: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg_of(PICTURE))
    with Image.open(path) as opened:
        pixels = np.asarray(opened)

    assert tag(path) == tag(path.read_bytes()) == tag(pixels)


def test_pictures_of_mixed_sizes_and_kinds_keep_their_order(tag: Predictor, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sizes = [(8, 8), (20, 9), (8, 8), (9, 20), (20, 9), (1, 1), (8, 8)]
    pictures: list[Any] = [random.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    alone = [tag(picture) for picture in pictures]
    pictures[2] = encode_png(pictures[2])
    pictures[4] = Image.fromarray(pictures[4])
    (tmp_path / "one.png").write_bytes(encode_png(pictures[5]))
    pictures[5] = tmp_path / "one.png"

    together = tag.many(iter(pictures))

    assert [answer.label for answer in together] == [answer.label for answer in alone]
    assert [answer.warnings for answer in together] == [answer.warnings for answer in alone]
    np.testing.assert_allclose(
        [answer.probability for answer in together], [answer.probability for answer in alone], atol=1e-6
    )


def test_no_pictures_have_no_answers(tag: Predictor) -> None:
    assert tag.many([]) == []


def test_an_answer_in_json_has_stable_keys(tag: Predictor) -> None:
    answer = tag(np.full((16, 40, 3), (9, 90, 200), np.uint8), top=2)

    assert json.loads(json.dumps(answer.to_json())) == {
        "label": answer.label,
        "probability": answer.probability,
        "top": [{"label": label, "probability": probability} for label, probability in answer.top],
        "prediction_set": None,
        "coverage": None,
        "ood_score": None,
        "is_ood": None,
        "sure": None,
        "warnings": ["colour was converted to grey", "resized from 40x16 to 8x8, which changes its proportions"],
        "model": tag.fingerprint,
        "repairs": [],
    }


@pytest.mark.parametrize(
    ("size", "warnings"),
    [
        ((8, 8), ()),
        ((16, 16), ("resized from 16x16 to 8x8",)),
        ((100, 105), ("resized from 105x100 to 8x8",)),
        ((8, 9), ("resized from 9x8 to 8x8, which changes its proportions",)),
        ((1, 300), ("resized from 300x1 to 8x8, which changes its proportions",)),
    ],
)
def test_resizing_is_reported(tag: Predictor, size: tuple[int, int], warnings: tuple[str, ...]) -> None:
    assert tag(np.zeros(size, np.uint8)).warnings == warnings


@pytest.mark.parametrize(
    ("fit", "size", "warnings"),
    [
        ("pad", (16, 16), ("resized from 16x16 to 8x8",)),
        ("pad", (16, 32), ("resized from 32x16 to 8x8, its proportions kept, the rest filled",)),
        ("crop", (16, 16), ("resized from 16x16 to 8x8",)),
        ("crop", (16, 32), ("resized from 32x16 to 8x8, its proportions kept, its edges cut off",)),
    ],
)
def test_margins_and_cut_edges_are_reported_only_where_there_are_any(
    fit: str, size: tuple[int, int], warnings: tuple[str, ...]
) -> None:
    tag = load(toy_model(image=ImageSpec(8, 8, fit=fit)))

    assert tag(np.zeros(size, np.uint8)).warnings == warnings


def test_colours_are_reported_only_where_there_are_any(tag: Predictor) -> None:
    grey = np.repeat(PICTURE[..., None], 3, axis=2)

    assert tag(grey).warnings == ()
    assert tag(np.full((8, 8, 3), (99, 90, 90), np.uint8)).warnings == ("colour was converted to grey",)


def test_deep_pictures_are_read_on_the_scale_of_the_training_images() -> None:
    tag = load(toy_model(image=ImageSpec(8, 8, integers=Levels(1800, 2055, 1800, 2055))))
    plain = load(toy_model())
    deep = PICTURE.astype(np.uint16) + 1800

    for form in (deep, Image.fromarray(deep), deep.astype(float), deep.tolist(), picture_bytes(deep)):
        assert tag(form).probability == plain(PICTURE).probability
        assert tag(form).warnings == ("16-bit or float pixels were scaled to 8 bits: 1,800 to 2,055 became 0 to 255",)
    for many in (deep[None], [Image.fromarray(deep)], deep[None].astype(np.float32)):
        np.testing.assert_array_equal(tag.probabilities(many), plain.probabilities(PICTURE[None]))
    for wrong in (PICTURE / 255, PICTURE.astype(int), PICTURE.astype(np.uint16) * 257):
        assert "those of the training images range from 1,800 to 2,055" in refused(tag, wrong).message
        with pytest.raises(PictureError, match="those of the training images range from"):
            tag.probabilities(wrong[None])


@pytest.mark.parametrize("mode", ["P", "RGB", "1", "LA", "CMYK"])
def test_a_list_of_pil_images_is_read_as_each_of_them(tag: Predictor, mode: str) -> None:
    images = [Image.fromarray(np.repeat(image[..., None], 3, axis=2)).convert(mode) for image in IMAGES]

    found = tag.probabilities(images)

    np.testing.assert_array_equal(found, tag.probabilities(np.stack([decode(image, tag.spec)[0] for image in images])))


@pytest.mark.parametrize(("top", "count"), [(1, 1), (2, 2), (3, 3), (99, 3)])
def test_top_limits_the_number_of_classes(tag: Predictor, top: int, count: int) -> None:
    probabilities = [probability for _, probability in tag(PICTURE, top).top]

    assert (len(probabilities), probabilities) == (count, sorted(probabilities, reverse=True))


@pytest.mark.parametrize("top", [0, -1])
def test_top_below_one_is_refused(tag: Predictor, top: int) -> None:
    with pytest.raises(UsageError) as caught:
        tag(PICTURE, top)

    assert str(caught.value) == f"top must be at least 1, got {top} (it is the number of classes to show)"


def test_a_predictor_describes_itself(tag: Predictor) -> None:
    assert (tag.metadata, tag.class_names, tag.spec) == (metadata(), CLASSES, metadata().image)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (IMAGES, "array of shape (12, 8, 8) is not a single image"),
        (PICTURE.astype(complex), "image: expected numbers, got complex128"),
        (PICTURE.astype(np.uint16) * 7, "image: pixel values range from 14 to 1,540, which is not a known scale"),
        ("missing.png", "missing.png: no such file"),
        (b"", "image of 0 bytes: the file is empty"),
        (None, "expected an image, got NoneType"),
    ],
)
def test_an_invalid_picture_is_refused(tag: Predictor, picture: Any, message: str) -> None:
    error = refused(tag, picture)

    assert isinstance(error, PictureError) and error.message == message


# --- arrays of many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 8, 8), (12, 8, 8, 1)])
def test_an_array_of_images_has_a_row_for_each(tag: Predictor, shape: tuple[int, ...]) -> None:
    rows = tag.probabilities(IMAGES.reshape(shape))

    assert (rows.shape, rows.dtype.name) == ((12, 3), "float32")
    assert [CLASSES[index] for index in rows.argmax(1)] == [answer.label for answer in tag.many(IMAGES)]


@pytest.mark.parametrize("shape", [(0, 8, 8), (0, 8, 8, 3), (0, 20, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_images_have_no_rows(shape: tuple[int, ...], channels: int) -> None:
    assert load(toy_model(channels)).probabilities(np.zeros(shape, np.uint8)).shape == (0, 3)


def test_colour_for_a_grey_model_and_grey_for_a_colour_model_are_converted(tag: Predictor) -> None:
    in_colour = load(toy_model(3))
    colour = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])

    np.testing.assert_array_equal(tag.probabilities(colour), tag.probabilities(grey))
    np.testing.assert_array_equal(in_colour.probabilities(grey), in_colour.probabilities(np.stack([grey] * 3, axis=-1)))


@pytest.mark.parametrize(
    "images", [PICTURE, IMAGES.reshape(12, 64), IMAGES * 7.0, np.full((1, 8, 8), np.nan), "photos", IMAGES[:, :0]]
)
def test_an_invalid_array_of_images_is_refused(tag: Predictor, images: object) -> None:
    with pytest.raises(PictureError) as caught:
        tag.probabilities(images)

    assert caught.value.hint


# --- what comes along ------------------------------------------------------------------------------------------


def test_predicting_imports_nothing_of_training(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    (tmp_path / "picture.png").write_bytes(encode_png(PICTURE))

    printed = in_a_process(
        """
import sys, hangtag
print(hangtag.load("model.onnx")("picture.png").label)
heavy = {"torch", "sklearn", "matplotlib", "onnx", "onnxscript", "scipy", "requests", "pooch", "rich", "typer"}
print(sorted(heavy & set(sys.modules)))
print(sorted(name for name in sys.modules if name.startswith(("hangtag.data", "hangtag.training"))))
""",
        tmp_path,
    )

    assert printed.splitlines() == [hangtag.load(toy_model())(PICTURE).label, "[]", "[]"]


@pytest.mark.parametrize("chosen", [None, "0"])
def test_onnx_runtime_reports_nothing_unless_the_user_wants_it(tmp_path: Path, chosen: str | None) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment = kept | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {} if chosen is None else {"ORT_DISABLE_TELEMETRY": chosen}
    program = "import os, hangtag; hangtag.load('model.onnx'); print(os.environ['ORT_DISABLE_TELEMETRY'])"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == (chosen or "1")
    if chosen is None:
        assert [path.name for path in tmp_path.rglob("*")] == ["model.onnx"]  # no database of events


# --- copies, other processes ---------------------------------------------------------------------------------------


def test_a_predictor_can_be_pickled_and_copied_with_its_policy(tag: Predictor) -> None:
    cautious = tag.with_policy(AnswerPolicy(cost=5))

    for copied in (pickle.loads(pickle.dumps(cautious)), copy.deepcopy(cautious), copy.copy(cautious)):
        assert (copied(PICTURE), copied.policy) == (cautious(PICTURE), cautious.policy)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_predictor_answers_in_other_processes(method: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    program = f"""
import multiprocessing, numpy as np, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forks with threads
from hangtag.model.predictor import load

if __name__ == "__main__":
    tag = load("model.onnx")
    pictures = list(np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8))
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(tag, pictures) == tag.many(pictures))
"""
    (tmp_path / "program.py").write_text(program)

    assert in_a_process("import runpy; runpy.run_path('program.py', run_name='__main__')", tmp_path) == "True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_predictor_of_many_threads_answers_after_a_fork(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    program = """
import os, warnings, numpy as np
warnings.simplefilter("ignore", DeprecationWarning)
from hangtag.model.predictor import load

tag = load("model.onnx")
images = np.zeros((300, 50, 50), np.uint8)
before = tag.probabilities(images)
if os.fork() == 0:
    same = (tag.probabilities(images) == before).all()
    print("child", same, flush=True)
    os._exit(0)  # as multiprocessing does; sys.exit() waits forever in a fork of any process that uses ONNX Runtime
os.wait()
print("parent", (tag.probabilities(images) == before).all())
"""
    assert in_a_process(program, tmp_path) == "child True\nparent True\n"


def test_the_number_of_threads_changes_no_answer_and_travels_with_a_copy() -> None:
    one = load(toy_model(), threads=1)
    assert one(PICTURE) == load(toy_model())(PICTURE) == pickle.loads(pickle.dumps(one))(PICTURE)
    assert pickle.loads(pickle.dumps(one))._artifact.threads == 1


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_an_impossible_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads must be a whole number from 1 to 1,024, got {threads}"):
        load(toy_model(), threads=threads)


# --- many pictures -------------------------------------------------------------------------------------------------


def forms_of(images: NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    """The same pictures in every form that a batch may have."""
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(encode_png(image))
    return {
        "array": images, "floats": images / 255, "list": list(images), "tuple": tuple(images),
        "paths": paths, "names": [str(path) for path in paths], "array of names": np.array([str(p) for p in paths]),
        "bytes": [path.read_bytes() for path in paths], "files": [io.BytesIO(p.read_bytes()) for p in paths],
        "views": [memoryview(p.read_bytes()) for p in paths],
        "bytearrays": [bytearray(p.read_bytes()) for p in paths],
        "PIL": [Image.fromarray(image) for image in images], "generator": (image for image in images),
        "tensors": [torch.from_numpy(image) for image in images], "tensor": torch.from_numpy(images),
        "mixed": [paths[0], images[1], *(encode_png(image) for image in images[2:])],
    }  # fmt: skip


def test_predict_takes_pictures_in_every_form(tag: Predictor, tmp_path: Path) -> None:
    expected = tag.probabilities(IMAGES)
    labels = [CLASSES[index] for index in expected.argmax(axis=1)]

    for name, form in forms_of(IMAGES, tmp_path).items():
        forms = list(form) if name == "generator" else form
        if name == "files":
            assert tag.predict(form).tolist() == labels
            continue
        np.testing.assert_allclose(tag.predict_proba(forms), expected, atol=1e-6, err_msg=name)
        assert tag.predict(iter(forms) if name == "generator" else forms).tolist() == labels, name
        assert [answer.label for answer in tag.many(forms)] == labels, name


def test_labelled_images_can_be_predicted(tag: Predictor) -> None:
    images, labels = shapes(12)
    data = hangtag.read((images, labels))

    np.testing.assert_array_equal(tag.predict_proba(data), tag.probabilities(images))
    assert len(tag.many(data)) == 12


def test_a_labelled_image_is_one_picture(tag: Predictor) -> None:
    data = hangtag.read(shapes(12))

    assert tag(data[0]) == tag(data.images[0])
    np.testing.assert_array_equal(tag.predict(list(data)), tag.predict(data))
    with pytest.raises(UsageError, match="expected several pictures, got one"):
        tag.predict(data[0])


def test_names_of_outputs_in_a_list_are_refused(tag: Predictor) -> None:
    with pytest.raises(UsageError, match="unknown output"):
        tag.outputs(IMAGES, ["logits"])  # type: ignore[arg-type]


def test_a_bad_picture_is_a_row(tag: Predictor, tmp_path: Path) -> None:
    (tmp_path / "x: empty.jpg").write_bytes(b"")
    pictures = [IMAGES[0], tmp_path / "x: empty.jpg", IMAGES[1], tmp_path / "missing.png"]

    answers = tag.many(pictures)
    with pytest.warns(
        hangtag.HangtagWarning, match=r"2 pictures of 4 cannot be read: .*x: empty\.jpg: the file is empty"
    ):
        rows = tag.predict_proba(pictures)
    with pytest.warns(hangtag.HangtagWarning):
        labels = tag.predict(iter(pictures))

    good = tag.probabilities(IMAGES[:2])
    np.testing.assert_allclose(rows[[0, 2]], good, atol=1e-6)
    assert np.isnan(rows[[1, 3]]).all()
    assert labels.tolist() == [CLASSES[good[0].argmax()], None, CLASSES[good[1].argmax()], None]
    assert [answer.label for answer in answers] == labels.tolist()
    assert (answers[1].probability, answers[1].error) == (None, f"{tmp_path / 'x: empty.jpg'}: the file is empty")
    assert answers[1].to_json()["error"] == answers[1].error
    assert "empty" in str(answers[1]) and "empty" in repr(answers[1])
    with pytest.raises(PictureError, match=r"x: empty\.jpg: the file is empty"):
        tag(tmp_path / "x: empty.jpg")


def test_pictures_that_are_all_bad_have_rows_too(tag: Predictor) -> None:
    with pytest.warns(hangtag.HangtagWarning):
        assert tag.predict([b"nonsense", b""]).tolist() == [None, None]


def test_an_array_with_a_pixel_that_is_no_number_has_one_bad_row(tag: Predictor) -> None:
    floats = IMAGES / 255
    floats[3, 0, 0] = np.nan

    with pytest.warns(hangtag.HangtagWarning, match="1 picture of 12 cannot be read: image 3: NaN or infinite pixels"):
        rows = tag.predict_proba(floats)

    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [3]
    np.testing.assert_array_equal(np.delete(rows, 3, 0), tag.probabilities(np.delete(IMAGES, 3, 0)))


def test_no_pictures_have_no_rows(tag: Predictor) -> None:
    assert tag.predict_proba([]).shape == tag.predict_proba(IMAGES[:0]).shape == (0, 3)
    assert tag.predict(iter(())).shape == (0,)


@pytest.mark.parametrize("method", ["many", "predict", "predict_proba"])
@pytest.mark.parametrize(
    ("one", "hint"),
    [
        ("shoe.png", r"put it into a list"), (Path("shoe.png"), r"put it into a list"),
        (encode_png(PICTURE), r"put it into a list"), (io.BytesIO(), r"put it into a list"),
        (Image.fromarray(PICTURE), r"put it into a list"), (PICTURE, r"images\[None\]"),
        (np.zeros((28, 28, 3), np.uint8), r"images\[None\]"), (PICTURE[..., None], r"images\[None\]"),
        (list(PICTURE), r"images\[None\]"), (PICTURE.tolist(), r"images\[None\]"), (7, "pass an array of images"),
    ],
)  # fmt: skip
def test_one_picture_is_never_taken_for_many(tag: Predictor, method: str, one: Any, hint: str) -> None:
    with pytest.raises((UsageError, PictureError), match=hint):
        getattr(tag, method)(one)


def test_pictures_are_decoded_in_batches(tag: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.model.predictor._BATCH_BYTES", 4 * PICTURE.nbytes)
    waiting = []

    def watched(pictures: Any) -> Any:
        for number, picture in enumerate(pictures):
            waiting.append(number)
            yield picture

    batches = [len(batch) for batch in tag._batches(watched(IMAGES))]

    assert batches == [4, 4, 4]


def test_outputs_have_names(tag: Predictor) -> None:
    found = tag.outputs([IMAGES[0], IMAGES[1].repeat(2, axis=0)], "logits", "uncalibrated", "pixels")

    assert list(found) == ["logits", "uncalibrated", "pixels"]
    assert found["pixels"].shape == (2, 1, 8, 8)
    np.testing.assert_allclose(np.exp(found["logits"]), found["uncalibrated"], atol=1e-6)
    with pytest.raises(UsageError, match="no output was named"):
        tag.outputs(IMAGES)
    with pytest.raises(UsageError, match="did you mean 'embedding'"):
        tag.outputs(IMAGES, "embeding")


def test_reprs_are_short(tag: Predictor) -> None:
    assert repr(tag(PICTURE)) == f"<Answer: {tag(PICTURE).label} {tag(PICTURE).probability:.0%}>"
    assert repr(tag) == f"<Predictor {tag.fingerprint}: 3 classes (bar, dot, edge), 8x8 grey, from shapes>"
    assert max(len(repr(each)) for each in (tag.metadata, tag.guarantees, tag.policy)) < 200


def test_a_notebook_shows_the_picture_the_bars_and_the_warnings_as_text(tag: Predictor, tmp_path: Path) -> None:
    shown = tag(np.full((16, 40, 3), 90, np.uint8))._repr_html_()

    assert shown.count("<img") == 1 and shown.count('class="meter"') == 3
    assert "Note: resized from 40x16 to 8x8" in shown
    assert len(shown) < 20_000
    bad = tmp_path / "<script>alert(1).png"
    assert "&lt;script&gt;" in tag.many([bad])[0]._repr_html_()
    assert "<script" not in tag.many([bad])[0]._repr_html_()

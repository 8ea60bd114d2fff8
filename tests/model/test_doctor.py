"""The doctor repairs pictures unlike the training images, each kind of repair alone, and leaves all others alone."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import hangtag
from hangtag.model.appearance import Appearance, fit_appearance
from hangtag.model.doctor import NOTHING, Doctor
from hangtag.model.foreground import find_foreground
from hangtag.model.predictor import Answer, Predictor
from hangtag.pictures import ImageSpec, encode_jpeg, encode_png
from hangtag.training.classifier import Classifier

FEW = 8

Image8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def tag(fashion: hangtag.LabelledImages) -> Predictor:
    images, labels = np.asarray(fashion.train.images)[:6000], np.asarray(fashion.train.labels)[:6000]
    return Classifier("quick").fit(images, labels).predictor_


@pytest.fixture(scope="module")
def images(fashion: hangtag.LabelledImages) -> Image8:
    return np.asarray(fashion.test.images)


@pytest.fixture(scope="module")
def few(tag: Predictor, images: Image8) -> Image8:
    """Images of which the model is fairly certain, so that a repair that works gives the same label."""
    certain = tag.probabilities(images[:300]).max(axis=1) > 0.8
    return images[:300][certain][:FEW]


def names_of(answer: Answer) -> set[str]:
    return {repair.name for repair in answer.repairs}


def check(tag: Predictor, few: Image8, changed: list[bytes], wanted: set[str], never: set[str]) -> None:
    """The repairs are the wanted ones, and nearly all labels are those of the unchanged images."""
    answers = tag.many(changed)
    labels = tag.predict(few)
    assert sum(wanted <= names_of(answer) for answer in answers) >= 0.75 * len(few)
    assert not any(never & names_of(answer) for answer in answers)
    assert sum(answer.label == label for answer, label in zip(answers, labels, strict=True)) >= 0.75 * len(few)
    as_is = tag.with_doctor(False).many(changed)
    before = [repair.before for answer in answers for repair in answer.repairs if repair.before is not None]
    assert set(before) <= {answer.ood_score for answer in as_is}
    assert all(answer.ood_score == repair.after for answer in answers for repair in answer.repairs if repair.before)


def enlarged(image: Image8, side: int) -> Image8:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def on_page(image: Image8, height: int = 220, width: int = 160, side: int = 90) -> Image8:
    """A dark object on a page in uneven light, off the centre."""
    page = 235 * np.linspace(1, 0.75, width) * np.linspace(0.95, 1, height)[:, None]
    page += np.random.default_rng(0).normal(0, 2, page.shape)
    page[20 : 20 + side, 50 : 50 + side] *= 1 - enlarged(image, side) / 260
    return page.clip(0, 255).astype(np.uint8)


def test_inverted_images_are_inverted_back(tag: Predictor, few: Image8) -> None:
    check(tag, few, [encode_png(255 - image) for image in few], {"inverted"}, {"rotated"})


def test_small_objects_are_cropped(tag: Predictor, few: Image8) -> None:
    def small(image: Image8) -> bytes:
        canvas = np.zeros((150, 200), np.uint8)
        canvas[30:90, 110:170] = enlarged(image, 60)
        return encode_png(canvas)

    check(tag, few, [small(image) for image in few], {"cropped"}, {"inverted", "background"})


def test_a_lit_background_becomes_that_of_the_training_images(tag: Predictor, few: Image8) -> None:
    def lit(image: Image8) -> bytes:
        light = np.linspace(40, 90, 112)[:, None] + np.linspace(0, 20, 112)
        return encode_png((light + (255 - light) * (enlarged(image, 112) / 255)).astype(np.uint8))

    check(tag, few, [lit(image) for image in few], {"background"}, {"inverted"})


def test_dark_things_on_a_page_need_all_of_it(tag: Predictor, few: Image8) -> None:
    photos = [encode_jpeg(on_page(image), 80) for image in few]
    check(tag, few, photos, {"inverted", "cropped"}, {"rotated"})


def test_strange_things_are_no_more_often_sure_after_repairs(tag: Predictor) -> None:
    random = np.random.default_rng(0)
    things = []
    for _ in range(60):
        drawn = Image.new("L", (112, 112))
        for _ in range(random.integers(1, 4)):
            corners = random.integers(4, 108, (random.integers(3, 8), 2)).flatten().tolist()
            ImageDraw.Draw(drawn).polygon(corners, int(random.integers(120, 256)))
        left, top, right, bottom = drawn.getbbox() or (0, 0, 112, 112)
        side = max(right - left, bottom - top)
        square = Image.new("L", (side, side))
        square.paste(drawn.crop((left, top, right, bottom)), ((side - right + left) // 2, (side - bottom + top) // 2))
        things.append(np.asarray(square.resize((28, 28), Image.Resampling.LANCZOS)))

    prepared = tag.with_doctor(False).many([encode_png(thing) for thing in things])
    repaired = tag.many([encode_jpeg(on_page(thing), 85) for thing in things])

    assert sum(bool(answer.repairs) for answer in repaired) > 50
    assert sum(bool(answer.sure) for answer in repaired) <= sum(bool(answer.sure) for answer in prepared)


def test_a_picture_turned_by_exif_says_so(tag: Predictor, few: Image8) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(on_page(few[0])).copy())
    turned.save(buffer, "JPEG", quality=90, exif=exif)
    answer = tag(buffer.getvalue())
    assert {"rotated", "inverted", "cropped"} <= names_of(answer)
    assert answer.label == tag(few[0]).label
    assert "rotated as its Exif data says" in tag.with_doctor(False)(buffer.getvalue()).warnings


def test_a_page_within_a_picture_is_found(tag: Predictor, few: Image8) -> None:
    page = on_page(few[1], 300, 240, 130)
    table = np.full((500, 420), 70, np.uint8)
    table += np.random.default_rng(1).integers(0, 8, table.shape, np.uint8)
    table[80:380, 90:330] = page
    answer = tag(encode_jpeg(table, 85))
    assert answer.label == tag(few[1]).label
    assert "the object is in a page or a frame within the picture" in {each.reason for each in answer.repairs}


def test_untouched_test_images_keep_their_answers(tag: Predictor, images: Image8) -> None:
    files = [encode_png(image) for image in images[:1500]]
    answers, as_is = tag.many(files), tag.with_doctor(False).many(files)
    assert [answer.label for answer in answers] == [answer.label for answer in as_is]
    assert sum(bool(answer.repairs) for answer in answers) <= 2


@pytest.mark.parametrize("level", [0, 128, 250])
def test_a_picture_with_nothing_in_it_is_never_sure(tag: Predictor, level: int) -> None:
    noisy = np.linspace(level, min(255, level + 30), 300)[:, None] + np.random.default_rng(0).normal(0, 2, (300, 200))
    for picture in (np.full((300, 200), level, np.uint8), noisy.clip(0, 255).astype(np.uint8)):
        answer, as_is = tag(encode_png(picture)), tag.with_doctor(False)(encode_png(picture))
        assert answer.label == as_is.label
        assert not answer.sure
        assert not answer.repairs
    assert NOTHING in tag(encode_png(np.full((300, 200), level, np.uint8))).warnings


def test_a_panorama_is_answered_with_a_warning(tag: Predictor) -> None:
    wide = np.random.default_rng(0).integers(0, 255, (20, 2000), np.uint8)
    answer = tag(encode_png(wide))
    assert not answer.sure
    assert any("100 times as wide" in warning for warning in answer.warnings)
    assert tag(encode_png(wide[:1])).label


def test_a_screenshot_is_not_sure(tag: Predictor) -> None:
    random = np.random.default_rng(0)
    screen = np.full((400, 640), 250, np.uint8)
    screen[:40], screen[:, :120] = 60, 225
    for row in range(60, 380, 14):
        screen[row : row + 6, 140 : int(random.integers(300, 620))] = random.integers(20, 90)
    answer = tag(encode_png(screen))
    assert not answer.sure


def test_a_scan_that_is_too_large_stays_a_row(tag: Predictor, few: Image8) -> None:
    head = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    scan = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    scan += b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    )
    bad, good = tag.many([scan, encode_png(255 - few[0])])
    assert bad.label is None
    assert "20000x10000" in str(bad.error) or "too many" in str(bad.error)
    assert "inverted" in names_of(good)


def test_one_and_many_files_have_the_same_answers(tag: Predictor, few: Image8, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encode_png(on_page(few[2])))
    forms: list[Any] = [path, Image.fromarray(on_page(few[2])), io.BytesIO(path.read_bytes())]
    one = [tag(form) for form in forms]
    assert tag.many(forms) == one
    assert len({answer.label for answer in one}) == 1
    assert list(tag.predict(forms)) == [answer.label for answer in one]
    assert np.allclose(tag.predict_proba(forms).max(axis=1), [answer.probability or 0 for answer in one])
    assert one[0].to_json()["repairs"][0].keys() == {"name", "reason", "before", "after"}
    assert one[0].coverage is None
    assert one[0].seen is not None
    assert one[0].seen.shape == (28, 28)
    assert "what the model saw" in one[0]._repr_html_()


def test_those_that_need_no_repair_can_be_answered_first(tag: Predictor, images: Image8) -> None:
    pictures = [encode_png(255 - image if place % 5 == 0 else image) for place, image in enumerate(images[:40])]
    prepared = [tag.prepare(picture) for picture in pictures]
    first, all_of_them = tag.postponing_repairs(prepared), tag.together(prepared)
    assert [each for each in first if each is not None] == [
        whole for each, whole in zip(first, all_of_them, strict=True) if each is not None
    ]
    repaired = {place for place, answer in enumerate(all_of_them) if answer.repairs}
    assert repaired <= {place for place, answer in enumerate(first) if answer is None}
    assert len(repaired) >= 6 and sum(answer is None for answer in first) <= 12


def test_arrays_are_repaired_only_on_request(tag: Predictor, few: Image8) -> None:
    inverted = 255 - few[0]
    assert not tag(inverted).repairs
    assert not tag.many([inverted])[0].repairs
    assert "inverted" in names_of(tag.with_doctor(True)(inverted))


def test_photos_on_all_kinds_of_backgrounds_support_no_repairs() -> None:
    varied = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    appearance = fit_appearance(varied)
    assert not appearance.is_plain
    assert appearance.polarity == 0
    doctor = Doctor(ImageSpec(32, 32, 3), appearance)
    assert not doctor.is_off([255 - varied[0]]).any()
    assert doctor.proposals(varied[0]) == []


def test_colour_is_removed_for_grey_training_images() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8).repeat(8, 1).repeat(8, 2).repeat(3, 3)
    doctor = Doctor(ImageSpec(32, 32, 3), fit_appearance(grey))
    coloured = grey[0] // 2 + np.array([90, 20, 0], np.uint8)
    assert doctor.is_off([coloured]).all()
    (proposal,) = doctor.proposals(coloured) or []
    assert [repair.name for repair in proposal.repairs] == ["grey"]
    assert np.ptp(proposal.pixels, axis=2).max() == 0


def test_an_object_off_the_centre_is_centred() -> None:
    squares = np.zeros((40, 28, 28), np.uint8)
    squares[:, 8:20, 8:20] = np.arange(150, 190, dtype=np.uint8)[:, None, None]
    doctor = Doctor(ImageSpec(28, 28), fit_appearance(squares))
    shifted = np.roll(squares[0], (-8, 7), (0, 1))
    assert doctor.is_off([squares[3], shifted]).tolist() == [False, True]
    proposals = doctor.proposals(shifted)
    assert proposals
    assert {repair.name for repair in proposals[0].repairs} == {"centred"}
    assert np.abs(proposals[0].pixels.astype(int) - squares[0]).mean() < 8


def test_the_object_is_told_from_the_joints_of_tiles() -> None:
    rows, columns = np.mgrid[:300, :240]
    tiles = np.where((rows % 70 < 3) | (columns % 60 < 3), 150, 220).astype(np.uint8)
    tiles[100:180, 75:140] = 50
    found = find_foreground(tiles[..., None])
    assert found is not None
    assert np.abs(np.array(found.box) - (100, 75, 180, 140)).max() <= 8


def test_metadata_must_have_possible_statistics() -> None:
    fitted = fit_appearance(np.zeros((30, 8, 8), np.uint8))
    assert Appearance.from_json(fitted.to_json()) == fitted
    for change in ({"background": (0.1, 0.2)}, {"background": (2.0,)}, {"images": 0}, {"plain": 1.5}):
        with pytest.raises(ValueError, match="training images"):
            dataclasses.replace(fitted, **change)


def test_an_answer_about_a_strip_is_never_sure(tag: Predictor, images: Image8) -> None:
    familiar = next(image for image in images if tag(image).sure)
    strip = np.repeat(familiar, 8, axis=1)  # which becomes the same image again

    answer = tag(encode_png(strip))

    assert tag.with_doctor(False)(strip).sure
    assert not answer.repairs and not answer.sure
    assert answer.coverage is None


def test_before_and_after_of_one_picture(tag: Predictor, few: Image8) -> None:
    for picture in (few[0], 255 - few[0]):
        before, after = tag.with_doctor(True).before_and_after(encode_png(picture))

        assert (before, after) == (tag.with_doctor(False)(encode_png(picture)), tag(encode_png(picture)))
        assert before.seen is not None and after.seen is not None
        assert np.array_equal(before.seen, after.seen) == (not after.repairs)
    assert after.repairs

"""The page for browsers: it works as a file in a real Chromium, and answers as the library does."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hangtag
from hangtag.errors import DownloadError, UsageError
from hangtag.pictures import encode_png
from hangtag.shipping import runtime, web
from hangtag.shipping.parcel import Parcel
from pictures import photo
from toys import metadata, toy_model

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)
COUNT = 200


@pytest.fixture(scope="session")
def runtime_files() -> dict[str, bytes]:
    try:
        return runtime.runtime_files()
    except (UsageError, DownloadError) as error:
        pytest.skip(f"onnxruntime-web cannot be had: {error}")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("the Debian packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="session")
def fitted_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model with calibration, prediction sets and an OOD score: drawn images in three classes."""
    path, random, labels = (
        tmp_path_factory.mktemp("shipped") / "model.onnx",
        np.random.default_rng(0),
        np.arange(600) % 3,
    )
    images = random.integers(0, 120, (600, 8, 8), dtype=np.uint8)
    images[labels == 0, 2:6, :] += 60
    images[labels == 1, 3:5, 3:5] += 90
    images[labels == 2, :, :2] += 60
    model = hangtag.ImageClassifier("fast", epochs=2, device="cpu")
    model.fit(images, labels.astype(str))
    model.save(path)
    return path.read_bytes()


def opened(browser: Any, folder: Path, model: bytes, files: dict[str, bytes]) -> None:
    (folder / "index.html").write_text(web.page(Parcel.of(hangtag.load(model), "toys"), files), encoding="utf-8")
    browser.get((folder / "index.html").as_uri())
    wait(browser, "return !document.getElementById('choose').disabled")


def wait(browser: Any, condition: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not browser.execute_script(condition):
        assert time.monotonic() < end, browser.execute_script("return document.body.innerText")
        time.sleep(0.05)


def answers(browser: Any, paths: list[Path]) -> list[dict[str, Any]]:
    browser.find_element("id", "files").send_keys("\n".join(map(str, paths)))
    wait(browser, f"return hangtag.answers.length === {len(paths)}")
    script = "return JSON.stringify(hangtag.answers.map(({rows, show, ...each}) => each))"
    found: list[dict[str, Any]] = json.loads(browser.execute_script(script))
    return found


def assert_equal(found: list[dict[str, Any]], expected: list[hangtag.Answer], tolerance: float) -> None:
    for ours, answer in zip(found, expected, strict=True):
        in_set = None if answer.prediction_set is None else list(answer.prediction_set)
        assert (ours["label"], ours["prediction_set"]) == (answer.label, in_set)
        assert (ours["sure"], ours["is_ood"], ours["coverage"]) == (answer.sure, answer.is_ood, answer.coverage)
        assert ours["probability"] == pytest.approx(answer.probability, abs=tolerance)


def test_200_pictures_get_the_answers_of_the_library(
    browser: Any, runtime_files: dict[str, bytes], fitted_model: bytes, tmp_path: Path
) -> None:
    random, paths = np.random.default_rng(1), []
    for number in range(COUNT):
        side = 8 if number % 4 else 8 + number // 10
        image = random.integers(0, 120, (side, side), dtype=np.uint8)
        image[side // 4 : side // 2 + number % 3, : 2 + number % 6] += 60
        paths.append(tmp_path / f"{number:03d}.png")
        paths[-1].write_bytes(encode_png(image))
    expected = hangtag.load(fitted_model, doctor=False).many(paths, top=5)
    opened(browser, tmp_path, fitted_model, runtime_files)

    found = answers(browser, paths)

    assert_equal(found, expected, 1e-5)
    assert len({str(answer.prediction_set) for answer in expected}) > 2  # sets of several kinds were compared
    assert len({answer.sure for answer in expected}) == 2


def test_colour_transparency_rotation_and_large_photos_are_decoded_as_by_the_library(
    browser: Any, runtime_files: dict[str, bytes], tmp_path: Path
) -> None:
    wide = Image.fromarray(photo(1, 90, 160))
    large = Image.fromarray(photo(2, 60, 90)).resize((2700, 1800))
    veiled = wide.convert("RGBA")
    veiled.putalpha(Image.linear_gradient("L").resize(wide.size))
    turned = Image.Exif()
    turned[274] = 6
    paths = [tmp_path / name for name in ("plain.png", "veiled.png", "turned.jpg", "large.jpg", "picture.webp")]
    wide.save(paths[0])
    veiled.save(paths[1])
    wide.save(paths[2], quality=95, exif=turned)
    large.save(paths[3], quality=95)
    wide.save(paths[4], lossless=True)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    model = toy_model(3)
    opened(browser, tmp_path, model, runtime_files)

    found = answers(browser, [*paths, bad])

    expected = hangtag.load(model, doctor=False).many(paths, top=5)
    assert_equal([found[0], found[4]], [expected[0], expected[4]], 1e-6)
    assert_equal(found[:5], expected, 0.01)
    assert found[5]["label"] is None and "cannot read" in found[5]["error"]


def test_names_are_text_and_never_markup() -> None:
    parcel = Parcel.of(hangtag.load(toy_model()), "toys")
    evil = replace(parcel, metadata=metadata(class_names=("</script><script>alert(1)</script>", "b", "c")))

    page = web.page(evil, dict.fromkeys(runtime.FILES, b""))

    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


@pytest.mark.parametrize("kind", ["missing", "not a package", "other content"])
def test_another_runtime_is_refused(kind: str, tmp_path: Path) -> None:
    given = tmp_path / "runtime.tgz"
    if kind == "not a package":
        given.write_bytes(b"nothing")
    if kind == "other content":
        given.mkdir()
        for name in runtime.FILES:
            (given / name).write_bytes(b"alert(1)")

    with pytest.raises(UsageError, match=r"no such file|not a package|SHA-512 differs"):
        runtime.runtime_files(given)


def test_without_npm_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(UsageError, match=r"npm.*is not installed.*--runtime"):
        runtime.runtime_files()

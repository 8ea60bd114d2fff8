"""The pages of a server, in a real browser."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hangtag.pictures import encode_png
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings
from toys import shapes, toy_model

from .conftest import run_server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs the packages chromium and chromium-driver")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    places = [tmp_path_factory.mktemp("models") / name for name in ("<b>toys.onnx", "colour.onnx")]
    for place, channels in zip(places, (1, 3), strict=True):
        place.write_bytes(toy_model(channels))
    return Models(places)


@pytest.fixture(scope="module")
def address(models: Models) -> Iterator[str]:
    with run_server(models) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture
def wait(browser: Any) -> Callable[[str], Any]:
    """Wait until JavaScript gives something true, and return it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return lambda script: WebDriverWait(browser, 20, 0.05).until(lambda _: browser.execute_script(f"return {script}"))


def resize(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    names = ["<img src=x onerror=alert(1)>.png", f"{'long-name' * 20}.png", "broken.png"]
    contents = [*(encode_png(image) for image in shapes(2)[0]), b"no picture"]
    for name, content in zip(names, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in names]


@needs_browser
@pytest.mark.parametrize("width", [390, 1100])
def test_several_pictures_are_answered_on_the_page(
    browser: Any, wait: Callable[[str], Any], address: str, files: list[str], width: int
) -> None:
    resize(browser, width)
    browser.get(address)
    wait("!document.getElementById('work').hidden")
    browser.find_element("id", "choose").send_keys("\n".join(files))
    status = wait("(text => text.includes(' of ') && text)(document.getElementById('status').textContent)")

    said = browser.execute_script("""
        const cards = [...document.querySelectorAll(".answer")];
        return {
            heads: cards.map((card) => card.querySelector("h2").textContent),
            names: cards.map((card) => card.querySelector("figcaption").textContent),
            bars: cards.map((card) => card.querySelectorAll(".bars li").length),
            wide: document.documentElement.scrollWidth, strangers: document.querySelectorAll("figcaption img").length,
            focus: document.activeElement === cards[0], models: document.getElementById("models").length,
        };
    """)
    assert status == "2 of 3 pictures have an answer."
    assert said["heads"][2] == "No answer" and set(said["heads"][:2]) <= {"bar", "dot", "edge"}
    assert said["names"] == [Path(file).name for file in files]
    assert said["bars"] == [3, 3, 0] and said["strangers"] == 0 and said["focus"] and said["models"] == 2
    assert said["wide"] <= width

    browser.find_element("id", "why").click()
    wait("document.querySelectorAll('.evidence:not([hidden]) img').length === 2")
    browser.find_element("id", "why").click()
    assert wait("document.querySelectorAll('.evidence:not([hidden])').length === 0")
    assert browser.get_log("browser") == []


@needs_browser
def test_the_page_is_used_with_the_keyboard_alone(
    browser: Any, wait: Callable[[str], Any], address: str, files: list[str]
) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.get(address)
    wait("!document.getElementById('work').hidden")
    browser.find_element("id", "choose").send_keys(files[0])
    wait("document.querySelectorAll('.bars li').length === 3")
    browser.execute_script("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    reached = []
    for _ in range(10):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.execute_script("return document.activeElement.id || document.activeElement.tagName"))
    assert {"choose", "models", "why", "as-is", "clear"} <= set(reached)
    browser.execute_script("document.getElementById('clear').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait("document.querySelectorAll('.answer').length === 0")
    assert browser.execute_script("return document.activeElement.id") == "choose"


@needs_browser
def test_pictures_are_pasted_and_dropped(browser: Any, wait: Callable[[str], Any], address: str) -> None:
    browser.get(address)
    wait("!document.getElementById('work').hidden")
    for count, (kind, constructor, key) in enumerate(
        [("paste", "ClipboardEvent", "clipboardData"), ("drop", "DragEvent", "dataTransfer")], 1
    ):
        browser.execute_script(f"""
            const canvas = document.createElement("canvas");
            canvas.toBlob((blob) => {{
                const data = new DataTransfer();
                data.items.add(new File([blob], "{kind}.png", {{ type: "image/png" }}));
                document.body.dispatchEvent(new {constructor}("{kind}", {{ {key}: data, bubbles: true }}));
            }});
        """)
        wait(f"document.querySelectorAll('.answer .bars').length === {count} && "
             "document.querySelector('.answer .bars li')")  # fmt: skip


@needs_browser
def test_the_page_asks_for_a_token_and_keeps_it_in_its_tab(
    browser: Any, wait: Callable[[str], Any], models: Models, files: list[str]
) -> None:
    with run_server(models, Settings(port=0, access_log=None, token="open-sesame")) as server:
        browser.get(server.url)
        wait("!document.getElementById('sign-in').hidden && document.activeElement.id === 'token'")
        browser.find_element("id", "token").send_keys("wrong\n")
        wait("document.getElementById('problem').textContent.includes('does not accept')")
        browser.find_element("id", "token").send_keys("open-sesame\n")
        wait("!document.getElementById('work').hidden")
        browser.find_element("id", "choose").send_keys(files[0])
        wait("document.querySelectorAll('.bars li').length === 3")
        assert browser.execute_script("return localStorage.length + document.cookie.length") == 0


@needs_browser
def test_the_documentation_loads_nothing_from_elsewhere(browser: Any, wait: Callable[[str], Any], address: str) -> None:
    browser.get(f"{address}/docs")
    wait("document.querySelectorAll('.opblock').length >= 5")

    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded and all(name.startswith((address, "data:")) for name in loaded)
    assert not [line for line in browser.get_log("browser") if address in line["message"]]


def test_pages_permit_only_their_own_scripts(address: str) -> None:
    for path in ("/", "/docs"):
        said = httpx.get(f"{address}{path}")
        policy = said.headers["content-security-policy"]
        assert said.status_code == 200 and policy.startswith("default-src 'none'")
        assert "script-src 'sha256-" in policy and "'unsafe-eval'" not in policy and "http" not in policy
        assert "http" not in said.text
    assert httpx.get(f"{address}/static/index.html").status_code == 404
    assert httpx.head(f"{address}/").status_code == 200

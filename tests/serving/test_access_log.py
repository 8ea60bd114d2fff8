"""Lines of the access log and of the answers' log: what they say, what they never say, and what harms them not."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hangtag.errors import SaveError
from hangtag.model.predictor import Answer
from hangtag.pictures import encode_png
from hangtag.serving.app import create_app
from hangtag.serving.line_log import LineLog
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings
from toys import shapes

PICTURE = encode_png(shapes(1)[0][0])


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def client_of(start_server: Any) -> Any:
    """A client of a server with these settings, which ends with the block."""

    @contextmanager
    def start(**settings: Any) -> Iterator[httpx.Client]:
        with start_server(**settings) as server, httpx.Client(base_url=server.url) as client:
            yield client

    return start


def log_of(path: Path, **rest: Any) -> tuple[LineLog, list[int]]:
    lost: list[int] = []
    return LineLog(path, lambda line: str(line).encode(), lambda: lost.append(1), **rest), lost


def test_each_request_has_a_line(client_of: Any, tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with client_of(access_log=str(log)) as client:
        given = client.post("/predict", content=PICTURE, headers={"X-Request-Id": "order-7"})
        made = client.get("/labels")
    first, second = lines(log)

    assert given.headers["x-request-id"] == first["request_id"] == "order-7"
    assert made.headers["x-request-id"] == second["request_id"]
    assert (first["method"], first["path"]) == ("POST", "/predict")
    assert (first["status"], first["pictures"], first["client"]) == (200, 1, "127.0.0.1")
    assert (first["bytes_in"], first["bytes_out"]) == (len(PICTURE), len(given.content))
    assert first["model"] == given.json()["model"]
    assert 0 < first["queue_seconds"] < first["seconds"] < 20
    assert second["model"] is None
    assert first["time"].endswith("Z")


@pytest.mark.parametrize("bad", ["a" * 65, "two words", 'quote"', "", "a;b"])
def test_an_id_of_another_form_is_replaced(client_of: Any, bad: str) -> None:
    with client_of(access_log=None) as client:
        found = client.get("/labels", headers={"X-Request-Id": bad}).headers["x-request-id"]

    assert found != bad
    assert found.replace("-", "").isalnum()


def test_a_log_shows_no_secret_and_no_control_character(client_of: Any, tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with client_of(access_log=str(log), token="a" * 20) as client:
        client.get("/labels?token=SECRET", headers={"Authorization": "Bearer SECRET", "Cookie": "SECRET"})
        client.post(
            "/predict", files={"file": ("SECRET.png", PICTURE)}, headers={"Authorization": "Bearer " + "a" * 20}
        )
        client.get("/%0a%1b[31m%c2%9b\u202e" + "x" * 500)
    content = log.read_bytes()

    assert b"SECRET" not in content
    assert b"aaaa" not in content
    assert content.count(b"\n") == 3
    assert content.isascii()
    assert all(byte >= 32 or byte == 10 for byte in content)
    assert len(lines(log)[2]["path"]) <= 200


def test_answers_are_logged_without_pixels_or_names(client_of: Any, tmp_path: Path) -> None:
    log = tmp_path / "answers.jsonl"
    with client_of(access_log=None, log_answers=str(log)) as client:
        answer = client.post("/predict", files={"file": ("name.png", PICTURE)}).json()[0]
        client.post("/predict", content=b"unreadable")
    (line,) = lines(log)

    assert set(line) == {
        "time",
        "name",
        "model",
        "label",
        "probability",
        "top",
        "sure",
        "is_ood",
        "ood_score",
        "repairs",
    }
    assert {key: line[key] for key in ("label", "probability", "top", "sure", "ood_score", "model")} == {
        key: answer[key] for key in ("label", "probability", "top", "sure", "ood_score", "model")
    }


def test_a_sample_has_about_its_share(tmp_path: Path) -> None:

    from hangtag.serving.answer_log import AnswerLog
    from hangtag.serving.metrics import Metrics

    log = AnswerLog(tmp_path / "a.jsonl", Metrics(lambda: (), lambda: 0), sample=0.1)
    log.answered("toy", [Answer("bar", 0.9, (("bar", 0.9),), (), "abc")] * 5000)
    log.close()

    assert 350 < len(lines(tmp_path / "a.jsonl")) < 650


def test_processes_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import sys\nfrom pathlib import Path\nfrom hangtag.serving.line_log import LineLog\n"
        "log = LineLog(Path(sys.argv[1]), lambda text: text, lambda: None)\n"
        "for number in range(3000): log.write(b'%s %d ' % (sys.argv[2].encode(), number) + b'x' * 100)\n"
        "log.close()\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "ab"]
    assert [child.wait(20) for child in children] == [0, 0]
    found = path.read_bytes().splitlines()

    assert len(found) == 6000
    assert all(line.endswith(b" " + b"x" * 100) and line.count(b" ") == 2 for line in found)


def test_a_renamed_file_is_left_and_a_new_one_begun(tmp_path: Path) -> None:
    log, lost = log_of(tmp_path / "log")
    log.write("one")
    while not (tmp_path / "log").read_bytes():
        time.sleep(0.01)
    (tmp_path / "log").rename(tmp_path / "old")
    log.write("two")
    log.close()

    assert (tmp_path / "old").read_text() == "one\n"
    assert (tmp_path / "log").read_text() == "two\n"
    assert not lost


def test_a_full_file_is_renamed_once(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 100)
    logs = [log_of(tmp_path / "log", most_bytes=50)[0] for _ in range(2)]
    for log in logs:
        log.write("new")
        log.close()

    assert (tmp_path / "log.1").read_text() == "x" * 100
    assert (tmp_path / "log").read_text() == "new\nnew\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_loses_lines_and_counts_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    log, lost = log_of(tmp_path / "log")
    for number in range(5):
        log.write(number)
    log.close()

    assert len(lost) == 5
    assert caplog.text.count("lines are lost") == 1


def test_a_full_disk_stops_no_answer(client_of: Any, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    with client_of(access_log="/dev/full", log_answers="/dev/full") as client:
        for _ in range(3):
            assert client.post("/predict", content=PICTURE).status_code == 200
        deadline = time.monotonic() + 20
        lost = 0.0
        while lost < 6 and time.monotonic() < deadline:  # each look at the counts is a request, too
            time.sleep(0.05)
            text = client.get("/metrics").text
            lost = sum(map(float, re.findall(r"^hangtag_lost_log_lines_total\{.*\} (.*)$", text, re.MULTILINE)))

    assert 'hangtag_lost_log_lines_total{log="answers"} 3.0' in text
    assert lost >= 6


def test_a_line_that_cannot_be_made_is_lost_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lost = []

    def make(line: object) -> bytes:
        if line == "bad":
            raise ValueError("not a line")
        return str(line).encode()

    log = LineLog(tmp_path / "log", make, lambda: lost.append(1))
    for line in ("one", "bad", "two"):
        log.write(line)
    log.close()

    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert len(lost) == 1 and "could not be made" in caplog.text


def test_a_slow_disk_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.serving.line_log._MOST_LINES", 10)
    blocked = threading.Event()
    lost: list[int] = []

    def slowly(line: object) -> bytes:
        blocked.wait(10)
        return b""

    log = LineLog(tmp_path / "log", slowly, lambda: lost.append(1))
    began = time.monotonic()
    for number in range(100):
        log.write(number)
    assert time.monotonic() - began < 1
    assert len(lost) >= 80
    blocked.set()
    log.close()


def test_a_log_that_cannot_be_opened_is_an_error_before_serving(toy_run: Path, tmp_path: Path) -> None:
    for setting in ("access_log", "log_answers"):
        with pytest.raises(SaveError, match="cannot be written"):
            create_app(Models([toy_run]), Settings(**{setting: str(tmp_path / "missing" / "log")}))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_that_nobody_reads_is_an_error_at_once_and_one_that_is_read_gets_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SaveError, match="cannot be written"):
        LineLog(tmp_path / "pipe", str.encode, lambda: None)  # type: ignore[arg-type]

    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    log = LineLog(tmp_path / "pipe", str.encode, lambda: None)  # type: ignore[arg-type]
    log.write("one")
    log.close()

    assert os.read(reading, 100) == b"one\n"
    os.close(reading)

"""`hangtag serve`: what is refused before anything is opened."""

import importlib.util
import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hangtag.cli import main
from hangtag.cli.serve import serve
from hangtag.serving.settings import Settings
from toys import toy_model


def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    """The exit code, and the one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["hangtag", "serve", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.main()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hangtag: ") and captured.err.count("\n") == 1
    return caught.value.code, captured.err


def test_what_cannot_be_served_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.onnx").write_bytes(toy_model()[:-100])
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").touch()
    for arguments, code, words in (
        (["nothing"], 1, "no such run"),
        (["last"], 1, "no finished run"),
        (["nothing.onnx"], 1, "nothing.onnx"),
        (["damaged.onnx", "--port", "0"], 1, "damaged.onnx"),
        (["damaged.onnx", "--port", "0", "--workers", "2"], 1, "damaged.onnx"),
        (["a.onnx", "--host", "0.0.0.0"], 2, "needs a token"),
        (["a.onnx", "--port", "70000"], 2, "port must be from 0 to 65,535"),
        (["a.onnx", "--token", "a", "--no-auth"], 2, "contradict"),
        (["a.onnx", "--token-file", "binary"], 2, "not a text file"),
        (["a.onnx", "--token-file", "empty"], 2, "visible ASCII"),
        (["a.onnx", "--token-file", "missing"], 1, "missing"),
        (["a.onnx", "--certfile", "missing.pem"], 2, "missing.pem"),
    ):
        assert (found := fail(monkeypatch, capsys, *arguments))[0] == code, found
        assert words in found[1]


def test_the_token_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HANGTAG_TOKEN", "two words")

    assert "visible ASCII" in fail(monkeypatch, capsys, "a.onnx")[1]


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))

    code, line = fail(monkeypatch, capsys, "nothing.onnx")

    assert code == 1 and "'uvicorn', which is not installed" in line and "pip install 'hangtag[serve]'" in line


def test_every_setting_has_an_option_with_the_same_default() -> None:
    options = inspect.signature(serve).parameters
    renamed = {"allow_hosts": "allow_host", "allow_origins": "allow_origin"}

    for field in fields(Settings):
        default = options[renamed.get(field.name, field.name)].default
        assert default == (None if field.name in renamed else field.default), field.name

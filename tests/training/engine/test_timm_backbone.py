"""Models of timm: what becomes of each form of network, and one line for each thing that can be missing."""

import logging
import socket
import sys
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import DownloadError, HangtagError, MissingExtra, ModelError, UnknownName
from hangtag.training.engine import backbones
from hangtag.training.engine.backbones import compute_features, find_backbone
from hangtag.training.engine.timm_backbone import TimmNetwork

CONFIG = {"input_size": (3, 16, 16), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.5)}


class Network(nn.Module):
    """With timm's two methods, and maps with channels first or last, or tokens."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.conv, self.form = nn.Conv2d(3, 6, 4, 4), form
        self.norm, self.drop = nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.pretrained_cfg = {"license": "apache-2.0"}

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        return {"first": x, "last": x.permute(0, 2, 3, 1), "tokens": x.flatten(2).transpose(1, 2)}[self.form]

    def forward_head(self, x: Tensor, pre_logits: bool) -> Tensor:
        assert pre_logits
        if self.form == "tokens":
            return x[:, 0]
        pooled: Tensor = self.drop(x.mean((2, 3) if self.form == "first" else (1, 2)))
        return pooled


def package(monkeypatch: pytest.MonkeyPatch, create: Any) -> None:
    """A package `timm` that knows one model."""
    timm, data = ModuleType("timm"), ModuleType("timm.data")
    timm.__dict__.update(
        is_model=lambda name: name in ("small", "bare"),
        list_models=lambda: ["small", "bare"],
        is_model_pretrained=lambda name: name == "small",
        create_model=create,
        data=data,
    )
    data.__dict__["resolve_model_data_config"] = lambda network: CONFIG
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    backbones._loaded.cache_clear()


@pytest.mark.parametrize(("form", "has_maps"), [("last", True), ("tokens", False)])
def test_the_onnx_model_computes_timms_features(form: str, has_maps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Network(form)
    package(monkeypatch, lambda name, pretrained, num_classes: network if pretrained and num_classes == 0 else None)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    mean, deviation = (torch.tensor(CONFIG[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / deviation
        expected = network.eval().forward_head(network.forward_features(pixels), pre_logits=True).numpy()

    found = find_backbone("timm:small")

    assert (found.name, found.side, found.size, found.has_maps) == ("timm:small", (16, 16), 6, has_maps)
    assert (found.record.licence, found.record.mean) == ("apache-2.0", (127.5, 102.0, 76.5))
    np.testing.assert_allclose(compute_features(found, images), expected, rtol=1e-4, atol=1e-5)
    assert len(found.record.sha256) == 64
    assert isinstance(found.network, TimmNetwork)


def no_network(name: str, **_: object) -> nn.Module:
    raise OSError("We couldn't connect to the hub\nand a page of advice")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("smal", UnknownName, r"timm has no model 'smal' \(did you mean small"),
        ("bare", ModelError, "timm has no pretrained weights of 'bare'"),
        ("small", DownloadError, r"cannot load the weights of 'small': We couldn't connect to the hub \(check"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    name: str, error: type[HangtagError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(monkeypatch, no_network)

    with pytest.raises(error, match=message) as caught:
        find_backbone(f"timm:{name}")
    assert "\n" not in str(caught.value)


def test_without_a_network_the_retries_of_the_client_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(name: str, **_: object) -> nn.Module:
        logging.getLogger("huggingface_hub").warning("Retrying in 1s")
        try:
            raise ConnectionError("(MaxRetryError('HTTPSConnectionPool(host=\\'hub\\', port=443)')")
        except ConnectionError as error:
            raise OSError("An error happened") from error

    package(monkeypatch, unreachable)

    with pytest.raises(DownloadError, match="the server that holds them cannot be reached"):
        find_backbone("timm:small")
    assert not caplog.records
    assert logging.getLogger("huggingface_hub").level == logging.NOTSET


@pytest.mark.parametrize("reachable", [False, True])
def test_a_server_that_cannot_be_reached_is_not_tried_again_and_again(
    reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Any = ModuleType("huggingface_hub")
    seen: list[Any] = []
    hub.constants = SimpleNamespace(HF_HUB_OFFLINE=False, ENDPOINT="http://hub.invalid")
    hub.utils = SimpleNamespace(reset_sessions=lambda: seen.append("new connections"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def create(name: str, **_: object) -> nn.Module:
        seen.append(hub.constants.HF_HUB_OFFLINE)
        raise OSError("enough")

    package(monkeypatch, create)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        if reachable:
            Thread(target=answer_once, args=(proxy,), daemon=True).start()
        else:
            proxy.close()  # its port refuses connections
        with pytest.raises(DownloadError, match="enough"):
            find_backbone("timm:small")

    assert seen == ([False] if reachable else ["new connections", True, "new connections"])
    assert hub.constants.HF_HUB_OFFLINE is False


def answer_once(proxy: socket.socket) -> None:
    connection, _ = proxy.accept()
    with connection:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def test_a_torchvision_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)

    with pytest.raises(ModelError, match=r"cannot be imported: operator torchvision::nms.*install a torchvision"):
        find_backbone("timm:resnet18")


def test_without_timm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(MissingExtra, match=r"'timm', which is not installed.*pip install timm"):
        find_backbone("timm:resnet18")


def test_a_model_of_the_real_package() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False, num_classes=0)

    found = TimmNetwork(network, timm.data.resolve_model_data_config(network))

    assert found.has_maps and found.size == network.num_features

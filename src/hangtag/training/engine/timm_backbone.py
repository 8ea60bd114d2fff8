"""A pretrained model of the package timm as a feature extractor, for `backbones.py`."""

import difflib
import hashlib
import importlib
import logging
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, build_opener

import onnx
import onnx.inliner
import torch
from torch import Tensor, nn

from hangtag.errors import DownloadError, MissingExtra, ModelError, UnknownName
from hangtag.training.engine.export import export_by_pytorch, plain_model
from hangtag.training.engine.guard import custom_code
from hangtag.training.engine.networks import WHITE

__all__ = ["TimmNetwork", "load_timm"]

_SAME = 1e-3  # of the largest feature
_PATIENCE = 5.0  # seconds in which a server must answer
_MATCHING = "install a torchvision that fits your PyTorch: pip install --upgrade torch torchvision timm"


class TimmNetwork(nn.Module):
    """Takes float32 pixels (N, 3, H, W) from 0 to 1, returns maps (N, E, h, w); without `has_maps`, embeddings (N, E).

    Args:
        network: a model of timm without a classifier.
        config: its data configuration, as `timm.data.resolve_model_data_config` returns it.

    Attributes:
        mean, deviation: of pixels from 0 to 255.
        side: height and width of the images that it was trained on.
        size: E.
        has_maps: whether the embedding that timm computes is the mean of feature maps.
    """

    of_mean: Tensor
    of_std: Tensor

    def __init__(self, network: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.mean, self.deviation = (tuple(float(each) * WHITE for each in config[key]) for key in ("mean", "std"))
        self.side: tuple[int, int] = tuple(config["input_size"][1:])
        if config["input_size"][0] != 3:
            raise ModelError(f"this model of timm takes {config['input_size'][0]} channels", "use one that takes RGB")
        for name in ("mean", "std"):
            self.register_buffer(f"of_{name}", torch.tensor(config[name]).reshape(3, 1, 1), persistent=False)
        self.has_maps, self.channels_last = False, False
        self.eval()
        with torch.no_grad(), custom_code("this model of timm does not compute features", "use another one"):
            maps, embedding = self._both(torch.rand(2, 3, *self.side, generator=torch.Generator().manual_seed(0)))
        if embedding.ndim != 2:
            raise ModelError(f"this model of timm computes {tuple(embedding.shape)} for 2 images", "use another one")
        self.size = embedding.shape[1]
        for self.channels_last in (True, False) if maps.ndim == 4 else ():
            mean = maps.mean((1, 2) if self.channels_last else (2, 3))
            if mean.shape == embedding.shape and (mean - embedding).abs().max() <= _SAME * embedding.abs().max():
                self.has_maps = True
                break

    def forward(self, x: Tensor) -> Tensor:
        maps, embedding = self._both(x)
        if not self.has_maps:
            return embedding
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps

    def _both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        network: Any = self.network
        maps = network.forward_features((x - self.of_mean) / self.of_std)
        return maps, network.forward_head(maps, pre_logits=True)

    def sha256(self) -> str:
        """Of the names and values of all weights, because timm does not say which file they came from."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(name.encode() + value.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def model(self) -> onnx.ModelProto:
        """The ONNX model, by PyTorch's exporter: "pixels" -> "embedding", and "maps" with `has_maps`."""
        outputs = ["embedding", *(["maps"] if self.has_maps else [])]
        example = torch.zeros(2, 3, *self.side)
        model = export_by_pytorch(_Outputs(self).eval(), example, outputs)
        return plain_model(onnx.inliner.inline_local_functions(model) if model.functions else model)


class _Outputs(nn.Module):
    """Embedding, and maps if there are any."""

    def __init__(self, network: TimmNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = self.network(x)
        return (found.mean((2, 3)), found) if self.network.has_maps else (found,)


def load_timm(name: str) -> tuple[TimmNetwork, str]:
    """The model of this name with its pretrained weights, and their licence.

    Raises:
        MissingExtra: timm is not installed.
        UnknownName: timm has no such model.
        ModelError: it has no pretrained weights, or cannot compute features.
        DownloadError: the weights cannot be downloaded.
    """
    try:
        timm: Any = importlib.import_module("timm")  # no extra: it needs torchvision, whose build must fit PyTorch's
        importlib.import_module("timm.data")
    except ImportError as error:
        raise MissingExtra(f"timm:{name} needs 'timm', which is not installed ({error})", "pip install timm") from error
    except Exception as error:  # for example, of a torchvision that was built for another PyTorch
        reason = textwrap.shorten(str(error) or type(error).__name__, 200)
        raise ModelError(f"timm:{name}: the package timm cannot be imported: {reason}", _MATCHING) from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.lower(), timm.list_models(), n=3, cutoff=0.5)
        offer = f"did you mean {' or '.join(near)}? " if near else ""
        raise UnknownName(f"timm has no model '{name}'", f"{offer}timm.list_models(pretrained=True) lists them")
    if not timm.is_model_pretrained(name):
        raise ModelError(
            f"timm has no pretrained weights of '{name}'", "timm.list_models(pretrained=True) lists others"
        )
    try:
        with _few_retries():
            network = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # of timm, huggingface_hub, or an HTTP client
        reason = textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
        if _is_unreachable(error):
            reason = "the server that holds them cannot be reached, and they are not in its cache on this machine"
        raise DownloadError(
            f"timm cannot load the weights of '{name}': {reason}",
            "check the network connection; weights that were downloaded before are found without it",
        ) from error
    config = timm.data.resolve_model_data_config(network)
    return TimmNetwork(network, config), str(network.pretrained_cfg.get("license") or "")


@contextmanager
def _few_retries() -> Iterator[None]:
    """Within it, huggingface_hub uses only its cache if its server cannot be reached, and logs no attempts.

    Left alone, it tries for half a minute.
    """
    log, hub = logging.getLogger("huggingface_hub"), sys.modules.get("huggingface_hub")
    level, log.level = log.level, logging.ERROR
    constants: Any = getattr(hub, "constants", None)
    offline = getattr(constants, "HF_HUB_OFFLINE", True)
    try:
        if not offline and not _answers(constants.ENDPOINT):
            constants.HF_HUB_OFFLINE = True
            _forget_connections(hub)
        yield
    finally:
        log.level = level
        if not offline and constants.HF_HUB_OFFLINE:
            constants.HF_HUB_OFFLINE = False
            _forget_connections(hub)


def _answers(address: str) -> bool:
    """Whether a web server answers, whatever it says, through the proxy that the environment names."""
    try:
        with build_opener().open(Request(address, method="HEAD"), timeout=_PATIENCE):
            return True
    except HTTPError:
        return True
    except Exception:  # of sockets, TLS, proxies or an address that is none
        return False


def _forget_connections(hub: Any) -> None:
    """Open connections know whether the client was offline when they were opened."""
    for name in ("reset_sessions", "close_session"):  # up to version 0 and from version 1
        getattr(hub.utils, name, lambda: None)()


def _is_unreachable(error: BaseException) -> bool:
    """Whether an error came from a connection that failed, or from a client that is set to be offline.

    The HTTP clients share no class of errors, so their names decide.
    """
    chain: BaseException | None = error
    while chain is not None:
        if re.search("Connect|Proxy|Timeout|Offline|LocalEntryNotFound", type(chain).__name__):
            return True
        chain = chain.__cause__ or chain.__context__
    return False

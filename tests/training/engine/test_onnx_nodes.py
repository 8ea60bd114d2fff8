"""onnx_nodes.py: the nodes written directly answer as PyTorch's exporter's do, which built-in networks do not need."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.model.artifact import open_artifact
from hangtag.pictures import ImageSpec
from hangtag.training.engine import export
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import export_model
from hangtag.training.engine.inference import FeatureExtractor
from hangtag.training.engine.networks import NETWORKS, FlipTTA
from hangtag.training.engine.onnx_nodes import network_graph
from toys import CLASSES, SIDE, in_a_process, metadata

COLOUR = ImageSpec(SIDE, SIDE + 3, 3, background=0)


def trained(name: str) -> nn.Module:
    """A network whose running statistics are not those of an untrained one."""
    network = build_network(name, COLOUR, len(CLASSES), seed=0)
    random = torch.Generator().manual_seed(1)
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=random))
    return network.eval()


def known(network: nn.Module) -> bool:
    shapes = {"logits": "3", "descriptor": "3", "embedding": "3", "maps": "1, 3, 3, 3"}
    return network_graph(FeatureExtractor(network), COLOUR, shapes) is not None


def test_the_nodes_compute_what_the_exporter_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FlipTTA(trained("cnn-small"))
    images = np.random.default_rng(0).integers(0, 256, (20, *COLOUR.shape), dtype=np.uint8)
    ours = open_artifact(export_model(network, metadata(COLOUR)))
    monkeypatch.setattr(export, "network_graph", lambda *_: None)
    theirs = open_artifact(export_model(network, metadata(COLOUR)))

    names = ("probabilities", "embedding", "maps", "map_weights")
    expected = theirs.outputs(images, *names)

    for key, rows in ours.outputs(images, *names).items():
        np.testing.assert_allclose(rows, expected[key], atol=1e-6)
    assert dataclasses.asdict(ours.metadata) == dataclasses.asdict(theirs.metadata)


def test_a_built_in_network_needs_neither_exporter_nor_compiler(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
from hangtag import ImageClassifier
images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
for name in ("mlp", "cnn-small"):
    ImageClassifier("fast", name, epochs=1, device="cpu").fit(images, np.arange(60) % 3).predict(images)
print(sorted({"onnxscript", "torch._dynamo"} & set(sys.modules)))
"""
    assert in_a_process(program, tmp_path).strip() == "[]"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_built_in_network_has_its_nodes(name: str) -> None:
    assert known(trained(name))


class Louder(nn.ReLU):
    """Computes something other than the layer that it is derived from."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def doubled(_: nn.Module, __: object, output: Tensor) -> Tensor:
    return output * 2


def test_a_network_that_is_not_quite_built_in_goes_through_the_exporter() -> None:
    dense, convolutional = trained("mlp"), trained("cnn-small")
    assert known(dense) and known(convolutional)

    dense.relu = Louder()
    convolutional.get_submodule("block2.conv").register_forward_hook(doubled)

    assert not known(dense) and not known(convolutional)
    assert not known(trained("mlp").double())
    assert not known(nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(3 * SIDE * (SIDE + 3), 3)))

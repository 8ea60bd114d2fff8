"""build.py: weights depend on the seed alone; custom networks are imported, copied and checked."""

import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hangtag.errors import ModelError, UnknownName
from hangtag.pictures import ImageSpec
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.loop import train
from hangtag.training.engine.networks import NETWORKS, parameter_count
from toys import SIDE, quick_recipe, shapes

LESSON = ImageSpec(28, 28)


def weights(network: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    torch.manual_seed(1)
    first = build_network(name, LESSON, 10, seed=3)
    torch.manual_seed(2)
    second, other = build_network(name, LESSON, 10, seed=3), build_network(name, LESSON, 10, seed=4)

    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize("name", NETWORKS)
def test_building_leaves_pytorchs_random_state_unchanged(name: str) -> None:
    before = torch.get_rng_state()

    build_network(name, LESSON, 10, seed=3)

    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_network_offers_the_nearest_one() -> None:
    with pytest.raises(UnknownName) as caught:
        build_network("cn", LESSON, 10, seed=0)

    assert str(caught.value).startswith("unknown network 'cn' (did you mean 'cnn'? known: ")


OWN = """
import torch
from torch import nn

def tiny(spec, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, classes))

ready = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
number = lambda spec, classes: 7
def broken(spec, classes):
    raise KeyError("weights")
"""


def test_only_the_named_module_of_the_current_folder_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit")  # of the standard library, and not loaded yet
    (tmp_path / "helper.py").write_text("SIZE = 64")
    (tmp_path / "beside_helper.py").write_text("import colorsys\nfrom helper import SIZE\n" + OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = list(sys.path)

    assert isinstance(build_network("beside_helper:tiny", ImageSpec(8, 8), 3, seed=1), torch.nn.Module)
    assert sys.path == before


def test_a_custom_network_is_named_as_module_and_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    spec = ImageSpec(8, 8)

    one, other = (build_network("own_networks:tiny", spec, 3, seed=1) for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert isinstance(build_network("own_networks:ready", spec, 3, seed=1), torch.nn.Module)
    for name, message in (
        ("own_networks:number", "returned an object of type int"),
        ("own_networks:broken", "KeyError: 'weights'"),
        ("own_networks:missing", "has no attribute 'missing'"),
        ("no_such_module:tiny", "No module named 'no_such_module'"),
    ):
        with pytest.raises(ModelError, match=message):
            build_network(name, spec, 3, seed=0)
    with pytest.raises(ModelError, match="returns 3 logits but the data has 4 classes"):
        build_network("own_networks:ready", spec, 4, seed=0)


LAZY = """
from torch import nn

def lazy(spec, classes):
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))

ready = lazy(None, 3)

def small(spec, classes):
    from hangtag.training.engine.build import build_network
    return build_network("cnn", type(spec)(3, 3), classes, 0)
"""


@pytest.mark.parametrize("name", ["lazy_networks:lazy", "lazy_networks:ready"])
def test_lazy_layers_get_seeded_weights_and_learn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_networks.py").write_text(LAZY)
    monkeypatch.chdir(tmp_path)
    spec = ImageSpec(SIDE, SIDE)

    one, same, other = (build_network(name, spec, 3, seed) for seed in (1, 1, 2))

    assert parameter_count(one) == 4 * 9 + 4 + 8 + 4 * 36 * 3 + 3
    assert weights(one) == weights(same) != weights(other)
    before = weights(one)
    list(train(one, *shapes(60), quick_recipe(), 0))
    assert weights(one) != before


def test_a_hangtag_error_raised_by_a_custom_function_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small_networks.py").write_text(LAZY)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError) as caught:
        build_network("small_networks:small", ImageSpec(8, 8), 3, seed=0)

    assert caught.value.message == "convolutional networks need images of at least 4x4 pixels, got 3x3 grey"


def test_a_network_that_returns_probabilities_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(dim=1))

    with pytest.raises(ModelError, match="returns probabilities, but hangtag needs logits"):
        custom_network(network, ImageSpec(8, 8), 3, seed=0)


def test_building_leaves_pythons_random_state_unchanged() -> None:
    before = random.getstate()

    custom_network(lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), ImageSpec(8, 8), 3, seed=0)

    assert random.getstate() == before

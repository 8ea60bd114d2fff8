"""muon.py: updates are turned into orthogonal ones, weights keep their length, and its memory can be saved."""

import pytest
import torch

from hangtag.pictures import ImageSpec
from hangtag.training.engine import steps
from hangtag.training.engine.build import build_network
from hangtag.training.engine.dense import copy_state
from hangtag.training.engine.muon import Muon, orthogonalised
from hangtag.training.engine.recipes import RECIPES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 16), (8, 200), (64, 9)])
def test_singular_values_become_about_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    found = orthogonalised(matrix, dtype)
    values = torch.linalg.svdvals(found)

    assert float(values.max()) < 1.4
    assert float(values.median()) > 0.6
    assert found.dtype == torch.float32


def test_an_orthogonal_matrix_keeps_its_direction() -> None:
    basis, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))

    out = orthogonalised(5 * basis, torch.float32)

    cosine = (out * basis).sum() / out.norm() / basis.norm()
    assert float(cosine) > 0.99


def test_a_step_goes_downhill_and_keeps_the_length() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    target = torch.randn(8, 36)
    target = target * 8**0.5 / target.norm()
    muon = Muon([weight], rate=0.05, momentum=0.6, dtype=torch.float32)

    def loss() -> torch.Tensor:
        flat = weight.reshape(8, -1)
        return ((flat * 8**0.5 / flat.norm() - target) ** 2).sum()

    first = float(loss().detach())
    for _ in range(50):
        loss().backward()
        muon.step(torch.tensor(1.0))

    assert float(loss().detach()) < 0.3 * first
    assert float(weight.detach().norm()) == pytest.approx(8**0.5, rel=0.05)
    assert weight.grad is None


@pytest.mark.parametrize("bfloat16", [False, True])
def test_products_are_in_bfloat16_only_where_the_hardware_has_it(
    bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "has_bfloat16", lambda _: bfloat16)

    made = steps.GenericSteps(
        build_network("cnn", ImageSpec(28, 28, 1), 10, 0), RECIPES["fast"], 8, torch.device("cpu")
    )

    assert made.muon.weights and made.muon.dtype == (torch.bfloat16 if bfloat16 else torch.float32)


def test_the_state_can_be_transferred() -> None:
    def stepped(muon: Muon, weight: torch.nn.Parameter, seed: int) -> None:
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        muon.step(torch.tensor(0.5))

    one = torch.nn.Parameter(torch.ones(4, 2, 3, 3))
    first = Muon([one], 0.1, 0.9, torch.float32)
    stepped(first, one, 1)
    other = torch.nn.Parameter(one.detach().clone())
    second = Muon([other], 0.1, 0.9, torch.float32)
    copy_state(first.state(), second.state())

    stepped(first, one, 2)
    stepped(second, other, 2)

    assert torch.equal(one, other)

"""Three processes that train one network take the steps of one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import workers_cases
from hangtag.training.engine.whole_batch import as_whole_batch
from hangtag.training.engine.workers import Workers
from workers_cases import CASES

WORKERS = 3
CONTINUED = ("pruned", "dense")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three workers wrote, in one start of all cases."""
    folder = tmp_path_factory.mktemp("workers")
    for name in CONTINUED:
        (folder / f"alone-{name}.checkpoint").write_bytes(workers_cases.stopped(CASES[name], None, 2))
    command = [sys.executable, workers_cases.__file__]
    processes = [
        subprocess.Popen([*command, str(rank), str(WORKERS), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(WORKERS)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORKERS, errors
    return folder


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, folder: Path) -> tuple[str, list[dict[str, Tensor]]]:
    """A case, and the result of each worker."""
    return request.param, [torch.load(folder / f"{rank}-{request.param}.pt") for rank in range(WORKERS)]


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    assert [value.shape for value in one.values()] == [value.shape for value in other.values()]
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_all_workers_end_with_the_same_bits(case: tuple[str, list[dict[str, Tensor]]]) -> None:
    _, results = case
    assert all(same(results[0], other) for other in results[1:])


def test_the_weights_and_losses_are_those_of_one_worker(case: tuple[str, list[dict[str, Tensor]]]) -> None:
    name, results = case
    alone = workers_cases.trained(CASES[name], None)
    assert farthest(alone, results[0]) < 3e-3
    untrained = {"epochs": alone["epochs"], **workers_cases.network_of(CASES[name].network).state_dict()}
    assert farthest(untrained, results[0]) > 4e-3  # so the bound above means something


@pytest.mark.parametrize("name", CONTINUED)
def test_a_training_resumed_by_the_same_number_of_workers_gets_the_same_bits(name: str, folder: Path) -> None:
    whole, resumed = (torch.load(folder / f"0-{name}{end}.pt") for end in ("", "-resumed"))
    whole["epochs"] = whole["epochs"][-len(resumed["epochs"]) :]
    assert same(whole, resumed)


@pytest.mark.parametrize("name", CONTINUED)
def test_another_number_of_workers_resumes_with_other_last_digits_only(name: str, folder: Path) -> None:
    alone = workers_cases.trained(CASES[name], None)
    from_one = torch.load(folder / f"0-{name}-from-one.pt")
    by_one = workers_cases.resumed(CASES[name], None, (folder / f"0-{name}.checkpoint").read_bytes())
    for resumed in (from_one, by_one):
        alone["epochs"] = alone["epochs"][-len(resumed["epochs"]) :]
        assert farthest(alone, resumed) < 2e-3


def test_only_the_first_worker_saves_checkpoints(folder: Path) -> None:
    sizes = [(folder / f"{rank}-dense.checkpoint").stat().st_size for rank in range(WORKERS)]
    assert sizes[0] > 1000
    assert sizes[1:] == [0, 0]


def test_more_workers_than_images_in_a_batch_and_a_lost_worker_are_one_line(folder: Path) -> None:
    for rank in range(WORKERS - 1):
        few, lost = (folder / f"{rank}-errors.txt").read_text().splitlines()
        assert few.startswith("UsageError: 3 workers cannot divide a batch of 2 images")
        assert lost.startswith("WorkerLostError: another worker of this training stopped or cannot be reached")


def test_random_numbers_of_a_part_are_those_of_the_whole_batch() -> None:
    def drawn(x: Tensor) -> list[Tensor]:
        torch.manual_seed(0)
        rows = [torch.rand(len(x), 2), torch.randn_like(x), torch.empty(len(x)).bernoulli_(0.5), torch.normal(x, 1.0)]
        return [*rows, torch.nn.functional.dropout(x, 0.5), torch.rand(5, 2), torch.randint(9, (len(x),))]

    x = torch.arange(14.0).reshape(7, 2)
    whole = drawn(x)
    for rank in range(3):
        workers = Workers(rank, 3, torch.device("cpu"))
        workers.batch = 7
        with as_whole_batch(workers, draws=True):
            parts = drawn(x[rank::3])
        for part, of_all in zip(parts, whole, strict=True):
            assert torch.equal(part, of_all[rank::3] if len(of_all) == 7 else of_all)

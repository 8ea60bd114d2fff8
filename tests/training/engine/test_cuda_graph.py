"""cuda_graph.py: replayed steps equal ordinary steps; a function that cannot be recorded is called, with a warning."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hangtag.training.engine.build import build_network
from hangtag.training.engine.cuda_graph import GraphReplay, record_cuda_graph
from hangtag.training.engine.loop import train
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.engine.steps import GenericSteps
from toys import SIDE, ImageSpec, shapes

SPEC = ImageSpec(SIDE, SIDE)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def record_in_place(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Imitate a CUDA graph: inputs and output always use the same memory, and recording does not run the function."""
    places = tuple(each.clone() for each in inputs)
    answers: list[Tensor] = []

    def replay(*values: Tensor) -> Tensor:
        for place, value in zip(places, values, strict=True):
            place.copy_(value)
        answer = function(*places)
        if not answers:
            answers.append(answer)
        return answers[0].copy_(answer).clone()

    return replay


def steps_of(seed: int = 0) -> GenericSteps:
    recipe = replace(find_recipe("fast"), batch_size=8)
    network = build_network("cnn", SPEC, 3, seed).to(memory_format=torch.channels_last)
    return GenericSteps(network, recipe, 8, torch.device("cpu"))


def chunk_of(steps: int, rest: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = shapes(8 * steps + rest)
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels)


def test_replayed_steps_give_the_same_weights_with_a_partial_batch_and_changing_rates() -> None:
    images, labels = chunk_of(steps=7, rest=3)
    rates = [0.001 * number for number in range(1, 9)]
    plain, replayed = steps_of(), steps_of()
    replayed.graph_replay = GraphReplay(record_in_place)

    one = torch.cat([plain.run(images, labels, rates) for _ in range(2)])
    other = torch.cat([replayed.run(images, labels, rates) for _ in range(2)])

    assert set(replayed.graph_replay.graphs) == {((8, 1, SIDE, SIDE), (8,))}
    assert torch.equal(one, other)
    weights = zip(plain.network.parameters(), replayed.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_resumed_training_replays_its_steps() -> None:
    images, labels = chunk_of(steps=5)
    steps = steps_of()
    steps.graph_replay = GraphReplay(record_in_place)
    steps.run(images, labels, [0.001] * 5)
    before = {name: value.clone() for name, value in steps.network.state_dict().items()}
    state = {name: value.clone() for name, value in steps.state().items()}
    expected = steps.run(images, labels, [0.002] * 5)

    steps.network.load_state_dict(before)
    steps.set_state(state)

    assert steps.graph_replay.graphs
    assert torch.equal(steps.run(images, labels, [0.002] * 5), expected)


def test_a_function_that_cannot_be_recorded_is_called_with_one_warning() -> None:
    def refuse(function: object, inputs: object) -> Callable[..., Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def double(x: Tensor) -> Tensor:
        return x * 2

    replay = GraphReplay(refuse)
    x = torch.ones(3)

    answers = [replay(double, x) for _ in range(3)]
    with pytest.warns(UserWarning, match="slower: operation not permitted when stream is capturing$"):
        answers.append(replay(double, x))
    answers.append(replay(double, x))

    assert all(torch.equal(answer, x * 2) for answer in answers)


def test_a_step_after_a_failed_recording_is_an_ordinary_step() -> None:
    images, labels = chunk_of(steps=5)
    plain, refused = steps_of(), steps_of()

    def refuse(function: object, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        for weight in refused.network.parameters():  # as a backward pass that was recorded and never ran leaves them
            weight.grad = torch.full_like(weight, 7.0)
        raise RuntimeError("out of memory")

    refused.graph_replay = GraphReplay(refuse)
    expected = plain.run(images, labels, [0.001] * 5)

    with pytest.warns(UserWarning, match="without a CUDA graph"):
        assert torch.equal(refused.run(images, labels, [0.001] * 5), expected)


def test_steps_are_freed_without_the_garbage_collector() -> None:
    steps = steps_of()
    steps.graph_replay = GraphReplay(record_in_place)
    steps.run(*chunk_of(steps=2), [0.001] * 2)
    held = weakref.ref(steps)
    gc.disable()
    try:
        del steps
        assert held() is None
    finally:
        gc.enable()


@needs_gpu
def test_on_a_gpu_training_with_a_graph_learns_as_well_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def accuracy() -> float:
        images, labels = shapes(240)
        network: nn.Module = build_network("cnn", SPEC, 3, 0)
        recipe = replace(find_recipe("fast", epochs=6), batch_size=16)
        epochs = list(train(network, images, labels, recipe, 0, shapes(90, seed=1), "cuda"))
        found = epochs[-1].val_accuracy
        assert found is not None
        return found

    with_graph = accuracy()
    monkeypatch.setattr(GraphReplay, "__call__", lambda self, function, *inputs: function(*inputs))

    assert with_graph == pytest.approx(accuracy(), abs=0.05)


@needs_gpu
def test_on_a_gpu_a_graph_is_correct_for_new_inputs() -> None:
    x = torch.arange(4.0, device="cuda")
    square = record_cuda_graph(lambda values: values * values, (x,))

    first, second = square(x), square(x + 1)

    assert torch.equal(first, x * x)
    assert torch.equal(second, (x + 1) ** 2)

"""captured.py: replayed steps are the steps; what cannot be recorded is called as ever, and said."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hangtag.training.engine.cuda_graph import Captured, record_cuda_graph
from hangtag.training.engine.loop import train
from hangtag.training.engine.networks import build_network
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.engine.steps import GenericSteps
from toys import SIDE, ImageSpec, shapes

SPEC = ImageSpec(SIDE, SIDE)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def record_in_place(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """As a CUDA graph does it: always on the same memory for inputs and answer, and not run while it is recorded."""
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


def test_replayed_steps_give_the_same_weights_with_a_smaller_last_batch_and_rates_that_change() -> None:
    images, labels = chunk_of(steps=7, rest=3)
    rates = [0.001 * number for number in range(1, 9)]
    plain, replayed = steps_of(), steps_of()
    replayed.captured = Captured(record_in_place)

    one = torch.cat([plain.take(images, labels, rates) for _ in range(2)])
    other = torch.cat([replayed.take(images, labels, rates) for _ in range(2)])

    assert set(replayed.captured.recorded) == {((8, 1, SIDE, SIDE), (8,))}
    assert torch.equal(one, other)
    weights = zip(plain.network.parameters(), replayed.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_training_gone_on_with_records_anew() -> None:
    images, labels = chunk_of(steps=5)
    steps = steps_of()
    steps.captured = Captured(record_in_place)
    steps.take(images, labels, [0.001] * 5)
    before = {name: value.clone() for name, value in steps.network.state_dict().items()}
    state = {name: value.clone() for name, value in steps.state().items()}
    expected = steps.take(images, labels, [0.002] * 5)

    steps.network.load_state_dict(before)
    steps.set_state(state)

    assert not steps.captured.recorded
    assert torch.equal(steps.take(images, labels, [0.002] * 5), expected)


def test_what_cannot_be_recorded_is_called_as_ever_and_said_once() -> None:
    def refuse(function: object, inputs: object) -> Callable[..., Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def double(x: Tensor) -> Tensor:
        return x * 2

    called = Captured(refuse)
    x = torch.ones(3)

    answers = [called(double, x) for _ in range(3)]
    with pytest.warns(UserWarning, match="one by one: operation not permitted when stream is capturing$"):
        answers.append(called(double, x))
    answers.append(called(double, x))

    assert all(torch.equal(answer, x * 2) for answer in answers)


def test_a_step_after_a_recording_that_failed_halfway_is_a_step_like_any_other() -> None:
    images, labels = chunk_of(steps=5)
    plain, refused = steps_of(), steps_of()

    def refuse(function: object, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        for weight in refused.network.parameters():  # as a backward pass that was recorded and never ran leaves them
            weight.grad = torch.full_like(weight, 7.0)
        raise RuntimeError("out of memory")

    refused.captured = Captured(refuse)
    expected = plain.take(images, labels, [0.001] * 5)

    with pytest.warns(UserWarning, match="taken one by one"):
        assert torch.equal(refused.take(images, labels, [0.001] * 5), expected)


def test_steps_are_given_up_at_once_when_nobody_needs_them() -> None:
    steps = steps_of()
    steps.captured = Captured(record_in_place)
    steps.take(*chunk_of(steps=2), [0.001] * 2)
    held = weakref.ref(steps)
    gc.disable()
    try:
        del steps
        assert held() is None
    finally:
        gc.enable()


@needs_gpu
def test_on_a_gpu_a_captured_training_learns_as_one_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def accuracy() -> float:
        images, labels = shapes(240)
        network: nn.Module = build_network("cnn", SPEC, 3, 0)
        recipe = replace(find_recipe("fast", epochs=6), batch_size=16)
        epochs = list(train(network, images, labels, recipe, 0, shapes(90, seed=1), "cuda"))
        found = epochs[-1].val_accuracy
        assert found is not None
        return found

    captured = accuracy()
    monkeypatch.setattr(Captured, "__call__", lambda self, function, *inputs: function(*inputs))

    assert captured == pytest.approx(accuracy(), abs=0.05)


@needs_gpu
def test_on_a_gpu_a_recording_answers_for_new_inputs() -> None:
    x = torch.arange(4.0, device="cuda")
    square = record_cuda_graph(lambda values: values * values, (x,))

    first, second = square(x), square(x + 1)

    assert torch.equal(first, x * x)
    assert torch.equal(second, (x + 1) ** 2)

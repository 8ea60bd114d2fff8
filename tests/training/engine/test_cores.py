from dataclasses import replace

import pytest
import torch

from hangtag.pictures import ImageSpec
from hangtag.training.engine import cores, loop
from hangtag.training.engine.build import build_network
from hangtag.training.engine.cores import CoreChoice
from hangtag.training.engine.loop import train
from hangtag.training.engine.recipes import find_recipe
from toys import shapes


@pytest.fixture(autouse=True)
def cores_adapt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_BUSY", 0.1)


class Machine:
    """Seconds per step by the number of cores, and how much of the time the threads wait for a core."""

    def __init__(self, most: int, quiet: dict[int, float]) -> None:
        self.now = self.waited = 0.0
        self.per_step, self.share = quiet, 0.0
        self.choice = CoreChoice(most, waiting=lambda: self.waited, clock=lambda: self.now)
        self.steps = 0

    def run(self, seconds: float) -> float:
        """Train for this long; steps per second."""
        end, before, began = self.now + seconds, self.steps, self.now
        while self.now < end:
            steps = self.choice.steps_to_measure
            took = steps * self.per_step[self.choice.count]
            self.now, self.waited, self.steps = self.now + took, self.waited + self.share * took, self.steps + steps
            self.choice.record(steps, took)
        return (self.steps - before) / (self.now - began)


QUIET, BUSY = {1: 0.018, 2: 0.01}, {1: 0.02, 2: 0.08}


def test_on_a_quiet_machine_all_cores_are_used_all_the_time() -> None:
    machine = Machine(2, QUIET)
    assert machine.run(300) == pytest.approx(100, rel=0.01)
    assert machine.choice.count == 2


def test_beside_a_busy_program_training_is_nearly_as_fast_as_on_the_better_number_of_cores() -> None:
    machine = Machine(2, BUSY)
    machine.share = 0.5
    assert machine.run(60) > 50 / 1.15
    assert machine.choice.count == 1


def test_all_cores_are_used_again_when_the_other_program_has_ended_and_fewer_when_it_comes_back() -> None:
    machine = Machine(2, BUSY)
    machine.share = 0.5
    machine.run(120)
    machine.per_step, machine.share = QUIET, 0.0
    machine.run(70)
    assert machine.choice.count == 2
    machine.per_step, machine.share = BUSY, 0.5
    machine.run(70)
    assert machine.choice.count == 1


def test_threads_that_wait_but_are_still_faster_together_stay() -> None:
    machine = Machine(2, {1: 0.03, 2: 0.02})
    machine.share = 0.5
    assert machine.run(100) > 50 / 1.05
    assert machine.choice.count == 2


def test_on_many_cores_half_of_them_are_tried_first() -> None:
    machine = Machine(16, {16: 0.2, 8: 0.02, 4: 0.04, 2: 0.08, 1: 0.16})
    machine.share = 0.3
    assert machine.run(100) > 50 / 1.3
    assert machine.choice.count == 8


def test_steps_taken_in_parts_give_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = shapes(200)
    recipe = replace(find_recipe("quick", epochs=2, batch_size=16), prune_fraction=0.5, prune_rate=0.5)

    def weights(adapt: bool) -> torch.Tensor:
        network = build_network(recipe.network, ImageSpec(8, 8, 1), 3, seed=0)
        for _ in train(network, images, labels, replace(recipe, adapt_cores=adapt), seed=0):
            pass
        return torch.cat([each.flatten().float() for each in network.state_dict().values()])

    monkeypatch.setattr(loop.CoreChoice, "steps_to_measure", 3)
    monkeypatch.setattr(loop.CoreChoice, "record", lambda self, steps, seconds: None)
    whole, parts = weights(adapt=False), weights(adapt=True)
    assert torch.equal(whole, parts)
    assert torch.isfinite(whole).all()

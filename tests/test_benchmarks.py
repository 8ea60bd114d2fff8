"""benchmarks/: what is claimed is what was measured, and a peer's script tells what it is asked for."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from toys import shapes

ROOT = Path(__file__).resolve().parents[1]
MOST_FIGURES = 9  # in the README; RESULTS.md has the rest

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="there are no benchmarks here")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import one of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(ROOT))

    def found(name: str) -> ModuleType:
        return importlib.import_module(f"benchmarks.{name}")

    return found


def test_results_page_and_readme_say_what_the_measured_numbers_say(module: Callable[[str], ModuleType]) -> None:
    run_all, readme = module("run_all"), module("readme")
    results = run_all.measured()
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == run_all.page(results)
    assert readme.renewed(text, results) == text
    assert readme.table(results) in text
    assert readme.table(results).count("\n") <= MOST_FIGURES + 1


def test_a_single_measurement_has_no_spread(module: Callable[[str], ModuleType]) -> None:
    planted, near = module("planted_labels"), module("near_duplicates")

    found = [
        planted.describe([planted.Ranked(0.93, 1500, 0.8, 200.0)], 0.03),
        near.describe([near.Found(dict.fromkeys(near.KINDS, 0.99), 0.98, 500, 12.0, 0.8)]),
    ]

    assert all(row[2:] == ("-", "1") for each in found for row in each.rows)


def test_a_number_that_changes_changes_the_readme(module: Callable[[str], ModuleType]) -> None:
    run_all, readme = module("run_all"), module("readme")
    results = run_all.measured()
    before = readme.table(results)
    results["tutorial_parity"]["numbers"]["test accuracy"]["hangtag"]["mean"] = 0.1234

    after = readme.table(results)

    assert "0.1234" in after and "0.1234" not in before
    assert "tutorial_parity" not in readme.table({}) and readme.table({}).count("\n") == 1


def test_a_readme_without_the_markers_is_not_touched(module: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ValueError, match="no lines"):
        module("readme").renewed("# a readme without figures", {})


def test_a_peer_tells_of_each_epoch_and_stops_when_it_is_good_enough(
    module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # a second: another Python imports scikit-learn
    beside = module("beside")
    python = tmp_path / "sklearn" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setitem(os.environ, "HANGTAG_PEERS", str(tmp_path))
    for part in ("train", "test"):
        images, labels = shapes()
        np.save(tmp_path / f"{part}-images.npy", images)
        np.save(tmp_path / f"{part}-labels.npy", labels.astype(np.uint8))
    peer = beside.Peer("scikit-learn", "sklearn", "sklearn_lesson")

    told = beside.run(peer, tmp_path, 200, "--judge", enough=0.99)

    assert told.versions.keys() == {"python", "scikit-learn", "numpy"}
    assert told.epochs[-1].test_accuracy >= 0.99 and len(told.epochs) < 200
    assert all(epoch.test_accuracy < 0.99 for epoch in told.epochs[:-1])
    moments = [epoch.since_start for epoch in told.epochs]
    assert moments == sorted(moments) and 0 < sum(epoch.seconds for epoch in told.epochs) < moments[-1]


def test_an_epoch_that_was_read_late_is_corrected_by_the_next(module: Callable[[str], ModuleType]) -> None:
    beside = module("beside")
    epochs: list[Any] = []
    for moment in (1.0, 2.5, 2.6, 2.4, 3.0):
        beside.add(epochs, beside.PeerEpoch(0.1, moment, None, None))

    assert [epoch.since_start for epoch in epochs] == [1.0, 2.4, 2.4, 2.4, 3.0]


def test_every_peer_has_its_script_and_the_list_of_its_environment(module: Callable[[str], ModuleType]) -> None:
    peers = ROOT / "benchmarks" / "peers"

    for peer in module("beside").PEERS:
        assert (peers / f"{peer.script}.py").is_file()
        pinned = (peers / f"{peer.environment}.txt").read_text(encoding="utf-8").splitlines()[1:]
        assert all(line.count("==") == 1 for line in pinned)


GPU = "GPU of a made-up kind"


def trained(module: Callable[[str], ModuleType], accuracies: list[float], seconds: float) -> list[Any]:
    """Made-up seeds of a recipe, each a second longer than the one before."""
    make = module("gpu_recipes").Trained
    return [
        make(accuracy, accuracy + 0.001, 4.0, 1.0, seconds + place, 2.5, 9) for place, accuracy in enumerate(accuracies)
    ]


def test_the_time_to_an_accuracy_is_that_of_the_quickest_recipe_whose_mean_is_there(
    module: Callable[[str], ModuleType],
) -> None:
    found = {
        "fast": trained(module, [0.939, 0.943], 1.0),
        "accurate": trained(module, [0.949, 0.9505], 20.0),
        "best": trained(module, [0.962, 0.964], 90.0),
    }

    result = module("gpu_recipes").describe(found, GPU)

    assert result.numbers["quickest"] == {"0.94": "fast", "0.95": "best"}
    of_best, to_94, to_95, *_ = result.says
    assert "96.30%" in of_best and "n = 2" in of_best and of_best.endswith("96.91%: reached).")
    assert "1.50 s of training (sd 0.71, n = 2) with `fast`" in to_94 and to_94.endswith("the aim is reached).")
    assert "6.5 s from starting the process, warm-up included" in to_94
    assert "with `best`" in to_95 and "NOT REACHED" in to_95
    assert GPU in result.title
    assert all(len(row) == len(result.columns) for row in result.rows)


def test_an_accuracy_that_no_recipe_has_has_no_time(module: Callable[[str], ModuleType]) -> None:
    found = {"fast": trained(module, [0.93], 1.0), "accurate": [], "best": []}

    result = module("gpu_recipes").describe(found, GPU)

    assert [row[0] for row in result.rows] == ["`fast`"]
    assert sum("no recipe's mean is there" in sentence and "NOT REACHED" in sentence for sentence in result.says) == 2
    measured = {"gpu_recipes": json.loads(json.dumps(asdict(result)))}
    page = module("run_all").page(measured)
    assert GPU in page and page.count("NOT REACHED") == 2


def test_seeds_on_a_gpu_are_gone_on_with_where_they_were_measured(
    module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    gpu_recipes = module("gpu_recipes")
    found = {"fast": trained(module, [0.94, 0.95], 1.0), "accurate": [], "best": []}
    file = tmp_path / "gpu.json"
    module("common").publish(gpu_recipes.describe(found, GPU), file)

    assert gpu_recipes.measured_before(file, GPU) == found
    with pytest.raises(SystemExit, match="leave out --go-on"):
        gpu_recipes.measured_before(file, "another one")


def test_without_a_gpu_the_benchmark_that_needs_one_says_so_and_counts_as_skipped(
    module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:  # some seconds: two other Pythons import PyTorch
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    command = [sys.executable, "-m", "benchmarks.gpu_recipes"]

    assert subprocess.run(command, check=False, cwd=ROOT).returncode == module("common").NO_GPU == 3
    assert capfd.readouterr().out == "skipped gpu_recipes: no GPU here\n"
    assert module("run_all").ran("gpu_recipes")


# --- the model of docs/scale.md ----------------------------------------------------------------------------------


def test_machines_that_do_not_fail_take_as_long_as_their_units(module: Callable[[str], ModuleType]) -> None:
    scale = module("scale_model")
    perfect = scale.Machines(count=5, cores=2, mean_life=1e12, spread=0.0, dispatch=0.0, restart=3.0)

    found = scale.simulate([7.0] * 41, perfect)

    assert found.seconds == pytest.approx(3 + 5 * 7)  # 41 units on 10 workers: 5 rounds
    assert found.busy == pytest.approx(41 * 7) and found.wasted == found.retries == 0
    assert found.tail == pytest.approx(7)


def test_a_driver_that_hands_out_slowly_is_the_limit(module: Callable[[str], ModuleType]) -> None:
    scale = module("scale_model")
    slow = scale.Machines(count=50, cores=2, mean_life=1e12, spread=0.0, dispatch=0.5, restart=0.0)

    assert scale.simulate([1.0] * 1000, slow).seconds == pytest.approx(1000 * 0.5 + 1)


def test_failures_cost_what_theory_says(module: Callable[[str], ModuleType]) -> None:
    """Work t that begins again after each failure, at rate r, takes (exp(r t) - 1) / r on average."""
    scale = module("scale_model")
    life, unit = 100.0, 60.0
    failing = scale.Machines(count=40, cores=1, mean_life=life, spread=0.0, dispatch=0.0, replacement=0.0, restart=0.0)

    found = scale.simulate([unit] * 8000, failing)

    assert found.busy / 8000 == pytest.approx(life * (np.exp(unit / life) - 1), rel=0.03)
    assert found.busy - found.wasted == pytest.approx(8000 * unit)


def test_a_job_that_is_killed_begins_its_units_again(module: Callable[[str], ModuleType]) -> None:
    scale = module("scale_model")
    constants = scale.Constants(start=1.0, listing=0.01, infer=0.1, check=0.5)

    assert scale.killed([100] * 3, constants, []) == pytest.approx(1 + 3 + 3 * 10)
    # killed while it lists; in the second unit; then one is checked and two are answered
    assert scale.killed([100] * 3, constants, [2.0, 20.0]) == pytest.approx(2 + 20 + (1 + 0.5 + 2 * 10))

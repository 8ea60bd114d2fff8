"""benchmarks/: what is claimed is what was measured, and a peer's script tells what it is asked for."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from toys import shapes

ROOT = Path(__file__).resolve().parents[1]

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


def test_every_peer_has_its_script_and_the_list_of_its_environment(module: Callable[[str], ModuleType]) -> None:
    peers = ROOT / "benchmarks" / "peers"

    for peer in module("beside").PEERS:
        assert (peers / f"{peer.script}.py").is_file()
        pinned = (peers / f"{peer.environment}.txt").read_text(encoding="utf-8").splitlines()[1:]
        assert all(line.count("==") == 1 for line in pinned)

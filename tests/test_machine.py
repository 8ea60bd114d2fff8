"""What this machine, or the container that limits it, lets a process use."""

import os
from pathlib import Path

import pytest

from hangtag import machine
from hangtag.machine import memory_bytes, processors


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, 16, None),
        ({"cpu.max": "max 100000", "memory.max": "max"}, 16, None),
        ({"cpu.max": "250000 100000", "memory.max": "1000000"}, 3, 1_000_000),
        ({"pods/mine/cpu.max": "5000 100000", "pods/cpu.max": "400000 100000"}, 1, None),
        ({"pods/mine/cpu.max": "max 100000", "pods/cpu.max": "400000 100000", "pods/memory.max": "9"}, 4, 9),
        ({"cpu.max": "", "memory.max": "nonsense", "pods/cpu.max": "1 0"}, 16, None),
    ],
)
def test_the_limits_of_all_control_groups_count(
    files: dict[str, str], cores: int, memory: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pods" / "mine").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("4:memory:/old\n0::/pods/mine\n" if "pods/cpu.max" in files else "0::/\n")
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)

    assert processors() == cores
    assert memory_bytes() == memory or (memory is None and memory_bytes() > 10**8)

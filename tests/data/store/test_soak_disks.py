"""The campaign on small disks notices what is wrong."""

import importlib.util
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def campaign(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("soak_disks", SCRIPTS / "soak_disks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak_disks", module)
    spec.loader.exec_module(module)
    return module


def test_a_command_ends_with_one_line_and_leaves_no_temporary_file(campaign: ModuleType, tmp_path: Path) -> None:
    def ended(code: int, stderr: str) -> str | None:
        why: str | None = campaign.unclean(tmp_path, campaign.Ended(code, "", stderr, False))
        return why

    assert ended(0, "") is ended(1, "note: x\nhangtag: the disk is full\n") is ended(-9, "") is None
    assert ended(1, "Traceback ...") == "a traceback or warning"
    assert (ended(1, ""), ended(1, "hangtag: a\nhangtag: b\n")) == ("0 messages", "2 messages")
    assert ended(-7, "") == "it crashed"
    (tmp_path / "tmp" / "hangtag-1").mkdir(parents=True)
    assert ended(143, "") == "temporary files stay: ['hangtag-1']"


def test_only_images_whose_decoding_was_disturbed_may_be_missing(campaign: ModuleType) -> None:
    lost = {"skipped": [{"kind": "crashes the decoder"}]}

    assert campaign.excused(lost, campaign.Ended(0, "", "", True))
    assert not campaign.excused(lost, campaign.Ended(0, "", "", False))
    assert not campaign.excused({"skipped": [{"kind": "truncated"}]}, campaign.Ended(0, "", "", True))


def test_damage_is_done(campaign: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    happened = Counter[str]()

    for seed in range(8):
        campaign.damage(tmp_path, random.Random(seed), happened)

    assert happened["damaged file"] >= 1
    assert (tmp_path / "file").read_bytes() != bytes(100)

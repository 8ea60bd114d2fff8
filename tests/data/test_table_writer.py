"""Tables of rows, written whole or not at all."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hangtag.data.table_writer import TableWriter, check_new_table
from hangtag.data.tables import read_table
from hangtag.errors import SaveError, UsageError

COLUMNS: dict[str, type] = {"file": str, "share": float, "sure": bool, "set": list}
ROWS: list[dict[str, Any]] = [
    {"file": "a.png", "share": 0.1 + 0.2, "sure": True, "set": ("cat", "a | b")},
    {"file": '=1+1,"\n', "share": None, "sure": False, "set": ()},
    {"file": "b\udcff.png", "share": 1e-30, "sure": None, "set": None},
]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    with TableWriter(path, COLUMNS) as writer:
        for row in rows:
            writer.write(row)


def test_a_csv_file_is_safe_to_open_and_exact(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")

    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == list(COLUMNS)
    assert rows == [
        ["a.png", "0.30000000000000004", "yes", "cat | a | b"],
        ["'=1+1,\"\\n", "", "no", ""],
        ["b\\xff.png", "1e-30", "", ""],
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]


def test_json_lines_keep_types(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")

    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {**ROWS[0], "set": ["cat", "a | b"]}
    assert rows[1:] == [{**ROWS[1], "set": []}, {**ROWS[2], "file": "b\udcff.png"}]


def test_parquet_keeps_types_over_many_groups(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet", ROWS * 3000)

    found = parquet.read_table(tmp_path / "a.parquet")
    assert found.num_rows == 9000
    assert found.slice(8998).to_pylist() == [{**ROWS[1], "set": []}, {**ROWS[2], "file": "b\\udcff.png"}]
    assert read_table([tmp_path / "a.parquet"]).rows == 9000


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_interrupted_table_is_kept_under_another_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    writer = TableWriter(path, COLUMNS)

    with pytest.raises(KeyboardInterrupt), writer:
        writer.write(ROWS[0])
        raise KeyboardInterrupt

    assert writer.partial == tmp_path / f"a-partial.{ending}"
    assert list(tmp_path.iterdir()) == [writer.partial]
    assert read_table([writer.partial]).columns["file"] == ["a.png"]


def test_an_interrupted_table_without_rows_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), TableWriter(tmp_path / "a.csv", COLUMNS):
        raise ZeroDivisionError

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TableWriter(tmp_path / "a.jsonl", COLUMNS)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    writer._file.file.close()
    writer._file.file = full.open("wb", buffering=0)

    with pytest.raises(SaveError, match="No space left"), writer:
        writer.write(ROWS[0])

    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    for name, said in (("a.xlsx", "must be one of .csv"), ("a", "must be one of"), ("there.csv", "already exists")):
        with pytest.raises(UsageError, match=said):
            check_new_table(tmp_path / name)
    with pytest.raises(SaveError, match="folder does not exist"):
        check_new_table(tmp_path / "none" / "a.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"

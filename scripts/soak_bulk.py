"""Kill `hangtag predict RUN PLACES --out DIR` at random instants, and look for rows that are lost, doubled or changed.

    python scripts/soak_bulk.py [--kills 30] [--images 6000] [--seed 0] [--store]

A job over a folder, a zip file and a Parquet file is killed again and again, by SIGKILL, at a random moment of its
start, its list, its answers or its end: the command itself, or one of its workers. Then the same command finishes it.
Its shards must hold the rows of a job that nobody disturbed, bit for bit. With --store, pictures and shards are in an
object store (moto's S3 server, on this machine).
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

SOURCE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SOURCE / "tests"), str(SOURCE / "src")]

from hangtag.pictures import encode_png  # noqa: E402
from object_store import object_store  # noqa: E402
from toys import toy_model  # noqa: E402

PROGRAM = (
    "import hangtag.prediction.job as job; job.begin.__wrapped__.__kwdefaults__['unit_images'] = 200\n"
    "import sys; from hangtag.cli.main import main; sys.argv[0] = 'hangtag'; sys.exit(main())"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", action="store_true", help="pictures and shards in an object store")
    settings = parser.parse_args()
    source = random.Random(settings.seed)
    with tempfile.TemporaryDirectory(prefix="hangtag-soak-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(toy_model())
        places = pictures(folder, settings.images)
        environment = {**os.environ, "PYTHONPATH": str(SOURCE / "src"), "XDG_CACHE_HOME": str(folder / "cache")}
        files = None
        lead = ""
        if settings.store:
            store = stack.enter_context(object_store())
            environment |= store.environment
            paths = [*(folder / "photos").iterdir(), *(folder / place for place in places[1:])]
            store.put({str(path.relative_to(folder)): path.read_bytes() for path in paths})
            files, lead = store.system(), f"s3://{store.bucket}/"
        named = [lead + place for place in places]
        command = [sys.executable, "-c", PROGRAM, "predict", "model.onnx", *named, "--top", "1", "--out"]
        quiet: dict[str, Any] = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL}
        began = time.monotonic()
        subprocess.run([*command, f"{lead}whole"], check=True, **quiet)
        seconds = time.monotonic() - began
        expected = rows(folder, "whole", files, lead)
        print(f"undisturbed: {expected.num_rows:,} rows in {seconds:.1f} s", flush=True)
        kills, finished = 0, 0
        while kills < settings.kills:
            process = subprocess.Popen([*command, f"{lead}out"], stderr=subprocess.PIPE, **quiet)
            time.sleep(source.uniform(0, min(1.2 * seconds, 12)))
            victims = [process.pid] if source.random() < 0.7 else (children(process.pid) or [process.pid])
            if process.poll() is None:
                kills += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(source.choice(victims), signal.SIGKILL)
            code = process.wait()
            assert code in (0, -signal.SIGKILL), process.stderr.read().decode() if process.stderr else code
            print(f"kill {kills}: {shards(folder, files, lead)} shards", flush=True)
            if code == 0:
                check(rows(folder, "out", files, lead), expected)
                finished += 1
                delete(folder, files, lead)
        subprocess.run([*command, f"{lead}out"], check=True, **quiet)
        check(rows(folder, "out", files, lead), expected)
    print(f"{kills} kills, {finished + 1} jobs finished: no row lost, doubled or changed")


def pictures(folder: Path, count: int) -> list[str]:
    """A folder, a zip file and a Parquet file with a third of the pictures each."""
    numbers = np.random.default_rng(0)
    content = [encode_png(numbers.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(count // 3)]
    (folder / "photos").mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for number, each in enumerate(content):
            (folder / "photos" / f"{number:06d}.png").write_bytes(each)
            archive.writestr(f"{number:06d}.png", each)
    pq.write_table(pa.table({"image": content}), folder / "a.parquet", 1000)
    return ["photos", "a.zip", "a.parquet"]


def rows(folder: Path, out: str, files: Any, lead: str) -> pa.Table:
    place = str(folder / out) if not lead else f"{lead.removeprefix('s3://')}{out}"
    return pq.read_table(place, filesystem=files)


def shards(folder: Path, files: Any, lead: str) -> int:
    if not lead:
        return len(list(folder.glob("out/part-*.parquet")))
    selector = pyarrow.fs.FileSelector(f"{lead.removeprefix('s3://')}out", allow_not_found=True)
    return sum(each.base_name.startswith("part-") for each in files.get_file_info(selector))


def delete(folder: Path, files: Any, lead: str) -> None:
    if lead:
        files.delete_dir(f"{lead.removeprefix('s3://')}out")
    else:
        shutil.rmtree(folder / "out")


def children(parent: int) -> list[int]:
    """The processes that a process started."""
    with contextlib.suppress(OSError):
        files = list(Path(f"/proc/{parent}/task").glob("*/children"))
        return [int(each) for file in files for each in file.read_text().split()]
    return []


def check(found: pa.Table, expected: pa.Table) -> None:
    assert found.num_rows == expected.num_rows, f"{found.num_rows:,} rows, expected {expected.num_rows:,}"
    assert found.equals(expected), "rows differ"


if __name__ == "__main__":
    main()

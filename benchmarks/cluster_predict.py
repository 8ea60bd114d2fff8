"""`hangtag predict FOLDER --out SHARDS --ray` against the same without Ray, on the same cores of one machine.

    python -m benchmarks.cluster_predict [--photos 1000] [--small 100000] [--rounds 3] [--json FILE]

Both sides run one after the other in each round, on the same files, which are in the disk's cache, and write shards
into a new folder. With Ray, the time is counted twice: of the whole command, which starts a cluster on this machine and
ends it, and from the first line that says the cluster is there to the end. Shards must be equal, byte for byte.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.bulk_predict import model, photos, small
from benchmarks.common import Result, alone, options, ordinary_environment, publish

SOURCE = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        place = Path(name)
        sets = {
            f"{settings.photos:,} photos": (settings.photos, photos(place / "photos", settings.photos), 3),
            f"{settings.small:,} small PNG": (settings.small, small(place / "small", settings.small), 1),
        }
        rows: list[tuple[str, ...]] = []
        numbers: dict[str, dict[str, list[float]]] = {}
        for what, (count, folder, channels) in sets.items():
            file = model(place, None, channels)
            without, whole, inside = [], [], []
            for number in range(settings.rounds):
                outs = [place / f"{folder.name}-{number}-{side}" for side in ("here", "ray")]
                with alone():
                    without.append(run(file, folder, outs[0])[0])
                    took = run(file, folder, outs[1], "--ray")
                whole.append(took[0])
                inside.append(took[1])
                here, ray = ({path.name: path.read_bytes() for path in out.glob("part-*")} for out in outs)
                assert here and here == ray
                print(f"{what}: without {without[-1]:.1f} s, with Ray {took[0]:.1f} s, of it {took[1]:.1f} s connected")
            base = median(without)
            ratios = (f"{base / median(seconds):.2f}x" for seconds in (whole, inside))
            rows.append((what, f"{count / base:,.0f}/s", f"{count / median(whole):,.0f}/s", *ratios))
            numbers[what] = {"without": without, "with": whole, "connected": inside}
        head = ("images", "without Ray", "with --ray", "with / without", "once connected")
        title = "Answering with Ray on the cores of one machine"
        publish(Result("cluster_predict", title, head, rows, [], numbers), settings.json)


def run(file: Path, folder: Path, out: Path, *ray: str) -> tuple[float, float]:
    """Seconds of a command from start to exit, and from the line about its cluster to the exit."""
    command = [sys.executable, "-m", "hangtag", "predict", str(file), str(folder), "--out", str(out), *ray]
    environment = ordinary_environment() | {"PYTHONPATH": str(SOURCE / "src")}
    began = connected = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for line in process.stderr or ():
            if line.startswith("Ray: "):
                connected = time.perf_counter()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    end = time.perf_counter()
    return end - began, end - connected


if __name__ == "__main__":
    main()

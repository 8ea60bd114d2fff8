"""How long hangtag takes to answer from nothing: the help page, one prediction, reading the data a second time.

    python -m benchmarks.start_up [--rounds 20] [--json FILE]

The first two are whole processes as a user starts them, from start to exit, imports included. The third is the call
`hangtag.read("fashion-mnist")` in a fresh Python, with all that it imports, once the set is in the cache. All are
interleaved; one round before the first warms the disk's cache and Python's bytecode and is not counted.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Result, alone, in_fresh_process, options, ordinary_environment, publish, summary

HANGTAG = Path(sys.executable).with_name("hangtag")
HELP, PREDICT, READ, BARE = "hangtag --help", "hangtag predict MODEL one-small.png", "hangtag.read", "python -c pass"
AIMS = {HELP: 0.3, PREDICT: 0.6, READ: 0.2, BARE: None}  # seconds
READ_CODE = """
import time
began = time.perf_counter()
import hangtag
hangtag.read("fashion-mnist")
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        model, picture = in_fresh_process(prepare, Path(name))
        seconds: dict[str, list[float]] = {name: [] for name in AIMS}
        with alone():
            for number in range(settings.rounds + 1):
                for what, value in one_round(model, picture).items():
                    if number:
                        seconds[what].append(value)
    publish(compare(seconds), settings.json)


def prepare(folder: Path) -> tuple[Path, Path]:
    """A model file of the default recipe (hardly trained: that changes no time), and a test image as a picture."""
    from PIL import Image

    import hangtag

    data = hangtag.read("fashion-mnist")
    some = data.train.take(slice(2000))
    hangtag.ImageClassifier(epochs=1, device="cpu").fit(some).save(folder / "model.onnx")
    Image.fromarray(data.test.images[0]).save(folder / "one-small.png")
    return folder / "model.onnx", folder / "one-small.png"


def one_round(model: Path, picture: Path) -> dict[str, float]:
    return {
        BARE: seconds_of(sys.executable, "-c", "pass"),
        HELP: seconds_of(str(HANGTAG), "--help"),
        PREDICT: seconds_of(str(HANGTAG), "predict", str(model), str(picture)),
        READ: json.loads(output_of(sys.executable, "-c", READ_CODE)),
    }


def seconds_of(*command: str) -> float:
    """From starting a process to its end."""
    began = time.perf_counter()
    output_of(*command)
    return time.perf_counter() - began


def output_of(*command: str) -> str:
    environment = ordinary_environment()
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def compare(seconds: dict[str, list[float]]) -> Result:
    columns = ("what", "seconds (median)", "mean", "sd", "worst", "n", "aim", "reached")
    rows, numbers = [], {}
    for what, aim in AIMS.items():
        found = summary(seconds[what])
        reached = found["median"] < aim if aim else None
        numbers[what] = {**found, "aim": aim, "reached": reached}
        verdict = {True: "yes", False: "NO", None: "-"}[reached]
        wanted = f"< {aim}" if aim else "-"
        sd = "-" if found["sd"] is None else f"{found['sd']:.3f}"
        median, mean, worst = (f"{found[part]:.3f}" for part in ("median", "mean", "most"))
        rows.append((what, median, mean, sd, worst, str(found["n"]), wanted, verdict))
    return Result("start_up", "From nothing to an answer", columns, rows, [], numbers)


if __name__ == "__main__":
    main()

"""A demo of hangtag: data, training, evaluation, three predictions, figures and a report.

It runs the commands a user would type, and prints each before it runs.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

HANGTAG = Path(sys.executable).with_name("hangtag")


def main() -> None:
    began = time.perf_counter()
    show("data", "fashion-mnist")
    show("train", "fashion-mnist")
    run = newest_run()
    show("evaluate", run)
    pictures = Path("demo-pictures")
    show("data", "fashion-mnist", "--export", str(pictures), "--first", "3")
    show("predict", run, *sorted(str(path) for path in pictures.glob("*/*.png")))
    conclude(Path("runs") / run, time.perf_counter() - began)


def show(*arguments: str) -> None:
    """Run one hangtag command as a user would; a failure ends the demo with its exit code."""
    print(f"\n$ hangtag {shlex.join(arguments)}", flush=True)
    outcome = subprocess.run([HANGTAG, *arguments], check=False)
    if outcome.returncode:
        sys.exit(outcome.returncode)


def newest_run() -> str:
    runs = sorted(Path("runs").glob("*/model.onnx"), key=lambda path: path.stat().st_mtime)
    return runs[-1].parent.name


def conclude(run: Path, seconds: float) -> None:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    low, high = metrics["accuracy_interval"]
    size = (run / "model.onnx").stat().st_size / 1e6
    print(
        f"""
Done in {seconds:.0f} s: a classifier trained on 60,000 images of clothes and tested on 10,000 others.
  accuracy       {metrics["accuracy"]:.1%} (95% interval {low:.1%} to {high:.1%})
  report         {run / "report.html"}
  figures        {run / "figures"}/*.png
  model          {run / "model.onnx"} ({size:.1f} MB; it contains everything and does not need PyTorch)
Try next (first: source .venv/bin/activate)
  hangtag predict {run.name} your-photo.jpg      classify your own image
  hangtag tutorial                          the lesson behind hangtag, step by step
  hangtag --help                            all commands"""
    )


if __name__ == "__main__":
    main()

"""Run every benchmark; write benchmarks/RESULTS.md and the README's table of figures from the numbers.

    python -m benchmarks.run_all [NAME ...] [--write-only]

With names, only those run; both are always written from all numbers in benchmarks/results/, each with the hardware,
versions and date it was measured with. A benchmark that cannot run here says why and leaves its old numbers; where all
that it lacks is a GPU, it was skipped and did not fail.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import NO_GPU
from benchmarks.readme import renewed

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"
NAMES = (
    "start_up", "epoch_speed", "time_to_accuracy", "tutorial_parity", "fast_recipe", "accurate_recipe", "gpu_recipes",
    "gpu_judging", "streaming", "busy_machine", "reading", "first_run", "around_training", "grid_search",
    "near_duplicates", "planted_labels", "mutated_pictures", "trust", "trust_cost", "backbone_speed", "bulk_predict",
    "few_photos", "first_photos", "own_photos", "cross_fit", "serving", "cluster_predict", "cluster_training",
    "cluster_seeds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every benchmark and write RESULTS.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--write-only", action="store_true", help="measure nothing, write the page anew")
    settings = parser.parse_args()
    unknown = sorted({*settings.names} - {*NAMES})
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = [] if settings.write_only else [name for name in settings.names or NAMES if not ran(name)]
    results = measured()
    (HERE / "RESULTS.md").write_text(page(results), encoding="utf-8")
    README.write_text(renewed(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(f"wrote {HERE / 'RESULTS.md'} and the figures in {README}")
    if failed:
        sys.exit(f"did not run: {', '.join(failed)}")


def ran(name: str) -> bool:
    """Whether the benchmark left new numbers, or was skipped because there is no GPU here."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(RESULTS / f"{name}.json")]
    return subprocess.run(command, check=False, cwd=HERE.parent).returncode in (0, NO_GPU)


def measured() -> dict[str, dict[str, Any]]:
    """What each benchmark that has numbers found."""
    files = {name: RESULTS / f"{name}.json" for name in NAMES}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def page(results: dict[str, dict[str, Any]]) -> str:
    """RESULTS.md: one section per benchmark."""
    parts = ["# Results", "Written by `benchmarks/run_all.py` from `benchmarks/results/*.json`; do not edit by hand."]
    for name in NAMES:
        parts += section(results[name]) if name in results else [f"## {name}", "Not yet measured."]
    return "\n\n".join(parts) + "\n"


def section(result: dict[str, Any]) -> list[str]:
    """Heading, table, conclusions, and what it was measured with."""
    return [
        f"## {result['title']}",
        "\n".join(line(row) for row in (result["columns"], ["---"] * len(result["columns"]), *result["rows"])),
        *result["says"],
        f"{circumstances(result)}. `python -m benchmarks.{result['name']}`",
    ]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def circumstances(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    memory = f", {machine['memory_bytes'] / 1e9:.0f} GB" if "memory_bytes" in machine else ""
    hardware = f"{machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}"
    with_what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Measured {result['date'][:10]} on {hardware}; {with_what}"


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Run the tests with the lowest versions that pyproject.toml allows, in an environment of its own, without Ray.
# usage: scripts/lowest.sh FOLDER TORCH [PYTEST'S OPTIONS]     (TORCH is installed as given: older builds bring CUDA)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 torch=$2
shift 2

rm -rf "$venv"
.venv/bin/python -m venv "$venv"  # of `make`, which finds a Python that is new enough
"$venv/bin/python" - >"$venv/lowest.txt" <<'END'
import re
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for wanted in [*project["dependencies"], *sum((extras[name] for name in extras if name not in ("ray", "all")), [])]:
    if found := re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", wanted):
        name, version = found.groups()
        if name != "torch":
            print(f"{name}=={version}{'.*' * (version.count('.') < 2)}")  # the last patch of the lowest release
END
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" --upgrade pip
"${pip[@]}" "$torch"
"${pip[@]}" --constraint "$venv/lowest.txt" --editable '.[photos,parquet,heic,serve,tune,tensorboard,mlflow]' \
    --group test --group benchmarks
"$venv/bin/python" -m pip --disable-pip-version-check list
# Old releases warn of what has come after them; the rest of what is left out needs Ray.
"$venv/bin/python" -m pytest --numprocesses=auto --maxprocesses=4 -W default \
    --ignore=tests/test_house.py --ignore=tests/test_packaging.py --ignore=tests/cluster \
    --deselect='tests/cli/test_tune.py::test_invalid_requests_are_one_line_and_leave_no_folder[options6-must be HOST:PORT]' \
    "$@"

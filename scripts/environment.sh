#!/usr/bin/env bash
# Make the virtual environment: a Python of 3.11 or newer, PyTorch by its exact version, hangtag with everything.
# usage: scripts/environment.sh FOLDER TORCH
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 torch=$2

python=""
for candidate in "${HANGTAG_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "hangtag needs Python 3.11 or newer; install it, or name it: HANGTAG_PYTHON=/path/to/python3 make" >&2
    exit 1
fi

rm -rf "$venv"
if ! "$python" -m venv "$venv" >/dev/null 2>&1; then  # Debian and Ubuntu keep venv in a package of its own
    rm -rf "$venv"
    version=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    echo "installing the system package python$version-venv"
    if ! { $sudo apt-get -qq update && $sudo apt-get -qq install -y "python$version-venv"; } >/dev/null 2>&1; then
        echo "this Python has no venv module; install it: apt-get install python$version-venv" >&2
        exit 1
    fi
    "$python" -m venv "$venv"
fi

echo "making the environment in $venv (one or two minutes)"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" --constraint constraints.txt --upgrade pip  # dependency groups need pip 25.1 or newer
"${pip[@]}" "$torch"
"${pip[@]}" --constraint constraints.txt --editable '.[all]' --group dev

#!/usr/bin/env bash
# Make the environment in which the lesson's own framework is measured beside hangtag; it shares nothing with .venv.
# usage: scripts/peers.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-peers}
pins=benchmarks/peers/constraints.txt

python=.venv/bin/python
[ -x "$python" ] || python=python3

if [ -f "$venv/.made" ] && [ ! "$pins" -nt "$venv/.made" ]; then
    echo "$venv is up to date"
    exit 0
fi
echo "making the peers' environment in $venv (TensorFlow: some 300 MB to download)"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --constraint "$pins" keras tensorflow-cpu
echo "*" > "$venv/.gitignore"
touch "$venv/.made"
echo "made $venv; now: make bench"

#!/usr/bin/env bash
# Make the environments in which the peers are measured beside hangtag, one each; they share nothing with .venv.
# usage: scripts/peers.sh [NAME ...]      (HANGTAG_PEERS: the folder to make them in; TORCH: another PyTorch build)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${HANGTAG_PEERS:-.venv-peers}
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(tensorflow jax pytorch skorch sklearn fastai litserve bentoml)

python=.venv/bin/python
[ -x "$python" ] || python=python3
mkdir -p "$folder"
echo "*" > "$folder/.gitignore"

for name in "${names[@]}"; do
    pins=benchmarks/peers/$name.txt venv=$folder/$name
    if [ ! -f "$pins" ]; then
        echo "no peer named '$name'; there are: $(cd benchmarks/peers && ls ./*.txt | sed -E 's/^..(.*)\.txt$/\1/' | paste -sd ' ')" >&2
        exit 2
    fi
    if [ -f "$venv/.made" ] && [ ! "$pins" -nt "$venv/.made" ]; then
        echo "$venv is up to date"
        continue
    fi
    echo "making $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
    # PyTorch first, in the build that is wanted; the pinned version of the rest then finds it there.
    if grep -q '^torch==' "$pins"; then "${pip[@]}" "${TORCH:-$(grep '^torch==' "$pins")}"; fi
    "${pip[@]}" --requirement <(grep -v '^torch==' "$pins")
    touch "$venv/.made"
done
echo "made; now: make bench"

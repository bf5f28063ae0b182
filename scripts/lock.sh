#!/usr/bin/env bash
# Resolve pyproject.toml afresh in a scratch environment and write requirements.lock.
# The lock is a constraints file: `make` installs with it, so every clone gets the same versions.
# torch is pinned by its public version, so that a CPU build (+cpu) and a CUDA build both match.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3.11}" -m venv "$scratch/venv"
pip() { "$scratch/venv/bin/python" -m pip --quiet "$@"; }
pip install "pip==$PIP_VERSION"
pip install "torch==$TORCH_VERSION"
pip install --group dev -e '.[local]'
{
  echo "# Written by \`make lock\`; do not edit. Python 3.11."
  pip freeze --all --exclude pip --exclude-editable | sed -E 's/^(torch==[^+]+)\+.*/\1/'
} >requirements.lock

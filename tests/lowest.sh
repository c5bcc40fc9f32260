#!/usr/bin/env bash
# The lowest versions that pyproject.toml admits pass the tests that lean on other packages most.
#
#     tests/lowest.sh FOLDER               a new environment there: 6 GB, as torch 2.12.0 is a CUDA build
#     TORCH=2.13.0 tests/lowest.sh FOLDER  with another torch: 2 GB where that is a CPU build
set -euo pipefail
folder=$(realpath "${1:?name a folder for the environment}")
cd "$(dirname "$0")/.."
python3 -m venv "$folder"
sed "s/^torch==.*/torch==${TORCH:-2.12.0}/" constraints-lowest.txt > "$folder/constraints.txt"
"$folder/bin/pip" install -q -c "$folder/constraints.txt" -e '.[lora]' pytest pytest-xdist hypothesis
"$folder/bin/python" -m pytest -q -p no:cacheprovider \
  tests/golden tests/parity tests/bench/{spec,results,report,images,rewards,estimate} \
  tests/trainers/{backbones,data,optimizers,weights,parity}

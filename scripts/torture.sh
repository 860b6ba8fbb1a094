#!/usr/bin/env bash
# What docs/reliability.md promises, tried for minutes, by hand or nightly: runs killed at random moments, damaged and
# hostile files, nonsense for configurations. Prints a line for each trial with how many went right; exits 1 if one didn't.
#
#   scripts/torture.sh                                   # all of it
#   scripts/torture.sh --kills 5 --terms 2 --flips 50    # a little of it
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1

"$python" -m tests.torture "$@"
echo "fuzzing of configurations and overrides:"
MTL_FUZZ_EXAMPLES=${MTL_FUZZ_EXAMPLES:-5000} "$python" -m pytest -q -p no:cacheprovider tests/config/test_fuzz.py

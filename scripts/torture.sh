#!/usr/bin/env bash
# Test the guarantees of docs/reliability.md for minutes, manually or nightly: runs killed at random moments, damaged and
# malicious files, mutated configurations. Prints one line per test with its successes; exits with 1 if one failed.
#
#   scripts/torture.sh                                   # everything
#   scripts/torture.sh --kills 5 --terms 2 --flips 50    # a short run
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1

"$python" -m tests.torture "$@"
echo "fuzzing of configurations and overrides:"
MTL_FUZZ_EXAMPLES=${MTL_FUZZ_EXAMPLES:-5000} "$python" -m pytest -q -p no:cacheprovider tests/config/test_fuzz.py

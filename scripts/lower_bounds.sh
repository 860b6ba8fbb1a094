#!/usr/bin/env bash
# Run the tests with the oldest supported versions of the dependencies: each `>=` in pyproject.toml becomes `==`.
#
#   scripts/lower_bounds.sh                      # the whole suite
#   scripts/lower_bounds.sh tests/weighting -x   # arguments of pytest
set -euo pipefail
cd "$(dirname "$0")/.."
environment=.venv-lower
python=${PYTHON:-python3}

requirements=$("$python" - <<'PY'
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
# linters and coverage do not depend on these versions
linters = ("ruff", "mypy", "import-linter", "deptry", "pydoclint", "coverage", "pre-commit", "types-")
wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
print("\n".join(line.replace(">=", "==") for line in wanted if not line.startswith(linters)))
PY
)
[ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --requirement <(echo "$requirements")
"$environment/bin/python" -m pip install --quiet --no-deps --editable .
# ignore warnings of old versions about newer versions of their own dependencies
OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest -n auto --dist worksteal \
    -W ignore::DeprecationWarning -W "ignore:The given buffer is not writable:UserWarning" "$@"

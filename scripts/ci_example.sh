#!/usr/bin/env bash
# Use mtl in a CI job: validate, train, evaluate with a requirement; every exit code is handled.
#
#   scripts/ci_example.sh CONFIG RUN_DIR REQUIREMENT [KEY=VALUE…]
#   scripts/ci_example.sh configs/digits.yaml /tmp/run 'digit.accuracy>=0.9' training.epochs=5
#
# It can be run again after preemption and resumes the run. It exits with the exit code of mtl.
set -euo pipefail

config=$1 run_dir=$2 requirement=$3
shift 3
mtl=${MTL:-mtl}

mkdir -p "$(dirname "$run_dir")"

explain() {
    case $1 in
        0) ;;
        1) echo "ci: the run failed; see $run_dir/log.txt" >&2 ;;
        2) echo "ci: invalid command or configuration (see above)" >&2 ;;
        3) echo "ci: requirement not met: $requirement" >&2 ;;
        130 | 143) echo "ci: interrupted after saving a checkpoint; run again to resume" >&2 ;;
        *) echo "ci: unexpected exit code $1" >&2 ;;
    esac
}

step() { # run a command; on failure, explain its exit code and exit with it
    local code=0
    "$@" || code=$?
    explain "$code"
    [ "$code" -eq 0 ] || exit "$code"
}

step "$mtl" validate "$config" "$@"
step "$mtl" train "$config" "$@" --run-dir "$run_dir" --resume auto --json >"$run_dir.train.json"

checkpoint=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["checkpoint"])' "$run_dir.train.json")
step "$mtl" eval "$checkpoint" --require "$requirement" --json >"$run_dir.eval.json"

echo "ci: passed: $requirement"

"""Run all long tests of docs/reliability.md; see `scripts/torture.sh`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.torture import damage, malicious_files, steps
from tests.torture.runs import ReferenceRuns, interrupt_runs, write_experiment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="runs that get SIGKILL (default: 50)")
    parser.add_argument("--terms", type=int, default=20, help="runs that get SIGTERM (default: 20)")
    parser.add_argument("--flips", type=int, default=1000, help="damaged copies of a checkpoint (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments and damages (default: 0)")
    args = parser.parse_args()
    failures = 0

    def report(test: str, count: int, errors: list[str], start: float) -> None:
        nonlocal failures
        failures += len(errors)
        print(f"{test}: {count - len(errors)} of {count} passed, {time.monotonic() - start:.0f} s", flush=True)
        for line in errors:
            print(f"  {line}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = time.monotonic()
        results, errors = malicious_files.run_all(root / "hostile")
        report("malicious checkpoints and configurations refused", len(results), errors, start)
        config = write_experiment(root)
        references = ReferenceRuns(config, root)
        for number, count in ((signal.SIGKILL, args.kills), (signal.SIGTERM, args.terms)):
            start = time.monotonic()
            errors = interrupt_runs(config, root, references, count, number, args.seed)
            report(f"{number.name} at random moments, resumed to the same bits", count, errors, start)
        for workers in (0, 2):
            start = time.monotonic()
            errors = steps.find_differences(root / f"steps-{workers}", workers)
            count = len(list((root / f"steps-{workers}").glob("killed-*")))
            report(f"killed after every step, twice in succession, {workers} workers", count, errors, start)
        start = time.monotonic()  # last, because the command line configures logging in this process
        errors = damage.find_undetected(root / "reference-uniform/checkpoints/best.pt", args.flips, args.seed)
        report("flipped bits and truncations of a checkpoint detected", args.flips, errors, start)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())

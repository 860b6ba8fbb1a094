"""Everything, for minutes; see `scripts/torture.sh`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.torture import flips, hostile, steps
from tests.torture.runs import Whole, experiment, stopped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    failures = 0

    def report(what: str, tried: int, wrong: list[str], start: float) -> None:
        nonlocal failures
        failures += len(wrong)
        print(f"{what}: {tried - len(wrong)} of {tried} right, {time.monotonic() - start:.0f} s", flush=True)
        for line in wrong:
            print(f"  {line}", flush=True)

    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        start = time.monotonic()
        answers, wrong = hostile.refusals(root / "hostile")
        report("hostile checkpoints and configurations refused", len(answers), wrong, start)
        config = experiment(root)
        whole = Whole(config, root)
        for number, times in ((signal.SIGKILL, args.kills), (signal.SIGTERM, args.terms)):
            start = time.monotonic()
            wrong = stopped(config, root, whole, times, number, args.seed)
            report(f"{number.name} at random moments, then gone on with to the same bits", times, wrong, start)
        for workers in (0, 2):
            start = time.monotonic()
            wrong = steps.differing(root / f"steps-{workers}", workers)
            tried = len(list((root / f"steps-{workers}").glob("killed-*")))
            report(f"killed after every step, twice in succession, workers {workers}", tried, wrong, start)
        start = time.monotonic()  # the last: the command line's code in this process logs from here on
        damage = flips.undetected(root / "whole-uniform/checkpoints/best.pt", args.flips, args.seed)
        report("flipped bits and cut ends of a checkpoint noticed", args.flips, damage, start)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())

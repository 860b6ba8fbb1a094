"""Time of a training epoch on a busy machine, relative to a quiet one.

    python benchmarks/busy.py                        # threads: auto, 3 busy processes, 5 epochs each
    python benchmarks/busy.py --threads 2 --busy 1   # a fixed number of threads

Run it on an otherwise idle machine. Results are medians over the epochs after the first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "mnist_fmnist.yaml"
LOOP = "while True: sum(range(100_000))"


def train(config: Path, epochs: int, threads: str) -> dict:
    """Return the summary of a run with one epoch more than `epochs`."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mtlcli", "train", config, f"training.epochs={epochs + 1}",
                   f"training.threads={threads}", "training.device=cpu", "--run-dir", folder, "--json"]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--busy", type=int, default=3, help="number of busy processes")
    parser.add_argument("--epochs", type=int, default=5, help="number of measured epochs")
    parser.add_argument("--threads", default="auto", help="training.threads")
    args = parser.parse_args()
    seconds, threads = {}, {}
    for state, amount in (("quiet", 0), ("busy", args.busy)):
        others = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(amount)]
        try:
            summary = train(args.config, args.epochs, args.threads)
        finally:
            for other in others:
                other.kill()
                other.wait()
        seconds[state] = statistics.median(summary["seconds_per_epoch"][1:])
        threads[state] = summary["threads"]
        print(f"{state}: {seconds[state]:.2f} s an epoch with {threads[state]} threads", file=sys.stderr)
    print(json.dumps({"seconds": seconds, "threads": threads, "ratio": seconds["busy"] / seconds["quiet"]}))


if __name__ == "__main__":
    main()

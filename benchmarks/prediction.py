"""Throughput of `mtl predict` relative to evaluation, and its memory for ten times the rows.

    python benchmarks/prediction.py             # 200,000 rows of Census-Income, then 10 times as many
    python benchmarks/prediction.py --rows 20000

A model of Census-Income as a CSV file is trained for one epoch. Then, in alternation:

- `predict`: `mtl predict` of the rows to a CSV file, as it reports its throughput (reading, model, writing);
- `evaluate`: the same rows as a split: reading and encoding the file, model, metrics;
- `measure`: the evaluation alone, of rows that are already encoded in memory.

The peak memory is that of a process of its own. Run it on an otherwise idle machine.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mtlcli.data.datasets._census_columns import NAMES

ROUNDS = 5


def write_rows(path: Path, source: Path, rows: int) -> None:
    """Write the first `rows` rows of the raw file, repeated if it has fewer, with a header."""
    lines = source.read_text().splitlines()
    with path.open("w") as file:
        file.write(",".join(NAMES).replace("marital stat", "marital") + "\n")
        for start in range(0, rows, len(lines)):
            file.write("\n".join(lines[: rows - start]) + "\n")


def mtl(*arguments: object) -> dict:
    command = [sys.executable, __file__, "--run", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def run_and_report(arguments: list[str]) -> None:
    """Run a verb in this process, and add its peak memory to its JSON document."""
    import contextlib
    import io

    from mtlcli.cli import main

    printed = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        code = main([*arguments, "--json"])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    document = json.loads(printed.getvalue()) if code == 0 else {}
    print(json.dumps({**document, "code": code, "peak_mib": peak, "whole_seconds": seconds}))
    sys.exit(code)


def time_evaluation(checkpoint: Path, table: Path) -> tuple[float, float]:
    """Return the seconds of reading and evaluating a table, and of evaluating it alone."""
    from mtlcli.api.checkpoint_evaluation import read_checkpoint
    from mtlcli.training.assembly.build import rebuild
    from mtlcli.training.evaluate import measure

    stored = read_checkpoint(checkpoint, [f"datasets.census.path={table}", "training.device=cpu"])
    start = time.perf_counter()
    run = rebuild(stored.experiment, stored.payload)
    measure(run, "all")
    middle = time.perf_counter()
    measure(run, "all")
    return middle - start, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="data root")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run is not None:
        run_and_report(args.run)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large, checkpoint = folder / "small.csv", folder / "large.csv", folder / "run/checkpoints/best.pt"
        source = args.data / "census_income/raw/census-income.data"
        write_rows(small, source, args.rows)
        write_rows(large, source, 10 * args.rows)
        config = folder / "census.yaml"
        targets = {"income": "classes", "marital": "classes"}
        config.write_text(json.dumps({
            "datasets": {"census": {"name": "csv", "path": str(small), "targets": targets, "missing": ["?"]}},
            "tasks": {task: {"dataset": "census", "kind": "classification"} for task in targets},
            "trunk": {"name": "tabular", "hidden": [128], "features": 64},
            "training": {"epochs": 1, "batch_size": 1024, "device": "cpu"},
            "evaluation": {"batch_size": 1024},
        }))  # fmt: skip
        mtl("train", config, "--run-dir", folder / "run")
        rates: dict[str, list[float]] = {"predict": [], "evaluate": [], "measure": []}
        command = ["predict", checkpoint, small, "--out", folder / "out.csv", "--device", "cpu"]
        for _ in range(ROUNDS):
            few = mtl(*command)
            rates["predict"].append(few["rows"] / few["seconds"])
            whole, alone = time_evaluation(checkpoint, small)
            rates["evaluate"].append(args.rows / whole)
            rates["measure"].append(args.rows / alone)
        command[2] = large
        many = mtl(*command)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(json.dumps({
        "rows_per_second": {name: round(rate) for name, rate in medians.items()},
        "predict_to_evaluate": medians["predict"] / medians["evaluate"],
        "predict_to_measure": medians["predict"] / medians["measure"],
        "peak_mib": {few["rows"]: few["peak_mib"], many["rows"]: many["peak_mib"]},
        "memory_ratio": many["peak_mib"] / few["peak_mib"],
        "seconds_of_the_larger": many["seconds"],
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()

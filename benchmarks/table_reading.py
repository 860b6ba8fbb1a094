"""Seconds and memory of reading a table: the Census-Income training file as CSV, or a synthetic file.

    python benchmarks/table_reading.py                              # census: 199,523 rows × 42 columns
    python benchmarks/table_reading.py --rows 1000000 --columns 50  # half of the columns are numbers, half categories
    python benchmarks/table_reading.py --suffix .parquet            # the same table in another format
    python benchmarks/table_reading.py --epoch                      # also: a training epoch

The dataset `table` describes, encodes and splits the table in a process of its own; `examples` of all splits and
`notes` are included. "added MiB" is the difference between the peak memory of the process and its memory before, after
all imports but that of pyarrow. "private MiB" is what is kept at the end without files that are mapped to memory, such
as the 31 MiB of Arrow's library, which processes share. Reading takes one thread, so "CPU seconds" are comparable on a
busy machine. To compare two versions of the package, run this file in both with the same `--file`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CENSUS = ["income", "marital stat", "education"]


def memory(field: str) -> int:
    """Bytes of this process, by a field of Linux' /proc."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def write_census(path: Path) -> None:
    from mtlcli.data.datasets._census_columns import NAMES

    raw = Path(os.environ.get("MTL_DATA", "data")) / "census_income" / "raw" / "census-income.data"
    with raw.open() as lines, path.open("w") as table:
        table.write(",".join(f'"{name}"' for name in NAMES) + "\n")
        for line in lines:  # the values have no commas
            table.write(",".join(cell.strip() for cell in line.split(",")) + "\n")


def write_synthetic(path: Path, rows: int, columns: int) -> None:
    """Write numbers (normal, counts, amounts with cents) and categories of 4 to 400 levels."""
    import pyarrow
    import pyarrow.csv

    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, 100_000):
            amount = min(100_000, rows - start)
            cells = {}
            for at in range(columns - 1):
                levels = 4 * 10 ** (at % 6 // 2)
                if at % 2 == 0:
                    names = pyarrow.array([f"level {level}" for level in range(levels)])
                    cells[f"c{at}"] = names.take(pyarrow.array(generator.integers(0, levels, amount)))
                elif at % 3 == 0:
                    cells[f"x{at}"] = generator.normal(size=amount).round(5)
                elif at % 3 == 1:
                    cells[f"x{at}"] = generator.poisson(20, amount)
                else:
                    cells[f"x{at}"] = generator.lognormal(5, 1, amount).round(2)
            cells["y"] = generator.integers(0, 2, amount)
            options = pyarrow.csv.WriteOptions(include_header=start == 0, quoting_style="none", quoting_header="none")
            pyarrow.csv.write_csv(pyarrow.table(cells), file, options)


def convert(path: Path, suffix: str) -> Path:
    """Write the table in another format."""
    if suffix == ".csv":
        return path
    import pandas

    other = path.with_suffix(suffix)
    table = pandas.read_csv(path, keep_default_na=False, na_values=[""])
    if suffix == ".parquet":
        table.to_parquet(other, index=False)
    elif suffix.startswith(".jsonl"):
        table.to_json(other, orient="records", lines=True)
    else:
        table.to_csv(other, index=False)
    return other


def read(path: Path, targets: list[str]) -> dict:
    """Read the table in this process."""
    from mtlcli.registry import datasets

    name = "table" if "table" in datasets.names() else "csv"
    dataset = datasets[name].target(path=str(path), targets=targets)
    before, private = memory("VmRSS"), memory("RssAnon")
    start, cpu = time.perf_counter(), time.process_time()
    spec = dataset.describe()
    described = time.perf_counter() - start
    examples = sum(len(dataset.examples(split, 0)) for split in spec.splits)
    dataset.notes()
    return {
        "seconds": time.perf_counter() - start,
        "CPU seconds": time.process_time() - cpu,
        "describe": described,
        "rows": examples,
        "columns": len(spec.columns),
        "peak MiB": memory("VmHWM") / 2**20,
        "added MiB": (memory("VmHWM") - before) / 2**20,
        "kept MiB": (memory("VmRSS") - before) / 2**20,
        "private MiB": (memory("RssAnon") - private) / 2**20,
    }


def epoch(path: Path, targets: list[str]) -> float:
    """Median seconds of the training epochs after the first, by `mtl train`."""
    config = {
        "datasets": {"t": {"name": "csv", "path": str(path), "targets": dict.fromkeys(targets, "classes")}},
        "tasks": {
            f"t{at}": {"dataset": "t", "target": target, "kind": "classification"} for at, target in enumerate(targets)
        },
        "trunk": {"name": "mlp"},
        "training": {"epochs": 4, "batch_size": 1024},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "mtlcli", "train", file, "--run-dir", f"{folder}/run", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return statistics.median(json.loads(done.stdout)["seconds_per_epoch"][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="rows of a synthetic table; default: the census table")
    parser.add_argument("--columns", type=int, default=50, help="columns of the synthetic table")
    parser.add_argument("--suffix", default=".csv", help="format of the file, such as .csv.gz, .jsonl or .parquet")
    parser.add_argument("--file", type=Path, help="file to read; written if it doesn't exist")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epoch", action="store_true", help="measure a training epoch too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # read in this process
    args = parser.parse_args()
    targets = ["y"] if args.rows else CENSUS
    if args.here:
        print(json.dumps(read(args.file, targets)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or Path(folder) / "table.csv"
        if not path.exists():
            plain = path.parent / (path.name.split(".")[0] + ".csv")
            write_synthetic(plain, args.rows, args.columns) if args.rows else write_census(plain)
            path = convert(plain, args.suffix if args.file is None else "".join(path.suffixes))
        command = [sys.executable, __file__, "--here", "--file", path, *(["--rows", "1"] if args.rows else [])]
        results = [
            json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            for _ in range(args.repeats)
        ]
        median = {key: round(statistics.median(result[key] for result in results), 2) for key in results[0]}
        print(json.dumps({"MB of the file": round(path.stat().st_size / 1e6, 1), **median}))
        if args.epoch:
            print(json.dumps({"seconds of an epoch": round(epoch(path, targets), 3)}))


if __name__ == "__main__":
    main()

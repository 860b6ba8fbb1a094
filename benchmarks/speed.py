"""Speed of `mtl train` relative to a plain PyTorch script, and of its start-up relative to `import torch`.

    python benchmarks/speed.py                       # speed, memory and start-up, as `make bench`
    python benchmarks/speed.py --accuracy            # test accuracy after 3 epochs, 3 seeds each

Each measurement is a separate process. The programs alternate, A B C A B C …, so that noise of the machine affects
all of them; the results are ratios of medians. Seconds are those of one training epoch, as reported by each program.
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

HERE = Path(__file__).parent
DATA = os.environ.get("MTL_DATA", "data")
MTL = [sys.executable, "-m", "mtlcli"]
MAIN_CONFIG = str(HERE.parent / "configs" / "mnist_fmnist.yaml")
VERBS = ["train", "eval", "validate", "schema", "list", "show", "init", "doctor", "data"]


def textbook(epochs: int, seed: int) -> dict:
    command = [sys.executable, HERE / "textbook.py", "--data", DATA, "--epochs", str(epochs), "--seed", str(seed)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def mtl(epochs: int, seed: int, precision: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [*MTL, "train", HERE / "mnist_fmnist.yaml", f"training.epochs={epochs}", f"seed={seed}"]
        command += [f"training.precision={precision}", "--run-dir", folder, "--json"]
        summary = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    accuracy = {task: metrics["accuracy"] for task, metrics in summary["metrics"]["test"].items()}
    return {**summary, "accuracy": {"mnist": accuracy["digit"], "fashion": accuracy["garment"]}}


def epoch_speed(repeats: int) -> None:
    contenders = {
        "textbook": lambda: textbook(1, 0),
        "mtl fp32": lambda: mtl(1, 0, "fp32"),
        "mtl bf16": lambda: mtl(1, 0, "bf16"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    memory: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name, contender in contenders.items():
            result = contender()
            seconds[name] += result["seconds_per_epoch"]
            memory[name].append(result["peak_memory_bytes"] / 2**20)
        print(f"repeat {repeat + 1}:", {name: round(values[-1], 2) for name, values in seconds.items()}, flush=True)
    print("\n| | seconds/epoch (median) | ratio | peak MiB (median) | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    base, base_memory = statistics.median(seconds["textbook"]), statistics.median(memory["textbook"])
    for name in contenders:
        time_, memory_ = statistics.median(seconds[name]), statistics.median(memory[name])
        print(f"| {name} | {time_:.2f} | {time_ / base:.3f} | {memory_:.0f} | {memory_ / base_memory:.3f} |")


def start_up(repeats: int) -> None:
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "mtl --help": [*MTL, "--help"],
        **{f"mtl {verb} --help": [*MTL, verb, "--help"] for verb in VERBS},
        "mtl validate": [*MTL, "validate", MAIN_CONFIG],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["import torch"])
    print("\n| | seconds (median) | ratio |\n| --- | ---: | ---: |")
    for name, values in seconds.items():
        print(f"| `{name}` | {statistics.median(values):.3f} | {statistics.median(values) / base:.3f} |")


def accuracy(epochs: int, seeds: int) -> None:
    contenders = {
        "textbook": lambda seed: textbook(epochs, seed),
        "mtl fp32": lambda seed: mtl(epochs, seed, "fp32"),
        "mtl bf16": lambda seed: mtl(epochs, seed, "bf16"),
    }
    print(f"| test accuracy after {epochs} epochs, seeds 0 to {seeds - 1} | mnist | fashion |\n| --- | --- | --- |")
    for name, contender in contenders.items():
        results = [contender(seed)["accuracy"] for seed in range(seeds)]
        cells = [" ".join(f"{result[data]:.4f}" for result in results) for data in ("mnist", "fashion")]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--accuracy", action="store_true", help="compare test accuracies instead")
    args = parser.parse_args()
    if args.accuracy:
        accuracy(epochs=3, seeds=3)
    else:
        epoch_speed(args.repeats)
        start_up(args.repeats)


if __name__ == "__main__":
    main()

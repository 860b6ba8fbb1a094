"""Small runs that are interrupted, resumed and compared bit by bit with uninterrupted ones."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.training.identical import digest_checkpoint

WEIGHTINGS = ("uniform", "uncertainty", "gradnorm", "famo", "mgda", "pcgrad")
EXPERIMENT = """\
name: torture
datasets: {digits: {name: digits, val: 0.2}}
tasks:
  digit: {dataset: digits, target: digit, kind: classification}
  ink: {dataset: digits, target: ink, kind: regression}
trunk: {name: mlp, hidden: [16], features: 8, dropout: 0.2}
optimizer: {name: Adam, lr: 1e-3}
scheduler: {name: CosineAnnealingLR, interval: step}
training: {epochs: 8, batch_size: 100, device: cpu, threads: 1}
checkpoint: {every: 1 step}
"""


@dataclass(frozen=True)
class ProcessResult:
    """The result of a process.

    Attributes:
        code: The exit code, or minus the number of the signal that ended the process.
        output: The output to stdout and stderr.
        seconds: The wall-clock time.
    """

    code: int
    output: str
    seconds: float


def write_experiment(folder: Path) -> Path:
    path = folder / "torture.yaml"
    path.write_text(EXPERIMENT)
    return path


def mtl(*arguments: str | Path, number: int | None = None, after: float = 0.0) -> ProcessResult:
    """Call `mtl` in a process, and send it the signal `number`, if given, after so many seconds."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "mtlcli", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = process.communicate(timeout=after if number is not None else None)
    except subprocess.TimeoutExpired:
        assert number is not None
        process.send_signal(number)
        output, _ = process.communicate()
    return ProcessResult(process.returncode, output.decode(errors="replace"), time.monotonic() - start)


def train(config: Path, folder: Path, weighting: str, number: int | None = None, after: float = 0.0) -> ProcessResult:
    options = ("--resume", "auto", "--run-dir", folder, f"weighting={weighting}")
    return mtl("train", config, *options, number=number, after=after)


class ReferenceRuns:
    """Uninterrupted runs, one of each weighting.

    Attributes:
        folders: The run folder of each weighting.
        seconds: The wall-clock time of each run.
    """

    def __init__(self, config: Path, root: Path, weightings: tuple[str, ...] = WEIGHTINGS) -> None:
        self.folders, self.seconds = {}, {}
        for weighting in weightings:
            self.folders[weighting] = root / f"reference-{weighting}"
            result = train(config, self.folders[weighting], weighting)
            assert result.code == 0, result.output
            self.seconds[weighting] = result.seconds

    def equals(self, folder: Path, weighting: str) -> bool:
        return are_identical(folder, self.folders[weighting])


def are_identical(run: Path, other: Path) -> bool:
    """Return True if the checkpoints and the tables of metrics of two runs have the same bits."""
    same_checkpoints = all(
        digest_checkpoint(run / name) == digest_checkpoint(other / name)
        for name in ("checkpoints/last.pt", "checkpoints/best.pt")
    )
    return same_checkpoints and all(
        (run / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.csv", "table.csv")
    )


def interrupt_runs(
    config: Path, root: Path, references: ReferenceRuns, count: int, number: signal.Signals, seed: int = 0
) -> list[str]:
    """Send a signal to runs at random moments, and resume each to its end.

    After the signal, every checkpoint of the run must be readable.

    Args:
        config: The experiment file.
        root: The folder that contains the run folders.
        references: The runs to compare with.
        count: The number of runs.
        number: The signal.
        seed: The seed of the random moments.

    Returns:
        A line for each error.
    """
    generator = random.Random(seed)

    def attempt(index: int, fraction: float) -> list[str]:
        weighting = list(references.folders)[index % len(references.folders)]
        folder = root / f"{number.name}-{index}"
        moment = fraction * references.seconds[weighting]
        first = train(config, folder, weighting, number, moment)
        name = f"{number.name} at {moment:.2f} s of {weighting}"
        errors = [f"{name}: {path.name} can't be read: {reason}" for path, reason in find_unreadable(folder)]
        if number is signal.SIGTERM and first.code not in (0, 143, -number):
            errors.append(f"{name}: exit code {first.code}: {first.output[-300:]}")
        second = train(config, folder, weighting)
        if second.code != 0 or "Traceback" in first.output + second.output:
            errors.append(f"{name}: resumed, exit code {second.code}: {(first.output + second.output)[-300:]}")
        elif not references.equals(folder, weighting):
            errors.append(f"{name}: the bits differ from those of the uninterrupted run")
        return errors

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(chain(*pool.map(attempt, range(count), [generator.random() for _ in range(count)])))


def find_unreadable(folder: Path) -> list[tuple[Path, str]]:
    """Return the checkpoints of a run folder that can't be loaded, each with the error message."""
    unreadable = []
    for path in (folder / "checkpoints").glob("[!.]*.pt"):
        try:
            digest_checkpoint(path)
        except Exception as error:
            unreadable.append((path, str(error)))
    return unreadable

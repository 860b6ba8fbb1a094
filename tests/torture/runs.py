"""The small runs that are killed, and how they are compared with one that never was."""

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
class Ended:
    """How a process ended: its exit code (minus the signal that killed it), what it said, how long it took."""

    code: int
    said: str
    seconds: float


def experiment(folder: Path) -> Path:
    path = folder / "torture.yaml"
    path.write_text(EXPERIMENT)
    return path


def mtl(*arguments: str | Path, number: int | None = None, after: float = 0.0) -> Ended:
    """`mtl`, which gets the signal `number` after so many seconds, if it still runs."""
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
    return Ended(process.returncode, output.decode(errors="replace"), time.monotonic() - start)


def train(config: Path, folder: Path, weighting: str, number: int | None = None, after: float = 0.0) -> Ended:
    chosen = ("--resume", "auto", "--run-dir", folder, f"weighting={weighting}")
    return mtl("train", config, *chosen, number=number, after=after)


class Whole:
    """Runs that were never stopped, one of each weighting, and how long they took."""

    def __init__(self, config: Path, root: Path, weightings: tuple[str, ...] = WEIGHTINGS) -> None:
        self.folders, self.seconds = {}, {}
        for weighting in weightings:
            self.folders[weighting] = root / f"whole-{weighting}"
            ended = train(config, self.folders[weighting], weighting)
            assert ended.code == 0, ended.said
            self.seconds[weighting] = ended.seconds

    def equals(self, folder: Path, weighting: str) -> bool:
        return same(folder, self.folders[weighting])


def same(run: Path, other: Path) -> bool:
    """Whether two runs have the same bits: both checkpoints, and the tables of metrics."""
    equal = all(
        digest_checkpoint(run / name) == digest_checkpoint(other / name)
        for name in ("checkpoints/last.pt", "checkpoints/best.pt")
    )
    return equal and all(
        (run / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.csv", "table.csv")
    )


def stopped(config: Path, root: Path, whole: Whole, times: int, number: signal.Signals, seed: int = 0) -> list[str]:
    """Send `times` runs a signal at random moments, go on with each to its end; what went wrong, one line each.

    After the signal the newest checkpoint there is must be readable; it is looked at through `mtl eval`'s own reader.
    """
    draw = random.Random(seed)

    def attempt(number_of: int, part: float) -> list[str]:
        weighting = list(whole.folders)[number_of % len(whole.folders)]
        folder = root / f"{number.name}-{number_of}"
        moment = part * whole.seconds[weighting]
        first = train(config, folder, weighting, number, moment)
        name = f"{number.name} at {moment:.2f} s of {weighting}"
        wrong = [f"{name}: {path.name} can't be read: {told}" for path, told in unreadable(folder)]
        if number is signal.SIGTERM and first.code not in (0, 143, -number):
            wrong.append(f"{name}: exit code {first.code}: {first.said[-300:]}")
        again = train(config, folder, weighting)
        if again.code != 0 or "Traceback" in first.said + again.said:
            wrong.append(f"{name}: gone on with, exit code {again.code}: {(first.said + again.said)[-300:]}")
        elif not whole.equals(folder, weighting):
            wrong.append(f"{name}: other bits than the run that wasn't stopped")
        return wrong

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(chain(*pool.map(attempt, range(times), [draw.random() for _ in range(times)])))


def unreadable(folder: Path) -> list[tuple[Path, str]]:
    """The checkpoints of a run folder that can't be loaded."""
    found = []
    for path in (folder / "checkpoints").glob("[!.]*.pt"):
        try:
            digest_checkpoint(path)
        except Exception as error:
            found.append((path, str(error)))
    return found

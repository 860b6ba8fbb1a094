"""Several runs at the same time: each is `mtl train` in a process of its own, with its part of the cores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Protocol

from mtlcli.config import Experiment, dump_yaml
from mtlcli.data.placement import usable_cores
from mtlcli.errors import MtlError
from mtlcli.studies.relate.budget import Budget
from mtlcli.studies.relate.observer import StudyObserver
from mtlcli.studies.relate.runs import interrupted
from mtlcli.training.files import write_text
from mtlcli.training.signals import StopRequest


class Trainable(Protocol):
    """A run to be trained. Its `str` is its name in messages."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def folder(self) -> Path: ...


def train_in_processes(runs: Sequence[Trainable], budget: Budget, observer: StudyObserver) -> None:
    """Train the runs, `budget.jobs` at a time, with the cores divided among them.

    A signal, or a run that fails, stops all of them, with what they have done saved: InterruptedRunError, MtlError.
    """
    processes = Processes(budget)
    failed: str | None = None
    with StopRequest() as stop, ThreadPoolExecutor(budget.jobs) as pool:
        pending = {pool.submit(processes.train, run): run for run in runs}
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                run, problem = pending.pop(future), future.result()
                if problem is None:
                    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
                    observer.run_done(str(run), summary, reused=False)
                elif failed is None and not stop.requested:
                    failed = f"{run}: {problem}"
            if stop.requested or failed:
                processes.stop(stop.requested or signal.SIGTERM)
        if stop.requested:
            raise interrupted(128 + stop.requested)
    if failed:
        raise MtlError(failed)


class Processes:
    """The processes that are running."""

    def __init__(self, budget: Budget) -> None:
        self.plugins = [part for plugin in budget.plugins for part in ("--plugin", plugin)]
        self.threads = max(1, usable_cores() // budget.jobs)
        self.running: set[subprocess.Popen[str]] = set()
        self.stopping = Event()

    def train(self, run: Trainable) -> str | None:
        """Train one run to its end. Returns what went wrong; None where nothing did."""
        if self.stopping.is_set():
            return "not started"
        run.folder.mkdir(parents=True, exist_ok=True)
        given = run.folder / "experiment.yaml"
        write_text(given, dump_yaml(run.experiment.resolved()))
        threads = [f"training.threads={self.threads}"] if run.experiment.training.threads == "auto" else []
        command = [sys.executable, "-m", "mtlcli", "train", str(given), *threads, "--run-dir", str(run.folder)]
        process = subprocess.Popen(
            [*command, "--resume", "auto", *self.plugins],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C in the terminal is for this process, which tells them
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
        )  # fmt: skip
        self.running.add(process)
        if self.stopping.is_set():  # meanwhile
            process.terminate()
        _, told = process.communicate()
        self.running.discard(process)
        if process.returncode == 0:
            return None
        errors = [line.removeprefix("error: ") for line in told.splitlines() if line.startswith("error: ")]
        return "\n".join(errors) or f"ended with exit code {process.returncode}: {told.strip()[-500:]}"

    def stop(self, number: signal.Signals) -> None:
        """Tell all to stop, once; start no more."""
        if not self.stopping.is_set():
            self.stopping.set()
            for process in list(self.running):
                process.send_signal(number)

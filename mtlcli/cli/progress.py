"""What a run shows on stderr: its log lines, and on a terminal a live bar for the epoch in hand."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mtlcli.printable import printable
from mtlcli.training.observer import EpochReport, Observer


class LogLines(logging.Handler):
    """Prints what is logged as plain lines; above the live bar, where there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = "\n".join(map(printable, record.getMessage().split("\n")))
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveBar(Observer):
    """A bar for each epoch: steps, latest losses, samples/s, time to go. Drawn at most 5 times a second."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]} {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=5,
        )
        self.line: TaskID | None = None
        self.epochs = 0
        self.examples_per_step = 0.0

    def started(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar.start()

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        self.line = self.bar.add_task(
            "", total=steps, completed=done, epoch=epoch, epochs=self.epochs, losses="", rate=""
        )

    def step(self, examples: int, losses: Mapping[str, float]) -> None:
        assert self.line is not None
        self.bar.advance(self.line)
        task = self.bar.tasks[-1]
        if task.completed % 50 == 0:
            told = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            speed = task.speed or 0.0
            self.bar.update(self.line, losses=told, rate=f"{speed * examples:,.0f} samples/s")

    def epoch_ended(self, report: EpochReport) -> None:
        assert self.line is not None
        self.bar.remove_task(self.line)

    def stopped(self) -> None:
        self.bar.stop()


def watch() -> Observer:
    """Send the log to stderr; the observer that shows a live bar, where stderr is a terminal."""
    console = Console(stderr=True)
    log = logging.getLogger("mtl")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [LogLines(console)]
    return LiveBar(console) if sys.stderr.isatty() else Observer()

"""What a run shows on stderr: its log lines, and on a terminal a live bar for the epoch in hand."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mtlcli.numbers import format_number
from mtlcli.printable import printable
from mtlcli.training.observer import EpochReport, Observer, flow

BAR = 54  # columns that the bar takes without its losses and rate, at the least


class LogLines(logging.Handler):
    """Prints what is logged: one plain line a record, or on a terminal wrapped to its width, above the live bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        width = self.console.width if self.console.is_terminal else None
        report = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if isinstance(report, EpochReport) and width is not None:
            lines = report.lines(width)
        else:
            lines = record.getMessage().split("\n")
        lines = list(map(printable, lines))
        if record.levelno >= logging.WARNING:
            lines[0] = f"{record.levelname.lower()}: {lines[0]}"
        if width is not None:
            lines = [part for line in lines for part in flow(re.split("(?<=[,;|]) ", line), width, indent="  ")]
        self.console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


class LiveBar(Observer):
    """A bar for each epoch: steps, latest losses, samples/s, time to go. Drawn at most 5 times a second."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=5,
        )
        self.line: TaskID | None = None
        self.epochs = 0

    def started(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar.start()

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        self.line = self.bar.add_task("", total=steps, completed=done, epoch=epoch, epochs=self.epochs, status="")

    def step(self, examples: int, losses: Mapping[str, float]) -> None:
        assert self.line is not None
        self.bar.advance(self.line)
        task = self.bar.tasks[-1]
        if task.completed % 50 == 0:
            rate = f"{(task.speed or 0.0) * examples:,.0f} samples/s"
            self.bar.update(self.line, status=_fitting(losses, rate, self.bar.console.width - BAR))

    def epoch_ended(self, report: EpochReport) -> None:
        assert self.line is not None
        self.bar.remove_task(self.line)

    def stopped(self) -> None:
        self.bar.stop()


def _fitting(losses: Mapping[str, float], rate: str, room: int) -> str:
    """Each task's loss and the rate; in less room the mean loss and the rate, the mean loss, or nothing."""
    each = "  ".join(f"{name} {format_number(loss)}" for name, loss in losses.items())
    mean = f"mean loss {format_number(sum(losses.values()) / len(losses))}" if losses else ""
    texts = [f"{each}  {rate}", f"{mean}  {rate}" if mean else rate, mean or rate]
    return next((text for text in texts if len(text) <= room), "")


def watch() -> Observer:
    """Send the log to stderr; the observer that shows a live bar, where stderr is a terminal."""
    console = Console(stderr=True)
    log = logging.getLogger("mtl")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [LogLines(console)]
    return LiveBar(console) if sys.stderr.isatty() else Observer()

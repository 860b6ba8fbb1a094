"""Progress on stderr: log lines, and on a terminal a live progress bar."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mtlcli.cli import table
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.text import format_duration, format_number, printable
from mtlcli.training.backward.base import StepResult
from mtlcli.training.callbacks import Callback
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.messages import EpochReport, flow
from mtlcli.training.state import TrainerState

BAR = 54  # minimum width of the bar without losses and rate


class PlainProgress(logging.Handler):
    """Log handler that prints one line per record; on a terminal, lines are wrapped and printed above the live bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
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
            lines = [text for line in lines for text in flow(re.split("(?<=[,;|]) ", line), width, indent="  ")]
        self.console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


class ProgressBar(Callback):
    """Progress bar of an epoch, with steps, latest losses, samples/s and remaining time; at most 5 updates a second."""

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
        self.examples = 0  # of the run, until the latest step

    def on_fit_start(self, state: TrainerState) -> None:
        """Show the bar."""
        self.examples = state.progress.examples
        self.bar.start()

    def on_epoch_start(self, state: TrainerState) -> None:
        """Reset the bar."""
        progress, epochs = state.progress, state.experiment.training.epochs
        self.line = self.bar.add_task(
            "", total=state.steps_per_epoch, completed=progress.step, epoch=progress.epoch + 1, epochs=epochs, status=""
        )

    def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
        """Advance the bar; every 50 steps, update the losses and the rate."""
        assert self.line is not None
        examples, self.examples = state.progress.examples - self.examples, state.progress.examples
        self.bar.advance(self.line)
        task = self.bar.tasks[-1]
        if task.completed % 50 == 0:
            rate = f"{(task.speed or 0.0) * examples:,.0f} samples/s"
            self.bar.update(self.line, status=_fit_status(state.log.latest, rate, self.bar.console.width - BAR))

    def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
        """Remove the epoch."""
        assert self.line is not None
        self.bar.remove_task(self.line)

    def on_fit_end(self, state: TrainerState, summary: Mapping[str, Any]) -> None:
        """Hide the bar."""
        self.bar.stop()


def _fit_status(losses: Mapping[str, float], rate: str, width: int) -> str:
    """Return the longest status that fits: all losses and the rate, the mean loss and the rate, or the mean loss."""
    each = "  ".join(f"{name} {format_number(loss)}" for name, loss in losses.items())
    mean = f"mean loss {format_number(sum(losses.values()) / len(losses))}" if losses else ""
    texts = [f"{each}  {rate}", f"{mean}  {rate}" if mean else rate, mean or rate]
    return next((text for text in texts if len(text) <= width), "")


def watch() -> list[Callback]:
    """Send the log to stderr, and return the callback that draws a live bar if stderr is a terminal."""
    console = Console(stderr=True)
    log = logging.getLogger("mtl")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [PlainProgress(console)]
    return [ProgressBar(console)] if sys.stderr.isatty() else []


class StudyLines(StudyCallback):
    """Callback that prints a line for each run."""

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        """Count a finished run."""
        print(printable(_line(name, summary, reused)), file=sys.stderr)

    def on_run_failure(self, name: str, problem: str) -> None:
        """Print the problem of a run."""
        print(printable(f"{name}: failed: {problem}"), file=sys.stderr)


class StudyBar(StudyCallback):
    """Callback that shows a progress bar of the runs, with the name of the latest."""

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[latest]}", markup=False),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip

    def on_study_start(self, runs: int) -> None:
        """Show the display, for this number of runs."""
        if runs:
            self.line = self.bar.add_task("", total=runs, latest="")
            self.bar.start()

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        """Count a finished run."""
        self.bar.update(self.line, advance=1, latest=printable(f"{name}{' (trained before)' if reused else ''}"))

    def on_study_end(self) -> None:
        """Hide the display."""
        self.bar.stop()


class StudyTable(StudyCallback):
    """Callback that shows a live table of the methods' results so far, and the progress of the comparison."""

    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, transient=True, auto_refresh=False)
        self.runs = self.done = self.trained = self.failed = 0
        self.rows: Mapping[str, Mapping[str, tuple[float, int]]] = {}
        self.start = 0.0

    def on_study_start(self, runs: int) -> None:
        """Show the display, for this number of runs."""
        self.runs, self.done, self.trained, self.start = runs, 0, 0, time.monotonic()
        self.live.start()
        self.live.update(self.drawn(), refresh=True)

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        """Count a finished run."""
        self.done += 1
        self.trained += not reused

    def on_run_failure(self, name: str, problem: str) -> None:
        """Print the problem of a run."""
        self.done += 1
        self.failed += 1
        self.live.console.print(printable(f"{name}: failed: {problem}"), markup=False, highlight=False)

    def on_means(self, rows: Mapping[str, Mapping[str, tuple[float, int]]]) -> None:
        """Show new results: method → task → (mean, number of runs)."""
        self.rows = rows
        self.live.update(self.drawn(), refresh=True)

    def on_study_end(self) -> None:
        """Hide the display."""
        self.live.stop()

    def drawn(self) -> Text:
        """Return the current display."""
        tasks = list(dict.fromkeys(task for row in self.rows.values() for task in row))
        rows = [["method", *tasks]]
        rows += [
            [label, *(_mean(row[task]) if task in row else "" for task in tasks)] for label, row in self.rows.items()
        ]
        width, height = self.live.console.size
        lines = ["mean on val so far (runs)", *table.align_numbers(rows, width=width)] if self.rows else []
        if len(lines) >= height - 1:  # a live display doesn't scroll
            lines = []
        return Text("\n".join([*lines, self._progress()]))

    def _progress(self) -> str:
        """Return the progress, such as `runs 7/21, 1 failed, about 2 min to go`."""
        words = [f"runs {self.done}/{self.runs}", *([f"{self.failed} failed"] if self.failed else [])]
        left = self.runs - self.done
        if self.trained and left:
            seconds = (time.monotonic() - self.start) / self.trained * left
            words.append(f"about {format_duration(seconds)} to go")
        return ", ".join(words)


@contextmanager
def watch_rows() -> Iterator[Callable[[int], None]]:
    """Count rows while a block runs, on a terminal.

    Yields:
        A function that receives the number of rows so far.
    """
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    columns = TextColumn("{task.completed:,} rows"), TextColumn("{task.fields[rate]}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        line, start = bar.add_task("", total=None, rate=""), time.monotonic()
        yield lambda rows: bar.update(line, completed=rows, rate=f"{rows / (time.monotonic() - start):,.0f} rows/s")


def watch_study() -> StudyCallback:
    """Return the callback of a study; warnings go to stderr, and the log of each run to its folder."""
    _warnings_only()
    return StudyBar() if sys.stderr.isatty() else StudyLines()


def watch_comparison() -> StudyCallback:
    """Return the callback of a comparison; warnings go to stderr."""
    console = _warnings_only()
    return StudyTable(console) if sys.stderr.isatty() else StudyLines()


def _warnings_only() -> Console:
    watch()
    (handler,) = logging.getLogger("mtl").handlers
    handler.setLevel(logging.WARNING)
    assert isinstance(handler, PlainProgress)
    return handler.console


def _mean(standing: tuple[float, int]) -> str:
    mean, runs = standing
    return f"{format_number(mean)} ({runs})"


def _line(name: str, summary: dict[str, Any], reused: bool) -> str:
    """Return the line of a run: `baseline digit, seed 0: digit accuracy 0.9712 (val), 3 epochs, 4.1 s`."""
    split, tasks = next(iter(summary["metrics"].items()))
    words = [f"{task} {metric} {format_number(tasks[task][metric])}" for task, metric in summary["primary"].items()]
    seconds = sum(summary["seconds_per_epoch"])
    rest = (
        "trained before"
        if reused
        else f"{summary['epochs']} epoch{'' if summary['epochs'] == 1 else 's'}, {format_duration(seconds)}"
    )
    return f"{name}: {', '.join(words)} ({split}), {rest}"

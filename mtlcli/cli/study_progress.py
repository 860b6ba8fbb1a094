"""What a study shows on stderr: a line for each run that is done, or on a terminal a live bar over all of them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from mtlcli.cli import table
from mtlcli.cli.progress import LogLines, watch
from mtlcli.numbers import format_duration, format_number
from mtlcli.printable import printable
from mtlcli.studies.observer import StudyObserver


class StudyLines(StudyObserver):
    """A plain line for each run."""

    def run_done(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        print(printable(_line(name, summary, reused)), file=sys.stderr)

    def run_failed(self, name: str, problem: str) -> None:
        print(printable(f"{name}: failed: {problem}"), file=sys.stderr)


class StudyBar(StudyObserver):
    """A bar over the runs, with the name of the latest."""

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[latest]}", markup=False),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip

    def started(self, runs: int) -> None:
        if runs:
            self.line = self.bar.add_task("", total=runs, latest="")
            self.bar.start()

    def run_done(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        self.bar.update(self.line, advance=1, latest=printable(f"{name}{' (trained before)' if reused else ''}"))

    def stopped(self) -> None:
        self.bar.stop()


class StudyTable(StudyObserver):
    """A live table of how the methods of a comparison stand, over a line that tells how far the study is."""

    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, transient=True, auto_refresh=False)
        self.runs = self.done = self.trained = self.failed = 0
        self.rows: Mapping[str, Mapping[str, tuple[float, int]]] = {}
        self.start = 0.0

    def started(self, runs: int) -> None:
        self.runs, self.done, self.trained, self.start = runs, 0, 0, time.monotonic()
        self.live.start()
        self.live.update(self.drawn(), refresh=True)

    def run_done(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        self.done += 1
        self.trained += not reused

    def run_failed(self, name: str, problem: str) -> None:
        self.done += 1
        self.failed += 1
        self.live.console.print(printable(f"{name}: failed: {problem}"), markup=False, highlight=False)

    def standing(self, rows: Mapping[str, Mapping[str, tuple[float, int]]]) -> None:
        self.rows = rows
        self.live.update(self.drawn(), refresh=True)

    def stopped(self) -> None:
        self.live.stop()

    def drawn(self) -> Text:
        tasks = list(dict.fromkeys(task for row in self.rows.values() for task in row))
        rows = [["method", *tasks]]
        rows += [
            [label, *(_mean(row[task]) if task in row else "" for task in tasks)] for label, row in self.rows.items()
        ]
        width, height = self.live.console.size
        lines = ["mean on val so far (runs)", *table.figures(rows, width=width)] if self.rows else []
        if len(lines) >= height - 1:  # a live display can't scroll
            lines = []
        return Text("\n".join([*lines, self._progress()]))

    def _progress(self) -> str:
        """Such as `runs 7/21, 1 failed, about 2 min to go`."""
        told = [f"runs {self.done}/{self.runs}", *([f"{self.failed} failed"] if self.failed else [])]
        left = self.runs - self.done
        if self.trained and left:
            seconds = (time.monotonic() - self.start) / self.trained * left
            told.append(f"about {format_duration(seconds)} to go")
        return ", ".join(told)


def watch_study() -> StudyObserver:
    """The observer of a study, and warnings on stderr: the log of each of its runs is in that run's folder."""
    _warnings_only()
    return StudyBar() if sys.stderr.isatty() else StudyLines()


def watch_comparison() -> StudyObserver:
    """The same for a comparison."""
    console = _warnings_only()
    return StudyTable(console) if sys.stderr.isatty() else StudyLines()


def _warnings_only() -> Console:
    watch()
    (handler,) = logging.getLogger("mtl").handlers
    handler.setLevel(logging.WARNING)
    assert isinstance(handler, LogLines)
    return handler.console


def _mean(standing: tuple[float, int]) -> str:
    mean, runs = standing
    return f"{format_number(mean)} ({runs})"


def _line(name: str, summary: dict[str, Any], reused: bool) -> str:
    """Such as `baseline digit, seed 0: digit accuracy 0.9712 (val), 3 epochs, 4.1 s`."""
    split, tasks = next(iter(summary["metrics"].items()))
    told = [f"{task} {metric} {format_number(tasks[task][metric])}" for task, metric in summary["primary"].items()]
    seconds = sum(summary["seconds_per_epoch"])
    rest = (
        "trained before"
        if reused
        else f"{summary['epochs']} epoch{'' if summary['epochs'] == 1 else 's'}, {format_duration(seconds)}"
    )
    return f"{name}: {', '.join(told)} ({split}), {rest}"

"""What a study shows on stderr: a line for each run that is done, or on a terminal a live bar over all of them."""

from __future__ import annotations

import logging
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mtlcli.cli.progress import watch
from mtlcli.studies.relate.observer import StudyObserver
from mtlcli.training.history import figure


class StudyLines(StudyObserver):
    """A plain line for each run."""

    def run_done(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        print(_line(name, summary, reused), file=sys.stderr)


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
        self.bar.update(self.line, advance=1, latest=f"{name}{' (trained before)' if reused else ''}")

    def stopped(self) -> None:
        self.bar.stop()


def watch_study() -> StudyObserver:
    """The observer of a study, and warnings on stderr: the log of each of its runs is in that run's folder."""
    watch()
    for handler in logging.getLogger("mtl").handlers:
        handler.setLevel(logging.WARNING)
    return StudyBar() if sys.stderr.isatty() else StudyLines()


def _line(name: str, summary: dict[str, Any], reused: bool) -> str:
    """Such as `baseline digit, seed 0: digit accuracy 0.9712 (val), 3 epochs, 4.1 s`."""
    split, tasks = next(iter(summary["metrics"].items()))
    told = [
        f"{task} {metric} {figure(value)}"
        for task, values in tasks.items()
        for metric, value in [next((m, v) for m, v in values.items() if m != "loss")]
    ]
    seconds = sum(summary["seconds_per_epoch"])
    rest = "trained before" if reused else f"{summary['epochs']} epochs, {seconds:.1f} s"
    return f"{name}: {', '.join(told)} ({split}), {rest}"

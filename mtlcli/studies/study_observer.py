"""What a study tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StudyObserver:
    """Base of the observers: every method does nothing."""

    def started(self, runs: int) -> None:
        """The study is about to train so many runs, or to use what it has trained before."""

    def run_done(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        """A run is done. name: such as `baseline digit, seed 0`. summary: its `summary.json`. reused: from before."""

    def run_failed(self, name: str, problem: str) -> None:
        """A run has failed, and the study goes on without it."""

    def standing(self, rows: Mapping[str, Mapping[str, tuple[float, int]]]) -> None:
        """How the methods of a comparison stand now: method → task → (mean of its primary metric on `val`, runs)."""

    def measured(self, measure: str) -> None:
        """A measure is computed and written."""

    def stopped(self) -> None:
        """No more will come: the study is done, or has failed."""

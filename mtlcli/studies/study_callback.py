"""Callbacks of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StudyCallback:
    """Base of the callbacks of a study; every method does nothing."""

    def on_study_start(self, runs: int) -> None:
        """Handle the start of the study, before the first run.

        Args:
            runs: number of runs of the study, including those that will be reused.
        """

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        """Handle a completed run.

        Args:
            name: name of the run, such as `baseline digit, seed 0`.
            summary: content of its `summary.json`.
            reused: whether the run was trained by an earlier study.
        """

    def on_run_failure(self, name: str, problem: str) -> None:
        """Handle a failed run; the study continues without it.

        Args:
            name: name of the run.
            problem: its error.
        """

    def on_means(self, rows: Mapping[str, Mapping[str, tuple[float, int]]]) -> None:
        """Handle the means of a comparison so far, after each run.

        Args:
            rows: method → task → (mean of its primary metric on `val`, number of runs).
        """

    def on_measure_end(self, measure: str) -> None:
        """Handle a measure of relations that has been computed and written.

        Args:
            measure: name of the measure.
        """

    def on_study_end(self) -> None:
        """Handle the end of the study, whether it has completed or failed."""

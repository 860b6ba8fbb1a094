"""The result of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtlcli.training.evaluate import TaskMetrics


class Summary(dict[str, Any]):
    """The content of `summary.json`: a dict, of which the most used entries are attributes too.

    Its keys are those of the file, see "summary.json" in the documentation of the run folder: `name`, `seed`, `status`,
    `error`, `run_dir`, `checkpoint`, `epochs`, `steps`, `metrics`, `examples`, `best`, `seconds_per_epoch`,
    `parameters`, `device` and others. A number that is undefined is NaN here and null in the file.
    """

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self["name"])

    @property
    def status(self) -> str:
        """`completed`, `failed` or `interrupted`."""
        return str(self["status"])

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return Path(self["run_dir"])

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, or None if no epoch has been completed."""
        return None if self["checkpoint"] is None else Path(self["checkpoint"])

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return int(self["epochs"])

    @property
    def steps(self) -> int:
        """Number of steps of the optimizer."""
        return int(self["steps"])

    @property
    def metrics(self) -> dict[str, TaskMetrics]:
        """Split → task → metric → value, of the best epoch's model."""
        metrics: dict[str, TaskMetrics] = self["metrics"]
        return metrics

    @property
    def best(self) -> dict[str, Any] | None:
        """`epoch`, `monitor` and `value` of the best epoch, or None if no epoch has been completed."""
        best: dict[str, Any] | None = self["best"]
        return best

    @property
    def parameters(self) -> dict[str, Any]:
        """Numbers of parameters: `shared`, `tasks` (by task), `total` and `trained` (not frozen)."""
        parameters: dict[str, Any] = self["parameters"]
        return parameters

"""The results of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Comparison(dict[str, Any]):
    """The result of `compare`: the content of `comparison.json`, of which the most used entries are attributes too.

    `docs/comparison.md` describes all entries.
    """

    @property
    def out(self) -> Path:
        """The folder of the study, with its tables, plots and runs."""
        return Path(self["out"])

    @property
    def findings(self) -> list[str]:
        """The result in sentences."""
        return list(self["findings"])

    @property
    def warnings(self) -> list[str]:
        """Facts that limit what can be concluded."""
        return list(self["warnings"])

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """Label of a method → its `settings`, `runs`, `metrics`, differences (`against`), `delta_m` and `cost`."""
        methods: dict[str, dict[str, Any]] = self["methods"]
        return methods

    @property
    def baseline(self) -> dict[str, Any]:
        """The single-task baselines: their `tasks`, `metrics` and `cost`."""
        baseline: dict[str, Any] = self["baseline"]
        return baseline

    @property
    def reference(self) -> str:
        """Label of the method that the others are tested against, in addition to the baselines."""
        return str(self["reference"])

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The runs that failed, with `run`, `folder` and `error`."""
        return list(self["failed"])

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the mean of each metric over the seeds.

        Returns:
            Label of a method → task → metric → mean on the final split; the baselines are `single-task`.
        """
        tables = {self.baseline["label"]: self.baseline["metrics"]}
        tables |= {label: method["metrics"] for label, method in self.methods.items()}
        return {
            label: {task: {name: values["mean"] for name, values in row.items()} for task, row in table.items()}
            for label, table in tables.items()
        }


class TaskRelations(dict[str, Any]):
    """The result of `relate`: the content of `relate.json`, of which the most used entries are attributes too.

    `docs/relations.md` describes all entries.
    """

    @property
    def out(self) -> Path:
        """The folder of the study, with matrices, heat maps and runs."""
        return Path(self["out"])

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the experiment."""
        return list(self["tasks"])

    @property
    def measures(self) -> dict[str, dict[str, Any]]:
        """Measure → its `relation` (task → task → value), `numbers` and `groups`."""
        measures: dict[str, dict[str, Any]] = self["measures"]
        return measures

    def matrix(self, measure: str | None = None) -> NDArray[np.float64]:
        """Return the relation of all pairs of tasks.

        Args:
            measure: Name of the measure; by default the first.

        Returns:
            [T, T], symmetric, in the order of `tasks`.
        """
        relation = self._measure(measure)["relation"]
        return np.array([[relation[task][other] for other in self.tasks] for task in self.tasks])

    def groups(self, measure: str | None = None) -> list[list[str]]:
        """Return the groups of tasks that the measure suggests, by average linkage.

        Args:
            measure: Name of the measure; by default the first.

        Returns:
            The groups, each a list of tasks.
        """
        return [list(group) for group in self._measure(measure)["groups"]["clustering"]["groups"]]

    def _measure(self, name: str | None) -> dict[str, Any]:
        name = next(iter(self.measures)) if name is None else name
        if name not in self.measures:
            raise KeyError(f"the measure {name!r} was not computed; these were: {', '.join(self.measures)}")
        return self.measures[name]

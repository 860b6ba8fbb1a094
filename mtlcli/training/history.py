"""Metrics of a run, epoch by epoch, and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtlcli.tables import format_csv, format_markdown, format_number
from mtlcli.training.evaluate import Amounts, TaskMetrics

HEADER = ["epoch", "step", "split", "task", "metric", "value"]
Row = tuple[int, int, str, str, str, float]
SHARING = "sharing."  # prefix of a task, for statistics of the sharing on its examples
OPTIMIZER = "optimizer."  # prefix of a parameter group


def is_task(name: str) -> bool:
    """Return whether an entry of the column `task` is a task; other entries contain a dot, unlike a task's name."""
    return "." not in name


@dataclass
class History:
    """Metrics of all epochs, in tidy form.

    Attributes:
        rows: epoch (from 1), steps up to its end, split, task, metric, value.
    """

    rows: list[Row] = field(default_factory=list)

    def add(self, epoch: int, step: int, split: str, values: TaskMetrics) -> None:
        """Add the metrics of an epoch on a split."""
        for task, metrics in values.items():
            self.rows += [(epoch, step, split, task, metric, value) for metric, value in metrics.items()]

    def series(self, split: str, metric: str) -> dict[str, tuple[list[int], list[float]]]:
        """Return task → (epochs, values) of a metric on a split."""
        series: dict[str, tuple[list[int], list[float]]] = {}
        for epoch, _, row_split, task, name, value in self.rows:
            if (row_split, name) == (split, metric):
                epochs, values = series.setdefault(task, ([], []))
                epochs.append(epoch)
                values.append(value)
        return series

    def to_csv(self) -> str:
        """Return the content of metrics.csv: floats with all digits, an empty cell for a missing value."""
        return format_csv([HEADER, *self.rows])


def table_csv(metrics: Mapping[str, TaskMetrics], examples: Mapping[str, Amounts]) -> str:
    """Format the final metrics as CSV: a row for each split and task, a column for each metric, floats with all digits.

    Args:
        metrics: split → task → metric → value.
        examples: split → task → number of labelled examples, the column `n`.

    Returns:
        The content of table.csv.
    """
    columns = metric_names(metrics)
    rows = [
        [split, task, examples[split][task], *map(values.get, columns)]
        for split, tasks in metrics.items()
        for task, values in tasks.items()
    ]
    return format_csv([["split", "task", "n", *columns], *rows])


def table_md(
    metrics: Mapping[str, TaskMetrics], examples: Mapping[str, Amounts], positive: Mapping[str, str] | None = None
) -> str:
    """Format the final metrics as a Markdown table, followed by a line with the positive classes.

    Args:
        metrics: split → task → metric → value.
        examples: split → task → number of labelled examples, the column `n`.
        positive: task → positive class, see `Run.positive`.

    Returns:
        The content of table.md.
    """
    columns = metric_names(metrics)
    rows = [
        [split, task, str(examples[split][task]), *[format_number(values.get(c)) for c in columns]]
        for split, tasks in metrics.items()
        for task, values in tasks.items()
    ]
    lines = format_markdown([["split", "task", "n", *columns], *rows], texts=2)
    if positive:
        lines += ["", yes_classes(positive)]
    return "\n".join(lines) + "\n"


def yes_classes(positive: Mapping[str, str]) -> str:
    """Return the line below a table of metrics that names the positive class of each binary task."""
    return "Counts as yes: " + ", ".join(f"{task} = {name!r}" for task, name in positive.items())


def metric_names(metrics: Mapping[str, TaskMetrics]) -> list[str]:
    """Return all metrics, in the order of first appearance."""
    return list(dict.fromkeys(name for tasks in metrics.values() for values in tasks.values() for name in values))

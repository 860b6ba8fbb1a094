"""The figures of a run, epoch by epoch, and the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtlcli.tables import format_csv, format_markdown, format_number
from mtlcli.training.evaluate import Amounts, TaskMetrics

HEADER = ["epoch", "step", "split", "task", "metric", "value"]
Row = tuple[int, int, str, str, str, float]
SHARING = "sharing."  # before a task's name, of what the sharing does with its examples
OPTIMIZER = "optimizer."  # before the name of a group of parameters


def is_task(name: str) -> bool:
    """Whether the name in a row's column `task` is a task's: what else there is has a dot, which no task's name has."""
    return "." not in name


@dataclass
class History:
    """Tidy rows: epoch (from 1), optimizer steps made by its end, split, task, metric, value."""

    rows: list[Row] = field(default_factory=list)

    def add(self, epoch: int, step: int, split: str, values: TaskMetrics) -> None:
        for task, metrics in values.items():
            self.rows += [(epoch, step, split, task, metric, value) for metric, value in metrics.items()]

    def series(self, split: str, metric: str) -> dict[str, tuple[list[int], list[float]]]:
        """Task → (epochs, values) of a metric on a split."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for epoch, _, where, task, name, value in self.rows:
            if (where, name) == (split, metric):
                epochs, values = found.setdefault(task, ([], []))
                epochs.append(epoch)
                values.append(value)
        return found

    def to_csv(self) -> str:
        """`metrics.csv`; floats with every digit, a missing value empty."""
        return format_csv([HEADER, *self.rows])


def table_csv(metrics: Mapping[str, TaskMetrics], examples: Mapping[str, Amounts]) -> str:
    """The final table as CSV: a row for each split and task, a column for each metric, every digit.

    examples: split → task → number of labelled examples, the column `n`.
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
    """Return the final table as Markdown, and a line below it that says which classes count as yes.

    examples: as of `table_csv`. positive: task → class, see `Run.positive`.
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
    """The line below a metric table that says which class counts as yes in each binary task."""
    return "Counts as yes: " + ", ".join(f"{task} = {name!r}" for task, name in positive.items())


def metric_names(metrics: Mapping[str, TaskMetrics]) -> list[str]:
    """Every metric in the table, in the order of first appearance."""
    return list(dict.fromkeys(name for tasks in metrics.values() for values in tasks.values() for name in values))

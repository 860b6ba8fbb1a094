"""What the verbs print on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.history import figure, metric_names, table_md
from mtlcli.training.run_folder import to_json


def print_json(document: Any) -> None:
    """One JSON document, a number that isn't finite as null."""
    sys.stdout.write(to_json(document))


def print_table(metrics: Mapping[str, TaskMetrics]) -> None:
    """The metric table (split → task → metric → value): drawn on a terminal, as Markdown elsewhere."""
    if not sys.stdout.isatty():
        print(table_md(metrics), end="")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "task")
    columns = metric_names(metrics)
    for column in columns:
        table.add_column(column, justify="right")
    for split, tasks in metrics.items():
        for task, values in tasks.items():
            table.add_row(split, task, *(figure(values.get(column)) for column in columns))
    Console().print(table)

"""What the verbs print on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mtlcli.cli import table
from mtlcli.tables import format_number
from mtlcli.text import printable
from mtlcli.training.data_report import report_rows
from mtlcli.training.evaluate import Amounts, TaskMetrics
from mtlcli.training.history import metric_names, table_md, yes_classes
from mtlcli.training.run_folder import to_json


def print_json(document: Any) -> None:
    """One JSON document, a number that isn't finite as null."""
    sys.stdout.write(to_json(document))


def print_table(
    metrics: Mapping[str, TaskMetrics], examples: Mapping[str, Amounts], positive: Mapping[str, str] | None = None
) -> None:
    """Print the metric table (split → task → metric → value): fitted to a terminal, as Markdown elsewhere.

    examples: split → task → number of labelled examples, the column `n`. positive: task → the class that counts as
    yes, stated below the table.
    """
    if not sys.stdout.isatty():
        print(table_md(metrics, examples, positive), end="")
        return
    columns = metric_names(metrics)
    rows = [["split", "task", "n", *columns]]
    for split, tasks in metrics.items():
        for task, values in tasks.items():
            figures = [format_number(values.get(column)) for column in columns]
            rows.append([split, task, format_number(examples[split][task]), *figures])
    for line in table.figures(rows, keys=3, texts=2):
        print(line)
    if positive:
        print(printable(yes_classes(positive)))


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what `Trainer.rehearse` found: a line for each key, and a table of the data."""
    for key, value in plan.items():
        if key != "data":
            print(printable(f"{key}: {value}"))
    if rows := list(report_rows(plan["data"])):
        print("\n".join(["", *table.lines(rows)]))


def print_compression(report: Mapping[str, Any]) -> None:
    """What was taken out of the model at the end of a run, and what that saves and costs."""
    for key in ("shared_parameters", "parameters", "flops"):
        before, after = report[key]["before"], report[key]["after"]
        print(f"{key.replace('_', ' ')}: {before:,} → {after:,} ({after / before - 1:+.1%})")
    for split, tasks in report["metrics"]["before"].items():
        for task, values in tasks.items():
            name = next(name for name in values if name != "loss")
            after = report["metrics"]["after"][split][task][name]
            print(f"{split} {task} {name}: {format_number(values[name])} → {format_number(after)}")
    for one in report["regularizers"].values():
        for layer, facts in one.get("layers", {}).items():
            print(f"{layer}: rank {facts['rank']} of {facts['of']}, {facts['parameters']:,} parameters")

"""Output of the verbs on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mtlcli.cli import table
from mtlcli.text import format_number, printable
from mtlcli.training.data_report import report_rows
from mtlcli.training.evaluate import Amounts, TaskMetrics
from mtlcli.training.history import stopped_tasks, table_md, table_rows, yes_classes
from mtlcli.training.run_folder import to_json


def print_json(document: Any) -> None:
    """Print a JSON document, in which numbers that aren't finite are null."""
    sys.stdout.write(to_json(document))


def print_table(
    metrics: Mapping[str, TaskMetrics],
    examples: Mapping[str, Amounts],
    positive: Mapping[str, str] | None = None,
    stopped: Mapping[str, int] | None = None,
) -> None:
    """Print a table of metrics: fitted to a terminal, or as Markdown if stdout is none.

    Args:
        metrics: split → task → metric → value.
        examples: split → task → number of labelled examples, the column `n`.
        positive: task → positive class, listed below the table.
        stopped: task → epoch after which it stopped, listed below the table.
    """
    if not sys.stdout.isatty():
        print(table_md(metrics, examples, positive, stopped), end="")
        return
    (header, *rows), by_class = table_rows(metrics, examples)
    rows = [header, *([split, task, f"{int(n):,}", *numbers] for split, task, n, *numbers in rows)]
    for line in table.align_numbers(rows, keys=3, texts=2):
        print(line)
    if by_class:
        print("\n".join(["", *table.align_numbers(by_class, keys=3, texts=3)]))
    if positive:
        print(printable(yes_classes(positive)))
    if stopped:
        print(printable(stopped_tasks(stopped)))


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the result of `Trainer.rehearse`: a line for each key, and a table of the data."""
    for key, value in plan.items():
        if key != "data":
            print(printable(f"{key}: {value}"))
    if rows := list(report_rows(plan["data"])):
        print("\n".join(["", *table.align_text(rows)]))


def print_compression(report: Mapping[str, Any]) -> None:
    """Print the compression of a model at the end of a run: its savings and the change of the metrics."""
    for key in ("shared_parameters", "parameters", "flops"):
        before, after = report[key]["before"], report[key]["after"]
        print(f"{key.replace('_', ' ')}: {before:,} → {after:,} ({after / before - 1:+.1%})")
    for split, tasks in report["metrics"]["before"].items():
        for task, values in tasks.items():
            name = next(name for name in values if name != "loss")
            after = report["metrics"]["after"][split][task][name]
            print(f"{split} {task} {name}: {format_number(values[name])} → {format_number(after)}")
    for regularizer in report["regularizers"].values():
        for layer, facts in regularizer.get("layers", {}).items():
            print(f"{layer}: rank {facts['rank']} of {facts['of']}, {facts['parameters']:,} parameters")

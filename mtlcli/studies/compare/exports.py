"""Comparison as CSV and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mtlcli.studies.compare.comparison_tables import header_lines, make_tables
from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.study_plots import PLOTS
from mtlcli.text import format_csv, format_markdown

HEADER = ["method", "split", "task", "metric", "n", "mean", "sd", "low", "high", "ratio",
          "against", "unit", "p", "p_holm", "examples_se"]  # fmt: skip
ALL = "all"  # in the column `task`, of values over all tasks


def to_csv(document: Document) -> str:
    """Format a comparison as `comparison.csv`, a tidy table with one value in each row.

    Besides the metrics of the tasks, the column `metric` has:

    * `difference.<metric>`: the paired difference from the reference in `against`, in `unit`, with its p-values and the
      standard error due to the sample of test examples;
    * `gap`: how much worse the primary metric is than on `train`;
    * with the task `all`: `difference.delta_m`, Δm over the primary metrics from the reference in `against`; `delta_m`
      (flat), `delta_m_by_task`, `delta_m_primary` and `mean_rank`; `difference`, the difference of the flat Δm from
      that of the reference method, with `p` and `p_holm`; and the costs, whose `ratio` is relative to the sum of the
      single-task models (for peak memory, to the largest).

    Args:
        document: the comparison.

    Returns:
        The text, with all digits; missing values are empty cells.
    """
    methods = {document["baseline"]["label"]: document["baseline"], **document["methods"]}
    rows = [
        [label, *(row.get(name) for name in HEADER[1:])]
        for label, method in methods.items()
        for row in _rows(method, document["split"])
    ]
    return format_csv([HEADER, *rows])


def _rows(method: Document, split: str) -> Iterator[Mapping[str, Any]]:
    for task, metrics in method["metrics"].items():
        for metric, values in metrics.items():
            yield {"split": split, "task": task, "metric": metric, **values}
    for task, gap in {**method["gap"]["tasks"], ALL: method["gap"]["mean"]}.items():
        yield {"split": split, "task": task, "metric": "gap", **gap}
    for reference, comparison in method.get("against", {}).items():
        for task, metrics in comparison["tasks"].items():
            for metric, difference in metrics.items():
                error = {"against": reference, "examples_se": difference["examples"]["se"]}
                yield {**difference, "split": split, "task": task, "metric": f"difference.{metric}", **error}
        delta_m = comparison["delta_m"]
        yield {**delta_m, "split": split, "task": ALL, "metric": "difference.delta_m", "against": reference}
    if "delta_m" in method:
        for task, delta_m in method["delta_m"]["tasks"].items():
            yield {"split": split, "task": task, "metric": "delta_m", **delta_m}
        for name, form in (("delta_m", "flat"), ("delta_m_by_task", "by_task"), ("delta_m_primary", "primary")):
            yield {"split": split, "task": ALL, "metric": name, **method["delta_m"][form]}
        yield {"split": split, "task": ALL, "metric": "mean_rank", "mean": method["mean_rank"]}
    if test := method.get("test"):
        yield {"split": split, "task": ALL, "metric": "difference", **test["difference"]}
        for name in ("p", "p_holm"):
            yield {"split": split, "task": ALL, "metric": name, "n": test["difference"]["n"], "mean": test[name]}
    for name, cost in method["cost"].items():
        yield {"task": ALL, "metric": name, "mean": cost["value"], "ratio": cost["ratio"]}


def to_markdown(document: Document) -> str:
    """Format a comparison as `comparison.md`: findings, warnings, all tables with notes, and links to the plots.

    Args:
        document: the comparison.

    Returns:
        The text.
    """
    lines = [f"# {document['name']}: comparison", ""]
    lines += [*(f"* {line}" for line in header_lines(document)), ""]
    for finding in document["findings"]:
        lines += [finding, ""]
    for warning in document["warnings"]:
        lines += [f"> **Warning**: {warning}", ""]
    for table in make_tables(document):
        lines += [f"## {table.title}", *format_markdown(table.rows, texts=1), ""]
        for note in table.notes:
            lines += [note, ""]
    lines += [f"![{name}]({name}.png)" for name in PLOTS]
    return "\n".join(lines) + "\n"

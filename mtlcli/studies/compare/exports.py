"""A comparison as one tidy table: a row for each figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mtlcli.studies.compare.comparison_tables import header, tables
from mtlcli.studies.compare.document import Document
from mtlcli.tables import format_csv, format_markdown

HEADER = ["method", "split", "task", "metric", "n", "mean", "sd", "low", "high", "ratio",
          "against", "unit", "p", "p_holm", "examples_se"]  # fmt: skip
ALL = "all"  # in the column `task`, of what is of all tasks


def to_csv(document: Document) -> str:
    """`comparison.csv`: every digit, a missing value empty.

    Beside the tasks' metrics, `difference.<metric>`: the paired difference from what `against` names, in `unit`, with
    its p-values and the standard error that comes from the examples; `gap`: by how much the primary metric is worse
    than on `train`. With the task `all`: `difference.delta_m`, Δm over the primary metrics against what is named;
    `delta_m` (flat), `delta_m_by_task`, `delta_m_primary`, `mean_rank`; `difference` of Δm (flat) from the reference's
    with `p` and `p_holm`; and the costs, whose `ratio` is to the sum of the single-task models (of peak memory: to the
    largest).
    """
    everyone = {document["baseline"]["label"]: document["baseline"], **document["methods"]}
    rows = [
        [label, *(row.get(name) for name in HEADER[1:])]
        for label, entry in everyone.items()
        for row in _rows(entry, document["split"])
    ]
    return format_csv([HEADER, *rows])


def _rows(one: Document, split: str) -> Iterator[Mapping[str, Any]]:
    for task, metrics in one["metrics"].items():
        for metric, found in metrics.items():
            yield {"split": split, "task": task, "metric": metric, **found}
    for task, found in {**one["gap"]["tasks"], ALL: one["gap"]["mean"]}.items():
        yield {"split": split, "task": task, "metric": "gap", **found}
    for reference, compared in one.get("against", {}).items():
        for task, metrics in compared["tasks"].items():
            for metric, found in metrics.items():
                error = {"against": reference, "examples_se": found["examples"]["se"]}
                yield {**found, "split": split, "task": task, "metric": f"difference.{metric}", **error}
        found = compared["delta_m"]
        yield {**found, "split": split, "task": ALL, "metric": "difference.delta_m", "against": reference}
    if "delta_m" in one:
        for task, found in one["delta_m"]["tasks"].items():
            yield {"split": split, "task": task, "metric": "delta_m", **found}
        for name, kind in (("delta_m", "flat"), ("delta_m_by_task", "by_task"), ("delta_m_primary", "primary")):
            yield {"split": split, "task": ALL, "metric": name, **one["delta_m"][kind]}
        yield {"split": split, "task": ALL, "metric": "mean_rank", "mean": one["mean_rank"]}
    if test := one.get("test"):
        yield {"split": split, "task": ALL, "metric": "difference", **test["difference"]}
        for name in ("p", "p_holm"):
            yield {"split": split, "task": ALL, "metric": name, "n": test["difference"]["n"], "mean": test[name]}
    for name, cost in one["cost"].items():
        yield {"task": ALL, "metric": name, "mean": cost["value"], "ratio": cost["ratio"]}


PICTURES = ("delta_m", "tasks", "cost")


def to_markdown(document: Document) -> str:
    """`comparison.md`: all tables, with what is to be known to read them, and the pictures beside it."""
    lines = [f"# {document['name']}: comparison", ""]
    lines += [*(f"* {line}" for line in header(document)), ""]
    for sentence in document["findings"]:
        lines += [sentence, ""]
    for warning in document["warnings"]:
        lines += [f"> **Warning**: {warning}", ""]
    for table in tables(document):
        lines += [f"## {table.title}", *format_markdown(table.rows, texts=1), ""]
        for note in table.notes:
            lines += [note, ""]
    lines += [f"![{name}]({name}.png)" for name in PICTURES]
    return "\n".join(lines) + "\n"

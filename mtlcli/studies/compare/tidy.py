"""A comparison as one tidy table: a row for each figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

from mtlcli.studies.compare.document import Document

HEADER = ["method", "split", "task", "metric", "n", "mean", "sd", "low", "high", "ratio"]
ALL = "all"  # in the column `task`, of what is of all tasks


def to_csv(document: Document) -> str:
    """`comparison.csv`: every digit, a missing value empty.

    Beside the tasks' metrics, `gap`: by how much the primary metric is worse than on `train`. With the task `all`:
    `delta_m` (flat), `delta_m_by_task`, `delta_m_primary`, `mean_rank`; `difference` of Δm (flat) from the reference's
    with `p` and `p_holm`; and the costs, whose `ratio` is to the sum of the single-task models.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    everyone = {document["baseline"]["label"]: document["baseline"], **document["methods"]}
    for label, one in everyone.items():
        for row in _rows(one, document["split"]):
            writer.writerow([label, *(_cell(row.get(name)) for name in HEADER[1:])])
    return text.getvalue()


def _rows(one: Document, split: str) -> Iterator[Mapping[str, Any]]:
    for task, metrics in one["metrics"].items():
        for metric, found in metrics.items():
            yield {"split": split, "task": task, "metric": metric, **found}
    for task, found in {**one["gap"]["tasks"], ALL: one["gap"]["mean"]}.items():
        yield {"split": split, "task": task, "metric": "gap", **found}
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


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)

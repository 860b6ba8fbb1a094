"""Our figures beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtlcli.studies.compare.document import estimated
from mtlcli.studies.compare.plan import BASELINE
from mtlcli.studies.compare.published import MEAN, PublishedTable
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import Figures


def beside(results: Results, tables: Sequence[PublishedTable]) -> list[dict[str, Any]]:
    """Each published table with our estimate of every figure; null where no method here has the row's name."""
    ours = {method.label: results.figures(method) for method in results.plan.methods}
    ours[BASELINE] = results.baseline
    return [
        {
            "source": table.source,
            "note": table.note,
            "metrics": table.metrics,
            "rows": {
                name: {
                    task: {
                        "published": figure.value,
                        "spread": figure.spread,
                        "ours": _ours(results, ours[name], task, table.metrics[task]) if name in ours else None,
                    }
                    for task, figure in row.items()
                }
                for name, row in table.rows.items()
            },
        }
        for table in tables
    ]


def _ours(results: Results, figures: Figures, task: str, metric: str) -> dict[str, Any]:
    tasks = results.plan.tasks if task == MEAN else [task]
    parts = [figures[results.primary[one] if metric == "primary" else (one, metric)] for one in tasks]
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
    return estimated([sum(part[seed] for part in parts) / len(parts) for seed in seeds])

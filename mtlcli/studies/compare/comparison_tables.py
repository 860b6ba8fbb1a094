"""Tables of a comparison, made from its document alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.formatting import (
    EMPTY,
    Table,
    format_bytes,
    format_estimate,
    format_large,
    format_ratio,
    is_missing,
)
from mtlcli.studies.compare.metric_tables import (
    all_metrics_table,
    delta_m_table,
    differences_table,
    flat_delta_m_table,
    last_epochs_table,
    means_table,
    reference_labels,
)
from mtlcli.text import format_interval, format_number

COST_HEADS = {
    "parameters": "parameters",
    "checkpoint_bytes": "checkpoint",
    "flops": "FLOPs per sample",
    "seconds_per_epoch": "s per epoch",
    "peak_memory_bytes": "peak memory",
}
COST_FORMATS: dict[str, Callable[[float], str]] = {
    "parameters": lambda value: format_number(int(value)),
    "checkpoint_bytes": format_bytes,
    "flops": format_large,
    "seconds_per_epoch": format_number,
    "peak_memory_bytes": format_bytes,
}
PACKAGES = {"mtl": "mtl", "python": "Python", "torch": "torch", "numpy": "numpy", "scikit-learn": "scikit-learn"}


def make_tables(document: Document) -> list[Table]:
    """Make all tables of a comparison.

    Args:
        document: the comparison.

    Returns:
        Differences, Δm, means, claims for sharing and cost; then tuned values, published results and failed runs, as
        far as they exist; and the appendix.
    """
    tables = [differences_table(document, reference) for reference in reference_labels(document)]
    tables += [delta_m_table(document), means_table(document), _claims_table(document), _cost_table(document)]
    if document["tuning"] is not None:
        tables.append(_tuning_table(document))
    if merged := _coefficients_table(document):
        tables.append(merged)
    tables += [_published_table(document, table) for table in document["published"]]
    if document["failed"]:
        failed = [[run["run"], run["error"]] for run in document["failed"]]
        tables.append(Table("Failed runs", [["run", "reason"], *failed]))
    tables += [flat_delta_m_table(document), all_metrics_table(document)]
    return tables if document["last"] is None else [*tables, last_epochs_table(document)]


def header_lines(document: Document) -> list[str]:
    """Describe the study: the command, the numbers of examples, the seeds and the versions.

    Args:
        document: the comparison.

    Returns:
        The lines.
    """
    tasks, seeds = document["tasks"], document["seeds"]
    counts = ", ".join(
        f"{task} {facts['examples']:,}" for task, facts in tasks.items() if facts["examples"] is not None
    )
    versions = ", ".join(f"{name} {document['versions'][key]}" for key, name in PACKAGES.items())
    return [
        *([f"Command: {document['command']}"] if document["command"] else []),
        f"Examples in `{document['split']}`: {counts or 'unknown (runs of an earlier version)'}",
        f"Seeds: {', '.join(map(str, seeds))} ({len(seeds)}); epochs: {document['epochs']}; "
        f"best epoch selected on `{document['evaluated']}`",
        f"Versions: {versions}",
    ]


def _claims_table(document: Document) -> Table:
    methods, base = document["methods"], document["baseline"]

    def row(claim: str, cell: Callable[[Document], str]) -> list[str]:
        return [claim, *map(cell, methods.values())]

    base_gap = format_estimate(base["gap"]["mean"])
    rows = [
        ["claim", *methods],
        row("fewer parameters: ratio ↓", lambda method: format_ratio(method["cost"]["parameters"]["ratio"])),
        row(
            "transfer: Δm over the primary metrics ↓",
            lambda method: format_estimate(method["delta_m"]["primary"], signed=True),
        ),
        row(f"generalization: gap ↓ (single-task {base_gap})", lambda method: format_estimate(method["gap"]["mean"])),
        row("less compute: ratio of FLOPs ↓", lambda method: format_ratio(method["cost"]["flops"]["ratio"])),
        row(
            "less compute: ratio of s per epoch ↓",
            lambda method: format_ratio(method["cost"]["seconds_per_epoch"]["ratio"]),
        ),
        row(
            "less storage: ratio of checkpoints ↓",
            lambda method: format_ratio(method["cost"]["checkpoint_bytes"]["ratio"]),
        ),
    ]
    notes = [
        "Ratios are relative to the sum of the single-task models. Gap: how much worse the primary metric is on "
        f"`{document['split']}` than on `train`, averaged over the tasks."
    ]
    return Table("Claims for sharing", rows, notes)


def _cost_table(document: Document) -> Table:
    def cells(cost: Mapping[str, Any]) -> list[str]:
        return [
            EMPTY
            if is_missing(cost[name]["value"])
            else f"{format_cost(cost[name]['value'])} ({_format_ratios(cost[name])})"
            for name, format_cost in COST_FORMATS.items()
        ]

    rows = [["method", *COST_HEADS.values()]]
    rows.append([f"{document['baseline']['label']}, all", *cells(document["baseline"]["cost"])])
    rows += [[label, *cells(method["cost"])] for label, method in document["methods"].items()]
    notes = [
        "In parentheses: ratio to the sum of the single-task models. Peak memory is that of the tensors in training, "
        "without libraries and data. Its ratios are to the largest single-task model (the models are trained one after "
        "another) and to their sum (simultaneously)."
    ]
    if any("merge" in method["settings"] for method in document["methods"].values()):
        notes.append(
            "Merged models are made of the single-task models, whose seconds per epoch and memory they have; their "
            "checkpoints have no optimizer state."
        )
    return Table("Cost", rows, notes)


def _format_ratios(cost: Mapping[str, Any]) -> str:
    return ", ".join(format_ratio(cost[name]) for name in ("ratio", "ratio_to_sum") if name in cost)


def _tuning_table(document: Document) -> Table:
    keys = document["tuning"]["keys"]
    base = document["baseline"]
    baselines = {f"{base['label']} {task}": baseline for task, baseline in base["tasks"].items()}
    rows = [["method", *keys, "tried"]]
    for label, method in {**baselines, **document["methods"]}.items():
        tuned = method["tuned"]
        if tuned is None:
            rows.append([label, *[EMPTY] * len(keys), "nothing to tune"])
            continue
        settings = tuned["settings"] or {}
        cells = [
            f"{settings[key]}{' (edge)' if key in tuned['at_edge'] else ''}" if key in settings else EMPTY
            for key in keys
        ]
        tried = [
            f"{point}: {'failed' if is_missing(value) else format_number(value)}"
            for point, value in tuned["tried"].items()
        ]
        rows.append([label, *cells, ", ".join(tried)])
    seeds = document["tuning"]["seeds"]
    note = (
        f"Selected by the monitored metric on `{document['evaluated']}`, with the seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}; `test` is not used."
    )
    return Table("Tuned values", rows, [note])


def _coefficients_table(document: Document) -> Table | None:
    """Return the coefficients of the merged models; None if there are none."""
    rows = [
        [label, str(run["seed"]), ", ".join(f"{task} {value:g}" for task, value in run["coefficients"].items())]
        for label, method in document["methods"].items()
        for run in method["runs"]
        if "coefficients" in run
    ]
    note = f"Selected by Δm relative to the single-task models on `{document['evaluated']}`; `test` is not used."
    return Table("Coefficients of merged models", [["method", "seed", "coefficients"], *rows], [note]) if rows else None


def _published_table(document: Document, table: Document) -> Table:
    columns, delta_m, mean_rank = list(table["metrics"]), table["delta_m"], table["mean_rank"]
    names = [f"{column.partition('.')[0]} {table['metrics'][column]}" for column in columns]
    names += ["Δm %"] if delta_m else []
    heads = [f"{name}: {source}" for name in names for source in ("published", "ours")]
    rows = [["method", *heads, *(["MR: published"] if mean_rank else [])]]
    for label, row in table["rows"].items():
        values = [*map(row.get, columns), *([delta_m.get(label)] if delta_m else [])]
        cells = [cell for value in values for cell in _published_cells(value)]
        if mean_rank:
            cells.append(_published_cells(mean_rank.get(label))[0])
        rows.append([label, *cells])
    return Table(f"Published: {table['source']}", rows, _published_notes(table))


def _published_cells(value: Document | None) -> list[str]:
    """Format a published value, and ours."""
    if value is None:
        return [EMPTY, EMPTY]
    computed = " (computed)" if value.get("computed") else ""
    ours = value.get("ours")
    return [
        format_interval(value["published"], value["spread"]) + computed,
        EMPTY if ours is None else f"{format_estimate(ours)} (n {ours['n']})",
    ]


def _published_notes(table: Document) -> list[str]:
    notes = [table["note"]] if table["note"] else []
    if table["last"] is not None:
        ours = (
            "likewise"
            if table["ours"] == "last"
            else f"of the best epoch (`evaluation.last: {table['last']}` adds the means)"
        )
        notes.append(f"Published: means over the last {table['last']} epochs. Ours: {ours}.")
    if table["delta_m"]:
        notes.append(
            "Δm %: mean over the metrics of this table of how much worse they are than single-task, in percent of its "
            "values, as Δm (flat); lower is better. Published: as printed there, or computed from the printed values."
        )
    if table["mean_rank"]:
        notes.append("MR: mean rank among the methods of the published table.")
    return notes

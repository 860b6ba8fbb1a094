"""The tables of a comparison, as people read them: made from its document, so that all that is shown is in that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.formatting import (
    NOTHING,
    Table,
    big,
    byte_count,
    interval,
    missing,
    ratio,
    signed_interval,
)
from mtlcli.studies.compare.metric_tables import all_metrics, delta, differences, flat, means, references
from mtlcli.tables import format_interval, format_number

COST = {
    "parameters": "parameters",
    "checkpoint_bytes": "checkpoint",
    "flops": "FLOPs per sample",
    "seconds_per_epoch": "s per epoch",
    "peak_memory_bytes": "peak memory",
}


def tables(document: Document) -> list[Table]:
    """All tables: differences first, then means, claims, cost; tuned values, published figures, failures; appendix."""
    found = [differences(document, reference) for reference in references(document)]
    found += [delta(document), means(document), _claims(document), _cost(document)]
    if document["tuning"] is not None:
        found.append(_tuned(document))
    found += [_published(document, table) for table in document["published"]]
    if document["failed"]:
        found.append(Table("Failed", [["run", "why"], *([one["run"], one["error"]] for one in document["failed"])]))
    return [*found, flat(document), all_metrics(document)]


def header(document: Document) -> list[str]:
    """The command, the number of examples, the seeds and the versions, a line each."""
    facts, seeds = document["tasks"], document["seeds"]
    counts = ", ".join(f"{task} {one['examples']:,}" for task, one in facts.items() if one["examples"] is not None)
    names = {"mtl": "mtl", "python": "Python", "torch": "torch", "numpy": "numpy", "scikit-learn": "scikit-learn"}
    versions = ", ".join(f"{names[name]} {document['versions'][name]}" for name in names)
    return [
        *([f"Command: {document['command']}"] if document["command"] else []),
        f"Examples in `{document['split']}`: {counts or 'unknown (runs of an earlier version)'}",
        f"Seeds: {', '.join(map(str, seeds))} ({len(seeds)}); epochs: {document['epochs']}; "
        f"the epoch is chosen on `{document['evaluated']}`",
        f"Versions: {versions}",
    ]


def _claims(document: Document) -> Table:
    """What is claimed for sharing, each with a number."""
    methods, base = document["methods"], document["baseline"]

    def row(claim: str, of: Callable[[Document], str]) -> list[str]:
        return [claim, *(of(one) for one in methods.values())]

    alone = interval(base["gap"]["mean"])
    rows = [
        ["claim", *methods],
        row("fewer parameters: ratio ↓", lambda one: ratio(one["cost"]["parameters"]["ratio"])),
        row("transfer: Δm over the primary metrics ↓", lambda one: signed_interval(one["delta_m"]["primary"])),
        row(f"generalization: gap ↓ (single-task {alone})", lambda one: interval(one["gap"]["mean"])),
        row("less compute: ratio of FLOPs ↓", lambda one: ratio(one["cost"]["flops"]["ratio"])),
        row("less compute: ratio of s per epoch ↓", lambda one: ratio(one["cost"]["seconds_per_epoch"]["ratio"])),
        row("less storage: ratio of checkpoints ↓", lambda one: ratio(one["cost"]["checkpoint_bytes"]["ratio"])),
    ]
    notes = [
        "Ratios are to the sum of the single-task models. Gap: how much worse the primary metric is on "
        f"`{document['split']}` than on `train`, a mean over the tasks."
    ]
    return Table("Claims for sharing", rows, notes)


def _cost(document: Document) -> Table:
    shown: dict[str, Callable[[float], str]] = {
        "parameters": lambda value: format_number(int(value)),
        "checkpoint_bytes": byte_count,
        "flops": big,
        "seconds_per_epoch": format_number,
        "peak_memory_bytes": byte_count,
    }

    def cells(cost: Mapping[str, Any]) -> list[str]:
        return [
            NOTHING if missing(cost[name]["value"])
            else f"{show(cost[name]['value'])} ({_ratios(cost[name])})"
            for name, show in shown.items()
        ]  # fmt: skip

    rows = [["method", *COST.values()]]
    rows.append([f"{document['baseline']['label']}, all", *cells(document["baseline"]["cost"])])
    rows += [[label, *cells(one["cost"])] for label, one in document["methods"].items()]
    notes = [
        "In parentheses the ratio to the sum of the single-task models. Peak memory: of the tensors in training, "
        "without the libraries and the data; the ratios are to the largest single-task model (trained one after "
        "another) and to their sum (side by side)."
    ]
    return Table("Cost", rows, notes)


def _ratios(cost: Mapping[str, Any]) -> str:
    return ", ".join(ratio(cost[name]) for name in ("ratio", "ratio_to_sum") if name in cost)


def _tuned(document: Document) -> Table:
    keys = document["tuning"]["keys"]
    entries = {f"{document['baseline']['label']} {task}": one for task, one in document["baseline"]["tasks"].items()}
    rows = [["method", *keys, "tried"]]
    for label, one in {**entries, **document["methods"]}.items():
        tuned = one["tuned"]
        if tuned is None:
            rows.append([label, *[NOTHING] * len(keys), "nothing to tune"])
            continue
        settings = tuned["settings"] or {}
        cells = [
            f"{settings[key]}{' (edge)' if key in tuned['at_edge'] else ''}" if key in settings else NOTHING
            for key in keys
        ]
        tried = [
            f"{point}: {'failed' if missing(value) else format_number(value)}"
            for point, value in tuned["tried"].items()
        ]
        rows.append([label, *cells, ", ".join(tried)])
    seeds = ", ".join(map(str, document["tuning"]["seeds"]))
    note = f"By the monitored metric on `{document['evaluated']}`, with seed {seeds}; `test` has no part in it."
    return Table("Tuned", rows, [note])


def _published(document: Document, table: Document) -> Table:
    columns = list(table["metrics"])
    names = [f"{task} {table['metrics'][task]}" for task in columns]
    rows = [["method", *(f"{name}: {whose}" for name in names for whose in ("published", "ours"))]]
    for name, row in table["rows"].items():
        cells = []
        for task in columns:
            one = row.get(task)
            cells.append(NOTHING if one is None else format_interval(one["published"], one["spread"]))
            ours = None if one is None else one["ours"]
            cells.append(NOTHING if ours is None else f"{interval(ours)} (n {ours['n']})")
        rows.append([name, *cells])
    return Table(f"Published: {table['source']}", rows, [table["note"]] if table["note"] else [])

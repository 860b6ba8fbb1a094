"""The tables of a comparison, as people read them: made from its document, so that all that is shown is in that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.shown import (
    NOTHING,
    big,
    byte_count,
    four_decimals,
    interval,
    p_value,
    ratio,
    signed,
    two_decimals,
)
from mtlcli.training.history import figure

ARROWS = {"max": "↑", "min": "↓"}
COST = {
    "parameters": "parameters",
    "checkpoint_bytes": "checkpoint",
    "flops": "FLOPs per sample",
    "seconds_per_epoch": "s per epoch",
    "peak_memory_bytes": "peak memory",
}


@dataclass(frozen=True)
class Table:
    """rows: the head first. notes: what is to be known to read it."""

    title: str
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def tables(document: Document) -> list[Table]:
    """All there is to show: results, claims, cost; where they are, tuned values, published figures, failures."""
    found = [_results(document), _claims(document), _cost(document)]
    if document["tuning"] is not None:
        found.append(_tuned(document))
    found += [_published(document, table) for table in document["published"]]
    if document["failed"]:
        found.append(Table("Failed", [["run", "why"], *([one["run"], one["error"]] for one in document["failed"])]))
    return found


def _results(document: Document) -> Table:
    methods, tasks = document["methods"], document["tasks"]
    primary = {task: facts["primary"] for task, facts in tasks.items()}
    heads = [f"{task} {name} {ARROWS[tasks[task]['metrics'][name]]}" for task, name in primary.items()]
    rows = [["method", "n", *heads, "Δm % ↓", "Δm by task % ↓", "Δm primary % ↓", "MR ↓", "p (Holm)"]]
    base, alone = document["baseline"], document["baseline"]["tasks"].values()
    figures = [interval(base["metrics"][task][name], figure) for task, name in primary.items()]
    counts = sorted({one["n"] for one in alone})
    seeds = len(document["seeds"])
    rows.append([base["label"], _count("–".join(map(str, counts)), seeds), *figures, "0", "0", "0", NOTHING, NOTHING])
    for label, one in methods.items():
        figures = [interval(one["metrics"][task][name], figure) for task, name in primary.items()]
        deltas = [interval(one["delta_m"][kind], signed) for kind in ("flat", "by_task", "primary")]
        test = "reference" if one["test"] is None else p_value(one["test"]["p_holm"])
        rows.append([label, _count(str(one["n"]), seeds), *figures, *deltas, two_decimals(one["mean_rank"]), test])
    return Table("Results", rows, list(_notes(document)))


def _notes(document: Document) -> Iterator[str]:
    seeds, split = len(document["seeds"]), document["split"]
    yield (
        f"Figures of the split `{split}`, of the epoch that was best by `{document['evaluated']}`; "
        + (f"mean ± half of the {document['confidence']:.0%} interval (Student's t) over n seeds." if seeds > 1
           else "one seed (n = 1): there is no interval, and nothing to test by.")
    )  # fmt: skip
    yield (
        "Δm: how much worse than the single-task baselines, in percent, so less is better: the mean over all metrics, "
        "flat; by task, the mean over the tasks of the mean over their metrics; and over the primary metrics alone. "
        "MR: mean rank over all metrics, among the methods."
    )
    if seeds > 1 and len(document["methods"]) > 1:
        tests = len(document["methods"]) - 1
        corrected = f", with Holm's correction for {tests} tests" if tests > 1 else ""
        yield f"p: paired t test of Δm (flat) against {document['reference']}, over the seeds{corrected}."
    if left := document["left_out_of_delta_m"]:
        names = ", ".join(f"{one['task']} {one['metric']}" for one in left)
        yield f"Not in Δm, as the baseline has no value or 0: {names}."


def _claims(document: Document) -> Table:
    """What is claimed for sharing, each with a number."""
    methods, base = document["methods"], document["baseline"]

    def row(claim: str, of: Callable[[Document], str]) -> list[str]:
        return [claim, *(of(one) for one in methods.values())]

    alone = interval(base["gap"]["mean"], four_decimals)
    rows = [
        ["claim", *methods],
        row("fewer parameters: ratio ↓", lambda one: ratio(one["cost"]["parameters"]["ratio"])),
        row("transfer: Δm % ↓", lambda one: interval(one["delta_m"]["flat"], signed)),
        row("transfer: Δm primary % ↓", lambda one: interval(one["delta_m"]["primary"], signed)),
        row(f"generalization: gap ↓ (single-task {alone})", lambda one: interval(one["gap"]["mean"], four_decimals)),
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
        "parameters": lambda value: f"{value:,.0f}",
        "checkpoint_bytes": byte_count,
        "flops": big,
        "seconds_per_epoch": lambda value: f"{value:.3g}",
        "peak_memory_bytes": byte_count,
    }

    def cells(cost: Mapping[str, Any]) -> list[str]:
        return [
            NOTHING if cost[name]["value"] is None or cost[name]["value"] != cost[name]["value"]
            else f"{show(cost[name]['value'])} ({ratio(cost[name]['ratio'])})"
            for name, show in shown.items()
        ]  # fmt: skip

    rows = [["method", *COST.values()]]
    rows.append([f"{document['baseline']['label']}, sum", *cells(document["baseline"]["cost"])])
    rows += [[label, *cells(one["cost"])] for label, one in document["methods"].items()]
    return Table("Cost", rows, ["In parentheses the ratio to the sum of the single-task models."])


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
        tried = [f"{point}: {figure(value) or 'failed'}" for point, value in tuned["tried"].items()]
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
            spread = "" if one is None or one["spread"] is None else f" ± {figure(one['spread'])}"
            cells.append(NOTHING if one is None else f"{figure(one['published'])}{spread}")
            ours = None if one is None else one["ours"]
            cells.append(NOTHING if ours is None else f"{interval(ours, figure)} (n {ours['n']})")
        rows.append([name, *cells])
    return Table(f"Published: {table['source']}", rows, [table["note"]] if table["note"] else [])


def _count(known: str, seeds: int) -> str:
    return known if known == str(seeds) else f"{known} of {seeds}"

"""The tables of metrics in a comparison: differences, Δm, means, and the appendix."""

from __future__ import annotations

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.formatting import (
    NOTHING,
    Table,
    difference,
    interval,
    missing,
    p_value,
    shown,
    signed,
    signed_interval,
)
from mtlcli.studies.compare.statistics import FEWEST
from mtlcli.tables import format_number

ARROWS = {"max": "↑", "min": "↓"}


def references(document: Document) -> list[str]:
    """Labels of the references: the baselines, and the reference method where there are others."""
    return list(dict.fromkeys(name for one in document["methods"].values() for name in one["against"]))


def differences(document: Document, reference: str) -> Table:
    """Each method's differences from a reference, task by task."""
    alone = reference == document["baseline"]["label"]
    rows = [["task, metric", "method", "difference", "test examples", "p (Holm)", "n", reference, "method's"]]
    for task, facts in document["tasks"].items():
        metric = facts["primary"]
        for label, one in document["methods"].items():
            if reference in one["against"]:
                found = one["against"][reference]["tasks"][task][metric]
                rows.append([f"{task}, {metric} {ARROWS[facts['metrics'][metric]]}", label, *_difference(found)])
    title = "single-task baselines" if alone else f"{reference}"
    notes = _of_differences(document) if alone else ["As above, with Holm's correction for the tests of this table."]
    return Table(f"Difference from {'the ' if alone else ''}{title}", rows, notes, keys=2)


def _of_differences(document: Document) -> list[str]:
    return [
        "Difference: method − reference in each task's primary metric, paired by seed over the n seeds in which both "
        "have a value; both means are over these seeds. In points (hundredths) for metrics whose best value is 1, in "
        "percent of the reference for errors.",
        f"±: half of the {document['confidence']:.0%} interval (Student's t) over the seeds. p: paired t test over the "
        "seeds, with Holm's correction for all tests of the table. Fewer than three seeds have neither."
        if len(document["seeds"]) >= FEWEST
        else f"With fewer than {FEWEST} seeds there is neither an interval over the seeds nor a p-value.",
        f"Test examples: half of the {document['confidence']:.0%} interval that comes from the choice of the examples "
        f"in `{document['split']}` (bootstrap).",
    ]


def _difference(found: Document) -> list[str]:
    text = difference(found)
    examples = found["examples"]
    half = NOTHING if missing(examples["se"]) else f"± {format_number((examples['high'] - examples['low']) / 2)}"
    both = [shown(found[side]) for side in ("reference", "method")]
    return [text, half, p_value(found["p_holm"]), str(found["n"]), *both]


def delta(document: Document) -> Table:
    """Δm over the primary metrics, against each reference."""
    names = references(document)
    heads = [head for name in names for head in (f"Δm from {name} ↓", "mostly from", "p (Holm)")]
    rows = [["method", *heads]]
    for label, one in document["methods"].items():
        cells = []
        for name in names:
            if name not in one["against"]:
                cells += ["reference", NOTHING, NOTHING]
                continue
            found = one["against"][name]["delta_m"]
            largest = found["largest"]
            part = NOTHING if largest is None else f"{largest} ({signed(found['parts'][largest])})"
            cells += [signed_interval(found), part, p_value(found["p_holm"])]
        rows.append([label, *cells])
    notes = [
        "Δm: mean over the tasks of how much worse the primary metric is than the reference's (less is better), in the "
        "units of the tables above, so nothing is divided by a metric near 0. Mostly from: the task with the largest "
        "part of Δm, and that part. p: t test of Δm against 0 over the seeds, with Holm's correction for all methods."
    ]
    for name in names:
        for label, one in document["methods"].items():
            if left := one["against"].get(name, {"delta_m": {"left_out": []}})["delta_m"]["left_out"]:
                notes.append(f"Not in {label}'s Δm from {name}, for want of a value: {', '.join(left)}.")
    return Table("Δm over the primary metrics", rows, notes)


def means(document: Document) -> Table:
    """Means of the primary metrics over the seeds that each method has."""
    methods, tasks = document["methods"], document["tasks"]
    primary = {task: facts["primary"] for task, facts in tasks.items()}
    heads = [f"{task} {name} {ARROWS[tasks[task]['metrics'][name]]}" for task, name in primary.items()]
    rows = [["method", "n", *heads]]
    base, asked, amount = document["baseline"], len(document["seeds"]), list[int]()
    seeds = {label: [_seeds_done(one)] for label, one in methods.items()}
    seeds[base["label"]] = [_seeds_done(one) for one in base["tasks"].values()]
    for label, one in {base["label"]: base, **methods}.items():
        found = [one["metrics"][task][name] for task, name in primary.items()]
        amount += [cell["n"] for cell in found]
        cells = [f"{interval(cell)}{_lacking(cell['n'], asked)}" for cell in found]
        rows.append([label, _count(seeds[label], asked), *cells])
    return Table("Means of the primary metrics", rows, [_of_means(document, set(amount) == {asked})])


def _lacking(n: int, asked: int) -> str:
    return f" (n {n})" if 0 < n < asked else ""


def _seeds_done(one: Document) -> list[int]:
    return [run["seed"] for run in one["runs"] if run["status"] == "completed"]


def _of_means(document: Document, complete: bool) -> str:
    seeds = document["seeds"]
    note = f"On the split `{document['split']}`, of the epoch that was best on `{document['evaluated']}`; "
    if len(seeds) < FEWEST:
        return note + f"fewer than {FEWEST} seeds: no interval."
    note += f"mean ± half of the {document['confidence']:.0%} interval (Student's t) over "
    if complete:
        return note + f"all {len(seeds)} seeds."
    return note + (
        "the seeds that have a value, which are not the same in every cell (n where some lack one): compare methods by "
        "the paired differences above."
    )


def flat(document: Document) -> Table:
    """The Δm of the published tables."""
    rows = [["method", "Δm % ↓", "Δm by task % ↓", "MR ↓", "p (Holm)"]]
    for label, one in document["methods"].items():
        deltas = [signed_interval(one["delta_m"][kind]) for kind in ("flat", "by_task")]
        test = "reference" if one["test"] is None else p_value(one["test"]["p_holm"])
        rows.append([label, *deltas, shown(one["mean_rank"]), test])
    notes = [
        "As in the tables of Nash-MTL and FAMO: percent worse than the single-task baselines, relative to their means, "
        "so that a metric near 0 outweighs all others: flat, the mean over all metrics; by task, the mean over the "
        f"tasks of the mean over their metrics. MR: mean rank over all metrics. p: paired t test of Δm (flat) against "
        f"{document['reference']}."
    ]
    if left := document["left_out_of_delta_m"]:
        names = ", ".join(f"{one['task']} {one['metric']}" for one in left)
        notes.append(f"Not in Δm, as the baseline has no value or 0: {names}.")
    return Table("Appendix: Δm over all metrics", rows, notes)


def all_metrics(document: Document) -> Table:
    """Differences from the baselines in every metric."""
    label = document["baseline"]["label"]
    methods = document["methods"]
    rows = [["task, metric", label, *methods]]
    for task, facts in document["tasks"].items():
        for metric, way in facts["metrics"].items():
            cells = [difference(one["against"][label]["tasks"][task][metric]) for one in methods.values()]
            base = shown(document["baseline"]["metrics"][task][metric]["mean"])
            rows.append([f"{task}, {metric} {ARROWS[way]}", base, *cells])
    note = "Differences from the single-task baselines, as above; nothing here is tested."
    return Table("Appendix: all metrics", rows, [note])


def _count(seeds: list[list[int]], asked: int) -> str:
    """Number of seeds, such as `3`, `2 of 3: 0, 2`, or `2–3 of 3` where tasks differ."""
    counts = sorted({len(found) for found in seeds})
    if counts == [asked]:
        return str(asked)
    count = f"{'–'.join(map(str, counts))} of {asked}"
    return f"{count}: {', '.join(map(str, seeds[0]))}" if len(seeds) == 1 and seeds[0] else count

"""Tables of metrics in a comparison: differences, Δm, means, and the appendix."""

from __future__ import annotations

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.formatting import (
    EMPTY,
    Table,
    format_difference,
    format_estimate,
    format_p,
    format_value,
    is_missing,
)
from mtlcli.studies.compare.statistics import MIN_VALUES
from mtlcli.text import format_interval, format_number

ARROWS = {"max": "↑", "min": "↓"}


def reference_labels(document: Document) -> list[str]:
    """Return the labels of the references: the baselines, and the reference method of two or more methods."""
    return list(dict.fromkeys(name for method in document["methods"].values() for name in method["against"]))


def differences_table(document: Document, reference: str) -> Table:
    """Make the table of each method's differences from a reference in the primary metrics.

    Args:
        document: the comparison.
        reference: label of the reference.

    Returns:
        The table, with a row for each task and method.
    """
    is_baseline = reference == document["baseline"]["label"]
    head = [
        "task, metric",
        "method",
        "difference",
        "test examples",
        "p (Holm)",
        "n",
        f"{reference} mean",
        "method mean",
    ]
    rows = [head]
    for task, facts in document["tasks"].items():
        metric = facts["primary"]
        for label, method in document["methods"].items():
            if reference in method["against"]:
                difference = method["against"][reference]["tasks"][task][metric]
                name = f"{task}, {metric} {ARROWS[facts['metrics'][metric]]}"
                rows.append([name, label, *_difference_cells(difference)])
    title = f"Difference from {'the single-task baselines' if is_baseline else reference}"
    notes = (
        _difference_notes(document) if is_baseline else ["As above. Holm's correction is for the tests of this table."]
    )
    return Table(title, rows, notes, key_columns=2)


def _difference_notes(document: Document) -> list[str]:
    confidence = f"{document['confidence']:.0%}"
    return [
        "Difference: method − reference in the primary metric of each task, paired by seed over the n seeds for which "
        "both have a value; the means are over these seeds. In points (hundredths) for metrics whose best value is 1, "
        "in percent of the reference for errors.",
        f"±: half the width of the {confidence} interval over the seeds (Student's t). p: two-sided paired t-test over "
        "the seeds, with Holm's correction for all tests of the table. Rows with n < 3 have neither."
        if len(document["seeds"]) >= MIN_VALUES
        else f"Intervals over the seeds and p-values require at least {MIN_VALUES} seeds.",
        f"Test examples: half the width of the {confidence} interval due to the sample of examples in "
        f"`{document['split']}` (bootstrap).",
    ]


def _difference_cells(difference: Document) -> list[str]:
    examples = difference["examples"]
    error = EMPTY if is_missing(examples["se"]) else f"± {format_number((examples['high'] - examples['low']) / 2)}"
    means = [format_value(difference[side]) for side in ("reference", "method")]
    return [format_difference(difference), error, format_p(difference["p_holm"]), str(difference["n"]), *means]


def delta_m_table(document: Document) -> Table:
    """Make the table of Δm over the primary metrics, from each reference.

    Args:
        document: the comparison.

    Returns:
        The table, with a row for each method.
    """
    references = reference_labels(document)
    rows = [
        ["method", *(head for name in references for head in (f"Δm from {name} ↓", "largest contribution", "p (Holm)"))]
    ]
    for label, method in document["methods"].items():
        cells = []
        for name in references:
            if name not in method["against"]:
                cells += ["reference", EMPTY, EMPTY]
                continue
            delta_m = method["against"][name]["delta_m"]
            task = delta_m["largest"]
            contribution = EMPTY if task is None else f"{task} ({format_interval(delta_m['parts'][task], signed=True)})"
            cells += [format_estimate(delta_m, signed=True), contribution, format_p(delta_m["p_holm"])]
        rows.append([label, *cells])
    notes = [
        "Δm: mean over the tasks of how much worse the primary metric is than that of the reference; lower is better. "
        "In the units of the tables above, so that nothing is divided by a metric near 0. Largest contribution: the "
        "task that contributes most to Δm, and its contribution. p: t-test of Δm against 0 over the seeds, with Holm's "
        "correction for all methods."
    ]
    for name in references:
        for label, method in document["methods"].items():
            excluded = method["against"][name]["delta_m"]["left_out"] if name in method["against"] else []
            if excluded:
                notes.append(f"Not included in Δm of {label} from {name}, for lack of a value: {', '.join(excluded)}.")
    return Table("Δm over the primary metrics", rows, notes)


def means_table(document: Document) -> Table:
    """Make the table of the means of the primary metrics, over all seeds that each method has.

    Args:
        document: the comparison.

    Returns:
        The table, with a row for the baselines and one for each method.
    """
    methods, tasks = document["methods"], document["tasks"]
    primary = {task: facts["primary"] for task, facts in tasks.items()}
    heads = [f"{task} {name} {ARROWS[tasks[task]['metrics'][name]]}" for task, name in primary.items()]
    rows = [["method", "n", *heads]]
    base, planned, counts = document["baseline"], len(document["seeds"]), list[int]()
    seeds = {label: [_completed_seeds(method)] for label, method in methods.items()}
    seeds[base["label"]] = [_completed_seeds(task) for task in base["tasks"].values()]
    for label, method in {base["label"]: base, **methods}.items():
        means = [method["metrics"][task][name] for task, name in primary.items()]
        counts += [mean["n"] for mean in means]
        cells = [f"{format_estimate(mean)}{_incomplete_count(mean['n'], planned)}" for mean in means]
        rows.append([label, _format_seeds(seeds[label], planned), *cells])
    return Table("Means of the primary metrics", rows, [_means_note(document, set(counts) == {planned})])


def _incomplete_count(n: int, planned: int) -> str:
    return f" (n {n})" if 0 < n < planned else ""


def _completed_seeds(method: Document) -> list[int]:
    return [run["seed"] for run in method["runs"] if run["status"] == "completed"]


def _means_note(document: Document, complete: bool) -> str:
    seeds = document["seeds"]
    note = f"On the split `{document['split']}`, at the epoch that is best on `{document['evaluated']}`. "
    if len(seeds) < MIN_VALUES:
        return note + f"Intervals require at least {MIN_VALUES} seeds."
    note += f"Mean ± half the width of the {document['confidence']:.0%} interval (Student's t) over "
    if complete:
        return note + f"all {len(seeds)} seeds."
    return note + (
        "the seeds that have a value. These differ between cells (n if some are missing), so compare methods by the "
        "paired differences above."
    )


def flat_delta_m_table(document: Document) -> Table:
    """Make the appendix table of the Δm of published tables, over all metrics.

    Args:
        document: the comparison.

    Returns:
        The table, with a row for each method.
    """
    rows = [["method", "Δm (flat) % ↓", "Δm by task % ↓", "MR ↓", "p (Holm)"]]
    for label, method in document["methods"].items():
        deltas = [format_estimate(method["delta_m"][form], signed=True) for form in ("flat", "by_task")]
        test = "reference" if method["test"] is None else format_p(method["test"]["p_holm"])
        rows.append([label, *deltas, format_value(method["mean_rank"]), test])
    notes = [
        "As in the tables of Nash-MTL and FAMO: percent worse than the single-task baselines, relative to their means, "
        "so that a metric near 0 outweighs all others. Flat: mean over all metrics. By task: mean over the tasks of "
        "the mean over the metrics of each. MR: mean rank over all metrics. p: paired t-test of Δm (flat) against "
        f"{document['reference']}, with Holm's correction."
    ]
    if excluded := document["left_out_of_delta_m"]:
        names = ", ".join(f"{metric['task']} {metric['metric']}" for metric in excluded)
        notes.append(f"Not included in Δm, since the baseline has no value or 0: {names}.")
    return Table("Appendix: Δm over all metrics", rows, notes)


def last_epochs_table(document: Document) -> Table:
    """Make the appendix table of the means of all metrics over the last epochs.

    Args:
        document: the comparison, of runs with `evaluation.last`.

    Returns:
        The table, with a row for the baselines and one for each method.
    """
    last = document["last"]
    metrics = {
        (task, name): f"{task} {name} {ARROWS[direction]}"
        for task, facts in document["tasks"].items()
        for name, direction in facts["metrics"].items()
    }
    rows = [["method", *metrics.values(), "Δm (flat) % ↓"]]
    for label, method in {document["baseline"]["label"]: last["baseline"], **last["methods"]}.items():
        cells = [format_estimate(method["metrics"][task][name]) for task, name in metrics]
        rows.append([label, *cells, format_estimate(method["delta_m"], signed=True) if "delta_m" in method else EMPTY])
    notes = [
        f"Means over the last {last['epochs']} epochs of each run, on `{document['split']}`, and over the seeds. The "
        "other tables, except for published results that are such means, have the values of the best epoch."
    ]
    return Table(f"Appendix: means over the last {last['epochs']} epochs", rows, notes)


def all_metrics_table(document: Document) -> Table:
    """Make the appendix table of the differences from the baselines in every metric.

    Args:
        document: the comparison.

    Returns:
        The table, with a row for each metric of each task.
    """
    label = document["baseline"]["label"]
    methods = document["methods"]
    rows = [["task, metric", f"{label} mean", *methods]]
    for task, facts in document["tasks"].items():
        for metric, direction in facts["metrics"].items():
            differences = [method["against"][label]["tasks"][task][metric] for method in methods.values()]
            base = format_value(document["baseline"]["metrics"][task][metric]["mean"])
            rows.append([f"{task}, {metric} {ARROWS[direction]}", base, *map(format_difference, differences)])
    note = "Differences from the single-task baselines, as above, without tests."
    return Table("Appendix: all metrics", rows, [note])


def _format_seeds(seeds: list[list[int]], planned: int) -> str:
    """Format the number of completed seeds: `3`, `2 of 3: 0, 2`, or `2–3 of 3` if tasks differ."""
    counts = sorted({len(completed) for completed in seeds})
    if counts == [planned]:
        return str(planned)
    count = f"{'–'.join(map(str, counts))} of {planned}"
    return f"{count}: {', '.join(map(str, seeds[0]))}" if len(seeds) == 1 and seeds[0] else count

"""`mtl relate`: measures of task relatedness."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mtlcli.cli.arguments import AllowPlugins, ConfigFile, Json, Overrides, Plugins, examples
from mtlcli.text import format_number


@examples(
    "mtl relate configs/digits.yaml",
    "mtl relate configs/digits.yaml --measure semantic --measure data",
)
def relate(
    config: ConfigFile,
    overrides: Overrides = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE",
            help="Choose from: performance, gradient, affinity, data, semantic. Repeatable. Default: all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the study. Default: NAME/relate in $MTL_RUNS or runs/."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Single-task runs of each task (for performance).")
    ] = 3,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of epochs of each run.")] = 3,
    networks: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of networks to partition the tasks into.")
    ] = 2,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Single-task runs in parallel.")] = 1,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Model of sentence-transformers for `semantic`, instead of TF-IDF."),
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Measure task relatedness and suggest groups of tasks.

    Trains the single-task and joint runs that the measures need. Finished runs are reused, so an interrupted study
    resumes. `docs/relations.md` explains the measures.
    """
    from mtlcli.cli.output import print_json
    from mtlcli.cli.progress import watch_study
    from mtlcli.config import load_experiment
    from mtlcli.studies.relate.experiments import Budget
    from mtlcli.studies.relate.relate_study import relate as study

    budget = Budget(seeds, epochs, networks, jobs, encoder)
    experiment = load_experiment(config, overrides or [], allow_plugins)
    document = study(experiment, measure, out, budget=budget, callback=watch_study())
    if json:
        print_json(document)
    else:
        _print(document)


def _print(document: dict[str, Any]) -> None:
    from mtlcli.cli import table
    from mtlcli.studies.relate.measures import MEASURES

    for name, result in document["measures"].items():
        print(table.wrap_text(f"{name}: {MEASURES[name].title}{_sample(result['numbers'])}"))
        rows = [["", *document["tasks"]]]
        rows += [[task, *(_cell(result, task, other) for other in document["tasks"])] for task in document["tasks"]]
        width = table.terminal_width()
        for line in table.align_numbers(rows, width=None if width is None else width - 2):
            print(f"  {line}".rstrip())
        clustering, partition = result["groups"]["clustering"], result["groups"]["partition"]
        print(f"  groups (average linkage, threshold {clustering['cut']}): {_groups(clustering['groups'])}")
        if crossing := _crossing(result, clustering["cut"]):
            print(f"  uncertain, since the interval includes the threshold: {', '.join(crossing)}")
        if partition["best"] is not None:
            best = partition["best"]
            print(f"  best in {partition['networks']} networks or fewer: {_groups(best['groups'])}"
                  f" (score {format_number(best['score'])})")  # fmt: skip
        print()
    print(f"study folder: {document['out']}")


def _sample(numbers: dict[str, Any]) -> str:
    """Return the level of the intervals and the resampled unit, or the reason why they are missing."""
    if numbers["interval"] is None:
        return f" [no interval: {numbers['interval_reason']}]"
    bounds = [bound for row in numbers["interval"].values() for pair in row.values() for bound in pair]
    if all(math.isnan(bound) for bound in bounds):
        return " [no interval: fewer than 3 values to resample]"
    return f" [{numbers['confidence']:.0%} interval: {numbers['interval_of']}]"


def _crossing(result: dict[str, Any], threshold: float) -> list[str]:
    """Return the pairs of tasks, as `a–b`, whose interval includes the threshold."""
    interval = result["numbers"]["interval"] or {}
    pairs = itertools.combinations(interval, 2)
    return [f"{a}–{b}" for a, b in pairs if interval[a][b][0] < threshold < interval[a][b][1]]


def _cell(result: dict[str, Any], task: str, other: str) -> str:
    value = format_number(result["relation"][task][other])
    interval = result["numbers"]["interval"]
    if interval is None or task == other:
        return value
    low, high = interval[task][other]
    numbers = result["numbers"]
    by_pair = numbers.get("points") or numbers.get("examples")
    n = f"{by_pair[task][other]:.0f}" if by_pair else numbers["n"]
    return f"{value} n={n}" if low != low else f"{value} [{format_number(low)}, {format_number(high)}] n={n}"


def _groups(groups: list[list[str]]) -> str:
    return " | ".join(" + ".join(group) for group in groups)

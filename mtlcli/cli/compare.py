"""`mtl compare`: comparison of methods over several seeds, with single-task baselines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mtlcli.cli.arguments import AllowPlugins, ConfigFile, Json, Overrides, Plugins, examples
from mtlcli.text import format_markdown, printable


@examples(
    "mtl compare configs/digits.yaml --vary weighting=uniform,pcgrad --seeds 3",
    "mtl compare configs/digits.yaml --tune optimizer.lr=1e-3,1e-2 --seeds 1",
)
def compare(
    context: typer.Context,
    config: ConfigFile,
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE,…",
            help="Values to compare: weighting=uniform,mgda. Repeatable, for all combinations.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs of each method and of each single-task baseline.")
    ] = 3,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE,…",
            help="Values to search for every method and baseline: optimizer.lr=1e-4,1e-3,1e-2. The best on the "
            "validation split is used. Repeatable.",
        ),
    ] = None,
    tune_seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds of the search.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Runs in parallel. Default: one per CPU core, or one on an accelerator."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the study. Default: NAME/compare in $MTL_RUNS or runs/."),
    ] = None,
    published: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Published results (YAML), to list next to the measured ones.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Method to test the others against, in addition to the single-task baselines. Default: the first "
            "with uniform weighting, or else the first.",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BASELINE",
            help="Further baseline: merge, or merge:METHOD,METHOD, for models merged of the single-task models by "
            "mean, task_arithmetic, ties, dare or dare_ties. Repeatable.",
        ),
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Compare methods with each other and with single-task models.

    Every run has its own process. Finished runs are reused, so an interrupted study resumes, and a larger one continues
    it. The exit code is 1 if a run failed; all tables are written before. `docs/comparison.md` explains the results.
    """
    from mtlcli.studies.pool import start_server

    start_server()  # imports the modules of the runs while this process imports them, too

    from mtlcli.cli.output import print_json
    from mtlcli.cli.progress import watch_comparison
    from mtlcli.config import Experiment, load_experiment
    from mtlcli.errors import MtlError
    from mtlcli.studies.compare.compare_study import compare as study

    def load(more: Sequence[str]) -> Experiment:
        return load_experiment(config, [*(overrides or []), *more], allow_plugins)

    document = study(
        load, vary or [], seeds=seeds, tune=tune or [], tune_seeds=tune_seeds, jobs=jobs, out=out, published=published,
        reference=reference, baselines=baseline or [], command=shlex.join(["mtl", *context.obj]),
        callback=watch_comparison(),
    )  # fmt: skip
    print_json(document) if json else _print(document)
    if failed := document["failed"]:
        raise MtlError(f"{len(failed)} of the runs failed: {'; '.join(run['run'] for run in failed)}")


def _print(document: dict[str, Any]) -> None:
    """Print all tables: fitted to a terminal, or as Markdown if stdout is none."""
    from mtlcli.cli import table
    from mtlcli.studies.compare.comparison_tables import header_lines, make_tables

    print("\n".join(map(table.wrap_text, [f"{document['name']}: comparison", *header_lines(document), ""])))
    for sentence in document["findings"]:
        print(f"{table.wrap_text(sentence)}\n")
    for section in make_tables(document):
        if sys.stdout.isatty():
            print(printable(section.title))
            print("\n".join(table.align_numbers(section.rows, section.key_columns)))
        else:
            print(f"## {printable(section.title)}")
            print("\n".join(format_markdown(section.rows, texts=1)))
        print("\n".join([*map(table.wrap_text, section.notes), ""]))
    print(f"study folder: {printable(document['out'])}")

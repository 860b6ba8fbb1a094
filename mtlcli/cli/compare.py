"""`mtl compare CONFIG --vary weighting=uniform,mgda`: methods over seeds, against single-task baselines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mtlcli.cli.arguments import AllowPlugins, ConfigFile, Json, Overrides, Plugins
from mtlcli.tables import format_markdown
from mtlcli.text import printable


def compare(
    context: typer.Context,
    config: ConfigFile,
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE,…",
            help="What the methods differ in: weighting=uniform,mgda. Given several times: all combinations.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method, and of each task's baseline.")] = 3,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE,…",
            help="What each method and each baseline gets the best value of, by val: optimizer.lr=1e-4,1e-3,1e-2.",
        ),
    ] = None,
    tune_seeds: Annotated[int, typer.Option(min=1, help="How many of the seeds are tuned with.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at the same time; by default one a core, or one alone on an accelerator."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; by default NAME/compare under $MTL_RUNS or runs/.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="A file of published figures (YAML), to be shown beside ours.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Method that the others are tested against, in addition to the single-task baselines; "
            "by default the first with uniform weighting, or else the first.",
        ),
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Compare methods with each other and with single-task baselines: was sharing worth it?

    Every run is in a process of its own, and is used again by the same command and by larger ones. Exits with 1 where
    a run has failed, after all tables are written. `docs/comparison.md` tells what each figure is.
    """
    from mtlcli.studies.pool import start_server

    start_server()  # it imports what the runs need while this process imports the same

    from mtlcli.cli.output import print_json
    from mtlcli.cli.progress import watch_comparison
    from mtlcli.config import Experiment, load_experiment
    from mtlcli.errors import MtlError
    from mtlcli.studies.compare.compare_study import compare as study

    def load(more: Sequence[str]) -> Experiment:
        return load_experiment(config, [*(overrides or []), *more], allow_plugins)

    document = study(
        load, vary or [], seeds=seeds, tune=tune or [], tune_seeds=tune_seeds, jobs=jobs, out=out, published=published,
        reference=reference, command=shlex.join(["mtl", *context.obj]), observer=watch_comparison(),
    )  # fmt: skip
    print_json(document) if json else _print(document)
    if failed := document["failed"]:
        raise MtlError(f"{len(failed)} of the runs failed: {'; '.join(one['run'] for one in failed)}")


def _print(document: dict[str, Any]) -> None:
    """All tables: fitted to a terminal, as Markdown elsewhere."""
    from mtlcli.cli import table
    from mtlcli.studies.compare.comparison_tables import header, tables

    print("\n".join(map(table.sentence, [f"{document['name']}: comparison", *header(document), ""])))
    for sentence in document["findings"]:
        print(f"{table.sentence(sentence)}\n")
    for part in tables(document):
        if sys.stdout.isatty():
            print(printable(part.title))
            print("\n".join(table.figures(part.rows, part.keys)))
        else:
            print(f"## {printable(part.title)}")
            print("\n".join(format_markdown(part.rows, texts=1)))
        print("\n".join([*map(table.sentence, part.notes), ""]))
    print(f"study folder: {printable(document['out'])}")

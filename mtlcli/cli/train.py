"""`mtl train`: training of one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtlcli.cli.arguments import AllowPlugins, ConfigFile, Json, Overrides, Plugins, Requirements, examples


@examples(
    "mtl train configs/digits.yaml training.epochs=5 weighting=pcgrad",
    "mtl train configs/digits.yaml --run-dir runs/digits --resume auto",
)
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Run folder. Default: a new one in $MTL_RUNS or runs/.")
    ] = None,
    resume: Annotated[
        Literal["never", "auto", "must"],
        typer.Option(
            metavar="never|auto|must",
            help="If --run-dir already has a run: never = fail, auto = resume (or start), must = resume or fail.",
        ),
    ] = "never",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build the model, make one step, write no files.")] = False,
    require: Requirements = None,
    json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Train a model and print its final metrics."""
    from mtlcli.config import load_experiment
    from mtlcli.errors import ConfigError

    if resume != "never" and run_dir is None:
        raise ConfigError(f"--resume {resume} needs --run-dir, the folder of the run to resume")
    # before the import of torch, which takes seconds
    experiment = load_experiment(config, overrides or [], allow_plugins)

    from mtlcli.cli.output import print_compression, print_json, print_plan, print_table
    from mtlcli.cli.progress import watch
    from mtlcli.training.assembly.build import build
    from mtlcli.training.trainer import Trainer

    if require:
        from mtlcli.cli.requirements import check_requirements, confirm_requirements, parse_requirements

        requirements = parse_requirements(require, experiment)
    if experiment.weighting.name == "relation":
        from mtlcli.cli.progress import watch_study
        from mtlcli.studies.relate.for_weighting import with_placeholder_relation, with_relation

        if dry_run:
            experiment = with_placeholder_relation(experiment)
        else:
            experiment = with_relation(experiment, callback=watch_study())
    run = build(experiment)
    if require:
        confirm_requirements(requirements, {task: kind.reported for task, kind in run.kinds.items()})
    trainer = Trainer(run, run_dir, resume=resume, callbacks=watch())
    if dry_run:
        plan = trainer.rehearse()
        print_json(plan) if json else print_plan(plan)
        return
    try:
        summary = trainer.fit()
    finally:
        if json and trainer.summary is not None:  # also after an interruption or a failure
            print_json(trainer.summary)
    if not json:
        stopped = {task: facts["epoch"] for task, facts in summary["stopped"].items()}
        print_table(summary["metrics"], summary["examples"], summary["positive"], stopped)
        if "last" in summary:
            from mtlcli.training.last_epochs import caption

            print(f"\n{caption(summary)}\n")
            print_table(summary["last"]["metrics"], summary["examples"])
        if summary["compression"] is not None:
            print_compression(summary["compression"])
        print(f"run folder: {summary['run_dir']}")
    if require:
        check_requirements(requirements, experiment, list(summary["metrics"].values())[-1])

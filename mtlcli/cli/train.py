"""`mtl train CONFIG`: one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtlcli.cli.arguments import AllowPlugins, ConfigFile, Json, Overrides, Plugins, Requirements


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="The run folder; by default a new one under $MTL_RUNS or runs/.")
    ] = None,
    resume: Annotated[
        Literal["never", "auto", "must"],
        typer.Option(help="Where --run-dir holds a run: refuse it, go on with it (or start), or insist on it."),
    ] = "never",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build everything, make one step, write nothing.")] = False,
    require: Requirements = None,
    json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Train a model and print the final metric table."""
    from mtlcli.config import load_experiment
    from mtlcli.errors import ConfigError

    if resume != "never" and run_dir is None:
        raise ConfigError(f"--resume {resume} needs --run-dir: the folder of the run to go on with")
    # before torch is imported, which takes seconds
    experiment = load_experiment(config, overrides or [], allow_plugins)

    from mtlcli.cli.output import print_compression, print_json, print_plan, print_table
    from mtlcli.cli.progress import watch
    from mtlcli.cli.requirements import check_requirements, parse_requirements
    from mtlcli.training.assembly.build import build
    from mtlcli.training.trainer import Trainer

    requirements = parse_requirements(require or [], experiment)
    if experiment.weighting.name == "relation":
        from mtlcli.cli.progress import watch_study
        from mtlcli.studies.relate.for_weighting import unmeasured, with_relation

        experiment = unmeasured(experiment) if dry_run else with_relation(experiment, observer=watch_study())
    trainer = Trainer(build(experiment), run_dir, resume=resume, callbacks=watch())
    if dry_run:
        plan = trainer.rehearse()
        print_json(plan) if json else print_plan(plan)
        return
    try:
        summary = trainer.fit()
    finally:
        if json and trainer.summary is not None:  # of a run that was interrupted or failed, too
            print_json(trainer.summary)
    if not json:
        print_table(summary["metrics"], summary["examples"], summary["positive"])
        if summary["compression"] is not None:
            print_compression(summary["compression"])
        print(f"run folder: {summary['run_dir']}")
    final = list(summary["metrics"].values())[-1]
    check_requirements(requirements, experiment, final)

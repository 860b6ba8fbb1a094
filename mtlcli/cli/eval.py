"""`mtl eval`: evaluation of a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from mtlcli.cli.arguments import BasePath, CheckpointFile, Json, Plugins, Requirements, examples


@examples("mtl eval runs/digits", "mtl eval runs/digits --split val --require 'digit.accuracy>=0.5'")
def evaluate(
    checkpoint: CheckpointFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Keys of data and evaluation to set: datasets.ALIAS.path=new.csv"
            " training.device=cpu evaluation.batch_size=512",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="Split to evaluate: train, val, test, or all for every example. Default: test if the data has it; "
            "all if a path on the command line replaces the data of the training.",
        ),
    ] = None,
    require: Requirements = None,
    base: BasePath = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Evaluate a checkpoint. It contains the experiment, so only the data is needed."""
    from mtlcli.api.checkpoint_evaluation import evaluate_checkpoint, read_checkpoint
    from mtlcli.cli.output import print_json, print_table
    from mtlcli.cli.progress import watch
    from mtlcli.cli.requirements import check_requirements, confirm_requirements, parse_requirements
    from mtlcli.text import printable
    from mtlcli.training.data_report import count_unseen, describe_unseen

    watch()
    stored = read_checkpoint(checkpoint, overrides or [])
    requirements = parse_requirements(require or [], stored.experiment)
    evaluated = evaluate_checkpoint(stored, split, base=base)
    run, splits, evaluation = evaluated.run, evaluated.splits, evaluated.evaluation
    confirm_requirements(requirements, evaluation.metrics)
    gaps = count_unseen(run, splits)
    if json:
        common = next(iter(splits.values())) if len(set(splits.values())) == 1 else splits
        document = {"checkpoint": str(stored.path), "split": common, **gaps}
        print_json(
            {**document, "examples": evaluation.examples, "positive": run.positive, "metrics": evaluation.metrics}
        )
    else:
        by_split: dict[str, list[str]] = {}
        for task, (alias, _) in run.sources.items():
            by_split.setdefault(splits[alias], []).append(task)
        print_table(
            {name: {task: evaluation.metrics[task] for task in tasks} for name, tasks in by_split.items()},
            {name: {task: evaluation.examples[task] for task in tasks} for name, tasks in by_split.items()},
            run.positive,
        )
        print("".join(f"{printable(line)}\n" for line in describe_unseen(gaps)), end="")
    check_requirements(requirements, stored.experiment, evaluation.metrics)

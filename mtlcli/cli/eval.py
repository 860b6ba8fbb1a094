"""`mtl eval CHECKPOINT`: the metrics of a trained model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlcli.cli.arguments import Json, Overrides, Plugins, Requirements
from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import given_path

if TYPE_CHECKING:
    from mtlcli.training.run import Run


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pt file of a run, or the run's folder for its best one.")
    ],
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val, test, or all for every example. Default: test, where the data has one; all, where a "
            "path on the command line leads to other data than the model was trained on."
        ),
    ] = None,
    require: Requirements = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Evaluate a checkpoint: it needs nothing else but the data."""
    from mtlcli.cli.output import print_json, print_table
    from mtlcli.cli.progress import watch
    from mtlcli.cli.requirements import check_requirements, parse_requirements
    from mtlcli.text import printable
    from mtlcli.training.assembly.build import rebuild
    from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint, moved_datasets
    from mtlcli.training.checkpoint.file import load_checkpoint
    from mtlcli.training.data_changes import new_datasets, warn_of_changes
    from mtlcli.training.data_report import unseen, unseen_lines
    from mtlcli.training.evaluate import measure
    from mtlcli.training.run_folder import checkpoint_of

    watch()
    checkpoint = checkpoint_of(given_path(checkpoint, "checkpoint"))
    payload = load_checkpoint(checkpoint)
    experiment = experiment_from_checkpoint(payload, overrides or [], checkpoint)
    requirements = parse_requirements(require or [], experiment)
    run = rebuild(experiment, payload)
    new = new_datasets(run, moved_datasets(experiment, payload, overrides or []))
    splits = _splits(run, split, new)
    warn_of_changes(run, splits, new)
    try:
        evaluation = measure(run, splits)
    except (LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError) as error:
        # weights of the right shapes may still be no model: positions beyond the last column, for one
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MtlError(f"{checkpoint}: its model can't be evaluated: {reason}") from error
    names = " and ".join(dict.fromkeys(splits.values()))
    _check_labels(evaluation.examples, names)
    gaps = unseen(run, splits)
    _warn_of_not_finite(evaluation.metrics, evaluation.examples, names)
    if json:
        one = next(iter(splits.values())) if len(set(splits.values())) == 1 else splits
        document = {"checkpoint": str(checkpoint), "split": one, **gaps}
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
        print("".join(f"{printable(line)}\n" for line in unseen_lines(gaps)), end="")
    check_requirements(requirements, experiment, evaluation.metrics)


def _splits(run: Run, asked: str | None, new: set[str]) -> dict[str, str]:
    """Alias → the split of it to evaluate. ConfigError for one that it doesn't have.

    Of `new` data, which the model wasn't trained on, all examples, unless the data itself has a split `test`.
    """
    common = run.splits()
    default = asked or ("test" if "test" in common else run.experiment.evaluation.split)
    splits = {}
    for alias, dataset in run.datasets.items():
        here = run.specs[alias].splits
        whole = asked is None and alias in new and (dataset.draws_test() or "test" not in here)
        splits[alias] = "all" if whole else "test" if asked is None and "test" in here else default
        if splits[alias] not in (*here, "all"):
            offered = ", ".join([*here, "all"])
            raise ConfigError(f"--split {splits[alias]}: not a split of dataset {alias!r}, which has: {offered}")
    return splits


def _check_labels(examples: Mapping[str, int], split: str) -> None:
    """Warn of the tasks without a labelled example. ConfigError where there is none of any task."""
    unlabelled = [task for task, amount in examples.items() if amount == 0]
    if len(unlabelled) == len(examples):
        raise ConfigError(
            f"nothing to evaluate: no example of the split {split!r} has a label of any task ({', '.join(examples)}). "
            "Evaluation compares predictions with labels: check that the target columns are filled in"
        )
    if unlabelled:
        logging.getLogger("mtl").warning(
            "%s: no labelled example in the split %r (n = 0), so there are no metrics", ", ".join(unlabelled), split
        )


def _warn_of_not_finite(metrics: Mapping[str, Mapping[str, float]], examples: Mapping[str, int], split: str) -> None:
    for task, values in metrics.items():
        names = [name for name, value in values.items() if not math.isfinite(value)]
        if names and examples[task]:
            logging.getLogger("mtl").warning(
                "%s: %s in the split %r: not a finite number, because of values far from those of the training data, "
                "or labels that are all the same", task, ", ".join(names), split,
            )  # fmt: skip

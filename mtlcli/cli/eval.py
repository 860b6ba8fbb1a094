"""`mtl eval CHECKPOINT`: the metrics of a trained model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mtlcli.cli.options import Json, Overrides, Plugins, Requirements
from mtlcli.errors import ConfigError, MtlError
from mtlcli.paths import given_path


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pt file of a run, or the run's folder for its best one.")
    ],
    overrides: Overrides = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; by default test, where the data has one.")
    ] = None,
    require: Requirements = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Evaluate a checkpoint: it needs nothing else but the data."""
    from mtlcli.cli.output import print_json, print_table
    from mtlcli.cli.progress import watch
    from mtlcli.cli.requirements import check_requirements, parse_requirements
    from mtlcli.printable import printable
    from mtlcli.training.build import rebuild
    from mtlcli.training.checkpoint import load_checkpoint
    from mtlcli.training.data_report import unseen, unseen_lines
    from mtlcli.training.evaluate import measure
    from mtlcli.training.from_checkpoint import experiment_from_checkpoint
    from mtlcli.training.run_folder import checkpoint_of

    watch()
    checkpoint = checkpoint_of(given_path(checkpoint, "checkpoint"))
    payload = load_checkpoint(checkpoint)
    experiment = experiment_from_checkpoint(payload, overrides or [], checkpoint)
    requirements = parse_requirements(require or [], experiment)
    run = rebuild(experiment, payload)
    splits = run.splits()
    chosen = split or ("test" if "test" in splits else experiment.evaluation.split)
    if chosen not in splits:
        raise ConfigError(f"--split {chosen}: not a split that every dataset has; all have: {', '.join(splits)}")
    try:
        found = measure(run, chosen)
    except (LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError) as error:
        # weights of the right shapes may still be no model: positions beyond the last column, for one
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MtlError(f"{checkpoint}: its model can't be evaluated: {reason}") from error
    _check_labels(found.examples, chosen)
    gaps = unseen(run, chosen)
    _warn_of_not_finite(found.metrics, found.examples, chosen)
    if json:
        document = {"checkpoint": str(checkpoint), "split": chosen, **gaps}
        print_json({**document, "examples": found.examples, "positive": run.positive, "metrics": found.metrics})
    else:
        print_table({chosen: found.metrics}, {chosen: found.examples}, run.positive)
        print("".join(f"{printable(line)}\n" for line in unseen_lines(gaps)), end="")
    check_requirements(requirements, experiment, found.metrics)


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

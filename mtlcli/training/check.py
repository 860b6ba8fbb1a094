"""Whether an experiment can work at all, found out without data, training or memory."""

from __future__ import annotations

import torch

from mtlcli.config import Experiment
from mtlcli.training.build import Problems, assemble
from mtlcli.training.device import choose_device
from mtlcli.training.optimization import make_optimizer, make_schedule


def check_experiment(experiment: Experiment) -> None:
    """Build everything on the device `meta` and pass an empty batch through it. ConfigError for what can't work."""
    choose_device(experiment)
    run = assemble(experiment, torch.device("meta"))
    problems = Problems(experiment)
    with problems.at("optimizer"):
        optimizer = make_optimizer(run)
        with problems.at("scheduler"):
            make_schedule(run, optimizer, steps=1)
    with problems.at("evaluation.split"):
        check_splits(run.splits(), experiment)
    problems.check()
    inputs = {alias: torch.zeros(2, *spec.input_shape, device="meta") for alias, spec in run.specs.items()}
    with problems.now("trunk"):
        run.model(inputs)


def check_splits(splits: list[str], experiment: Experiment) -> None:
    """ValueError where a dataset lacks a split that training needs."""
    for split in ("train", experiment.evaluation.split):
        if split not in splits:
            raise ValueError(
                f"there is no split {split!r} in every dataset; all have: {', '.join(splits) or 'none'}. Set "
                f"evaluation.split, or let a dataset set some of its training examples aside with `val: 0.1`"
            )

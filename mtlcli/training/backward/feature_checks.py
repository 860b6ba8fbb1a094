"""Checks of an experiment whose tasks are balanced by the gradients of their features."""

from __future__ import annotations

import logging

from mtlcli.errors import ConfigError
from mtlcli.training.run import Run

LOG = logging.getLogger("mtl")


def check_features(run: Run, pooled: bool = True) -> None:
    """Check that tasks have features in common, and warn of those that have none.

    Args:
        run: Run whose tasks are balanced by the gradients of their features.
        pooled: Whether the features are pooled.

    Raises:
        ConfigError: There are no common features, or a task depends on another one with another pooling.
    """
    experiment, sharing, message = run.experiment, run.model.sharing, None
    pools = {} if sharing.pooling is None or not pooled else sharing.pooling.pools
    of_alias: dict[str, set[str | None]] = {}
    for task, (alias, _) in run.sources.items():
        of_alias.setdefault(alias, set()).add(pools.get(task))
    linked = () if sharing.dependencies is None else sharing.dependencies.linked
    if run.regularization.tasks:
        message = "a regularizer that counts as a task (as_task) has no gradient of the features; use `parameters`"
    elif not sharing.common_features:
        source = f"sharing {experiment.sharing.name!r} gives"
        if experiment.adapters is not None:
            source = "adapters that depend on the task give"
        message = f"{source} no two tasks the same features; use `parameters`"
    elif len({pools.get(task) for task in linked}) > 1:
        message = "tasks that depend on each other have different poolings (`pool`); use `sequence` or `parameters`"
    if message is not None:
        raise ConfigError(experiment.problem("weighting.gradients", message))
    missed = "so conflicts between them are not detected; with"
    if len(of_alias) > 1:
        LOG.warning(
            "weighting.gradients: features: tasks on different datasets share no features, %s `parameters` they are",
            missed,
        )
    if sharing.answers is not None:
        LOG.warning(
            "weighting.gradients: features: tasks that generate texts share no features with others, %s `parameters` "
            "they are",
            missed,
        )
    if any(len(different) > 1 for different in of_alias.values()):
        LOG.warning(
            "weighting.gradients: features: tasks whose features are pooled differently, or not at all, share none, %s "
            "`sequence` they are",
            missed,
        )

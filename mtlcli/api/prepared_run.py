"""Runs built from a configuration, ready to be trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mtlcli.config import Experiment, experiment_from_dict, load_experiment
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build as build_run
from mtlcli.training.run import Run

Config = Experiment | str | os.PathLike[str] | Mapping[str, Any]


def build(config: Config, *, overrides: Sequence[str] = (), datasets: Mapping[str, Any] | None = None) -> Run:
    """Build everything a run is made of: datasets, model, weighting and regularizers, on their device.

    The model is initialized by the experiment's seed. Pass the run to `Trainer` to train it.

    Args:
        config: An experiment, the path of its YAML file, or a dict of the same form.
        overrides: `KEY=VALUE` strings such as `training.epochs=5`.
        datasets: Alias → data passed from Python, as for `train`.

    Returns:
        The run.

    Raises:
        ConfigError: The configuration is invalid or can't work; the message lists all problems.
    """
    return build_run(resolve_config(config, overrides, datasets), datasets)


def resolve_config(
    config: Config, overrides: Sequence[str] = (), datasets: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the validated experiment of a configuration.

    Args:
        config: An experiment, the path of its YAML file, or a dict of the same form.
        overrides: `KEY=VALUE` strings.
        datasets: Alias → data passed from Python; the configuration may leave out the entries of these aliases.

    Returns:
        The experiment.

    Raises:
        ConfigError: The configuration is invalid, or `datasets` is not a dict.
    """
    if datasets is not None and not isinstance(datasets, Mapping):
        raise ConfigError(f"datasets: expected a dict of aliases to data, got {type(datasets).__name__}")
    if not isinstance(config, Experiment):
        return load_experiment(config, overrides, in_memory=datasets or ())
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    return experiment_from_dict(config.resolved(callbacks=True), overrides, source=config.name) if overrides else config

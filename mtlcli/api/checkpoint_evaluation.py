"""Evaluation of trained models: the code of `mtlcli.evaluate` and of `mtl eval`."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtlcli.config import Experiment
from mtlcli.data.base import Dataset
from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import given_path
from mtlcli.plugins import load_plugin
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint, moved_datasets
from mtlcli.training.checkpoint.file import load_checkpoint, rng_state, set_rng_state
from mtlcli.training.data_changes import new_datasets, warn_of_changes
from mtlcli.training.evaluate import Evaluation, TaskMetrics, measure
from mtlcli.training.run import Run
from mtlcli.training.run_folder import checkpoint_of

LOG = logging.getLogger("mtl")


def evaluate(
    model: str | os.PathLike[str] | Run,
    *,
    split: str | None = None,
    overrides: Sequence[str] = (),
    datasets: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    base: str | os.PathLike[str] | None = None,
) -> TaskMetrics:
    """Evaluate a trained model on a split of its data, as `mtl eval` does.

    Random generators and the number of threads of this process are left as they were.

    Args:
        model: A checkpoint (a `.pt` file, or the folder of a run for its best one), or a run made by `build`.
        split: `train`, `val`, `test`, or `all` for every example. By default `test` if the data has one, or `all`
            if the data is not what the model was trained on.
        overrides: `KEY=VALUE` strings for the configuration of the checkpoint, such as `datasets.t.path=new.csv`.
        datasets: Alias → data passed from Python, as for `train`.
        plugins: Modules, or files ending in `.py`, with components that the model needs; imported first.
        base: Folder or file of the pretrained model that the checkpoint refers to (`checkpoint.base: reference`); by
            default it is looked for.

    Returns:
        Task → metric → value, over all labelled examples; NaN where a metric is undefined.

    Raises:
        ConfigError: The checkpoint can't be read, a dataset has no such split, or no example has a label.
        MtlError: The data can't be read, or the model can't be evaluated.
    """
    if isinstance(model, Run):
        if overrides or datasets or plugins or base:
            raise ConfigError(
                "overrides, datasets, plugins and base are for a checkpoint; give them to build() for a run"
            )
        splits = choose_splits(model, split)
        return measure(model, splits).metrics
    for plugin in [plugins] if isinstance(plugins, str) else plugins:
        load_plugin(plugin, "plugin")
    random_state, threads = rng_state(), torch.get_num_threads()
    try:
        return evaluate_checkpoint(read_checkpoint(model, overrides), split, datasets, base).evaluation.metrics
    finally:
        set_rng_state(random_state)
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class StoredModel:
    """The content of a checkpoint, and its experiment as it is to be evaluated.

    Attributes:
        path: The file.
        payload: Its content, plain data.
        experiment: The experiment, with overrides.
        overrides: `KEY=VALUE` strings.
    """

    path: Path
    payload: dict[str, Any]
    experiment: Experiment
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class CheckpointEvaluation:
    """The evaluation of a checkpoint.

    Attributes:
        run: The run that the checkpoint was evaluated in.
        splits: Alias → the split of the dataset that was evaluated.
        evaluation: Metrics and numbers of examples, by task.
    """

    run: Run
    splits: dict[str, str]
    evaluation: Evaluation


def read_checkpoint(checkpoint: str | os.PathLike[str], overrides: Sequence[str] = ()) -> StoredModel:
    """Read a checkpoint and the experiment in it.

    Args:
        checkpoint: A `.pt` file, or the folder of a run for its best one.
        overrides: `KEY=VALUE` strings.

    Returns:
        The content of the checkpoint.
    """
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    path = checkpoint_path(checkpoint)
    payload = load_checkpoint(path)
    return StoredModel(path, payload, experiment_from_checkpoint(payload, overrides, path), overrides)


def checkpoint_path(checkpoint: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint.

    Args:
        checkpoint: A `.pt` file, or the folder of a run for its best one.

    Returns:
        The file.

    Raises:
        ConfigError: The argument is not a path, or a folder without a checkpoint.
    """
    try:
        path = os.fspath(checkpoint)
    except TypeError as error:
        kind = type(checkpoint).__name__
        raise ConfigError(f"expected the path of a checkpoint or of a run folder, got {kind}") from error
    return checkpoint_of(given_path(path, "checkpoint"))


def base_path(base: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of the base that the user gives; None if none is given."""
    return None if base is None else given_path(os.fspath(base), "--base")


def evaluate_checkpoint(
    stored: StoredModel,
    split: str | None = None,
    datasets: Mapping[str, Any] | None = None,
    base: str | os.PathLike[str] | None = None,
) -> CheckpointEvaluation:
    """Evaluate a checkpoint, and warn of what makes the metrics doubtful.

    Args:
        stored: The checkpoint.
        split: As in `evaluate`.
        datasets: As in `evaluate`.
        base: As in `evaluate`.

    Returns:
        The metrics, with the splits and the run.

    Raises:
        ConfigError: A dataset has no such split, or no example has a label.
        MtlError: The model can't be evaluated.
    """
    experiment, payload = stored.experiment, stored.payload
    run = rebuild(experiment, payload, given=datasets, base_path=base_path(base))
    passed = [alias for alias in datasets or () if _may_be_new(run.datasets[alias])]
    new = new_datasets(run, [*moved_datasets(experiment, payload, stored.overrides), *passed])
    splits = choose_splits(run, split, new)
    warn_of_changes(run, splits, new)
    try:
        evaluation = measure(run, splits)
    except (LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError) as error:
        # weights of the right shapes may still not be a valid model, such as positions beyond the last column
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MtlError(f"{stored.path}: its model can't be evaluated: {reason}") from error
    names = " and ".join(dict.fromkeys(splits.values()))
    _check_labels(evaluation.examples, names)
    _warn_of_not_finite(evaluation.metrics, evaluation.examples, names)
    return CheckpointEvaluation(run, splits, evaluation)


def choose_splits(run: Run, split: str | None, new: set[str] | None = None) -> dict[str, str]:
    """Choose the split of each dataset that is evaluated.

    Args:
        run: The run.
        split: The split asked for; None for the default.
        new: Datasets whose data the model wasn't trained on. Of these all examples are evaluated by default, unless the
            data itself has a split `test`.

    Returns:
        Alias → split.

    Raises:
        ConfigError: A dataset has no such split.
    """
    common = run.splits()
    default = split or ("test" if "test" in common else run.experiment.evaluation.split)
    splits = {}
    for alias, dataset in run.datasets.items():
        here = run.specs[alias].splits
        whole = split is None and alias in (new or ()) and (dataset.draws_test() or "test" not in here)
        splits[alias] = "all" if whole else "test" if split is None and "test" in here else default
        if splits[alias] not in (*here, "all"):
            offered = ", ".join([*here, "all"])
            raise ConfigError(f"{splits[alias]!r} is not a split of dataset {alias!r}, which has: {offered}")
    return splits


def _may_be_new(dataset: Dataset) -> bool:
    """Return whether data that was passed may differ from that of the training: by its number if it has no hashes."""
    if dataset.all_hashes() is not None or dataset.record is None:
        return True
    return len(dataset.whole()) != dataset.record.whole()[0]


def _check_labels(examples: Mapping[str, int], split: str) -> None:
    """Warn of the tasks without a labelled example. ConfigError where there is none of any task."""
    unlabelled = [task for task, amount in examples.items() if amount == 0]
    if len(unlabelled) == len(examples):
        raise ConfigError(
            f"nothing to evaluate: no example of the split {split!r} has a label of any task ({', '.join(examples)}). "
            "Evaluation compares predictions with labels: check that the target columns are filled in"
        )
    if unlabelled:
        LOG.warning(
            "%s: no labelled example in the split %r (n = 0), so there are no metrics", ", ".join(unlabelled), split
        )


def _warn_of_not_finite(metrics: TaskMetrics, examples: Mapping[str, int], split: str) -> None:
    for task, values in metrics.items():
        names = [name for name, value in values.items() if not math.isfinite(value)]
        if names and examples[task]:
            LOG.warning(
                "%s: %s in the split %r: not a finite number, because of values far from those of the training data, "
                "or labels that are all the same", task, ", ".join(names), split,
            )  # fmt: skip

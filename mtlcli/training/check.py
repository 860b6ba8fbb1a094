"""Check of an experiment as a whole, without training or using memory."""

from __future__ import annotations

import warnings

import torch

from mtlcli.config import Experiment
from mtlcli.training.assemble import (
    Datasets,
    add_regularizers,
    assemble,
    open_datasets,
    start_trunk,
)
from mtlcli.training.batch_norm import check_batch_norm, nominal_sampler
from mtlcli.training.check_optimizer import check_optimizer
from mtlcli.training.device import choose_device
from mtlcli.training.memory import within_memory
from mtlcli.training.monitor import Monitor
from mtlcli.training.preflight import SAMPLED, check_files
from mtlcli.training.problems import Problems
from mtlcli.training.run import Run
from mtlcli.training.trial import is_small, try_model_parts, try_plugins


def check_experiment(experiment: Experiment) -> list[str]:
    """Check that an experiment can work, and return what the user should know of it, see `Run.notes`.

    Of examples that are read one at a time, up to 1,000 files of each dataset are looked at. ConfigError, with every
    problem found, for an experiment that can't work.
    """
    choose_device(experiment)
    opened = open_datasets(experiment)
    run = check(experiment, opened)
    check_files(experiment, opened, SAMPLED)
    return run.notes()


def check(experiment: Experiment, opened: Datasets) -> Run:
    """Build all of a run on the device `meta`, and return it. ConfigError with every problem found."""
    with within_memory():
        return _check(experiment, opened)


def _check(experiment: Experiment, opened: Datasets) -> Run:
    run = assemble(experiment, torch.device("meta"), opened)
    problems = Problems(experiment)
    for alias, (dataset, spec) in opened.items():
        with problems.at(f"datasets.{alias}.augment"):
            dataset.check_augment(spec)
    with problems.at("trunk.init_from"), warnings.catch_warnings(action="ignore"):  # there is nothing to copy to
        start_trunk(run)
    _try_out(run, opened, problems)
    check_optimizer(run, problems)
    with problems.at("evaluation.monitor"):
        Monitor(experiment, run.kinds)
    for split in dict.fromkeys(["train", experiment.evaluation.split]):
        with problems.at("evaluation.split"):
            if split not in run.splits():
                raise ValueError(
                    f"not every dataset has a split {split!r}; all have: {', '.join(run.splits()) or 'none'}. Name "
                    f"another in evaluation.split, or let a dataset set some training examples aside with `val: 0.1`"
                )
    problems.check()
    check_batch_norm(run, nominal_sampler(run))
    return run


def _try_out(run: Run, opened: Datasets, problems: Problems) -> None:
    """Add the regularizers, and make a step over blank examples.

    What fails on `meta`, where tensors have no values, counts if it fails on the CPU too; a model that is too large for
    that is judged by what isn't a limit of `meta`.
    """
    found = _tried(run)
    if found.found and is_small(run):
        with torch.random.fork_rng(devices=[]):
            found = _tried(assemble(run.experiment, torch.device("cpu"), opened))
    elif found.found:
        found.found = [problem for problem in found.found if "meta" not in problem.message]
    try_plugins(run, found)
    problems.found += found.found


def _tried(run: Run) -> Problems:
    """Problems of a step over blank examples, without the regularizers and then with them."""
    problems = Problems(run.experiment)
    try_model_parts(run, problems)
    if not problems.found and run.experiment.regularizers:
        with problems.at("regularizers"):
            add_regularizers(run)
            try_model_parts(run, problems)
    return problems

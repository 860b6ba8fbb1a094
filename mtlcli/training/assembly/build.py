"""Construction of a run from an experiment, and its check on the device `meta`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module, Parameter
from torch.nn.modules.module import register_module_parameter_registration_hook

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError
from mtlcli.models.warm_start import find_mismatches, find_not_finite, join_problems
from mtlcli.specs import DatasetSpec
from mtlcli.training.assembly.assemble import add_regularizers, assemble
from mtlcli.training.assembly.base_reference import check_reference, stored_weights
from mtlcli.training.assembly.batch_norm_checks import check_batch_norm, nominal_sampler
from mtlcli.training.assembly.class_weights import restore_class_weights
from mtlcli.training.assembly.data_checks import SAMPLED, Datasets, check_files, has_batch_norm, open_datasets
from mtlcli.training.assembly.initial_weights import start_trunk
from mtlcli.training.assembly.map_checks import augmented_targets
from mtlcli.training.assembly.optimizers import check_optimizer
from mtlcli.training.assembly.pretrained_weights import load_pretrained
from mtlcli.training.assembly.regularization import fit_ranks
from mtlcli.training.assembly.spaces import fit_statistics, restore_statistics
from mtlcli.training.assembly.stems import start_stems
from mtlcli.training.assembly.texts import train_tokenizer
from mtlcli.training.assembly.trial import EXAMPLES, is_small, try_model, try_model_parts, try_plugins
from mtlcli.training.data_changes import data_records
from mtlcli.training.device import choose_device, physical_memory, prepare_device
from mtlcli.training.evaluate import Monitor
from mtlcli.training.run import Run, plugins_of
from mtlcli.training.task_stops import make_stops
from mtlcli.weighting.relation_matrix import self_contained

LOG = logging.getLogger("mtl")


def build(experiment: Experiment, given: Mapping[str, Any] | None = None) -> Run:
    """Build the run of an experiment: checked, initialized from its seed, on its device.

    The model is built twice: first on the device `meta`, where it takes no memory, to find errors before data is read.

    Args:
        experiment: The validated experiment.
        given: alias → data passed from Python (see `Dataset.attach`).

    Returns:
        The run, ready to be trained.

    Raises:
        ConfigError: Lists everything that can't work.
    """
    if experiment.weighting.name == "relation":
        experiment = self_contained(experiment)
    device = choose_device(experiment)
    opened = open_datasets(experiment, given=given, fit=True)
    base = check(experiment, opened).base
    if base is not None and base.tokenizer is None and any(spec.text is not None for _, spec in opened.values()):
        base = train_tokenizer(experiment, opened, base)
    prepare_device(experiment, device)
    restricts = any(task.where is not None for task in experiment.tasks.values())
    run = assemble(experiment, device, opened, fit_statistics(experiment, opened) if restricts else None, base)
    if experiment.trunk.options.get("pretrained"):
        load_pretrained(run)
    if experiment.trunk.init_from is not None:
        start_trunk(run)
    if experiment.stems:
        start_stems(run)
    try_model(run)
    if experiment.terms:
        add_regularizers(run)
    if not run.weighting.uses_task_weights and any(task.weight != 1 for task in experiment.tasks.values()):
        LOG.warning(
            "weighting %r determines the task weights itself: `weight:` of the tasks is ignored",
            experiment.weighting.name,
        )
    return run


def rebuild(
    experiment: Experiment,
    payload: Mapping[str, Any],
    data: bool = True,
    prepare: bool = True,
    given: Mapping[str, Any] | None = None,
    base_path: Path | None = None,
) -> Run:
    """Build the run of a checkpoint, with its trained model, for evaluation or export.

    The run can't be trained: its weighting has no state.

    Args:
        experiment: The experiment of the checkpoint, possibly with other data or another device.
        payload: Content of the checkpoint.
        data: Whether the run will be evaluated. If False, no file of the datasets is accessed.
        prepare: Whether to set threads, random generators and other process-wide settings as for training.
        given: alias → data passed from Python (see `Dataset.attach`).
        base_path: Folder or file of the base that the checkpoint refers to; None to search it.

    Returns:
        The run.

    Raises:
        ConfigError: If the parts fit neither each other, the machine nor the weights, or if weights are not finite. It
            is raised before memory is allocated.
    """
    device = choose_device(experiment)
    stored = {
        alias: DatasetSpec.from_dict(spec, f"the checkpoint's specs.{alias}")
        for alias, spec in payload["specs"].items()
    }
    with within_memory():
        # on meta, nothing is initialized or downloaded only to be overwritten
        records = data_records(payload) if data else None
        opened = open_datasets(experiment, stored, data=data, records=records, given=given)
        statistics = restore_statistics(payload.get("spaces", {}))
        weights, base = stored_weights(experiment, payload, opened, statistics, base_path)
        run = assemble(experiment, torch.device("meta"), opened, statistics, base)
        add_regularizers(run)
        fit_ranks(run.model, weights)
    if differing := find_mismatches(run.model.state_dict(), weights):
        raise ConfigError(f"the checkpoint holds a different model: {join_problems(differing)}")
    if wrong := find_not_finite(weights):
        raise ConfigError(f"the model in the checkpoint can't be used: {join_problems(wrong)}")
    run.model.load_state_dict(weights, assign=True)
    for note in run.notes() if data else ():
        LOG.warning("%s", note)
    if prepare:
        prepare_device(experiment, device)
    placement = Placement(device, experiment.training.loading, experiment.training.workers)
    class_weights = restore_class_weights(payload.get("class_weights", {}), run.kinds)
    return replace(run, device=device, placement=placement, model=run.model.to(device), _class_weights=class_weights)


MOST_TENSORS = 10_000  # a network with more takes long to build


@contextmanager
def within_memory() -> Iterator[None]:
    """Limit the parameters of modules that are constructed in this context to the memory of the machine.

    Every module counts, including those that are replaced later. Modules on `meta` take no memory, but weights are
    initialized on the CPU whatever the device of the run is.

    Raises:
        ConfigError: At the first module that exceeds the memory or the number of tensors.
    """
    memory = physical_memory()
    seen: dict[int, Parameter] = {}  # by identity, since modules can share parameters
    count = size = 0

    def add(module: Module, name: str, parameter: Parameter | None) -> None:
        nonlocal count, size
        if parameter is None or id(parameter) in seen:
            return
        seen[id(parameter)] = parameter
        count += parameter.numel()
        size += parameter.numel() * parameter.element_size()
        if size > memory:
            raise ConfigError(
                f"too large: {count:,} or more parameters take {_gib(size)}, but this machine has {_gib(memory)} "
                f"of memory"
            )
        if len(seen) > MOST_TENSORS:
            raise ConfigError(f"too many layers: more than {MOST_TENSORS:,} weights and biases")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def check_experiment(experiment: Experiment) -> list[str]:
    """Check that an experiment can work.

    Of datasets that are read one example at a time, at most 1,000 files each are checked.

    Args:
        experiment: The experiment.

    Returns:
        Notes for the user (see `Run.notes`).

    Raises:
        ConfigError: Lists all problems.
    """
    choose_device(experiment)
    opened = open_datasets(experiment)
    run = check(experiment, opened)
    check_files(experiment, opened, SAMPLED)
    return run.notes()


@within_memory()
def check(experiment: Experiment, opened: Datasets) -> Run:
    """Build a run on the device `meta` and try its parts.

    Args:
        experiment: The experiment.
        opened: The datasets, from `open_datasets`.

    Returns:
        The run, on `meta`.

    Raises:
        ConfigError: Lists all problems.
    """
    run = assemble(experiment, torch.device("meta"), opened)
    problems = Problems(experiment)
    for alias, (dataset, spec) in opened.items():
        if dataset.augment:
            with problems.at(f"datasets.{alias}.augment"):
                dataset.check_augment(augmented_targets(run, alias, spec))
    if experiment.trunk.init_from is not None:
        with (
            problems.at("trunk.init_from"),
            warnings.catch_warnings(action="ignore"),
        ):  # tensors on meta have no memory to copy to
            start_trunk(run)
    if experiment.trunk.options.get("pretrained"):
        with problems.at("trunk.pretrained"):
            load_pretrained(run)
    if experiment.stems:
        with problems.at("stems"), warnings.catch_warnings(action="ignore"):
            start_stems(run)
    _try_out(run, opened, problems)
    check_optimizer(run, problems)
    with problems.at("evaluation.monitor"):
        Monitor(experiment, run.kinds)
    if any(task.stop is not None for task in experiment.tasks.values()):
        with problems.at("tasks"):
            make_stops(experiment, run.kinds)
    if experiment.training.sampling.options:
        with problems.at("training.sampling"):
            nominal_sampler(run)
    for split in dict.fromkeys(["train", experiment.evaluation.split]):
        with problems.at("evaluation.split"):
            if split not in run.splits():
                raise ValueError(
                    f"not every dataset has a split {split!r}; all have: {', '.join(run.splits()) or 'none'}. Name "
                    f"another in evaluation.split, or set training examples aside with the dataset option `val: 0.1`"
                )
    if experiment.checkpoint.base == "reference":
        with problems.at("checkpoint.base"):
            check_reference(run)
    problems.check()
    if has_batch_norm(run.model):
        check_batch_norm(run, nominal_sampler(run))
    return run


def _try_out(run: Run, opened: Datasets, problems: Problems) -> None:
    """Add the regularizers and run one step on blank examples.

    A failure on `meta`, where tensors have no values, counts only if it also occurs on the CPU. For a model that is too
    large for the CPU, failures that mention `meta` are ignored.
    """
    trial = _tried(run)
    if trial.collected and is_small(run):
        with torch.random.fork_rng(devices=[]):
            trial = _tried(assemble(run.experiment, torch.device("cpu"), opened, base=run.base))
    elif trial.collected:
        trial.collected = [problem for problem in trial.collected if "meta" not in problem.message]
    if plugins_of(run.experiment):
        try_plugins(run, trial)
    problems.collected += trial.collected


def _tried(run: Run) -> Problems:
    """Return the problems of a step on blank examples, without regularizers and then with them."""
    problems, inputs = Problems(run.experiment), run.blank_inputs(EXAMPLES)
    run.model.train()
    try_model_parts(run, inputs, problems)
    if not problems.collected and run.experiment.terms:
        with problems.at("regularizers"):
            add_regularizers(run)
            try_model_parts(run, inputs, problems)
    return problems

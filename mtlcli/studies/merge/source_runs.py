"""Runs that are merged: their checkpoints, read and checked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError, Problem
from mtlcli.models.pretrained.base import Base
from mtlcli.models.warm_start import find_mismatches, find_not_finite, join_problems
from mtlcli.regularizers.factorized import merge_factors
from mtlcli.specs import DatasetSpec
from mtlcli.training.assembly.adaptation import merge_stored_adapters
from mtlcli.training.assembly.assemble import assemble
from mtlcli.training.assembly.base_reference import restore_base
from mtlcli.training.assembly.build import within_memory
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.assembly.spaces import restore_statistics
from mtlcli.training.assembly.stems import fix_stem_shapes
from mtlcli.training.checkpoint.experiment import lacking
from mtlcli.training.checkpoint.file import load_checkpoint

TRUNK = "sharing.trunk."


@dataclass(frozen=True, eq=False)
class SourceRun:
    """A run that is merged.

    Attributes:
        name: the names of its tasks, unique among the runs.
        path: the checkpoint.
        payload: content of the checkpoint.
        experiment: its experiment; each stem has the key `shape`, so that it is complete without the others.
        state: state dict of its model, in which factorized layers are multiplied out and shared low-rank adapters are
            merged.
        place: the folder or file of the base that the checkpoint refers to; None if it refers to none.
    """

    name: str
    path: Path
    payload: Mapping[str, Any]
    experiment: Experiment
    state: dict[str, Tensor]
    place: Path | None = None

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.experiment.tasks)


def read_sources(paths: Sequence[Path], base: Path | None = None) -> list[SourceRun]:
    """Read the checkpoints of the runs to merge.

    Args:
        paths: the checkpoints, at least two.
        base: the folder or file of the base that checkpoints refer to; None to search it.

    Returns:
        The runs, in the given order.

    Raises:
        ConfigError: If a checkpoint can't be read, or the models can't be merged: the message lists all problems.
    """
    if len(paths) < 2:
        raise ConfigError(f"merging needs two or more runs, got {len(paths)}")
    sources: list[SourceRun] = []
    for path in paths:
        sources.append(_read(path, {source.name for source in sources}, base))
    problems = [problem for source in sources for problem in _sharing_problems(source)]
    if not problems:
        problems = [problem for source in sources[1:] for problem in _differences(sources[0], source)]
    if problems:
        raise ConfigError(problems)
    return sources


def _read(path: Path, names: set[str], base: Path | None) -> SourceRun:
    payload = load_checkpoint(path)
    try:
        experiment = experiment_from_dict(payload["config"], source=str(path))
    except ConfigError as error:
        raise ConfigError(lacking(error.problems, payload.get("plugins")) or error.problems) from error
    specs = {alias: DatasetSpec.from_dict(spec, f"{path}: specs.{alias}") for alias, spec in payload["specs"].items()}
    place = None
    if "reference" in payload:
        payload, place = _complete(payload, experiment, specs, base, str(path))
    if experiment.stems:
        experiment = fix_stem_shapes(experiment, specs)
    if experiment.adapters is not None:
        experiment = experiment.model_copy(update={"adapters": None})
        payload = _merge_adapters(payload, experiment, specs, path)
    if wrong := find_not_finite(payload["model"]):
        raise ConfigError(f"{path}: its model can't be merged: {join_problems(wrong)}")
    tasks = ",".join(experiment.tasks)
    name = next(name for name in (tasks, *(f"{tasks}#{n}" for n in range(2, len(names) + 2))) if name not in names)
    return SourceRun(name, path, payload, experiment, merge_factors(payload["model"]), place)


def _complete(
    payload: Mapping[str, Any],
    experiment: Experiment,
    specs: Mapping[str, DatasetSpec],
    given: Path | None,
    source: str,
) -> tuple[dict[str, Any], Path]:
    """Return the content of a checkpoint with the weights and the tokenizer that it refers to, and their place."""
    opened = open_datasets(experiment, specs, data=False)
    statistics = restore_statistics(payload.get("spaces", {}))
    with within_memory():
        restored = restore_base(experiment, payload, opened, statistics, given, source)
    whole = {key: value for key, value in payload.items() if key != "reference"}
    if restored.base is not None:
        whole["base"] = restored.base.to_dict()
    return {**whole, "model": restored.weights}, restored.place


def _merge_adapters(
    payload: Mapping[str, Any], plain: Experiment, specs: Mapping[str, DatasetSpec], path: Path
) -> dict[str, Any]:
    """Return the content of a checkpoint with its adapters merged into the weights; `plain` has no adapters."""
    base = Base.from_dict(payload["base"]) if "base" in payload else None
    opened = open_datasets(plain, specs, data=False)
    with within_memory():
        run = assemble(plain, torch.device("meta"), opened, restore_statistics(payload.get("spaces", {})), base)
    try:
        return {**payload, "model": merge_stored_adapters(run.model.sharing, payload)}
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _sharing_problems(source: SourceRun) -> list[Problem]:
    sharing = source.experiment.sharing.name
    if sharing == "hard":
        return []
    return [
        Problem(f"{source.path}: has `sharing: {sharing}`; only models with one trunk, `sharing: hard`, are merged")
    ]


def _differences(first: SourceRun, other: SourceRun) -> list[Problem]:
    """Describe the differences of two trunks, and of the stems and heads that both models have."""
    problems = []
    names = [source.experiment.trunk.name for source in (first, other)]
    if names[0] != names[1]:
        return [Problem(
            f"{other.path}: its trunk is {names[1]!r}, and that of {first.path} is {names[0]!r}. Only trunks of the "
            "same architecture can be merged"
        )]  # fmt: skip
    trunks = [
        {key.removeprefix(TRUNK): value for key, value in source.state.items() if key.startswith(TRUNK)}
        for source in (first, other)
    ]
    if differing := find_mismatches(*trunks):
        problems.append(Problem(
            f"{other.path}: its trunk differs from that of {first.path}: {join_problems(differing)}. "
            "Only trunks of the same architecture can be merged"
        ))  # fmt: skip
    both = [key for key in first.state if key in other.state and not key.startswith(TRUNK)]
    own, theirs = ({key: source.state[key] for key in both} for source in (first, other))
    if differing := find_mismatches(own, theirs):
        problems.append(Problem(f"{other.path}: differs from {first.path}: {join_problems(differing)}"))
    return problems

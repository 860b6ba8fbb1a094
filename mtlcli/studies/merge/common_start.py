"""The weights that several runs started from, rebuilt from their experiments."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, Problem
from mtlcli.models.pretrained.folders import find_cached_model
from mtlcli.models.warm_start import join_problems
from mtlcli.pretrained import find_weights
from mtlcli.specs import DatasetSpec
from mtlcli.studies.merge.source_runs import SourceRun
from mtlcli.training.assembly.assemble import assemble
from mtlcli.training.assembly.build import within_memory
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.assembly.initial_weights import start_weights
from mtlcli.training.assembly.spaces import restore_statistics
from mtlcli.training.assembly.stems import start_stems
from mtlcli.training.checkpoint.experiment import inside_current_folder
from mtlcli.training.checkpoint.file import rng_state, set_rng_state
from mtlcli.training.device import seed_everything

LOG = logging.getLogger("mtl")
CPU = torch.device("cpu")


def common_start(sources: Sequence[SourceRun], base: Path | None = None, trusted: bool = False) -> dict[str, Tensor]:
    """Rebuild the initial weights of runs, and check that those of the parameters that several of them have are equal.

    The weights are those of `trunk.init_from` or of a pretrained trunk, else the random ones of the seed.

    Args:
        sources: the runs.
        base: the checkpoint, or the folder of a pretrained model, that the runs started from, in place of
            `trunk.init_from` or `trunk.model` of the experiments.
        trusted: whether files outside the current folder that the experiments name may be read.

    Returns:
        State dict of the initial weights of all runs; of the first run that has each.

    Raises:
        ConfigError: If a start can't be rebuilt, or the starts differ.
    """
    start: dict[str, Tensor] = {}
    owner: dict[str, SourceRun] = {}
    problems: list[Problem] = []
    for source in sources:
        own = initial_state(source, base, trusted)
        if lacking := [key for key in source.state if key not in own]:
            raise ConfigError(f"{source.path}: its start has no {join_problems(lacking)}")
        differing = [key for key, value in own.items() if key in start and not torch.equal(value, start[key])]
        differing = [key for key in differing if value_can_differ(key)]
        if differing:
            problems.append(_describe(owner[differing[0]], source, differing))
        for key in own.keys() - start.keys():
            start[key], owner[key] = own[key], source
    if problems:
        advice = (
            "Task vectors need a common start: train the runs with the same `seed`, from the same checkpoint "
            "(`trunk.init_from`) or pretrained trunk; `--method mean` needs none"
        )
        raise ConfigError([*problems, Problem(advice)])
    _warn_of_versions(sources)
    return start


def value_can_differ(key: str) -> bool:
    """Return whether a difference of this entry matters: normalization is that of the data, not of the start."""
    return not key.startswith("normalize.")


def initial_state(source: SourceRun, base: Path | None = None, trusted: bool = False) -> dict[str, Tensor]:
    """Rebuild the model of a run as it was before its first step. The data is not accessed.

    Args:
        source: the run.
        base: the checkpoint or the folder of a model to use in place of that of the experiment.
        trusted: whether files outside the current folder that the experiment names may be read.

    Returns:
        The state dict.

    Raises:
        ConfigError: If the start can't be rebuilt.
    """
    experiment = _located(source, base or source.place, trusted)
    stored = {
        alias: DatasetSpec.from_dict(spec, f"{source.path}: specs.{alias}")
        for alias, spec in source.payload["specs"].items()
    }
    state = rng_state()
    try:
        with within_memory():
            seed_everything(experiment.seed)
            opened = open_datasets(experiment, stored, data=False)
            run = assemble(experiment, CPU, opened, restore_statistics(source.payload.get("spaces", {})))
            start_weights(run)
            if experiment.stems:
                start_stems(run)
    finally:
        set_rng_state(state)
    return dict(run.model.state_dict())


def _located(source: SourceRun, base: Path | None, trusted: bool) -> Experiment:
    """Return the experiment of a run with the files that its start is read from."""
    experiment, problems = source.experiment, list[Problem]()
    trunk = experiment.trunk
    options = {key: value for key in ("model", "pretrained") if isinstance(value := trunk.options.get(key), str)}
    key = "init_from" if trunk.init_from is not None else next(iter(options), None)
    if not getattr(registry.trunks[trunk.name].target, "takes_base", False) and key == "model":
        key = next((name for name in options if name != "model"), None)  # the model's name, not its files
    named = {f"stems.{alias}.init_from": stem.init_from for alias, stem in experiment.stems.items()}
    if base is not None and key is None:
        raise ConfigError(
            f"--base: {source.path} did not start from a checkpoint or a pretrained model; it has no trunk.init_from, "
            "trunk.model or trunk.pretrained"
        )
    place = str(base) if base is not None else trunk.init_from if key == "init_from" else options.get(str(key))
    if base is None and key == "model" and not trusted:
        place = _find_model(str(place))
        if place is None:
            problems.append(
                Problem(f"{source.path} started from {options[key]!r}, which is not here: give --base PATH")
            )
    elif base is None and key is not None:
        named[f"trunk.{key}"] = place
    if key == "init_from":
        trunk = replace(trunk, init_from=place)
    elif key is not None:
        trunk = replace(trunk, options={**trunk.options, key: place})
    for path, file in named.items():
        if file is not None and not trusted and not inside_current_folder(file):
            hint = "give it yourself with --base" if path.startswith("trunk") else "copy it there"
            problems.append(Problem(
                f"{source.path} has {str(file)!r}; a file outside the current folder is not read because a checkpoint "
                f"names it: {hint}", path
            ))  # fmt: skip
    if problems:
        raise ConfigError(problems)
    return experiment.model_copy(update={"trunk": trunk})


def _find_model(model: str) -> str | None:
    """Return the folder of a model in the current folder, the data root or the cache; nothing is downloaded."""
    if inside_current_folder(model) and Path(model).is_dir():
        return model
    with suppress(ValueError):
        if (fetched := find_weights(model)) is not None:
            return str(fetched)
    cached = find_cached_model(model)
    return None if cached is None else str(cached)


def _describe(first: SourceRun, other: SourceRun, keys: Sequence[str]) -> Problem:
    names = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return Problem(
        f"{first.path} (seed {first.experiment.seed}) and {other.path} (seed {other.experiment.seed}) did not start "
        f"from the same weights: {names}"
    )


def _warn_of_versions(sources: Sequence[SourceRun]) -> None:
    """Warn if a start depends on random numbers that another version of torch may draw differently."""
    drawn = [source for source in sources if source.experiment.trunk.init_from is None]
    versions = {str(source.payload.get("made_with", {}).get("torch")) for source in drawn} - {str(torch.__version__)}
    if versions:
        LOG.warning(
            "the start of the runs is rebuilt with torch %s, and they were trained with %s: its random weights may "
            "differ from the ones that the runs started from", torch.__version__, ", ".join(sorted(versions)),
        )  # fmt: skip

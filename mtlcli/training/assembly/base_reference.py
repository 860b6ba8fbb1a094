"""Base that a checkpoint refers to: determined for a run, and restored for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.files import given_path
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.folders import TOKENIZER
from mtlcli.pretrained import locate_weights
from mtlcli.training.assembly.assemble import assemble
from mtlcli.training.assembly.data_checks import Datasets
from mtlcli.training.assembly.initial_weights import start_weights
from mtlcli.training.assembly.spaces import Statistics
from mtlcli.training.checkpoint.base_files import (
    NAMES,
    BaseReference,
    Role,
    describe_files,
    find_base,
    hash_text,
    read_base_tokenizer,
)
from mtlcli.training.checkpoint.base_values import REFERENCE, fill_in_base, hash_value
from mtlcli.training.checkpoint.file import load_checkpoint, rng_state, set_rng_state
from mtlcli.training.device import seed_everything
from mtlcli.training.run import Run
from mtlcli.training.run_folder import checkpoint_of

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RestoredBase:
    """A base that was found.

    Attributes:
        weights: complete state dict of the model in the checkpoint.
        base: the pretrained model with its tokenizer; None if the trunk has none.
        place: the folder of the model, or the file of the trunk's weights.
    """

    weights: dict[str, Tensor]
    base: Base | None
    place: Path


def check_reference(run: Run) -> None:
    """Check that a run has weights that its checkpoints can leave out, by its configuration alone.

    Args:
        run: the run; its device may be `meta`.

    Raises:
        ValueError: if the trunk has no base, or all of its weights are trained.
    """
    _locate(run)
    if not _frozen_parameters(run):
        raise ValueError(
            "`reference` leaves frozen weights out of the checkpoints, but all weights of the trunk are trained. Leave "
            "it out, or freeze some: `adapters`, `trunk.freeze` or `trunk.frozen`"
        )


def make_reference(run: Run) -> BaseReference:
    """Determine the weights of a run that its base gives: those that are frozen and don't depend on the seed.

    The run is built a second time with another seed, and the frozen weights of both are compared.

    Args:
        run: the run before its first step.

    Returns:
        The reference.

    Raises:
        ConfigError: if the run has no such weights, or the files of the base can't be read.
    """
    try:
        check_reference(run)
        role, option, paths = _locate(run)
        if wrong := [path.name for path in paths if not NAMES[role].fullmatch(path.name)]:
            raise ValueError(f"the file {wrong[0]!r} can't be referred to; rename it to a name without spaces, in .pt")
    except ValueError as error:
        raise ConfigError(run.experiment.problem("checkpoint.base", str(error))) from error
    state = rng_state()
    try:
        seed_everything((run.experiment.seed + 1) % 2**32)
        opened = {alias: (run.datasets[alias], spec) for alias, spec in run.specs.items()}
        other = assemble(run.experiment, CPU, opened, base=run.base)
        start_weights(other)
    finally:
        set_rng_state(state)
    own = other.model.state_dict()
    values = {
        key: hash_value(value)
        for key, value in _frozen_parameters(run).items()
        if key in own and torch.equal(own[key], value.detach().cpu())
    }
    if not values:
        message = "no frozen weight of the trunk is one of its base"
        raise ConfigError(run.experiment.problem("checkpoint.base", message))
    folder = paths[0].parent.resolve()
    tokenizer = None
    if role == "model" and run.base is not None and run.base.tokenizer is not None:
        digest = hash_text(run.base.tokenizer)
        file = folder / TOKENIZER
        tokenizer = digest if file.is_file() and hash_text(file.read_text(encoding="utf-8")) == digest else None
    return BaseReference(role, option, str(folder), describe_files(paths), values, tokenizer)


def stored_weights(
    experiment: Experiment, payload: Mapping[str, Any], opened: Datasets, statistics: Statistics, given: Path | None
) -> tuple[dict[str, Tensor], Base | None]:
    """Return the complete state dict of the model in a checkpoint, and the pretrained model of its trunk.

    Args:
        experiment: the experiment of the checkpoint.
        payload: the content of the checkpoint.
        opened: the datasets.
        statistics: see `assemble`.
        given: the folder or file of the base that the user gives; None to search.

    Returns:
        The state dict, and the pretrained model; None if the trunk has none.

    Raises:
        ConfigError: if the base is not found or differs from that of the run, or the checkpoint refers to none.
    """
    if REFERENCE in payload:
        restored = restore_base(experiment, payload, opened, statistics, given, "the checkpoint")
        return restored.weights, restored.base
    if given is not None:
        raise ConfigError("--base: the checkpoint refers to no base: it holds all of its weights")
    base = Base.from_dict(payload["base"]) if "base" in payload else None
    if base is None and getattr(registry.trunks[experiment.trunk.name].target, "takes_base", False):
        raise ConfigError("the checkpoint lacks the configuration of its pretrained model")
    return payload["model"], base


def restore_base(
    experiment: Experiment,
    payload: Mapping[str, Any],
    opened: Datasets,
    statistics: Statistics,
    given: Path | None,
    source: str,
) -> RestoredBase:
    """Find the base of a checkpoint, and fill in the weights that the checkpoint leaves out.

    Args:
        experiment: the experiment of the checkpoint.
        payload: the content of the checkpoint, with a reference.
        opened: the datasets.
        statistics: see `assemble`.
        given: the folder or file of the base that the user gives; None to search.
        source: the checkpoint, for messages.

    Returns:
        The base, with the complete state dict on the CPU.

    Raises:
        ConfigError: if the base is not found or differs from that of the run.
    """
    reference = BaseReference.from_dict(payload[REFERENCE], source)
    paths = find_base(reference, given, source)
    base = Base.from_dict(payload["base"]) if "base" in payload else None
    trunk = replace(experiment.trunk, init_from=None)
    if reference.role == "model":
        if base is None:
            raise ConfigError(f"{source}: refers to a pretrained model, but has no configuration of one")
        tokenizer = base.tokenizer
        if reference.tokenizer is not None:
            tokenizer = read_base_tokenizer(reference, paths[0].parent, source)
        base = replace(base, weights=paths, tokenizer=tokenizer)
    elif reference.role == "pretrained":
        trunk = replace(trunk, options={**trunk.options, "pretrained": str(paths[0])})
    else:
        trunk = replace(trunk, init_from=str(paths[0]))
        base = _base_of_base(base, paths[0])
    state = rng_state()
    try:
        run = assemble(experiment.model_copy(update={"trunk": trunk}), CPU, opened, statistics, base)
        start_weights(run)
    finally:
        set_rng_state(state)
    place = paths[0].parent if reference.role == "model" else paths[0]
    return RestoredBase(fill_in_base(payload, run.model.state_dict(), source), base, place)


def _base_of_base(base: Base | None, checkpoint: Path) -> Base | None:
    """Return a pretrained model with its weights, if the checkpoint of a trunk refers to them."""
    payload = load_checkpoint(checkpoint)
    if base is None or REFERENCE not in payload:
        return base
    reference = BaseReference.from_dict(payload[REFERENCE], str(checkpoint))
    return replace(base, weights=find_base(reference, None, str(checkpoint))) if reference.role == "model" else base


def _locate(run: Run) -> tuple[Role, str, tuple[Path, ...]]:
    """Return the role, the option and the files of the base of a run's trunk; ValueError if it has none."""
    trunk = run.experiment.trunk
    if trunk.init_from is not None:
        return "init_from", str(trunk.init_from), (checkpoint_of(given_path(trunk.init_from, "checkpoint")),)
    if run.base is not None and run.base.weights:
        return "model", run.base.source, run.base.weights
    pretrained = trunk.options.get("pretrained")
    if isinstance(pretrained, str):
        return "pretrained", pretrained, (locate_weights(pretrained),)
    raise ValueError(
        "`reference` needs a trunk that is built from a pretrained model (`model`, `pretrained`) or initialized from a "
        "checkpoint (`trunk.init_from`)"
    )


def _frozen_parameters(run: Run) -> dict[str, Tensor]:
    """Return the parameters of the trunks that are not trained, by their keys in the state dict of the model."""
    inside = {id(parameter) for trunk in run.model.sharing.trunks().values() for parameter in trunk.parameters()}
    return {
        name: parameter
        for name, parameter in run.model.named_parameters()
        if id(parameter) in inside and not parameter.requires_grad
    }

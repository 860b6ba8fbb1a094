"""Parameter groups of the optimizer: parts of the model, and layers of its trunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.errors import suggest
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.named_layers import list_names, parameters_by_name, select
from mtlcli.training.assembly.trunk_layers import Piece, Refinement, decays_norms
from mtlcli.training.messages import NO_DECAY

MODEL, TRUNK, STEMS, HEADS = "model", "trunk", "stems", "heads"


def model_groups(model: MultiTaskModel, experiment: Experiment) -> list[tuple[str, dict[str, Any]]]:
    """Return the trainable parameters of the model as named groups of an optimizer.

    `trunk` denotes all shared parameters, `heads` all others, and the name of a task its own. The parameters of stems
    are in none of these, but in `stems`. Options of `heads` also apply to the tasks, unless their own groups set them,
    and those of `trunk` to its stages. Parts with the same options form one group, named by its parts: `model`,
    `trunk`, `stems`, `heads`, the name of a task or of a layer, or several of these joined by `+`; `(no decay)`
    follows the name of a group of norms and biases without weight decay. Shared parameters come first.

    Args:
        model: The model.
        experiment: The experiment, with `optimizer.groups`.

    Returns:
        (name, group) pairs.

    Raises:
        ConfigError: For a part that does not exist or has no trainable parameters.
    """
    entry = experiment.optimizer
    wanted, refined = entry.groups, entry.layer_decay is not None or not decays_norms(experiment)
    if not wanted and not refined:
        return [(MODEL, {"params": [p for p in model.parameters() if p.requires_grad]})]
    stems = _trainable(model.stems.parameters()) if model.stems is not None else None
    others = {id(p) for p in stems or ()}
    shared = [p for p in _trainable(model.shared_parameters()) if id(p) not in others]
    own = {
        task: [p for m in model.own_modules(task) for p in _trainable(m.parameters()) if id(p) not in others]
        for task in model.heads
    }
    stages = _check_names(experiment, model, shared, stems, own)
    heads = wanted.get(HEADS, {})
    parts = [(TRUNK, wanted.get(TRUNK, {}), shared)]
    if stems is not None:
        parts.append((STEMS, wanted.get(STEMS, {}), stems))
    parts += [(_label(task, stems is not None), {**heads, **wanted.get(task, {})}, own[task]) for task in own]
    pieces = [Piece(*part[:2], False, part[2]) for part in parts if part[2]]
    refinement = Refinement(experiment, model, stages) if refined or stages else None
    if refinement is not None:
        pieces = [piece for part in pieces for piece in refinement.pieces(part.name, part.options, part.parameters)]
    groups: list[tuple[list[str], Piece]] = []
    for piece in pieces:
        key = (piece.options, piece.undecayed)
        names, same = next(((n, g) for n, g in groups if (g.options, g.undecayed) == key), ([], None))
        if piece.name not in names:
            names.append(piece.name)
        if same is None:
            groups.append((names, replace(piece, parameters=list(piece.parameters))))
        else:
            same.parameters.extend(piece.parameters)
    tasks = [_label(task, stems is not None) for task in own if own[task]]
    whole = refinement is None or not refinement.layers
    return [
        (
            _group_name(names, tasks, bool(stems), whole) + (NO_DECAY if group.undecayed else ""),
            {"params": group.parameters, **group.options},
        )
        for names, group in groups
    ]


def group_sizes(model: MultiTaskModel, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return group → number of trainable `parameters`, `lr` and `weight_decay`, as far as the optimizer has them."""
    options = experiment.optimizer.options
    return {
        name: {
            "parameters": sum(p.numel() for p in group["params"]),
            **{key: group.get(key, options[key]) for key in ("lr", "weight_decay") if key in options},
        }
        for name, group in model_groups(model, experiment)
    }


def _label(task: str, has_stems: bool) -> str:
    return f"{task} (task)" if task in (MODEL, TRUNK, HEADS) or (has_stems and task == STEMS) else task


def _group_name(parts: list[str], tasks: list[str], has_stems: bool, whole: bool) -> str:
    """Return the name of a group with these parts.

    Args:
        parts: The parts.
        tasks: The tasks with trainable parameters of their own.
        has_stems: Whether there are stems with trainable parameters.
        whole: Whether `trunk` denotes all of the trunk, and not what its layers leave.
    """
    if tasks and parts[-len(tasks) :] == tasks:
        parts = [*parts[: -len(tasks)], HEADS]
    return MODEL if whole and parts == [TRUNK, *([STEMS] if has_stems else []), HEADS] else "+".join(parts)


def _check_names(
    experiment: Experiment,
    model: MultiTaskModel,
    shared: list[nn.Parameter],
    stems: list[nn.Parameter] | None,
    own: Mapping[str, list[nn.Parameter]],
) -> list[str]:
    """Check the names in `optimizer.groups`, and return those of stages and layers."""
    problems, stages = Problems(experiment), list[str]()
    general = {TRUNK: shared, **({} if stems is None else {STEMS: stems})}
    general[HEADS] = [p for parameters in own.values() for p in parameters]
    parts, layers = {**general, **own, **general}, dict[str, list[nn.Parameter]]()
    if experiment.optimizer.groups.keys() - parts.keys():
        for trunk in model.sharing.trunks().values():
            layers |= parameters_by_name(trunk)
    for name in experiment.optimizer.groups:
        with problems.at(f"optimizer.groups.{name}"):
            if name not in parts:
                _check_stage(name, parts, layers)
                stages.append(name)
                continue
            if name in general and name in own:
                raise ValueError(f"{name!r} is ambiguous, because a task has this name too: rename the task")
            if not parts[name] and name in own:
                raise ValueError(
                    f"task {name!r} has no trainable parameters of its own: its head is shared, because other tasks "
                    f"receive its prediction; use the group {TRUNK!r}"
                )
            if not parts[name]:
                frozen = ": it is frozen" if name == TRUNK and experiment.trunk.frozen else ""
                raise ValueError(f"the {name} has no trainable parameters{frozen}; remove this group")
    problems.check()
    return stages


def _check_stage(name: str, parts: Mapping[str, Any], layers: Mapping[str, list[nn.Parameter]]) -> None:
    """Check the name of a group that is none of the parts: a stage or layer of the trunk, or a pattern."""
    try:
        selected = select(layers, name)
    except ValueError as error:
        names = [*parts, *layers]
        raise ValueError(
            f"unknown part of the model {name!r}.{suggest(name, names)} Choose from: {list_names(names)}"
        ) from error
    if not _trainable(parameter for layer in selected for parameter in layers[layer]):
        raise ValueError(f"{name!r} has no trainable parameters: it is frozen; remove this group")


def _trainable(parameters: Any) -> list[nn.Parameter]:
    return [p for p in parameters if p.requires_grad]

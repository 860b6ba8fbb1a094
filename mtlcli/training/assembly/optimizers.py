"""Optimizer and parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.error_origin import blame_options
from mtlcli.errors import suggest
from mtlcli.models.model import MultiTaskModel
from mtlcli.training.run import Run

FUSED_ON_CPU = ("Adam", "AdamW", "SGD", "Adagrad")


def make_optimizer(run: Run, light: bool = False) -> Optimizer:
    """Create the optimizer of the model, the regularizers and the weighting.

    Parameters of the weighting have no weight decay. `fused` is enabled where torch supports it on the device, unless
    the YAML sets it: the update is the same, with fewer passes over memory.

    Args:
        run: The run.
        light: Only check the options. Adding parameters makes torch import torch._dynamo, which takes a second.

    Returns:
        The optimizer.

    Raises:
        ValueError: With the message of torch, for options that it rejects.
    """
    entry = run.experiment.optimizer
    make = registry.optimizers[entry.name].target
    if light:
        make = _options_only(make)
    options = dict(entry.options)
    fusible = run.device.type == "cuda" or (run.device.type == "cpu" and entry.name in FUSED_ON_CPU)
    if "fused" in inspect.signature(make).parameters and options.get("fused") is None:
        options["fused"] = True if fusible and not options.get("foreach") else None
    if light:
        check_options(run.experiment, make, options)
    optimizer: Optimizer = make([group for _, group in _groups(run)], **options)
    return optimizer


def group_names(run: Run) -> list[str]:
    """Return the names of the parameter groups in the order of the optimizer."""
    return [name for name, _ in _groups(run)]


def learning_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each parameter group."""
    return [group["lr"] for group in optimizer.param_groups]


def scale_rates(optimizer: Optimizer, before: Sequence[float], now: Sequence[float]) -> None:
    """Scale the learning rates of a resumed run from those that it was started with to the current ones.

    A schedule that is a function of its steps overwrites them afterwards.
    """
    for group, old, new in zip(optimizer.param_groups, before, now, strict=True):
        if new != old:
            group["lr"] = group["lr"] * (new / old) if old else new


def _groups(run: Run) -> list[tuple[str, dict[str, Any]]]:
    groups = model_groups(run.model, run.experiment)
    if own := list(run.regularization.parameters()):
        groups.append(("regularizers", {"params": own}))
    if own := list(run.weighting.parameters()):
        decays = "weight_decay" in run.experiment.optimizer.options
        groups.append(("weighting", {"params": own, **({"weight_decay": 0.0} if decays else {})}))
    return groups


def _options_only(make: Any) -> Any:
    """Return the optimizer's class without the processing of parameters in `add_param_group`."""

    def add_param_group(self: Optimizer, group: dict[str, Any]) -> None:
        self.param_groups.append({**self.defaults, **group})

    return type(make.__name__, (make,), {"add_param_group": add_param_group})


MODEL, TRUNK, HEADS = "model", "trunk", "heads"

# Options of schedulers that replace the learning rate of the optimizer.
ABSOLUTE = {"OneCycleLR": ("max_lr",), "CyclicLR": ("base_lr", "max_lr")}


def model_groups(model: MultiTaskModel, experiment: Experiment) -> list[tuple[str, dict[str, Any]]]:
    """Return the trainable parameters of the model as named groups of an optimizer.

    `trunk` denotes all shared parameters, `heads` all others, and the name of a task its own. Options of `heads` also
    apply to the tasks, unless their own groups set them. Parts with the same options form one group, named by its
    parts: `model`, `trunk`, `heads`, the name of a task, or several of these joined by `+`. Shared parameters come
    first.

    Args:
        model: The model.
        experiment: The experiment, with `optimizer.groups`.

    Returns:
        (name, group) pairs.

    Raises:
        ConfigError: For a part that does not exist or has no trainable parameters.
    """
    wanted = experiment.optimizer.groups
    if not wanted:
        return [(MODEL, {"params": [p for p in model.parameters() if p.requires_grad]})]
    shared = _trainable(model.shared_parameters())
    own = {task: _trainable(p for m in model.sharing.own_modules(task) for p in m.parameters()) for task in model.heads}
    _check_names(experiment, shared, own)
    heads = wanted.get(HEADS, {})
    parts = [(TRUNK, wanted.get(TRUNK, {}), shared)]
    parts += [(_label(task), {**heads, **wanted.get(task, {})}, own[task]) for task in own]
    groups: list[tuple[list[str], dict[str, Any], list[nn.Parameter]]] = []
    for name, options, parameters in (entry for entry in parts if entry[2]):
        same = next((group for group in groups if group[1] == options), None)
        if same is None:
            groups.append(([name], options, list(parameters)))
        else:
            same[0].append(name)
            same[2].extend(parameters)
    tasks = [_label(task) for task in own if own[task]]
    return [(_group_name(names, tasks), {"params": parameters, **options}) for names, options, parameters in groups]


def _label(task: str) -> str:
    return f"{task} (task)" if task in (MODEL, TRUNK, HEADS) else task


def _group_name(parts: list[str], tasks: list[str]) -> str:
    """Return the name of a group with these parts; `tasks` are those with parameters of their own."""
    if tasks and parts[-len(tasks) :] == tasks:
        parts = [*parts[: -len(tasks)], HEADS]
    return MODEL if parts == [TRUNK, HEADS] else "+".join(parts)


def check_options(experiment: Experiment, make: Callable[..., Optimizer], options: Mapping[str, Any]) -> None:
    """Check the options of parameter groups, which torch checks only for the optimizer itself.

    Args:
        experiment: The experiment, with `optimizer.groups`.
        make: Class of the optimizer.
        options: Options of the optimizer.

    Raises:
        ConfigError: For options that the optimizer rejects.
    """
    problems = Problems(experiment)
    for name, group in experiment.optimizer.groups.items():
        with problems.at(f"optimizer.groups.{name}"):
            blame_options(lambda **own: make([{"params": []}], **{**options, **own}), group, sole=True)
    problems.check()


def scaled_rates(experiment: Experiment, optimizer: Optimizer) -> dict[str, list[float]]:
    """Return the options of the scheduler that are learning rates, scaled to each parameter group.

    With `{name: OneCycleLR, max_lr: 0.01}`, a group with a tenth of the optimizer's `lr` reaches 0.001. Lists, and
    experiments without `groups`, are left unchanged.
    """
    entry = experiment.scheduler
    if entry is None or not experiment.optimizer.groups:
        return {}
    given = {name: entry.options[name] for name in ABSOLUTE.get(entry.name, ())}
    rates = [group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
    return {name: [value * rate for rate in rates] for name, value in given.items() if not isinstance(value, list)}


def _check_names(experiment: Experiment, shared: list[nn.Parameter], own: Mapping[str, list[nn.Parameter]]) -> None:
    problems = Problems(experiment)
    parts = {**own, TRUNK: shared, HEADS: [p for parameters in own.values() for p in parameters]}
    for name in experiment.optimizer.groups:
        with problems.at(f"optimizer.groups.{name}"):
            if name not in parts:
                names = ", ".join([TRUNK, HEADS, *own])
                raise ValueError(f"unknown part of the model {name!r}.{suggest(name, parts)} Choose from: {names}")
            if name in (TRUNK, HEADS) and name in own:
                raise ValueError(f"{name!r} is ambiguous, because a task has this name too: rename the task")
            if not parts[name]:
                frozen = ": it is frozen" if name == TRUNK and experiment.trunk.frozen else ""
                raise ValueError(f"the {name} has no trainable parameters{frozen}; remove this group")
    problems.check()


def _trainable(parameters: Any) -> list[nn.Parameter]:
    return [p for p in parameters if p.requires_grad]

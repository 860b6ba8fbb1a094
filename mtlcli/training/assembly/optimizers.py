"""The optimizer and its groups of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.error_origin import blaming
from mtlcli.errors import nearest
from mtlcli.models.model import MultiTaskModel
from mtlcli.training.problems import Problems
from mtlcli.training.run import Run

FUSED_ON_CPU = ("Adam", "AdamW", "SGD", "Adagrad")


def make_optimizer(run: Run, light: bool = False) -> Optimizer:
    """The optimizer of the model's and the regularizers' parameters, and of the weighting's without weight decay.

    `fused` is switched on where torch has it for the device and the YAML doesn't say: same update, fewer passes.
    light: only check the options; what torch does with the parameters imports torch._dynamo, which takes a second.
    Raises ValueError, with torch's words, for options it refuses.
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
    """The names of the optimizer's groups of parameters, in their order."""
    return [name for name, _ in _groups(run)]


def learning_rates(optimizer: Optimizer) -> list[float]:
    """The learning rate of each group."""
    return [group["lr"] for group in optimizer.param_groups]


def scale_rates(optimizer: Optimizer, before: Sequence[float], now: Sequence[float]) -> None:
    """Scale the learning rates of the groups from those that a run was started with to those it is resumed with.

    A schedule that is a function of its steps sets them anew after that.
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
    """The optimizer's class without what torch does to take in parameters."""

    def add_param_group(self: Optimizer, group: dict[str, Any]) -> None:
        self.param_groups.append({**self.defaults, **group})

    return type(make.__name__, (make,), {"add_param_group": add_param_group})


MODEL, TRUNK, HEADS = "model", "trunk", "heads"

# What schedulers set a learning rate to, whatever it is in the optimizer.
ABSOLUTE = {"OneCycleLR": ("max_lr",), "CyclicLR": ("base_lr", "max_lr")}


def model_groups(model: MultiTaskModel, experiment: Experiment) -> list[tuple[str, dict[str, Any]]]:
    """The model's trainable parameters as torch's optimizers take them: a named group for all with the same options.

    `trunk` stands for all that is shared, `heads` for all that isn't, a task's name for what is its own (to which what
    `heads` has applies too, where the task's group doesn't say otherwise). Shared parameters are in the first group.
    A group is named by its parts: `model`, `trunk`, `heads`, a task's name, or several of these joined by `+`.
    ConfigError for a part that there isn't, or that has nothing to train.
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
    for part, options, parameters in (part for part in parts if part[2]):
        same = next((group for group in groups if group[1] == options), None)
        if same is None:
            groups.append(([part], options, list(parameters)))
        else:
            same[0].append(part)
            same[2].extend(parameters)
    tasks = [_label(task) for task in own if own[task]]
    return [(_group_name(names, tasks), {"params": parameters, **options}) for names, options, parameters in groups]


def _label(task: str) -> str:
    return f"{task} (task)" if task in (MODEL, TRUNK, HEADS) else task


def _group_name(parts: list[str], tasks: list[str]) -> str:
    """The name of a group of these parts. tasks: those that have parameters of their own."""
    if tasks and parts[-len(tasks) :] == tasks:
        parts = [*parts[: -len(tasks)], HEADS]
    return MODEL if parts == [TRUNK, HEADS] else "+".join(parts)


def check_options(experiment: Experiment, make: Callable[..., Optimizer], options: Mapping[str, Any]) -> None:
    """ConfigError for options of a group that the optimizer refuses, which torch checks only in those of the optimizer.

    options: the optimizer's.
    """
    problems = Problems(experiment)
    for name, group in experiment.optimizer.groups.items():
        with problems.at(f"optimizer.groups.{name}"):
            blaming(lambda **own: make([{"params": []}], **{**options, **own}), group, sole=True)
    problems.check()


def scaled_rates(experiment: Experiment, optimizer: Optimizer) -> dict[str, list[float]]:
    """Options of the scheduler that are learning rates themselves: one for each group, in the proportions of theirs.

    So `{name: OneCycleLR, max_lr: 0.01}` takes a group with a tenth of the optimizer's `lr` up to 0.001. Lists, and
    experiments without `groups`, are left alone.
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
                known = ", ".join([TRUNK, HEADS, *own])
                raise ValueError(f"no part of the model is called {name!r}.{nearest(name, parts)} Choose from: {known}")
            if name in (TRUNK, HEADS) and name in own:
                raise ValueError(f"a task is called {name!r} too: rename it, so that one can tell which is meant")
            if not parts[name]:
                frozen = ": it is frozen" if name == TRUNK and experiment.trunk.frozen else ""
                raise ValueError(f"there is nothing to train in the {name}{frozen}; take this group out")
    problems.check()


def _trainable(parameters: Any) -> list[nn.Parameter]:
    return [p for p in parameters if p.requires_grad]

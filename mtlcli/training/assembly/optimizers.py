"""Optimizer, its parameter groups, and a check of its options and those of the scheduler."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.component import blame_options
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.config.options import options_of
from mtlcli.errors import suggest
from mtlcli.models.model import MultiTaskModel
from mtlcli.training.assembly.schedules import make_schedule
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


MODEL, TRUNK, STEMS, HEADS = "model", "trunk", "stems", "heads"


def model_groups(model: MultiTaskModel, experiment: Experiment) -> list[tuple[str, dict[str, Any]]]:
    """Return the trainable parameters of the model as named groups of an optimizer.

    `trunk` denotes all shared parameters, `heads` all others, and the name of a task its own. The parameters of stems
    are in none of these, but in `stems`. Options of `heads` also apply to the tasks, unless their own groups set them.
    Parts with the same options form one group, named by its parts: `model`, `trunk`, `stems`, `heads`, the name of a
    task, or several of these joined by `+`. Shared parameters come first.

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
    stems = _trainable(model.stems.parameters()) if model.stems is not None else None
    others = {id(p) for p in stems or ()}
    shared = [p for p in _trainable(model.shared_parameters()) if id(p) not in others]
    own = {
        task: [p for m in model.own_modules(task) for p in _trainable(m.parameters()) if id(p) not in others]
        for task in model.heads
    }
    _check_names(experiment, shared, stems, own)
    heads = wanted.get(HEADS, {})
    parts = [(TRUNK, wanted.get(TRUNK, {}), shared)]
    if stems is not None:
        parts.append((STEMS, wanted.get(STEMS, {}), stems))
    parts += [(_label(task, stems is not None), {**heads, **wanted.get(task, {})}, own[task]) for task in own]
    groups: list[tuple[list[str], dict[str, Any], list[nn.Parameter]]] = []
    for name, options, parameters in (entry for entry in parts if entry[2]):
        same = next((group for group in groups if group[1] == options), None)
        if same is None:
            groups.append(([name], options, list(parameters)))
        else:
            same[0].append(name)
            same[2].extend(parameters)
    tasks = [_label(task, stems is not None) for task in own if own[task]]
    return [
        (_group_name(names, tasks, bool(stems)), {"params": parameters, **options})
        for names, options, parameters in groups
    ]


def _label(task: str, has_stems: bool) -> str:
    return f"{task} (task)" if task in (MODEL, TRUNK, HEADS) or (has_stems and task == STEMS) else task


def _group_name(parts: list[str], tasks: list[str], has_stems: bool) -> str:
    """Return the name of a group with these parts.

    Args:
        parts: The parts.
        tasks: The tasks with trainable parameters of their own.
        has_stems: Whether there are stems with trainable parameters.
    """
    if tasks and parts[-len(tasks) :] == tasks:
        parts = [*parts[: -len(tasks)], HEADS]
    return MODEL if parts == [TRUNK, *([STEMS] if has_stems else []), HEADS] else "+".join(parts)


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


def _check_names(
    experiment: Experiment,
    shared: list[nn.Parameter],
    stems: list[nn.Parameter] | None,
    own: Mapping[str, list[nn.Parameter]],
) -> None:
    problems = Problems(experiment)
    general = {TRUNK: shared, **({} if stems is None else {STEMS: stems})}
    general[HEADS] = [p for parameters in own.values() for p in parameters]
    parts = {**own, **general}
    for name in experiment.optimizer.groups:
        with problems.at(f"optimizer.groups.{name}"):
            if name not in parts:
                names = ", ".join([*general, *own])
                raise ValueError(f"unknown part of the model {name!r}.{suggest(name, parts)} Choose from: {names}")
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


def _trainable(parameters: Any) -> list[nn.Parameter]:
    return [p for p in parameters if p.requires_grad]


MOST_STEPS = 100  # maximum number of steps that are tried


def check_optimizer(run: Run, problems: Problems) -> None:
    """Collect the options that the optimizer, its groups or the scheduler reject."""
    created: list[Optimizer] = []
    with problems.at("optimizer"):
        options = run.experiment.optimizer.options
        blame_options(lambda **options: _light_optimizer(run, options), options, sole=True)
        created.append(make_optimizer(run, light=True))
    if (entry := run.experiment.scheduler) is None:
        return
    with problems.at("scheduler"):
        # a schedule can be judged with any optimizer
        optimizer = created[0] if created else _light_optimizer(run, {})
        accepted = options_of(registry.schedulers[entry.name]).values()
        required = [option.name for option in accepted if option.required]
        blame_options(
            lambda **options: _try_schedule(_with(run, "scheduler", options), optimizer),
            entry.options,
            required,
            sole=True,
        )


def _light_optimizer(run: Run, options: dict[str, Any]) -> Optimizer:
    """Create the optimizer with these options, without parameter groups."""
    return make_optimizer(_with(run, "optimizer", options, groups={}), light=True)


def _with(run: Run, key: str, options: dict[str, Any], **more: Any) -> Run:
    """Return the run with other options of its optimizer or scheduler."""
    entry = replace(getattr(run.experiment, key), options=options, **more)
    return replace(run, experiment=run.experiment.model_copy(update={key: entry}))


def _try_schedule(run: Run, optimizer: Optimizer) -> None:
    """Advance the schedule by some steps; ValueError for a learning rate that is negative or not finite."""
    before = [dict(group) for group in optimizer.param_groups]
    try:
        schedule = make_schedule(run, optimizer, steps=None, direction="max")
        for step in range(1, min(run.experiment.training.epochs, MOST_STEPS) + 1):
            for group, first in zip(optimizer.param_groups, before, strict=True):
                rate, largest = float(group["lr"]), abs(float(first["lr"]))
                if not math.isfinite(rate) or rate < -1e-6 * largest:  # a cosine may end at a rounding error below 0
                    raise ValueError(f"gives a learning rate of {rate:g} at step {step} of the schedule")
            with warnings.catch_warnings(action="ignore"):  # the optimizer makes no steps here
                if schedule.per_step:
                    schedule.after_step()
                else:
                    schedule.after_epoch(0.0)
    finally:
        for group, old in zip(optimizer.param_groups, before, strict=True):
            group.clear()
            group.update(old)

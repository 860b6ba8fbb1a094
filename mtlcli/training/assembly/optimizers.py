"""Optimizer, and a check of its options and those of the scheduler."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.component import blame_options
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.config.options import options_of
from mtlcli.training.assembly.parameter_groups import MODEL, model_groups
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
    entry, trunk = run.experiment.optimizer, registry.trunks[run.experiment.trunk.name].target
    if (
        entry.groups
        or (entry.layer_decay, entry.decay_norms) != (None, None)
        or not getattr(trunk, "decay_norms", True)
    ):
        groups = model_groups(run.model, run.experiment)
    else:
        groups = [(MODEL, {"params": [p for p in run.model.parameters() if p.requires_grad]})]
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

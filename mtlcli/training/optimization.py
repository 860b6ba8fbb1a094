"""The optimizer and its groups of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.training.parameter_groups import check_options, model_groups
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

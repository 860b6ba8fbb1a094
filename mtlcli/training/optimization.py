"""torch's own optimizers and schedulers, by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.training.parameter_groups import check_options, model_groups, scaled_rates
from mtlcli.training.run import Run

FUSED_ON_CPU = ("Adam", "AdamW", "SGD", "Adagrad")
ENDS = ("T_max", "total_steps", "total_iters", "_schedule_phases")  # what schedulers keep of the length they have
LENGTH_OPTIONS = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps", "PolynomialLR": "total_iters"}


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
    groups = model_groups(run.model, run.experiment)
    if own := list(run.regularization.parameters()):
        groups.append({"params": own})
    if own := list(run.weighting.parameters()):
        groups.append({"params": own, **({"weight_decay": 0.0} if "weight_decay" in options else {})})
    optimizer: Optimizer = make(groups, **options)
    return optimizer


def _options_only(make: Any) -> Any:
    """The optimizer's class without what torch does to take in parameters."""

    def add_param_group(self: Optimizer, group: dict[str, Any]) -> None:
        self.param_groups.append({**self.defaults, **group})

    return type(make.__name__, (make,), {"add_param_group": add_param_group})


class Schedule:
    """A torch scheduler, or none, stepped after each epoch or each optimizer step, as its `interval` says."""

    def __init__(self, scheduler: LRScheduler | None, per_step: bool) -> None:
        self.scheduler = scheduler
        self.per_step = per_step

    def after_step(self) -> None:
        if self.scheduler is not None and self.per_step:
            self.scheduler.step()

    def after_epoch(self, monitored: float) -> None:
        """monitored: the epoch's monitored value, which ReduceLROnPlateau goes by."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(monitored)
        elif self.scheduler is not None and not self.per_step:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scheduler is None else dict(self.scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, towards the end that this run has."""
        if self.scheduler is not None:
            ends = {name: vars(self.scheduler)[name] for name in ENDS if name in vars(self.scheduler)}
            self.scheduler.load_state_dict(state)
            vars(self.scheduler).update(ends)

    def scale(self, factors: Sequence[float]) -> None:
        """Multiply the rates it starts from, one for each group of parameters."""
        if self.scheduler is not None and hasattr(self.scheduler, "base_lrs"):
            pairs = zip(self.scheduler.base_lrs, factors, strict=True)
            self.scheduler.base_lrs = [rate * factor for rate, factor in pairs]


def make_schedule(run: Run, optimizer: Optimizer, steps: int, direction: str) -> Schedule:
    """The scheduler, with its length taken from the run where the YAML leaves it out, for all groups of parameters.

    steps: optimizer steps in an epoch. direction: whether more (`max`) or less of the monitored value is better.
    Raises ValueError, TypeError or ArithmeticError, with torch's words, for options it refuses.
    """
    entry = run.experiment.scheduler
    if entry is None:
        return Schedule(None, per_step=False)
    per_step = entry.interval == "step"
    options = dict(entry.options)
    length = run.experiment.training.epochs * (steps if per_step else 1)
    if has_derived_length(run.experiment):
        options[LENGTH_OPTIONS[entry.name]] = length
    if entry.name == "ReduceLROnPlateau":
        if per_step:
            raise ValueError("ReduceLROnPlateau goes by the monitored value, so it steps after epochs: interval: epoch")
        options["mode"] = direction
    options |= scaled_rates(run.experiment, optimizer)
    scheduler = registry.schedulers[entry.name].target(optimizer, **options)
    if getattr(scheduler, "total_steps", length) < length:  # OneCycleLR refuses to go on after its end
        raise ValueError(f"its total_steps are {scheduler.total_steps}, and the run has {length}")
    return Schedule(scheduler, per_step)


def has_derived_length(experiment: Experiment) -> bool:
    """Whether the scheduler's length is the run's, since the YAML gives it none."""
    entry = experiment.scheduler
    if entry is None or entry.name not in LENGTH_OPTIONS:
        return False
    return entry.options.get(LENGTH_OPTIONS[entry.name]) is None and entry.options.get("epochs") is None

"""The registered loss-level weightings, and functions that run one; the shared tests parametrize over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask

LOSS_LEVEL = [name for name in weightings.names() if issubclass(weightings[name].target, LossWeighting)]  # type: ignore[arg-type]
RANDOM = {"rlw"}
SUMS_TO_TASKS = ["uniform", "dwa", "rlw"]  # the weights of the others are not normalized
OPTIONS: dict[str, dict[str, Any]] = {"stch": {"warmup_epochs": 2}}  # so that a few epochs cover all phases
LINEAR = [name for name in LOSS_LEVEL if weightings[name].target.linear]  # type: ignore[attr-defined]


def tasks(count: int, order: Sequence[int] | None = None) -> list[WeightedTask]:
    """Return `count` tasks with different λ and likelihoods, in the given order."""
    all_tasks = [
        WeightedTask(f"task{i}", 0.5 + i % 7, "gaussian" if i % 3 == 0 else "categorical") for i in range(count)
    ]
    return [all_tasks[i] for i in (order or range(count))]


def relations(weighted: Sequence[WeightedTask]) -> dict[str, dict[str, float]]:
    """Return relations by name, independent of the order: positive definite, larger for tasks with close numbers."""
    at = [int(task.name.removeprefix("task")) for task in weighted]
    return {f"task{i}": {f"task{j}": math.exp(-abs(i - j) / 3) for j in at} for i in at}


def create(name: str, weighted: list[WeightedTask], **options: Any) -> LossWeighting:
    defaults = {"matrix": relations(weighted)} if name == "relation" else OPTIONS.get(name, {})
    weighting: LossWeighting = weightings[name].target(weighted, **{**defaults, **options})
    weighting.seed(3)
    return weighting


def step(weighting: LossWeighting, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Run one optimizer step on a whole batch with all tasks present; return (objective, weights)."""
    weighting.start_step()
    objective, weights = weighting.objective(losses, range(len(losses)))
    if parameters := list(weighting.parameters()):
        for parameter, gradient in zip(parameters, torch.autograd.grad(objective, parameters), strict=True):
            parameter.data -= 0.1 * gradient
    return objective.detach(), weights


def train(weighting: LossWeighting, history: Tensor) -> None:
    """Run one step and one epoch per row of `history` [E, T], and begin the next step."""
    for losses in history:
        step(weighting, losses)
        weighting.end_epoch(losses)
    weighting.start_step()


def history(epochs: int, count: int, seed: int = 0) -> Tensor:
    return torch.rand(epochs, count, generator=torch.Generator().manual_seed(seed)) + 0.2


def gradient(objective: Tensor, losses: Tensor) -> Tensor:
    return torch.autograd.grad(objective, losses)[0]

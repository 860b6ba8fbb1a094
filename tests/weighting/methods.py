"""Every registered loss-level weighting, and how the tests run one: what all of them are held to finds them here."""

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
SUMS_TO_TASKS = ["uniform", "dwa", "rlw"]  # the others' weights are free, or the user's
OPTIONS: dict[str, dict[str, Any]] = {"stch": {"warmup_epochs": 2}}  # so that a few epochs reach all a method does
LINEAR = [name for name in LOSS_LEVEL if weightings[name].target.linear]  # type: ignore[attr-defined]


def tasks(count: int, order: Sequence[int] | None = None) -> list[WeightedTask]:
    """`count` tasks of different λ and likelihood, in the given order."""
    made = [WeightedTask(f"task{i}", 0.5 + i % 7, "gaussian" if i % 3 == 0 else "categorical") for i in range(count)]
    return [made[i] for i in (order or range(count))]


def relations(made: Sequence[WeightedTask]) -> dict[str, dict[str, float]]:
    """By name, so that it is the same in any order: positive, positive definite, near tasks more related."""
    at = [int(task.name.removeprefix("task")) for task in made]
    return {f"task{i}": {f"task{j}": math.exp(-abs(i - j) / 3) for j in at} for i in at}


def create(name: str, made: list[WeightedTask], **options: Any) -> LossWeighting:
    given = {"matrix": relations(made)} if name == "relation" else OPTIONS.get(name, {})
    weighting: LossWeighting = weightings[name].target(made, **{**given, **options})
    weighting.seed(3)
    return weighting


def step(weighting: LossWeighting, losses: Tensor) -> tuple[Tensor, Tensor]:
    """One optimizer step on a whole batch in which all tasks are present; returns (objective, weights)."""
    weighting.start_step()
    objective, weights = weighting.objective(losses, range(len(losses)))
    if own := list(weighting.parameters()):
        for parameter, gradient in zip(own, torch.autograd.grad(objective, own), strict=True):
            parameter.data -= 0.1 * gradient
    return objective.detach(), weights


def train(weighting: LossWeighting, history: Tensor) -> None:
    """One step and one epoch per row of `history` [E, T]; then the next step begins."""
    for losses in history:
        step(weighting, losses)
        weighting.end_epoch(losses)
    weighting.start_step()


def history(epochs: int, count: int, seed: int = 0) -> Tensor:
    return torch.rand(epochs, count, generator=torch.Generator().manual_seed(seed)) + 0.2


def gradient(objective: Tensor, losses: Tensor) -> Tensor:
    return torch.autograd.grad(objective, losses)[0]

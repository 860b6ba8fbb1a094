"""Jacobians of all kinds that a method may get (as in TorchJD's tests), and functions that run a method on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, JacobianWeighting
from tests.weighting.methods import tasks

SCALES = [0.0, 1e-15, 1e-5, 1.0, 1e5, 1e15]


def named(base: type) -> list[str]:
    return [name for name in weightings.names() if issubclass(weightings[name].target, base)]  # type: ignore[arg-type]


def random(seed: int, count: int, size: int | None = None) -> Tensor:
    """Draw a J [count, size] of normal numbers; with 2 count columns, so of full rank, by default."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size or 2 * count, generator=generator, dtype=torch.float64)


def of_rank(seed: int, count: int, rank: int, size: int = 20) -> Tensor:
    """Draw a J [count, size] of the given rank."""
    left = random(seed, count, rank)
    return left @ random(seed + 1, rank, size)


def conflicting(seed: int, count: int, size: int = 20) -> Tensor:
    """Draw a J whose rows nearly cancel: their sum is 1/1000 of any of them (TorchJD's "strong" matrices)."""
    jacobian = random(seed, count, size)
    return jacobian - jacobian.mean(0) * 0.999


def stationary(seed: int, count: int, size: int = 20) -> Tensor:
    """Draw a J with a vanishing convex combination of rows: nothing improves every task."""
    jacobian = random(seed, count, size)
    jacobian[-1] = -(
        torch.rand(count - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ jacobian[:-1]
    )
    return jacobian


def non_conflicting(seed: int, count: int, size: int = 20) -> Tensor:
    """Draw a J whose rows all have positive inner products."""
    return random(seed, count, size).abs()


def every_kind(count: int) -> Iterator[tuple[str, Tensor]]:
    """Yield unscaled Jacobians of every kind with `count` tasks, by name."""
    yield "random", random(0, count, 20)
    yield "more tasks than parameters", random(1, count, max(1, count // 2))
    yield "rank one", of_rank(2, count, 1)
    yield "half rank", of_rank(3, count, max(1, count // 2))
    yield "conflicting", conflicting(4, count)
    yield "non-conflicting", non_conflicting(5, count)
    yield "identical", random(6, 1, 20).repeat(count, 1)
    yield "unequal norms", random(7, count, 20) * torch.logspace(-4, 4, count, dtype=torch.float64)[:, None]
    if count > 1:
        yield "stationary", stationary(8, count)
        yield "opposed", torch.cat([random(9, 1, 20), -random(9, 1, 20).repeat(count - 1, 1)])
        zero = random(10, count, 20)
        zero[count // 2] = 0.0
        yield "one zero", zero


def create(name: str, count: int, size: int = 20, order: list[int] | None = None, **options: Any) -> Any:
    weighting = weightings[name].target(tasks(count, order), **options)
    weighting.seed(3)
    if isinstance(weighting, JacobianWeighting):
        weighting.allocate(size)
    return weighting


def solve(weighting: Any, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
    """Run one step of a method on J [t, P] with all tasks present; return the weights [t]."""
    return descend(weighting, jacobian, losses)[1]


def descend(weighting: Any, jacobian: Tensor, losses: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run one step of a method on J [t, P] with all tasks present; return (update [P], weights [t]).

    Methods that need independent samples get the same J for all of them.
    """
    count = len(jacobian)
    losses = torch.linspace(0.5, 1.5, count, dtype=torch.float64) if losses is None else losses
    gramian = jacobian.double() @ jacobian.double().T
    weighting.start_step()
    if isinstance(weighting, GramianWeighting):
        weights = weighting.weights(gramian, losses, range(count))
        return weights @ jacobian.double(), weights
    assert isinstance(weighting, JacobianWeighting)
    update, weights = weighting.update(jacobian.float(), gramian, losses, range(count))
    return update, weights

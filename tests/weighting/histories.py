"""Histories of gradients, for the methods that remember them, and how the tests run one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.weighting.jacobians import create


def gradients(seed: int, steps: int, *shape: int, scale: float = 1.0) -> list[Tensor]:
    """One tensor of normal numbers a step, float32."""
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(*shape, generator=generator) for _ in range(steps)]


def losses(seed: int, steps: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return [torch.rand(count, generator=generator, dtype=torch.float64) + 0.2 for _ in range(steps)]


def run(
    weighting: Any,
    jacobians: Sequence[Tensor],
    values: Sequence[Tensor] | None = None,
    present: list[int] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """One step for each Jacobian of the present tasks (all of them): (update, weights) of each."""
    results = []
    for i, jacobian in enumerate(jacobians):
        mean = jacobian.double() if weighting.samples == 1 else jacobian.double().mean(0)
        given = torch.ones(len(mean), dtype=torch.float64) if values is None else values[i]
        before = jacobian.clone()
        weighting.start_step()
        results.append(weighting.update(jacobian, mean @ mean.T, given, present or list(range(len(mean)))))
        assert torch.equal(jacobian, before), "the Jacobian was changed"
    return results


def resumed(weighting: Any, name: str, count: int, size: int, **options: Any) -> Any:
    """A weighting made anew, with the state that the given one has saved to a file."""
    file = io.BytesIO()
    torch.save(weighting.state_dict(), file)
    file.seek(0)
    anew = create(name, count, size, **options)
    anew.load_state_dict(torch.load(file, weights_only=True))
    return anew


def assert_same(ours: Sequence[tuple[Tensor, Tensor]], theirs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """To the last bit."""
    for (update, weights), (expected_update, expected_weights) in zip(ours, theirs, strict=True):
        assert torch.equal(update, expected_update) and torch.equal(weights, expected_weights)


def close(actual: Tensor, expected: Any, tolerance: float = 1e-4) -> None:
    """Within `tolerance` of the expected tensor's largest entry."""
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    error = (actual.double() - wanted).abs().max()
    assert float(error) <= tolerance * float(wanted.abs().max()), (actual, wanted)


def assert_runs_on_meta(name: str, present: list[int]) -> None:
    """The meta device has no values: reading one, or a shape that depends on one, fails there."""
    weighting, count = create(name, 3, 5).to("meta"), len(present)
    shape = (count, 5) if weighting.samples == 1 else (weighting.samples, count, 5)
    gramian = torch.ones(count, count, device="meta", dtype=torch.float64)
    update, weights = weighting.update(torch.ones(shape, device="meta"), gramian, gramian[0], present)
    assert update.shape == (5,) and update.dtype == torch.float32
    assert weights.shape == (count,) and weights.dtype == torch.float64

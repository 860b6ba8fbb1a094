"""Histories of gradients for methods with a state, and functions that run a method on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.weighting.jacobians import create


def gradients(seed: int, steps: int, *shape: int, scale: float = 1.0) -> list[Tensor]:
    """Draw one float32 tensor of normal numbers per step."""
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
    """Run one step per Jacobian of the present tasks (default: all); return (update, weights) of each.

    jacobians: [t, P], or [3, t, P] for methods that need independent samples.
    """
    results = []
    for i, jacobian in enumerate(jacobians):
        before, count = jacobian.clone(), jacobian.shape[-2]
        step_losses = torch.ones(count, dtype=torch.float64) if values is None else values[i]
        weighting.start_step()
        if jacobian.ndim == 3:
            first, second, third = jacobian.double()
            weights = weighting.weights(first @ second.T, step_losses, present or list(range(count)))
            results.append((weights @ third, weights))
        else:
            exact = jacobian.double()
            results.append(weighting.update(jacobian, exact @ exact.T, step_losses, present or list(range(count))))
        assert torch.equal(jacobian, before), "the Jacobian was changed"
    return results


def resumed(weighting: Any, name: str, count: int, size: int, **options: Any) -> Any:
    """Return a new weighting with the state that another one has saved to a file."""
    file = io.BytesIO()
    torch.save(weighting.state_dict(), file)
    file.seek(0)
    anew = create(name, count, size, **options)
    anew.load_state_dict(torch.load(file, weights_only=True))
    return anew


def assert_same(ours: Sequence[tuple[Tensor, Tensor]], theirs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Assert bitwise equality."""
    for (update, weights), (expected_update, expected_weights) in zip(ours, theirs, strict=True):
        assert torch.equal(update, expected_update) and torch.equal(weights, expected_weights)


def close(actual: Tensor, expected: Any, tolerance: float = 1e-4) -> None:
    """Assert equality within `tolerance` of the largest entry of the expected tensor."""
    reference = torch.as_tensor(expected, dtype=torch.float64)
    error = (actual.double() - reference).abs().max()
    assert float(error) <= tolerance * float(reference.abs().max()), (actual, reference)


def assert_runs_on_meta(name: str, present: list[int]) -> None:
    """Assert that a step reads no values, which the meta device does not have."""
    weighting, count = create(name, 3, 5).to("meta"), len(present)
    gramian = torch.ones(count, count, device="meta", dtype=torch.float64)
    update, weights = weighting.update(torch.ones(count, 5, device="meta"), gramian, gramian[0], present)
    assert update.shape == (5,) and update.dtype == torch.float32
    assert weights.shape == (count,) and weights.dtype == torch.float64

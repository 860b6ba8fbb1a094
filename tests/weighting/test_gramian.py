"""The Gramian's accuracy, against sums that Python computes exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtlcli.weighting.solvers import gramian as module
from mtlcli.weighting.solvers.gramian import compute_gramian, multiply_by_gramian

EPS = torch.finfo(torch.float64).eps


def single(seed: int, count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def exact_products(rows: Tensor) -> list[list[float]]:
    """Correctly rounded: the product of two float32 numbers is a float64, and `fsum` rounds once."""
    lists = rows.tolist()
    return [[math.fsum(x * y for x, y in zip(a, b, strict=True)) for b in lists] for a in lists]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 0), (3, 1000), (2, 70_000), (64, 300), (130, 20)])
def test_products_are_exact_to_float64(count: int, size: int) -> None:
    rows = single(0, count, size)
    found, expected = compute_gramian(rows), torch.tensor(exact_products(rows), dtype=torch.float64)
    assert found.dtype == torch.float64
    # Each of `size` additions rounds by at most eps/2 of a partial sum, and that is at most ‖a‖‖b‖.
    lengths = expected.diagonal().sqrt()
    assert ((found - expected).abs() <= max(size, 1) * EPS * torch.outer(lengths, lengths)).all()


def test_a_dependent_row_leaves_an_eigenvalue_of_float64_rounding() -> None:
    """A float32 product leaves about 1e-8 of the largest, of either sign. Here the third row is exactly the sum."""
    rows = torch.randint(-1000, 1000, (3, 50_000), generator=torch.Generator().manual_seed(0)).float()
    rows[2] = rows[0] + rows[1]
    values = torch.linalg.eigvalsh(compute_gramian(rows))
    assert abs(float(values[0] / values[-1])) < 1e-13


@pytest.mark.parametrize("layout", ["transposed", "rows of a larger one"])
def test_any_strides(layout: str) -> None:
    rows = single(1, 7, 5000).T.contiguous().T if layout == "transposed" else single(1, 14, 5000)[::2]
    torch.testing.assert_close(compute_gramian(rows), compute_gramian(rows.contiguous()), rtol=1e-14, atol=1e-10)


def test_huge_and_tiny_numbers() -> None:
    rows = single(2, 3, 1000)
    for scale in (1e-30, 1e30):  # whose squares float32 doesn't hold
        expected = float(torch.tensor(scale)) ** 2 * compute_gramian(rows)
        torch.testing.assert_close(
            compute_gramian(scale * rows), expected, rtol=1e-6, atol=1e-6 * float(expected.max())
        )


@pytest.mark.parametrize("size", [0, 10, 5000, 400_000])
def test_without_float64_short_blocks_are_summed(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = single(3, 4, size)
    expected = compute_gramian(rows)
    monkeypatch.setattr(module, "exact_dtype", lambda device: torch.float32)
    found = compute_gramian(rows)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-6 * expected.diagonal().max() if size else not found.any()


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_products_with_a_weighted_sum(size: int) -> None:
    rows, weights = single(4, 3, size), torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(multiply_by_gramian(rows, weights), compute_gramian(rows) @ weights)

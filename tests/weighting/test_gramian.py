"""Accuracy of the Gramian, compared with exact sums by Python."""

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
    """Return correctly rounded products: that of two float32 numbers is a float64, and `fsum` rounds once."""
    lists = rows.tolist()
    return [[math.fsum(x * y for x, y in zip(a, b, strict=True)) for b in lists] for a in lists]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 0), (3, 1000), (2, 70_000), (64, 300), (130, 20)])
def test_products_are_accurate_to_float64(count: int, size: int) -> None:
    rows = single(0, count, size)
    actual, expected = compute_gramian(rows), torch.tensor(exact_products(rows), dtype=torch.float64)
    assert actual.dtype == torch.float64
    # each of `size` additions has an error of at most eps/2 of a partial sum, which is at most ‖a‖‖b‖
    lengths = expected.diagonal().sqrt()
    assert ((actual - expected).abs() <= max(size, 1) * EPS * torch.outer(lengths, lengths)).all()


def test_a_dependent_row_gives_an_eigenvalue_of_float64_rounding() -> None:
    """A float32 product gives about ±1e-8 of the largest. Here the third row is exactly the sum of the others."""
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
    for scale in (1e-30, 1e30):  # their squares are out of range in float32
        expected = float(torch.tensor(scale)) ** 2 * compute_gramian(rows)
        torch.testing.assert_close(
            compute_gramian(scale * rows), expected, rtol=1e-6, atol=1e-6 * float(expected.max())
        )


@pytest.mark.parametrize("size", [0, 10, 5000, 400_000])
def test_short_blocks_are_summed_without_float64(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = single(3, 4, size)
    expected = compute_gramian(rows)
    monkeypatch.setattr(module, "exact_dtype", lambda device: torch.float32)
    actual = compute_gramian(rows)
    assert actual.dtype == torch.float32
    assert (actual - expected).abs().max() <= 1e-6 * expected.diagonal().max() if size else not actual.any()


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_multiply_by_gramian(size: int) -> None:
    rows, weights = single(4, 3, size), torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(multiply_by_gramian(rows, weights), compute_gramian(rows) @ weights)

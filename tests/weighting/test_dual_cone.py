"""The projection onto the dual cone that `upgrad` and `dualproj` use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.weighting.solvers import dual_cone
from mtlcli.weighting.solvers.dual_cone import project_onto_dual_cone
from tests.oracles import dual_cone as oracle
from tests.weighting.jacobians import SCALES, every_kind, of_rank, random


def regular(jacobian: Tensor, reg_eps: float = 1e-4) -> Tensor:
    gramian = jacobian @ jacobian.T
    return gramian / gramian.trace() + reg_eps * torch.eye(len(gramian), dtype=torch.float64)


def assert_solved(solution: Tensor, rows: Tensor, matrix: Tensor, tolerance: float = 1e-10) -> None:
    """Assert the optimality conditions of min vᵀMv, v ≥ u: v ≥ u, M v ≥ 0, with equality in one of the two."""
    slack, slope = solution - rows, solution @ matrix
    assert float(slack.min()) >= -tolerance
    assert float(slope.min()) >= -tolerance
    assert float(torch.minimum(slack, slope).abs().max()) <= tolerance


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_the_oracle_agrees_with_enumerating_all_active_sets(count: int) -> None:
    for seed in range(10):
        matrix = oracle.regular((random(seed, count, 2) @ random(seed, count, 2).T).numpy())
        for u in [*np.eye(count), np.ones(count)]:
            np.testing.assert_allclose(oracle.project(matrix, u), oracle.project_by_trying(matrix, u), atol=1e-8)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("scale", SCALES)
def test_meets_the_optimality_conditions(count: int, scale: float) -> None:
    rows = torch.cat([torch.eye(count), torch.ones(1, count)]).double()
    for name, jacobian in every_kind(count):
        gramian = scale * jacobian @ (scale * jacobian).T
        solution = project_onto_dual_cone(rows, gramian, 0.0, 1e-4)
        assert solution.isfinite().all(), name
        if gramian.trace() > 0:
            assert_solved(solution, rows, regular(jacobian))
        else:
            assert torch.equal(solution, rows), name


def test_problems_on_which_block_pivoting_cycles() -> None:
    """Murty's rule must terminate on them."""
    identity, circles = torch.eye(10, dtype=torch.float64), 0
    for seed in range(60):
        matrix = regular(random(seed, 10, 5))
        free = matrix < 0
        for _ in range(60):
            free = dual_cone._pivot(matrix, identity, matrix, free)[1]
        circles += not torch.equal(free, dual_cone._pivot(matrix, identity, matrix, free)[1])
        signed = dual_cone._pivot_carefully(matrix, identity, matrix, matrix < 0, dual_cone.PIVOTS)
        assert_solved(identity - signed.clamp(max=0.0), identity, matrix)
    assert circles >= 5


@pytest.mark.parametrize("count", [3, 10, 16, 40])
def test_the_fixed_number_of_pivots_is_sufficient(count: int) -> None:
    """Devices other than the CPU use it, since they cannot stop early."""
    identity = torch.eye(count, dtype=torch.float64)
    for seed in range(20):
        for jacobian in (random(seed, count), random(seed, count, max(1, count // 2)), of_rank(seed, count, 1)):
            matrix = regular(jacobian)
            free = dual_cone._guess(matrix, matrix, identity, 1e-4, dual_cone.DEVICE_ITERATIONS)
            signed = dual_cone._pivot_carefully(matrix, identity, matrix, free, dual_cone.DEVICE_PIVOTS)
            assert_solved(identity - signed.clamp(max=0.0), identity, matrix)


@pytest.mark.parametrize("reg_eps", [1e-8, 1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("count", [2, 5, 10])
def test_other_regularizations(count: int, reg_eps: float) -> None:
    rows = torch.eye(count, dtype=torch.float64)
    for _, jacobian in every_kind(count):
        solution = project_onto_dual_cone(rows, jacobian @ jacobian.T, 0.0, reg_eps)
        matrix = regular(jacobian, reg_eps)
        # rounding errors are amplified by the largest v
        assert_solved(solution, rows, matrix, 1e-10 * max(1.0, float(solution.max())))


def test_never_waits_for_the_device() -> None:
    rows = torch.ones(2, 5, device="meta", dtype=torch.float64)
    solution = project_onto_dual_cone(rows, torch.ones(5, 5, device="meta", dtype=torch.float64), 1e-4, 1e-4)
    assert solution.shape == (2, 5)
    assert solution.device.type == "meta"

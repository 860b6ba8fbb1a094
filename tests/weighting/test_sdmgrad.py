from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadprog  # type: ignore[import-not-found]
import torch
from torch import Tensor
from torchjd.aggregation import SDMGradWeighting

from tests.oracles import stochastic as oracle
from tests.weighting.histories import assert_same, close, gradients, resumed, run
from tests.weighting.jacobians import SCALES, create, every_kind


@pytest.mark.parametrize("count", range(2, 11))
def test_matches_the_paper(count: int) -> None:
    """More than 500 steps in all."""
    for seed in range(20):
        options: dict[str, Any] = {
            "regularization": (seed % 4) * 0.2,
            "step_size": 0.5 + 0.5 * (seed % 2),
            "iterations": 1 + seed % 6,
        }
        history = gradients(seed, 3, 3, count, 2 * count)
        results = run(create("sdmgrad", count, **options), history)
        references = oracle.sdmgrad([jacobian.double().numpy() for jacobian in history], **options)
        for (update, weights), (expected, expected_weights) in zip(results, references, strict=True):
            close(update, expected)
            close(weights, expected_weights)


def test_default_options() -> None:
    history = gradients(0, 2, 3, 4, 10)
    references = oracle.sdmgrad([jacobian.double().numpy() for jacobian in history], 1.0, 20, 0.3)
    close(run(create("sdmgrad", 4), history)[-1][0], references[-1][0])


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale >= 1e-2])
def test_agrees_with_torchjd(scale: float) -> None:
    """Without momentum, and with a learning rate for the same step size: TorchJD's is lr / (mean norm)²."""
    for seed in range(10):
        weighting, other = create("sdmgrad", 5), SDMGradWeighting(momentum=0.0)
        for samples in gradients(seed, 3, 3, 5, 20):
            samples = samples.double() + 2 * gradients(seed, 1, 1, 5, 20)[0].double()  # a large common component
            samples = (scale * samples).float()
            products = samples[0].double() @ samples[1].double().T
            mean_norm = products.diagonal().clamp(min=0).sqrt().mean()
            other.lr = float((mean_norm**2 + 1e-8) / products.abs().sum(1).max())
            torch.testing.assert_close(run(weighting, [samples])[0][1], 5 * other(products), rtol=1e-4, atol=1e-4)


def least(jacobian: Tensor, regularization: float) -> float:
    """Return the minimum of ‖Gw + λ g₀‖² over the simplex, by a QP solver."""
    gramian = (jacobian.double() @ jacobian.double().T).numpy()
    count = len(gramian)
    constraints = np.column_stack([np.ones(count), np.eye(count)])
    w = quadprog.solve_qp(gramian, -regularization * gramian.mean(1), constraints, np.eye(count + 1)[0], meq=1)[0]
    return float((w + regularization / count) @ gramian @ (w + regularization / count))


@pytest.mark.parametrize("regularization", [0.0, 0.3])
def test_w_converges_to_the_minimum_over_the_steps(regularization: float) -> None:
    """With equal samples, w converges to the minimum of ½ ‖Gw + λ g₀‖²; each step starts from the previous w."""
    for seed in range(20):
        jacobian = gradients(seed, 1, 4, 12)[0]
        weighting = create("sdmgrad", 4, regularization=regularization)
        update = run(weighting, 20 * [jacobian.expand(3, -1, -1)])[-1][0]
        reached = float((update.double() * (1 + regularization) / 4).square().sum())
        assert reached <= least(jacobian, regularization) * (1 + 1e-5)


@pytest.mark.parametrize("factor", [1e-10, 1e-3, 1e5, 1e12])
def test_scaling_the_losses_scales_the_update(factor: float) -> None:
    samples = gradients(0, 1, 3, 5, 20)[0]
    update, weights = run(create("sdmgrad", 5), [samples])[0]
    scaled_update, scaled_weights = run(create("sdmgrad", 5), [factor * samples])[0]
    close(scaled_weights, weights)
    close(scaled_update / factor, update)


def test_all_three_samples_are_used() -> None:
    """In the official code three names refer to one buffer, so that all samples are the last one."""
    samples = gradients(0, 1, 3, 4, 10)[0]
    expected = run(create("sdmgrad", 4), [samples])[0]
    aliased = run(create("sdmgrad", 4), [samples[2].expand(3, -1, -1)])[0]
    assert not torch.allclose(aliased[1], expected[1], atol=1e-2)
    for order in ([1, 0, 2], [2, 1, 0], [0, 2, 1]):  # each sample has its own role
        assert not torch.allclose(run(create("sdmgrad", 4), [samples[order]])[0][0], expected[0], atol=1e-2)


def test_the_update_uses_the_third_sample() -> None:
    samples = gradients(0, 1, 3, 4, 10)[0]
    update, weights = run(create("sdmgrad", 4), [samples])[0]
    close(update, weights @ samples[2].double())
    assert float(weights.sum()) == pytest.approx(4.0)
    assert float(weights.min()) >= 0.3 / 1.3 - 1e-9  # the share of the mean gradient, λ / (1 + λ)


def test_identical_tasks_give_the_update_of_one_task() -> None:
    samples = gradients(0, 1, 3, 1, 10)[0].repeat(1, 4, 1)
    update, weights = run(create("sdmgrad", 4), [samples])[0]
    close(update, 4 * samples[2, 0])
    close(weights, [1.0] * 4)


def test_permuting_the_tasks_permutes_the_weights() -> None:
    history, order = gradients(1, 4, 3, 5, 12), [3, 0, 4, 1, 2]
    straight = run(create("sdmgrad", 5), history)
    permuted = run(create("sdmgrad", 5), [samples[:, order] for samples in history])
    for (_, weights), (_, other) in zip(straight, permuted, strict=True):
        close(other, weights[order])


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", SCALES)
def test_finite_for_tiny_and_huge_gradients(count: int, scale: float) -> None:
    for _, jacobian in every_kind(count):
        weighting = create("sdmgrad", count)
        samples = (scale * jacobian).float() * torch.tensor([1.0, -1.0, 0.5])[:, None, None]
        for update, weights in run(weighting, 2 * [samples, samples[[0, 0, 2]]]):
            assert update.isfinite().all() and weights.isfinite().all()
            assert float(weights.sum()) == pytest.approx(count, rel=1e-6)


def test_absent_tasks_keep_their_shares() -> None:
    samples = gradients(2, 1, 3, 3, 8)[0]
    weighting, pair = create("sdmgrad", 3), create("sdmgrad", 2)
    ours, theirs = run(weighting, [samples[:, [0, 2]]], present=[0, 2])[0], run(pair, [samples[:, [0, 2]]])[0]
    close(ours[0], theirs[0])
    close(ours[1], theirs[1])
    assert float(weighting.shares[1]) == pytest.approx(1 / 3) and float(weighting.shares.sum()) == pytest.approx(1.0)


def test_resumes_identically() -> None:
    history = gradients(3, 4, 3, 4, 9)
    original = create("sdmgrad", 4, 9, iterations=3)
    run(original, history[:2])
    anew = resumed(original, "sdmgrad", 4, 9, iterations=3)
    assert_same(run(anew, history[2:]), run(original, history[2:]))


def test_unaffected_by_autocast() -> None:
    history = gradients(4, 3, 3, 4, 9)
    expected = run(create("sdmgrad", 4), history)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(run(create("sdmgrad", 4), history), expected)

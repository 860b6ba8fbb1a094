from __future__ import annotations

from typing import Any

import pytest
import torch
from torchjd.aggregation import MoDoWeighting

from tests.oracles import stochastic as oracle
from tests.weighting.histories import assert_runs_on_meta, assert_same, close, gradients, resumed, run
from tests.weighting.jacobians import SCALES, create, every_kind

OPTIONS: dict[str, Any] = {"beta": 0.5, "beta_decay": 0.5, "gamma": 0.1, "gamma_decay": 0.5, "rho": 0.0}


def arrays(history: list[torch.Tensor]) -> list[oracle.Array]:
    return [jacobian.double().numpy() for jacobian in history]


@pytest.mark.parametrize("count", range(2, 11))
def test_matches_the_paper(count: int) -> None:
    """More than 500 steps in all."""
    for seed in range(20):
        options: dict[str, Any] = dict(
            OPTIONS, rho=(seed % 3) * 0.5, beta_decay=(seed % 2) * 0.5, gamma_decay=(seed % 5) * 0.2
        )
        history = gradients(seed, 5, count, 2 * count, scale=0.5)
        results = run(create("moco", count, 2 * count, **options), history)
        for (update, weights), (expected, expected_weights) in zip(
            results, oracle.moco(arrays(history), **options), strict=True
        ):
            close(update, expected)
            close(weights, expected_weights)


def test_defaults_are_the_official_ones_with_a_constant_beta() -> None:
    history, options = gradients(0, 4, 3, 6), {**OPTIONS, "beta_decay": 0.0}
    close(run(create("moco", 3, 6), history)[-1][0], oracle.moco(arrays(history), **options)[-1][0])


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_without_averages_the_weights_equal_modo_of_torchjd(scale: float, rho: float) -> None:
    """MoDo's step is MoCo's with J₁J₂ᵀ in place of YᵀY: equal with β = 1 and J₁ = J₂. Its λ sum to 1."""
    for name, jacobian in every_kind(5):
        ours = create("moco", 5, jacobian.shape[1], beta=1.0, beta_decay=0.0, gamma_decay=0.0, rho=rho)
        theirs = MoDoWeighting(gamma=0.1, rho=rho)
        for _ in range(3):
            history = [scale * jacobian.float()]
            double = history[0].double()
            expected = 5 * theirs(double @ double.T)
            if name != "unequal norms":  # TorchJD's λ do not sum to 1 there: it loses the 1 among entries of 1e8
                torch.testing.assert_close(run(ours, history)[0][1], expected, rtol=1e-4, atol=1e-4)


def test_identical_tasks_give_the_update_of_one_task() -> None:
    for jacobian in gradients(0, 10, 1, 20):
        single, several = create("moco", 1), create("moco", 4)
        for _ in range(3):
            close(run(several, [jacobian.repeat(4, 1)])[0][0] / 4, run(single, [jacobian])[0][0])


def test_the_scale_is_the_sum_of_the_tasks() -> None:
    """If y equals the gradient, identical tasks have weight 1 each."""
    jacobian = gradients(0, 1, 1, 20)[0].repeat(3, 1)
    update, weights = run(create("moco", 3, beta_decay=0.0), 60 * [jacobian])[-1]
    close(update, jacobian.sum(0))
    close(weights, [1.0, 1.0, 1.0])


def test_uses_the_tracked_gradients() -> None:
    """λ and the update use the averaged gradients y, not those of the step."""
    history = gradients(0, 2, 2, 10)
    with_past, without = create("moco", 2, 10), create("moco", 2, 10)
    assert not torch.allclose(run(with_past, history)[-1][1], run(without, history[1:])[-1][1])
    assert float(run(create("moco", 2, 10), history[:1])[0][0].norm()) < float(history[0].sum(0).norm())


def test_permuting_the_tasks_permutes_the_weights() -> None:
    history, order = gradients(1, 4, 5, 12), [3, 0, 4, 1, 2]
    straight = run(create("moco", 5, 12), history)
    permuted = run(create("moco", 5, 12), [jacobian[order] for jacobian in history])
    for (update, weights), (other_update, other_weights) in zip(straight, permuted, strict=True):
        close(other_weights, weights[order])
        close(other_update, update)


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", SCALES)
def test_finite_for_tiny_and_huge_gradients(count: int, scale: float) -> None:
    for _, jacobian in every_kind(count):
        weighting = create("moco", count, jacobian.shape[1])
        for update, weights in run(weighting, 3 * [(scale * jacobian).float()]):
            assert update.isfinite().all() and weights.isfinite().all()
            assert float(weights.sum()) == pytest.approx(count, rel=1e-6)


def test_absent_tasks_keep_their_state() -> None:
    history = gradients(2, 3, 3, 8, scale=0.3)
    weighting, pair = create("moco", 3, 8), create("moco", 2, 8)
    ours = run(weighting, [history[0][[0, 2]]], present=[0, 2])
    theirs = run(pair, [history[0][[0, 2]]])
    close(ours[0][0], theirs[0][0])
    close(ours[0][1], theirs[0][1])
    assert float(weighting.tracked[1].abs().sum()) == 0.0 and weighting.steps.tolist() == [1, 0, 1]
    assert float(weighting.shares[1]) == pytest.approx(1 / 3) and float(weighting.shares.sum()) == pytest.approx(1.0)
    run(weighting, [history[1]])
    torch.testing.assert_close(weighting.tracked[1], 0.5 * history[1][1])  # the first step of this task


def test_resumes_identically() -> None:
    history = gradients(3, 6, 4, 9)
    original = create("moco", 4, 9)
    run(original, history[:3])
    anew = resumed(original, "moco", 4, 9)
    assert_same(run(anew, history[3:]), run(original, history[3:]))


def test_unaffected_by_autocast() -> None:
    history = gradients(4, 3, 4, 9)
    expected = run(create("moco", 4, 9), history)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(run(create("moco", 4, 9), history), expected)


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    assert_runs_on_meta("moco", present)

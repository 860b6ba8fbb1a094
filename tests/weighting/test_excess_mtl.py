from __future__ import annotations

from typing import Any

import pytest
import torch
from torchjd.aggregation import ExcessMTLWeighting

from tests.oracles import stochastic as oracle
from tests.weighting.histories import assert_runs_on_meta, assert_same, close, gradients, resumed, run
from tests.weighting.jacobians import SCALES, create, every_kind


@pytest.mark.parametrize("count", range(2, 11))
def test_is_the_papers(count: int) -> None:
    """More than 500 steps in all."""
    for seed in range(20):
        options: dict[str, Any] = {"robust_step_size": 10.0 ** (seed % 4 - 3), "warmup_steps": 1 + seed % 3}
        history = gradients(seed, 5, count, 2 * count)
        found = run(create("excess_mtl", count, 2 * count, **options), history)
        wanted = oracle.excess_mtl([jacobian.double().numpy() for jacobian in history], **options)
        for (update, weights), expected, jacobian in zip(found, wanted, history, strict=True):
            close(weights, expected)
            close(update, torch.as_tensor(expected) @ jacobian.double())


def test_defaults_are_those_of_the_official_code() -> None:
    history = gradients(0, 4, 3, 6)
    wanted = oracle.excess_mtl([jacobian.double().numpy() for jacobian in history], 0.01, 1)
    close(run(create("excess_mtl", 3, 6), history)[-1][1], wanted[-1])


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale >= 1e-2])
@pytest.mark.parametrize("warmup", [1, 3])
def test_agrees_with_torchjd(scale: float, warmup: int) -> None:
    """Its weights sum to 1. Without warm-up, it takes a step with the first Ê itself, which we have no option for."""
    for name, jacobian in every_kind(5):
        if name in ("one zero", "unequal norms"):
            continue  # it adds 1e-7 to an Ê⁰ that is 0 or near it
        ours = create("excess_mtl", 5, jacobian.shape[1], robust_step_size=1.0, warmup_steps=warmup)
        theirs = ExcessMTLWeighting(robust_step_size=1.0, n_warmup_steps=warmup)
        for noise in gradients(0, 6, *jacobian.shape):
            given = (scale * (jacobian + noise)).float()
            torch.testing.assert_close(
                run(ours, [given])[0][1], 5 * theirs(given).double(), rtol=1e-4, atol=1e-4, msg=name
            )


def test_a_task_that_converges_counts_for_less() -> None:
    history = [jacobian * torch.tensor([[1.0], [0.8**i]]) for i, jacobian in enumerate(gradients(0, 30, 2, 50))]
    weights = run(create("excess_mtl", 2, 50, robust_step_size=0.1), history)[-1][1]
    assert float(weights[0]) > 1.1 > 0.9 > float(weights[1])


def test_the_units_of_a_loss_make_no_difference() -> None:
    """Trap: without the division by Ê⁰, a task with large gradients would get all the weight."""
    history, units = gradients(0, 5, 3, 30), torch.tensor([0.1, 1.0, 1e4])[:, None]
    expected = run(create("excess_mtl", 3, 30), history)[-1][1]
    close(run(create("excess_mtl", 3, 30), [units * jacobian for jacobian in history])[-1][1], expected)


def test_the_first_steps_have_equal_weights() -> None:
    history = gradients(0, 4, 3, 6)
    results = run(create("excess_mtl", 3, 6, robust_step_size=1.0, warmup_steps=3), history)
    assert [bool((weights == 1).all()) for _, weights in results] == [True, True, True, False]


def test_identical_tasks_are_the_single_task() -> None:
    jacobian = gradients(0, 1, 1, 20)[0]
    update, weights = run(create("excess_mtl", 4), 5 * [jacobian.repeat(4, 1)])[-1]
    close(update, 4 * jacobian[0])
    close(weights, [1.0] * 4)


def test_permuting_the_tasks_permutes_the_weights() -> None:
    history, order = gradients(1, 4, 5, 12), [3, 0, 4, 1, 2]
    straight = run(create("excess_mtl", 5, 12), history)
    permuted = run(create("excess_mtl", 5, 12), [jacobian[order] for jacobian in history])
    for (_, weights), (_, other) in zip(straight, permuted, strict=True):
        close(other, weights[order])


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("first", [0.0, 1e-15, 1.0])
def test_finite(count: int, scale: float, first: float) -> None:
    for _, jacobian in every_kind(count):
        weighting = create("excess_mtl", count, jacobian.shape[1], robust_step_size=1.0)
        history = [(first * scale * jacobian).float()] + 3 * [(scale * jacobian).float()]
        for update, weights in run(weighting, history):
            assert update.isfinite().all() and weights.isfinite().all()
            assert float(weights.sum()) == pytest.approx(count, rel=1e-6)


def test_a_gradient_that_was_zero_at_first() -> None:
    """Trap: the official code divides by that first 0, and all weights are NaN from then on."""
    history = gradients(0, 4, 2, 10)
    history[0][1] = 0.0
    results = run(create("excess_mtl", 2, 10, robust_step_size=0.5), history)
    assert all(bool((weights == 1).all()) for _, weights in results[:2])  # the warm-up of the second begins later
    assert 0.1 < float(results[-1][1][1]) < 1.9


def test_absent_tasks_keep_what_they_have() -> None:
    history = gradients(2, 6, 3, 8)
    weighting, part = (create("excess_mtl", count, 8, robust_step_size=0.5) for count in (3, 2))
    ours = run(weighting, [jacobian[[0, 2]] for jacobian in history[:3]], present=[0, 2])
    theirs = run(part, [jacobian[[0, 2]] for jacobian in history[:3]])
    close(ours[-1][1], theirs[-1][1])
    assert float(weighting.squares[1].abs().sum()) == 0.0 and weighting.seen.tolist() == [1, 0, 1]
    weights = run(weighting, [history[3]])[0][1]
    # The middle one is new: in between the others, whose weights moved about 1 before it came.
    assert float(weights[1]) == pytest.approx(3 / float((weights / weights[1]).sum()))
    assert float(weights[[0, 2]].log().mean()) == pytest.approx(float(weights[1].log()), abs=1e-5)


def test_resumes_identically() -> None:
    history = gradients(3, 6, 4, 9)
    original = create("excess_mtl", 4, 9, warmup_steps=2)
    run(original, history[:3])
    anew = resumed(original, "excess_mtl", 4, 9, warmup_steps=2)
    assert_same(run(anew, history[3:]), run(original, history[3:]))


def test_is_the_same_under_autocast() -> None:
    history = gradients(4, 3, 4, 9)
    expected = run(create("excess_mtl", 4, 9), history)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(run(create("excess_mtl", 4, 9), history), expected)


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    assert_runs_on_meta("excess_mtl", present)

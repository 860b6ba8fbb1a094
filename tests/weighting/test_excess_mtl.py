from __future__ import annotations

from typing import Any

import pytest
import torch
from torchjd.aggregation import ExcessMTLWeighting

from tests.oracles import stochastic as oracle
from tests.weighting.histories import assert_runs_on_meta, assert_same, close, gradients, resumed, run
from tests.weighting.jacobians import SCALES, create, every_kind


@pytest.mark.parametrize("count", range(2, 11))
def test_matches_the_paper(count: int) -> None:
    """More than 500 steps in all."""
    for seed in range(20):
        options: dict[str, Any] = {"robust_step_size": 10.0 ** (seed % 4 - 3), "warmup_steps": 1 + seed % 3}
        history = gradients(seed, 5, count, 2 * count)
        results = run(create("excess_mtl", count, 2 * count, **options), history)
        references = oracle.excess_mtl([jacobian.double().numpy() for jacobian in history], **options)
        for (update, weights), expected, jacobian in zip(results, references, history, strict=True):
            close(weights, expected)
            close(update, torch.as_tensor(expected) @ jacobian.double())


def test_defaults_are_those_of_the_official_code() -> None:
    history = gradients(0, 4, 3, 6)
    references = oracle.excess_mtl([jacobian.double().numpy() for jacobian in history], 0.01, 1)
    close(run(create("excess_mtl", 3, 6), history)[-1][1], references[-1])


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale >= 1e-2])
@pytest.mark.parametrize("warmup", [1, 3])
def test_agrees_with_torchjd(scale: float, warmup: int) -> None:
    """TorchJD's weights sum to 1. Its step without warm-up, by the first Ê, has no counterpart here."""
    for name, jacobian in every_kind(5):
        if name in ("one zero", "unequal norms"):
            continue  # TorchJD adds 1e-7 to an Ê⁰ close to 0
        ours = create("excess_mtl", 5, jacobian.shape[1], robust_step_size=1.0, warmup_steps=warmup)
        theirs = ExcessMTLWeighting(robust_step_size=1.0, n_warmup_steps=warmup)
        for noise in gradients(0, 6, *jacobian.shape):
            noisy = (scale * (jacobian + noise)).float()
            torch.testing.assert_close(
                run(ours, [noisy])[0][1], 5 * theirs(noisy).double(), rtol=1e-4, atol=1e-4, msg=name
            )


def test_converging_tasks_get_smaller_weights() -> None:
    history = [jacobian * torch.tensor([[1.0], [0.8**i]]) for i, jacobian in enumerate(gradients(0, 30, 2, 50))]
    weights = run(create("excess_mtl", 2, 50, robust_step_size=0.1), history)[-1][1]
    assert float(weights[0]) > 1.1 > 0.9 > float(weights[1])


def test_invariant_to_the_units_of_a_loss() -> None:
    """Without the division by Ê⁰, a task with large gradients would get all the weight."""
    history, units = gradients(0, 5, 3, 30), torch.tensor([0.1, 1.0, 1e4])[:, None]
    expected = run(create("excess_mtl", 3, 30), history)[-1][1]
    close(run(create("excess_mtl", 3, 30), [units * jacobian for jacobian in history])[-1][1], expected)


def test_warm_up_steps_have_equal_weights() -> None:
    history = gradients(0, 4, 3, 6)
    results = run(create("excess_mtl", 3, 6, robust_step_size=1.0, warmup_steps=3), history)
    assert [bool((weights == 1).all()) for _, weights in results] == [True, True, True, False]


def test_identical_tasks_give_the_update_of_one_task() -> None:
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
def test_finite_for_tiny_and_huge_gradients(count: int, scale: float, first: float) -> None:
    for _, jacobian in every_kind(count):
        weighting = create("excess_mtl", count, jacobian.shape[1], robust_step_size=1.0)
        history = [(first * scale * jacobian).float()] + 3 * [(scale * jacobian).float()]
        for update, weights in run(weighting, history):
            assert update.isfinite().all() and weights.isfinite().all()
            assert float(weights.sum()) == pytest.approx(count, rel=1e-6)


def test_a_zero_first_gradient() -> None:
    """The official code divides by the first Ê of 0, so that all weights become NaN."""
    history = gradients(0, 4, 2, 10)
    history[0][1] = 0.0
    results = run(create("excess_mtl", 2, 10, robust_step_size=0.5), history)
    assert all(bool((weights == 1).all()) for _, weights in results[:2])  # the second task starts its warm-up later
    assert 0.1 < float(results[-1][1][1]) < 1.9


def test_absent_tasks_keep_their_state() -> None:
    history = gradients(2, 6, 3, 8)
    weighting, pair = (create("excess_mtl", count, 8, robust_step_size=0.5) for count in (3, 2))
    ours = run(weighting, [jacobian[[0, 2]] for jacobian in history[:3]], present=[0, 2])
    theirs = run(pair, [jacobian[[0, 2]] for jacobian in history[:3]])
    close(ours[-1][1], theirs[-1][1])
    assert float(weighting.squares[1].abs().sum()) == 0.0 and weighting.seen.tolist() == [1, 0, 1]
    weights = run(weighting, [history[3]])[0][1]
    # the second task is new: its weight is between those of the others, which have moved away from 1
    assert float(weights[1]) == pytest.approx(3 / float((weights / weights[1]).sum()))
    assert float(weights[[0, 2]].log().mean()) == pytest.approx(float(weights[1].log()), abs=1e-5)


def test_resumes_identically() -> None:
    history = gradients(3, 6, 4, 9)
    original = create("excess_mtl", 4, 9, warmup_steps=2)
    run(original, history[:3])
    anew = resumed(original, "excess_mtl", 4, 9, warmup_steps=2)
    assert_same(run(anew, history[3:]), run(original, history[3:]))


def test_unaffected_by_autocast() -> None:
    history = gradients(4, 3, 4, 9)
    expected = run(create("excess_mtl", 4, 9), history)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(run(create("excess_mtl", 4, 9), history), expected)


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    assert_runs_on_meta("excess_mtl", present)

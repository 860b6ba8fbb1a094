from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.oracles import stochastic as oracle
from tests.weighting.histories import assert_runs_on_meta, assert_same, close, gradients, losses, resumed, run
from tests.weighting.jacobians import SCALES, create, every_kind


@pytest.mark.parametrize("count", range(2, 11))
def test_matches_the_paper(count: int) -> None:
    """More than 500 steps in all."""
    for seed in range(20):
        options: dict[str, Any] = {"beta": (seed % 4) * 0.3, "beta_decay": (seed % 3) * 0.5}
        history, values = gradients(seed, 4, count, 2 * count), losses(seed, 4, count)
        results = run(create("db_mtl", count, 2 * count, **options), history, values)
        references = oracle.db_mtl(
            [jacobian.double().numpy() for jacobian in history], [value.numpy() for value in values], **options
        )
        for (update, _), expected in zip(results, references, strict=True):
            close(update, expected)


def test_defaults_are_those_of_the_authors_code() -> None:
    history, values = gradients(0, 4, 3, 6), losses(0, 4, 3)
    references = oracle.db_mtl([j.double().numpy() for j in history], [value.numpy() for value in values], 0.9, 0.0)
    close(run(create("db_mtl", 3, 6), history, values)[-1][0], references[-1])


def test_all_tasks_add_a_vector_of_the_same_length() -> None:
    jacobian = torch.eye(3, 6) * torch.tensor([1e-3, 1.0, 1e3])[:, None]
    update, weights = run(create("db_mtl", 3, 6, beta=0.0), [jacobian])[0]
    close(update[:3], [1e3, 1e3, 1e3])
    close(weights @ jacobian.double(), update)  # without averages, the update is a combination of the step's gradients


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_invariant_to_the_units_of_the_losses(beta: float) -> None:
    history, values, units = gradients(0, 3, 3, 8), losses(0, 3, 3), torch.tensor([1e-2, 1.0, 1e5])
    expected = run(create("db_mtl", 3, 8, beta=beta), history, values)
    scaled = [units[:, None] * jacobian for jacobian in history], [units.double() * value for value in values]
    for (update, _), (reference, _) in zip(run(create("db_mtl", 3, 8, beta=beta), *scaled), expected, strict=True):
        close(update, reference)


def test_averages_before_normalizing() -> None:
    """Norms are those of the averages ĝ, not of the step's gradients: two opposed steps nearly cancel."""
    jacobian = torch.eye(2, 4)
    history = [jacobian, jacobian * torch.tensor([[-0.5], [1.0]])]
    update, _ = run(create("db_mtl", 2, 4, beta=0.5), history)[1]
    close(update[:2], [0.0, 0.75], tolerance=1e-6)  # ĝ_1 = ½ ½ − ½ ½ = 0, so this task is left out


def test_gradients_are_divided_by_the_loss() -> None:
    """This sets the length α and the contribution of a step to the average, not the direction of a task."""
    jacobian, half = gradients(0, 1, 2, 6)[0], torch.full((2,), 0.5, dtype=torch.float64)
    at_one = run(create("db_mtl", 2, 6, beta=0.0), [jacobian])[0]
    at_half = run(create("db_mtl", 2, 6, beta=0.0), [jacobian], [half])[0]
    close(at_half[0], 2 * at_one[0])
    close(at_half[1], 2 * at_one[1])


def test_scale_of_the_update() -> None:
    """Identical tasks with losses of 1 have weight 1 each, once the initial ĝ = 0 has decayed."""
    jacobian = gradients(0, 1, 1, 6)[0].repeat(3, 1)
    results = run(create("db_mtl", 3, 6), 200 * [jacobian])
    close(results[-1][0], jacobian.sum(0))
    close(results[-1][1], [1.0, 1.0, 1.0])
    close(results[0][0], 0.1 * jacobian.sum(0))


def test_permuting_the_tasks_permutes_the_weights() -> None:
    history, values, order = gradients(1, 4, 5, 12), losses(1, 4, 5), [3, 0, 4, 1, 2]
    straight = run(create("db_mtl", 5, 12), history, values)
    permuted = run(create("db_mtl", 5, 12), [j[order] for j in history], [value[order] for value in values])
    for (update, weights), (other_update, other_weights) in zip(straight, permuted, strict=True):
        close(other_weights, weights[order])
        close(other_update, update)


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("loss", [0.0, 1e-30, -1.0, -1e-8, 1.0, 1e30])
def test_finite_for_tiny_and_huge_gradients(count: int, scale: float, loss: float) -> None:
    for _, jacobian in every_kind(count):
        weighting = create("db_mtl", count, jacobian.shape[1])
        values = [torch.full((count,), loss, dtype=torch.float64)] * 2
        for update, weights in run(weighting, 2 * [(scale * jacobian).float()], values):
            assert update.isfinite().all() and weights.isfinite().all()


def test_a_zero_gradient_does_not_affect_the_others() -> None:
    jacobian = gradients(0, 1, 3, 6)[0]
    jacobian[1] = 0.0
    update, weights = run(create("db_mtl", 3, 6), [jacobian])[0]
    close(update, run(create("db_mtl", 2, 6), [jacobian[[0, 2]]])[0][0])
    assert float(weights[1]) == 0.0


def test_absent_tasks_keep_their_state() -> None:
    history, values = gradients(2, 2, 3, 8), losses(2, 2, 3)
    weighting, pair = create("db_mtl", 3, 8), create("db_mtl", 2, 8)
    run(weighting, [history[0]], [values[0]])
    run(pair, [history[0][[0, 2]]], [values[0][[0, 2]]])
    kept = weighting.averages[1].clone()
    ours = run(weighting, [history[1][[0, 2]]], [values[1][[0, 2]]], present=[0, 2])[0]
    theirs = run(pair, [history[1][[0, 2]]], [values[1][[0, 2]]])[0]
    close(ours[0], theirs[0])
    close(ours[1], theirs[1])
    assert torch.equal(weighting.averages[1], kept) and weighting.steps.tolist() == [2, 1, 2]


def test_resumes_identically() -> None:
    history, values = gradients(3, 6, 4, 9), losses(3, 6, 4)
    original = create("db_mtl", 4, 9, beta_decay=0.5)
    run(original, history[:3], values[:3])
    anew = resumed(original, "db_mtl", 4, 9, beta_decay=0.5)
    assert_same(run(anew, history[3:], values[3:]), run(original, history[3:], values[3:]))


def test_unaffected_by_autocast() -> None:
    history, values = gradients(4, 3, 4, 9), losses(4, 3, 4)
    expected = run(create("db_mtl", 4, 9), history, values)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(run(create("db_mtl", 4, 9), history, values), expected)


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    assert_runs_on_meta("db_mtl", present)

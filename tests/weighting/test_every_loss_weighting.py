"""Properties of all loss-level weightings."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weighting.methods import (
    LINEAR,
    LOSS_LEVEL,
    RANDOM,
    SUMS_TO_TASKS,
    create,
    gradient,
    history,
    step,
    tasks,
    train,
)

quick = settings(max_examples=10, deadline=None)


@pytest.mark.parametrize("name", LOSS_LEVEL)
@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_weights_are_the_gradient_of_the_objective(name: str, count: int, scale: float) -> None:
    weighting = create(name, tasks(count))
    train(weighting, history(3, count))
    losses = (scale * history(1, count, seed=1)[0]).requires_grad_()
    objective, weights = weighting.objective(losses, range(count))
    assert objective.shape == () and weights.shape == (count,) and not weights.requires_grad
    torch.testing.assert_close(gradient(objective, losses), weights, rtol=1e-4, atol=0)


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", sorted(set(LOSS_LEVEL) - RANDOM))
def test_permuting_the_tasks_permutes_the_weights(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    order = data.draw(st.permutations(range(count)))
    past, losses = history(3, count), history(1, count, seed=1)[0]
    straight, permuted = create(name, tasks(count)), create(name, tasks(count, order))
    train(straight, past)
    train(permuted, past[:, order])
    objective, weights = straight.objective(losses, range(count))
    objective_permuted, weights_permuted = permuted.objective(losses[order], range(count))
    torch.testing.assert_close(weights_permuted, weights[order])
    torch.testing.assert_close(objective_permuted, objective)


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", sorted(set(LOSS_LEVEL) - RANDOM))
def test_absent_tasks_are_not_part_of_the_problem(name: str, data: st.DataObject) -> None:
    """With absent tasks, a method behaves as if it had been created for the present tasks only."""
    count = data.draw(st.integers(2, 8))
    present = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    past, losses = history(3, count), history(1, count, seed=1)[0]
    whole, subset = create(name, tasks(count)), create(name, tasks(count, present))
    train(whole, past)
    train(subset, past[:, present])
    expected = subset.objective(losses[present], range(len(present)))
    torch.testing.assert_close(whole.objective(losses[present], present), expected)


@pytest.mark.parametrize("name", SUMS_TO_TASKS)
@pytest.mark.parametrize("present", [[0], [1, 4], [0, 1, 2, 3, 4]])
def test_weights_sum_to_the_number_of_tasks_present(name: str, present: list[int]) -> None:
    weighting = create(name, tasks(5))
    train(weighting, history(4, 5))
    _, weights = weighting.objective(torch.ones(len(present)), present)
    assert float(weights.sum()) == pytest.approx(len(present), rel=1e-6)


@pytest.mark.parametrize("name", LOSS_LEVEL)
@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1e8, 1e30])
def test_finite_for_tiny_and_huge_losses(name: str, count: int, scale: float) -> None:
    weighting = create(name, tasks(count))
    for losses in scale * history(4, count):
        weighting.start_step()
        losses.requires_grad_()
        objective, weights = weighting.objective(losses, range(count))
        assert objective.isfinite() and weights.isfinite().all()
        torch.testing.assert_close(gradient(objective, losses), weights, rtol=1e-4, atol=0)
        weighting.end_epoch(losses)


@pytest.mark.parametrize("name", LOSS_LEVEL)
@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_resumes_identically(name: str, epochs: int) -> None:
    past, future = history(epochs, 3), history(4, 3, seed=1)
    original = create(name, tasks(3))
    train(original, past)
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = create(name, tasks(3))
    resumed.seed(99)  # the state of the generator replaces the seed
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for losses in future:
        ours, theirs = step(original, losses), step(resumed, losses)
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        original.end_epoch(losses)
        resumed.end_epoch(losses)


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", LINEAR)
def test_micro_batches_add_up_to_the_step(name: str, data: st.DataObject) -> None:
    """Objective, weights and gradients of the method's parameters, for any split of the labels."""
    count, micro_batches = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    seed = data.draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (micro_batches, count), generator=generator).float()  # some micro-batches have none
    labels[0] += labels.sum(0) == 0
    means = torch.rand(micro_batches, count, generator=generator)
    scaled = means * labels / labels.sum(0)
    shares = torch.full((micro_batches,), 1.0 / micro_batches).tolist()
    weighting = create(name, tasks(count))
    train(weighting, history(3, count))
    parameters = list(weighting.parameters())
    whole, weights = weighting.objective(scaled.sum(0).requires_grad_(), range(count))
    pieces = [
        weighting.objective(losses.requires_grad_(), range(count), share)
        for losses, share in zip(scaled.unbind(), shares, strict=True)
    ]
    total = torch.stack([objective for objective, _ in pieces]).sum()
    torch.testing.assert_close(total, whole)
    for _, piece in pieces:
        assert torch.equal(piece, weights)
    if parameters:
        torch.testing.assert_close(torch.autograd.grad(total, parameters), torch.autograd.grad(whole, parameters))


@pytest.mark.parametrize("name", LOSS_LEVEL)
@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_never_waits_for_the_device(name: str, present: list[int]) -> None:
    """Reading a value, or a shape that depends on one, fails on the meta device."""
    weighting = create(name, tasks(3)).to("meta")
    weighting.start_step()
    losses = torch.ones(len(present), device="meta", requires_grad=True)
    objective, weights = weighting.objective(losses, present)
    objective.backward()
    assert weights.device.type == "meta" and losses.grad is not None


@pytest.mark.parametrize("name", LOSS_LEVEL)
def test_does_not_use_the_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    train(create(name, tasks(3)), history(3, 3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", LOSS_LEVEL)
def test_computes_in_float32_under_autocast(name: str) -> None:
    losses, weighting = history(1, 4)[0], create(name, tasks(4))
    weighting.start_step()
    expected = weighting.objective(losses, range(4))
    with torch.autocast("cpu", torch.bfloat16):
        got = weighting.objective(losses, range(4))
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

from mtlcli.weighting.methods.graddrop import GradDrop
from tests.oracles import surgery as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, non_conflicting, random
from tests.weighting.methods import tasks


def uniform(seed: int, size: int) -> Tensor:
    """Return the first random numbers of a method with this seed."""
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def drop(jacobian: Tensor, seed: int = 3, leak: float = 0.0) -> tuple[Tensor, Tensor]:
    weighting = create("graddrop", len(jacobian), leak=leak)
    weighting.seed(seed)
    return descend(weighting, jacobian)


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
def test_update_and_kept_fractions_match_the_paper(leak: float) -> None:
    """510 Jacobians in all."""
    for seed in range(170):
        jacobian = random(seed, 2 + seed % 9, size=1 + seed % 13).float()
        update, weights = drop(jacobian, seed, leak)
        draw = uniform(seed, jacobian.shape[1]).double().numpy()
        expected, shares = oracle.graddrop(jacobian.double().numpy(), draw, leak)
        np.testing.assert_allclose(update.numpy(), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights.numpy(), shares, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for _, unscaled in every_kind(count):
        jacobian = (scale * unscaled).float()
        update, weights = drop(jacobian)
        expected, shares = oracle.graddrop(jacobian.double().numpy(), uniform(3, unscaled.shape[1]).double().numpy())
        np.testing.assert_allclose(update.numpy(), expected, rtol=1e-5, atol=1e-6 * float(jacobian.abs().sum(0).max()))
        np.testing.assert_allclose(weights.numpy(), shares, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e30, 1e36])
def test_kept_fractions_neither_overflow_nor_underflow(scale: float) -> None:
    jacobian = random(0, 3, size=20).float()
    torch.testing.assert_close(drop(scale * jacobian)[1], drop(jacobian)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("leak", [None, 0.25])
def test_agrees_with_torchjd(leak: float | None) -> None:
    """TorchJD draws the same random numbers from the global generator, and has one leak per task."""
    for seed in range(50):
        jacobian = random(seed, 2 + seed % 9, size=20).float()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = aggregation.GradDrop(leak=None if leak is None else torch.full((len(jacobian),), leak))(jacobian)
        torch.testing.assert_close(drop(jacobian, seed, leak or 0.0)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(2, 150_000), (40, 7_000)])
def test_result_does_not_depend_on_the_blocks(count: int, size: int) -> None:
    jacobian = random(0, count, size).float()
    update, weights = drop(jacobian)
    positive = 0.5 * (1 + jacobian.sum(0) / jacobian.abs().sum(0)) > uniform(3, size)
    kept = torch.where((jacobian > 0) == positive, jacobian, 0.0)
    torch.testing.assert_close(update, kept.sum(0), rtol=1e-5, atol=1e-5)
    expected = kept.double().square().sum(1) / jacobian.double().square().sum(1)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0)


def test_each_sign_is_kept_with_its_probability() -> None:
    """+1, +2 and −1: the positive sign has P = 3/4. The mean update is 3·¾ − 1·¼, not the sum."""
    jacobian = torch.tensor([[1.0], [2.0], [-1.0]]).repeat(1, 20_000)
    update, weights = drop(jacobian)
    assert set(update.tolist()) == {3.0, -1.0}
    assert float((update == 3).double().mean()) == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(weights.numpy(), [0.75, 0.75, 0.25], atol=0.01)


@pytest.mark.parametrize("count", [1, 2, 10, 40])
def test_equal_signs_give_the_sum(count: int) -> None:
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64).repeat(5)
    for jacobian in (non_conflicting(0, count) * signs, random(0, 1, 20).repeat(count, 1), random(0, 1, 20)):
        update, weights = drop(jacobian)
        torch.testing.assert_close(update, jacobian.float().sum(0), rtol=1e-5, atol=0)
        torch.testing.assert_close(weights, torch.ones_like(weights), rtol=1e-6, atol=0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(5)))
def test_permuting_the_tasks_permutes_the_weights(seed: int, order: list[int]) -> None:
    jacobian = random(seed, 5, size=20)
    update, weights = drop(jacobian)
    update_permuted, weights_permuted = drop(jacobian[order])
    torch.testing.assert_close(update_permuted, update, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights_permuted, weights[order], rtol=1e-5, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), power=st.integers(-15, 15))
def test_scaling_all_losses_scales_the_update(seed: int, power: int) -> None:
    jacobian, scale = random(seed, 4, size=20).float(), 2.0**power
    torch.testing.assert_close(drop(scale * jacobian)[0], scale * drop(jacobian)[0])


def test_zero_coordinates_and_zero_gradients() -> None:
    jacobian = random(0, 3, size=6)
    jacobian[:, 2], jacobian[1] = 0.0, 0.0
    update, weights = drop(jacobian)
    assert update.isfinite().all() and float(update[2]) == 0.0 and float(weights[1]) == 1.0
    update, weights = drop(jacobian[:, :0])  # a frozen trunk has no parameters
    assert update.shape == (0,) and weights.tolist() == [1.0, 1.0, 1.0]


def test_does_not_modify_the_jacobian() -> None:
    jacobian = random(0, 3, size=6).float()
    before = jacobian.clone()
    drop(jacobian)
    drop(jacobian, leak=0.5)
    assert torch.equal(jacobian, before)


def test_draws_in_each_step_and_resumes_identically() -> None:
    jacobian, original = random(1, 6, size=50), create("graddrop", 6)
    first, second = descend(original, jacobian)[0].clone(), descend(original, jacobian)[0].clone()
    assert not torch.equal(first, second)
    resumed = create("graddrop", 6)
    resumed.seed(99)
    resumed.load_state_dict(original.state_dict())
    for size in (50, 20, 80):  # the last batch of an epoch may have fewer features
        jacobian = random(size, 6, size=size)
        assert torch.equal(descend(original, jacobian)[0], descend(resumed, jacobian)[0])


def test_unaffected_by_autocast() -> None:
    jacobian = random(0, 4, size=100)
    expected = drop(jacobian)
    with torch.autocast("cpu", torch.bfloat16):
        got = drop(jacobian)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


def test_weights_are_not_reused() -> None:
    assert not GradDrop.reuses_weights


def test_never_waits_for_the_device() -> None:
    weighting = GradDrop(tasks(3), leak=0.1).to("meta")
    weighting.start_step()
    jacobian, gramian = torch.ones(2, 50, device="meta"), torch.ones(2, 2, device="meta")
    update, weights = weighting.update(jacobian, gramian, torch.ones(2, device="meta"), [0, 2])
    assert update.device.type == weights.device.type == "meta" and update.shape == (50,) and weights.shape == (2,)

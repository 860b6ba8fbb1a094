from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtlcli.weighting.methods.gradnorm import GradNorm
from tests.oracles import gradnorm as oracle
from tests.weighting.jacobians import SCALES, create, every_kind, random, solve
from tests.weighting.methods import tasks

quick = settings(max_examples=20, deadline=None)


def past(seed: int, steps: int, count: int) -> tuple[Tensor, Tensor]:
    """Return norms [S, T] of different sizes and losses [S, T] that decrease at different rates, with noise."""
    generator = torch.Generator().manual_seed(seed)
    rates = torch.rand(count, generator=generator, dtype=torch.float64)
    sizes = 10 ** torch.randn(count, generator=generator, dtype=torch.float64)
    noise = torch.rand(2, steps, count, generator=generator, dtype=torch.float64) + 0.5
    falling = torch.exp(-rates * torch.arange(steps)[:, None] / steps)
    return sizes * noise[0], 3 * sizes * falling * noise[1]


def step(weighting: GradNorm, norms: Tensor, losses: Tensor, present: list[int] | None = None) -> Tensor:
    weighting.start_step()
    return weighting.weights(torch.diag(norms**2), losses, present or range(len(norms)))


@pytest.mark.parametrize(("alpha", "lr"), [(1.5, 0.025), (0.0, 0.01), (0.12, 0.001)])
@pytest.mark.parametrize("count", [1, 2, 5, 10, 40])
def test_weights_match_the_paper(count: int, alpha: float, lr: float) -> None:
    weighting, expected = GradNorm(tasks(count), alpha=alpha, lr=lr), oracle.GradNorm(count, alpha, lr)
    # few enough steps that all weights stay away from 0
    for norms, losses in zip(*past(count, 30, count), strict=True):
        used = step(weighting, norms, losses).numpy()
        np.testing.assert_allclose(used, expected.step(norms.numpy(), losses.numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradient_of_the_oracle_matches_finite_differences(alpha: float) -> None:
    """With targets that depend on the weights the gradient would differ."""
    norms, losses = (values[0].numpy() for values in past(3, 1, 4))
    first, weights, delta = np.ones(4), np.array([0.5, 1.0, 0.7, 1.8]), 1e-6
    constant = oracle.targets(weights, norms, losses, first, alpha)
    signs = np.sign(weights * norms - constant)
    for i, unit in enumerate(np.eye(4)):
        ahead, behind = weights + delta * unit, weights - delta * unit
        detached = oracle.objective(ahead, norms, constant) - oracle.objective(behind, norms, constant)
        assert detached / (2 * delta) == pytest.approx(norms[i] * signs[i], rel=1e-4)
        attached = oracle.objective(ahead, norms, oracle.targets(ahead, norms, losses, first, alpha))
        attached -= oracle.objective(behind, norms, oracle.targets(behind, norms, losses, first, alpha))
        assert attached / (2 * delta) != pytest.approx(norms[i] * signs[i], rel=1e-2)


def test_the_first_two_steps_in_closed_form() -> None:
    """The first step of Adam is lr, for gradients of any size."""
    weighting = GradNorm(tasks(3))
    norms, losses = torch.tensor([9.0, 3.5, 1.0]).double(), torch.ones(3).double()
    assert torch.equal(step(weighting, norms, losses), torch.ones(3).double())
    # the mean norm is 4.5: the first weight decreases, the others increase, then Σw = 3
    moved = torch.tensor([1 - 0.025, 1 + 0.025, 1 + 0.025]).double()
    torch.testing.assert_close(step(weighting, norms, losses), 3 * moved / moved.sum(), rtol=1e-6, atol=0)


def test_the_target_is_detached() -> None:
    """A common bug: including the derivative of the target with respect to the weights, through the mean norm."""
    norms = torch.tensor([6.0, 2.0, 1.0], dtype=torch.float64)
    weighting = GradNorm(tasks(3))
    step(weighting, norms, torch.ones(3).double())
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    lengths = weights * norms
    detached = torch.autograd.grad((lengths - lengths.mean().detach()).abs().sum(), weights)[0]
    lengths = weights * norms
    attached = torch.autograd.grad((lengths - lengths.mean()).abs().sum(), weights)[0]
    assert not torch.allclose(attached, detached)
    torch.testing.assert_close(weighting.mean.double(), 0.1 * detached, rtol=1e-6, atol=0)


def test_norms_cover_all_parameters_of_the_layer() -> None:
    """A common bug: using only the first tensor of the layer, its weight without its bias."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 3, generator=generator)
    goals = 3 * torch.randn(2, 8, 2, generator=generator) + torch.tensor([[[20.0]], [[0.0]]])
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    weighting, whole, first_only = GradNorm(tasks(2)), oracle.GradNorm(2), oracle.GradNorm(2)
    for factor in (1.0, 0.6, 0.5, 0.4):
        losses = torch.stack([(factor * layer(inputs) - goal).square().mean() for goal in goals])
        rows = [torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True) for loss in losses]
        jacobian = torch.stack([torch.cat([tensor.flatten() for tensor in row]) for row in rows]).double()
        exact = losses.detach().double()
        used = solve(weighting, jacobian, exact).numpy()
        expected = whole.step(np.linalg.norm(jacobian.numpy(), axis=1), exact.numpy())
        mistaken = first_only.step(np.array([float(row[0].norm()) for row in rows]), exact.numpy())
        np.testing.assert_allclose(used, expected, rtol=1e-5)
    assert np.abs(used - mistaken).max() > 1e-3


def test_uses_the_last_shared_layer_by_default() -> None:
    assert GradNorm.gradients[0] == "last_layer"


@quick
@given(data=st.data())
def test_weights_are_positive_and_sum_to_the_number_of_tasks(data: st.DataObject) -> None:
    """A common bug: without normalization, a high learning rate makes weights negative."""
    count, lr = data.draw(st.integers(1, 10)), data.draw(st.sampled_from([0.025, 0.5, 10.0]))
    weighting = GradNorm(tasks(count), lr=lr)
    for norms, losses in zip(*past(data.draw(st.integers(0, 1000)), 20, count), strict=True):
        weights = step(weighting, norms, losses)
        assert (weights > 0).all()
        assert float(weights.sum()) == pytest.approx(count)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_norms_converge_to_their_targets(alpha: float) -> None:
    norms, losses = torch.tensor([4.0, 1.0, 0.5]).double(), torch.tensor([0.5, 0.5, 1.0]).double()
    weighting = GradNorm(tasks(3), alpha=alpha, lr=0.01)
    step(weighting, norms, torch.ones(3).double())
    for _ in range(500):
        weights = step(weighting, norms, losses)
    ratios = (losses / losses.mean()) ** alpha
    ideal = ratios / norms
    torch.testing.assert_close(weights, 3 * ideal / ideal.sum(), rtol=0.05, atol=0.05)


def test_slower_tasks_get_larger_weights() -> None:
    weighting = GradNorm(tasks(2))
    step(weighting, torch.ones(2).double(), torch.tensor([1.0, 10.0]).double())
    step(weighting, torch.ones(2).double(), torch.tensor([0.9, 1.0]).double())
    slow, fast = step(weighting, torch.ones(2).double(), torch.tensor([0.9, 1.0]).double())
    assert slow > 1 > fast


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    order = data.draw(st.permutations(range(count)))
    straight, permuted = GradNorm(tasks(count)), GradNorm(tasks(count, order))
    for norms, losses in zip(*past(data.draw(st.integers(0, 1000)), 10, count), strict=True):
        weights = step(straight, norms, losses)
        torch.testing.assert_close(step(permuted, norms[order], losses[order]), weights[order], rtol=1e-5, atol=1e-5)


def test_an_absent_task_keeps_its_state_and_the_others_their_share() -> None:
    weighting, alone = GradNorm(tasks(4)), GradNorm(tasks(2))
    for norms, losses in zip(*past(0, 10, 4), strict=True):
        step(weighting, norms, losses)
    before = {name: buffer.clone() for name, buffer in weighting.named_buffers()}
    # equals a method for two tasks with the same state
    for name, buffer in alone.named_buffers():
        buffer.copy_(before[name][[0, 2]])
    alone.learned /= alone.learned.mean()
    for norms, losses in zip(*past(1, 5, 2), strict=True):
        weights = step(weighting, norms, losses, [0, 2])
        assert float(weights.sum()) == pytest.approx(2)
        torch.testing.assert_close(weights, step(alone, norms, losses), rtol=1e-5, atol=1e-5)
    for name, buffer in weighting.named_buffers():
        assert torch.equal(buffer[[1, 3]], before[name][[1, 3]]), name
    assert float(weighting.learned.sum()) == pytest.approx(4, rel=1e-5)


def test_the_reference_loss_is_the_first_one_of_each_task() -> None:
    weighting = GradNorm(tasks(3))
    ones = torch.ones(2).double()
    step(weighting, ones, torch.tensor([5.0, 7.0]).double(), [0, 2])
    step(weighting, ones, torch.tensor([4.0, 3.0]).double(), [0, 1])
    assert weighting.first.tolist() == [5.0, 3.0, 7.0]


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", [*SCALES, 1e-30, 1e30])
@pytest.mark.parametrize("loss", [0.0, 1e-30, 1.0, 1e30, -1.0])
def test_finite_for_all_gradients_and_losses(count: int, scale: float, loss: float) -> None:
    weighting = create("gradnorm", count)
    for _, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        losses = torch.full((count,), loss, dtype=torch.float64)
        losses[0] = 1.0
        assert weighting.weights(gramian, losses, range(count)).isfinite().all()
    assert all(buffer.isfinite().all() for buffer in weighting.buffers())


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_resumes_identically(steps: int) -> None:
    original, (norms, losses) = GradNorm(tasks(3)), past(0, steps + 5, 3)
    for index in range(steps):
        step(original, norms[index], losses[index])
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = GradNorm(tasks(3))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for index in range(steps, steps + 5):
        assert torch.equal(step(original, norms[index], losses[index]), step(resumed, norms[index], losses[index]))


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    weighting = GradNorm(tasks(3)).to("meta")
    gramian = torch.ones(len(present), len(present), device="meta", dtype=torch.float64)
    assert weighting.weights(gramian, gramian[0], present).shape == (len(present),)


def test_the_first_step_is_the_sum() -> None:
    assert torch.equal(solve(create("gradnorm", 4), random(0, 4)), torch.ones(4).double())

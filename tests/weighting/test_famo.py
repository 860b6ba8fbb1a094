from __future__ import annotations

import io
import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.scalarization import FAMO

from mtlcli.weighting.methods import famo
from tests.oracles import famo as oracle
from tests.weighting.methods import gradient, history, tasks

OPTIMIZERS: list[Literal["adam", "sgd"]] = ["adam", "sgd"]


def create(count: int, optimizer: Literal["adam", "sgd"] = "adam", **options: float) -> famo.FAMO:
    return famo.FAMO(tasks(count), optimizer=optimizer, **options)


def weights(weighting: famo.FAMO, losses: Tensor, present: list[int] | None = None) -> Tensor:
    return weighting.objective(losses, present or list(range(len(losses))))[1]


def learn(weighting: famo.FAMO, losses: Tensor) -> None:
    """Run steps from each row of `losses` [S, T] to the next."""
    for before, after in itertools.pairwise(losses):
        weighting.after_step(before, after, range(losses.shape[1]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_weights_match_the_paper(count: int, optimizer: Literal["adam", "sgd"]) -> None:
    """30 steps; γ and β are larger than by default, so that errors in them have an effect."""
    ours = create(count, optimizer, learning_rate=0.1, weight_decay=0.2)
    theirs = oracle.Famo(count, optimizer == "adam", rate=0.1, decay=0.2)
    losses = history(31, count).double()
    for before, after in zip(losses[:-1].float(), losses[1:].float(), strict=True):
        expected = oracle.weights(theirs.logits, before.double().numpy())
        np.testing.assert_allclose(weights(ours, before).numpy(), expected, rtol=2e-5)
        ours.after_step(before, after, range(count))
        theirs.after_step(before.double().numpy(), after.double().numpy())
        np.testing.assert_allclose(ours.logits.numpy(), theirs.logits, rtol=1e-4, atol=2e-6)


def test_agrees_with_torchjd() -> None:
    """TorchJD's weights sum to 1, so that its gradients are 1/T of these; it adds 1e-8 to each loss."""
    for seed in range(10):
        count = 2 + seed
        losses = history(20, count, seed)
        ours, theirs = create(count), FAMO(count)
        for before, after in itertools.pairwise(losses):
            inputs = before.clone().requires_grad_()
            expected = count * gradient(theirs(inputs), inputs)
            torch.testing.assert_close(weights(ours, before), expected, rtol=1e-4, atol=0)
            ours.after_step(before, after, range(count))
            theirs.update(after)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_slower_tasks_get_more_weight(optimizer: Literal["adam", "sgd"]) -> None:
    """A common bug is the wrong sign. The first step of Adam depends on nothing but the sign."""
    weighting, losses = create(3, optimizer), torch.tensor([2.0, 2.0, 2.0])
    weighting.after_step(losses, torch.tensor([1.0, 1.9, 2.1]), range(3))
    first, second, third = weights(weighting, losses).tolist()
    assert first < 1 < third and (second == pytest.approx(third) if optimizer == "adam" else second < third)


def test_nothing_is_learned_without_after_step() -> None:
    """A common bug: without a second forward pass the logits do not change, so `looks_back` must be set."""
    assert famo.FAMO.looks_back and not famo.FAMO.linear
    weighting = create(3)
    for losses in history(5, 3):
        weighting.start_step()
        weighting.objective(losses, range(3))
        weighting.end_epoch(losses)
    assert weighting.logits.tolist() == [0.0, 0.0, 0.0]
    learn(weighting, history(2, 3))
    assert weighting.logits.all()


def test_without_progress_the_logits_decay_to_zero() -> None:
    weighting, losses = create(2, "sgd", weight_decay=0.1, learning_rate=0.5), torch.ones(2)
    weighting.logits.copy_(torch.tensor([1.0, -2.0]))
    weighting.after_step(losses, losses, [0, 1])
    torch.testing.assert_close(weighting.logits, torch.tensor([0.95, -1.9]))


def test_all_log_losses_come_to_decrease_at_the_same_rate() -> None:
    """Two losses θ², one of which a step reduces by a tenth as much."""
    weighting, thetas = create(2, weight_decay=0.0), torch.ones(2, dtype=torch.float64)
    for _ in range(400):
        before = thetas.square()
        thetas = thetas - 1e-3 * weights(weighting, before) * torch.tensor([1.0, 0.1]) * 2 * thetas
        weighting.after_step(before, thetas.square(), [0, 1])
    fast, slow = (before / thetas.square()).log().tolist()
    assert 0.8 < fast / slow < 1.25  # 10 in the first step


@settings(max_examples=20, deadline=None)
@given(power=st.integers(-6, 6), task=st.integers(0, 2), seed=st.integers(0, 100))
def test_invariant_to_the_units_of_a_loss(power: int, task: int, seed: int) -> None:
    losses, scales = history(6, 3, seed), torch.ones(3)
    scales[task] = 10.0**power
    ours, theirs = create(3, "sgd"), create(3, "sgd")
    learn(ours, losses)
    learn(theirs, scales * losses)
    torch.testing.assert_close(theirs.logits, ours.logits, rtol=1e-3, atol=1e-6)
    weighted = weights(theirs, scales * losses[0]) * scales * losses[0]
    expected = weights(ours, losses[0]) * losses[0]
    torch.testing.assert_close(weighted / weighted.sum(), expected / expected.sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("present", [[2], [0, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_weights_sum_to_the_number_of_tasks_present(present: list[int], scale: float) -> None:
    weighting = create(4)
    learn(weighting, history(6, 4))
    result = weights(weighting, scale * history(1, len(present), seed=2)[0], present)
    assert float(result.sum()) == pytest.approx(len(present), rel=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_absent_task_keeps_its_logit_and_moments(optimizer: Literal["adam", "sgd"]) -> None:
    ours, theirs = create(4, optimizer), oracle.Famo(4, optimizer == "adam")
    for step in range(12):
        present = [[0, 1, 2, 3], [0, 2], [1, 2, 3], [3]][step % 4]
        before, after = history(2, len(present), seed=step)
        untouched = [task for task in range(4) if task not in present]
        kept = {name: buffer[untouched].clone() for name, buffer in ours.named_buffers()}
        ours.after_step(before, after, present)
        theirs.after_step(before.double().numpy(), after.double().numpy(), present)
        assert all(torch.equal(buffer[untouched], kept[name]) for name, buffer in ours.named_buffers())
        np.testing.assert_allclose(ours.logits.numpy(), theirs.logits, rtol=1e-4, atol=1e-6)
    result = weights(ours, torch.tensor([0.7, 0.3]), [1, 3])
    np.testing.assert_allclose(result.numpy(), oracle.weights(theirs.logits[[1, 3]], np.array([0.7, 0.3])), rtol=1e-5)


def test_a_solved_task_does_not_affect_the_others() -> None:
    result = weights(create(3), torch.tensor([0.0, 1.0, 1.0]))
    torch.testing.assert_close(result, torch.tensor([0.0, 1.5, 1.5]))
    assert weights(create(2), torch.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("before", [[0.0, 1.0], [1e-30, 1e30], [1.0, 1.0], [float("inf"), 1.0]])
@pytest.mark.parametrize("after", [[0.0, 1.0], [1e30, 1e-30], [float("nan"), 1.0], [float("inf"), 1.0]])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_logits_stay_finite(before: list[float], after: list[float], optimizer: Literal["adam", "sgd"]) -> None:
    weighting = create(2, optimizer)
    for _ in range(3):
        weighting.after_step(torch.tensor(before), torch.tensor(after), [0, 1])
    assert all(buffer.isfinite().all() for buffer in weighting.buffers())


def test_resumes_identically() -> None:
    original = create(3)
    learn(original, history(5, 3))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = create(3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    learn(original, history(4, 3, seed=1))
    learn(resumed, history(4, 3, seed=1))
    assert torch.equal(original.logits, resumed.logits) and original.logits.any()


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_looking_back_never_waits_for_the_device(present: list[int]) -> None:
    weighting = create(3).to("meta")
    losses = torch.ones(len(present), device="meta")
    weighting.after_step(losses, losses, present)
    assert weighting.logits.device.type == "meta" and weighting.logits.shape == (3,)

"""Properties of all gradient-level weightings, and identities between some of them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GradientWeighting, GramianWeighting, JacobianWeighting
from mtlcli.weighting.randomness import SeededMixin
from tests.weighting.jacobians import SCALES, create, descend, every_kind, named, random

NAMES = [name for name in named(GradientWeighting) if name != "torchjd"]  # its properties are those of the aggregator
DETERMINISTIC = [name for name in NAMES if not issubclass(weightings[name].target, SeededMixin)]  # type: ignore[arg-type]
# with options that disable the regularization of the authors
NON_CONFLICTING: dict[str, dict[str, Any]] = {
    "conflict_free": {}, "fairgrad": {}, "mgda": {}, "nash_mtl": {},
    "dualproj": {"norm_eps": 0.0, "reg_eps": 1e-8}, "upgrad": {"norm_eps": 0.0, "reg_eps": 1e-8},
}  # fmt: skip
SCALE_INVARIANT = ["conflict_free", "imtl_g", "nash_mtl"]
# updates with a scale of their own, or that do not equal the sum in the first step
OWN_SCALE = {"cagrad", "moco", "nash_mtl", "db_mtl"}
quick = settings(max_examples=10, deadline=None)


def unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector.double(), dim=0)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("name", NAMES)
def test_finite_for_all_gradients(name: str, count: int) -> None:
    for kind, jacobian in every_kind(count):
        for scale in SCALES:
            update, weights = descend(create(name, count, jacobian.shape[1]), scale * jacobian)
            assert weights.shape == (count,) and update.shape == jacobian.shape[1:], kind
            assert weights.isfinite().all() and update.isfinite().all(), (kind, scale)


@pytest.mark.parametrize("loss", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("name", NAMES)
def test_finite_for_all_losses(name: str, loss: float) -> None:
    weighting, losses = create(name, 3), torch.tensor([1.0, loss, 2.0], dtype=torch.float64)
    for step in range(3):
        update, weights = descend(weighting, random(step, 3, 20), losses)
        assert weights.isfinite().all() and update.isfinite().all()


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_permuting_the_tasks_permutes_the_weights(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 7))
    order = list(data.draw(st.permutations(range(count))))
    straight, permuted = create(name, count), create(name, count, order=order)
    losses = torch.linspace(0.5, 1.5, count, dtype=torch.float64)
    for step in range(3):
        jacobian = random(step, count, 20)
        update, weights = descend(straight, jacobian, losses)
        update_permuted, weights_permuted = descend(permuted, jacobian[order], losses[order])
        torch.testing.assert_close(weights_permuted, weights[order], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(update_permuted, update, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("name", NAMES)
def test_identical_tasks_give_the_direction_of_one_task(name: str, count: int) -> None:
    """In the scale of the sum, the update is T times the gradient."""
    gradient = random(0, 1, 20)
    losses = torch.ones(count, dtype=torch.float64)
    update, weights = descend(create(name, count), gradient.repeat(count, 1), losses)
    torch.testing.assert_close(unit(update), unit(gradient[0]), rtol=1e-4, atol=1e-6)
    if name not in OWN_SCALE:
        torch.testing.assert_close(update.double(), count * gradient[0], rtol=1e-3, atol=1e-5)
        assert float(weights.sum()) == pytest.approx(count, rel=1e-3)


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_absent_tasks_are_not_part_of_the_problem(name: str, data: st.DataObject) -> None:
    """With absent tasks, a method behaves as if it had been created for the present tasks only."""
    count = data.draw(st.integers(2, 6))
    present = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    whole, subset = create(name, count), create(name, count, order=present)
    losses = torch.linspace(0.5, 1.5, count, dtype=torch.float64)
    for step in range(2):
        jacobian = random(step, count, 20)[present]
        expected, expected_weights = descend(subset, jacobian, losses[present])
        gramian = jacobian @ jacobian.T
        whole.start_step()
        if isinstance(whole, GramianWeighting):
            weights = whole.weights(gramian, losses[present], present)
        else:
            update, weights = whole.update(jacobian.float(), gramian, losses[present], present)
            torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_absent_tasks_leave_all_methods_finite(name: str) -> None:
    weighting = create(name, 4)
    for step, present in enumerate([[0, 1, 2, 3], [1], [0, 3], [0, 1, 2, 3]]):
        jacobian = random(step, 4, 20)[present]
        weighting.start_step()
        losses = torch.ones(len(present), dtype=torch.float64)
        if isinstance(weighting, GramianWeighting):
            weights = weighting.weights(jacobian @ jacobian.T, losses, present)
        else:
            update, weights = weighting.update(jacobian.float(), jacobian @ jacobian.T, losses, present)
            assert update.isfinite().all()
        assert weights.shape == (len(present),) and weights.isfinite().all()


@quick
@given(count=st.integers(2, 8), seed=st.integers(0, 10_000), scale=st.sampled_from([1e-8, 1.0, 1e8]))
@pytest.mark.parametrize("name", NON_CONFLICTING)
def test_non_conflicting_methods_conflict_with_no_task(name: str, count: int, seed: int, scale: float) -> None:
    jacobian = scale * random(seed, count, 20)
    update, _ = descend(create(name, count, **NON_CONFLICTING[name]), jacobian)
    cosines = torch.nn.functional.normalize(jacobian) @ unit(update)
    assert cosines.min() >= -1e-4


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", SCALE_INVARIANT)
def test_direction_is_invariant_to_the_scale_of_a_task(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    factors = torch.tensor(data.draw(st.lists(st.floats(1e-3, 1e3), min_size=count, max_size=count))).double()
    jacobian = random(count, count, 20)
    update, _ = descend(create(name, count), jacobian)
    scaled, _ = descend(create(name, count), factors[:, None] * jacobian)
    torch.testing.assert_close(unit(scaled), unit(update), rtol=1e-3, atol=1e-4)


@quick
@given(seed=st.integers(0, 10_000))
def test_pcgrad_equals_upgrad_for_two_tasks(seed: int) -> None:
    """For two tasks, PCGrad is the sum of the projections onto the dual cone (Quinton and Rey 2024)."""
    jacobian = random(seed, 2, 5)
    exact = {"norm_eps": 0.0, "reg_eps": 1e-8}
    pcgrad, upgrad = descend(create("pcgrad", 2, 5), jacobian)[0], descend(create("upgrad", 2, 5, **exact), jacobian)[0]
    torch.testing.assert_close(pcgrad, upgrad, rtol=1e-5, atol=1e-7)


@quick
@given(seed=st.integers(0, 10_000), count=st.integers(2, 8))
def test_fairgrad_with_alpha_one_equals_nash_mtl(seed: int, count: int) -> None:
    jacobian = random(seed, count, 20)
    fair = descend(create("fairgrad", count, alpha=1.0), jacobian)[1]
    nash = descend(create("nash_mtl", count, max_norm=None), jacobian)[1]
    torch.testing.assert_close(fair, nash, rtol=1e-6, atol=1e-9)


@quick
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_without_conflict_projections_give_the_sum(seed: int, count: int) -> None:
    jacobian = random(seed, count, 20).abs()
    for name in ("pcgrad", "upgrad", "dualproj"):
        torch.testing.assert_close(descend(create(name, count), jacobian)[1], torch.ones(count).double())


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_resumes_identically(name: str, steps: int) -> None:
    original = create(name, 3)
    for step in range(steps):
        descend(original, random(step, 3, 20))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = create(name, 3)
    resumed.seed(99)  # the state of the generator replaces the seed
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3):
        ours, theirs = (descend(method, random(10 + step, 3, 20)) for method in (original, resumed))
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("name", NAMES)
def test_never_waits_for_the_device(name: str) -> None:
    """Reading a value, or a shape that depends on one, fails on the meta device."""
    weighting: Any = create(name, 3).to("meta")
    for present in ([0, 1, 2], [0, 2]):
        count = len(present)
        gramian, losses = torch.ones(count, count, dtype=torch.float64, device="meta"), torch.ones(count, device="meta")
        weighting.start_step()
        if isinstance(weighting, JacobianWeighting):
            _, weights = weighting.update(torch.ones(count, 20, device="meta"), gramian, losses.double(), present)
        else:
            weights = weighting.weights(gramian, losses.double(), present)
        assert weights.device.type == "meta" and weights.shape == (count,)


@pytest.mark.parametrize("name", NAMES)
def test_modifies_neither_its_inputs_nor_the_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    weighting: Any = create(name, 3)
    jacobian, losses = random(0, 3, 20).float(), torch.ones(3, dtype=torch.float64)
    gramian = jacobian.double() @ jacobian.double().T
    kept = [tensor.clone() for tensor in (jacobian, gramian, losses)]
    for _ in range(2):
        weighting.start_step()
        if isinstance(weighting, JacobianWeighting):
            update, weights = weighting.update(jacobian, gramian, losses, range(3))
            assert not update.requires_grad
        else:
            weights = weighting.weights(gramian, losses, range(3))
        assert not weights.requires_grad
    for tensor, old in zip((jacobian, gramian, losses), kept, strict=True):
        assert torch.equal(tensor, old)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_computes_in_full_precision_under_autocast(name: str) -> None:
    jacobian = random(0, 4, 20)
    expected = descend(create(name, 4), jacobian)
    with torch.autocast("cpu", torch.bfloat16):
        got = descend(create(name, 4), jacobian)
    assert torch.equal(got[1], expected[1])
    torch.testing.assert_close(got[0].float(), expected[0].float(), rtol=1e-2, atol=1e-2)

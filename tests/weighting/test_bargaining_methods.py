"""Properties that the bargaining solutions share: `nash_mtl` and `fairgrad`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.weighting import FairGrad, NashMTL
from tests.oracles import bargaining as oracle
from tests.weighting.jacobians import SCALES, create, every_kind, random, solve
from tests.weighting.methods import tasks

# method, options, and the exponent parameter of its equation
FREE: list[tuple[str, dict[str, Any], float]] = [
    ("nash_mtl", {"max_norm": None}, 1.0),
    *[("fairgrad", {"alpha": alpha}, alpha) for alpha in (0.5, 1.0, 2.0, 5.0)],
]
# kinds of Jacobians without a vanishing combination of the gradients
SOLVABLE = {"nash_mtl": {"random", "conflicting", "non-conflicting", "identical", "unequal norms"}}
SOLVABLE["fairgrad"] = SOLVABLE["nash_mtl"] - {"unequal norms"}
DEFAULT: dict[str, Any] = {"nash_mtl": {"max_norm": None}, "fairgrad": {}}
quick = settings(max_examples=15, deadline=None)
each_method = pytest.mark.parametrize("name", DEFAULT)
each_fairness = pytest.mark.parametrize(("name", "options", "fairness"), FREE)


@each_fairness
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_every_kind_of_jacobian(name: str, options: dict[str, Any], fairness: float, count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        weights = solve(create(name, count, **options), scale * jacobian)
        assert weights.isfinite().all() and float(weights.sum()) == pytest.approx(count), kind
        if kind in SOLVABLE[name] and count < len(jacobian.T):
            assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy(), fairness) < 1e-6, kind


@each_method
def test_a_task_with_a_zero_gradient_does_not_take_part(name: str) -> None:
    """A common bug: its weight is unbounded, so that normalizing the weights leaves nothing to the other tasks."""
    options, jacobian = DEFAULT[name], random(0, 4)
    jacobian[2] = 0.0
    weights = solve(create(name, 4, **options), jacobian)
    torch.testing.assert_close(weights[[0, 1, 3]], solve(create(name, 3, **options), jacobian[[0, 1, 3]]))
    assert float(weights[2]) == 1
    assert torch.equal(solve(create(name, 4), torch.zeros(4, 8).double()), torch.ones(4).double())


@each_fairness
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_identical_tasks_have_weight_one(name: str, options: dict[str, Any], fairness: float, count: int) -> None:
    method = create(name, count, **options)
    ones = torch.ones(count).double()
    torch.testing.assert_close(solve(method, random(0, 1, 20).repeat(count, 1)), ones)
    torch.testing.assert_close(solve(method, 3 * torch.eye(count).double()), ones)


@quick
@given(data=st.data())
@each_method
def test_permuting_the_tasks_permutes_the_weights(name: str, data: st.DataObject) -> None:
    count, size = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 20))
    order = data.draw(st.permutations(range(count)))
    jacobian, method = random(data.draw(st.integers(0, 1000)), count, size), create(name, count)
    torch.testing.assert_close(solve(method, jacobian[order]), solve(method, jacobian)[order], rtol=1e-3, atol=1e-5)


@each_method
def test_single_precision_gramians(name: str) -> None:
    """Devices without float64 use them."""
    for count in (1, 2, 10):
        for kind, jacobian in every_kind(count):
            gramian = (jacobian @ jacobian.T).float()
            weighting = create(name, count, **DEFAULT[name])
            weights = weighting.weights(gramian, torch.ones(count), range(count))
            assert weights.dtype == torch.float32 and weights.isfinite().all(), kind
            if kind == "random" and name == "nash_mtl":
                expected = solve(create(name, count, **DEFAULT[name]), jacobian)
                torch.testing.assert_close(weights.double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("method", [NashMTL, FairGrad])
def test_absent_tasks_are_not_part_of_the_problem(method: Any) -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = method(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(method(tasks(3)), jacobian))


@pytest.mark.parametrize(
    ("name", "options"),
    [("nash_mtl", {}), *[("fairgrad", {"alpha": alpha}) for alpha in (1e-3, 0.1, 1.0, 2.0, 1e3)]],
)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gramians(name: str, options: dict[str, Any], count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        weights = create(name, count, **options).weights(gramian, torch.ones(count).double(), range(count))
        assert weights.isfinite().all(), kind

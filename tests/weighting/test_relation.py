from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtlcli.errors import MtlError
from mtlcli.registry import weightings
from mtlcli.weighting.base import WeightedTask
from mtlcli.weighting.methods.relation import Relation
from tests.oracles import relation as oracle
from tests.weighting.methods import gradient, history, tasks

PAIR = [WeightedTask("a"), WeightedTask("b")]
OPPOSED = [[1.0, -0.5], [-0.5, 1.0]]  # the weight of a is 2 L_a − L_b


def symmetric(seed: int, count: int) -> oracle.Array:
    values = np.random.default_rng(seed).integers(-64, 64, size=(count, count)) / 64  # exact in float32
    return (values + values.T) / 2


def literal(losses: Tensor, lambdas: list[float], relations: Any) -> Tensor:
    """Return the double sum, term by term."""
    terms = [
        relations[i][j] * lambdas[i] * lambdas[j] * losses[i] * losses[j]
        for i in range(len(losses))
        for j in range(len(losses))
    ]
    return torch.stack(terms).sum()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8), negative=st.sampled_from(["error", "allow"]))
def test_objective_is_the_double_sum_and_weights_its_gradient(seed: int, count: int, negative: Any) -> None:
    weighted, matrix = tasks(count), symmetric(seed, count)
    weighting = Relation(weighted, matrix=matrix.tolist(), project="none", negative=negative)
    losses = history(1, count, seed)[0].double().requires_grad_()
    objective, weights = weighting.objective(losses, range(count))
    lambdas = [task.weight for task in weighted]
    exact = losses.detach().numpy()
    np.testing.assert_allclose(objective.item(), oracle.objective(exact, lambdas, matrix), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(weights.numpy(), oracle.weights(exact, lambdas, matrix), rtol=1e-12, atol=1e-12)
    by_autograd = gradient(literal(losses, lambdas, matrix.tolist()), losses)
    torch.testing.assert_close(gradient(objective, losses), by_autograd, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights, by_autograd, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_absent_tasks_leave_the_double_sum(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    present = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    weighted, matrix, losses = tasks(count), symmetric(count, count), history(1, count)[0].double()
    weighting = Relation(weighted, matrix=matrix.tolist(), project="none")
    objective, weights = weighting.objective(losses[present], present)
    arguments = ([weighted[i].weight for i in present], matrix[np.ix_(present, present)])
    np.testing.assert_allclose(objective.item(), oracle.objective(losses[present].numpy(), *arguments), atol=1e-12)
    np.testing.assert_allclose(weights.numpy(), oracle.weights(losses[present].numpy(), *arguments), atol=1e-12)


def test_special_cases_of_the_matrix_in_closed_form() -> None:
    weighted, losses = tasks(4), history(1, 4)[0]
    scaled = torch.tensor([task.weight for task in weighted]) * losses
    ones, _ = Relation(weighted, matrix=np.ones((4, 4)).tolist()).objective(losses, range(4))
    identity, _ = Relation(weighted, matrix=np.eye(4).tolist()).objective(losses, range(4))
    assert ones.item() == pytest.approx(float(scaled.sum()) ** 2, rel=1e-6)
    assert identity.item() == pytest.approx(float(scaled.square().sum()), rel=1e-6)


def test_entries_are_matched_by_name_not_by_order() -> None:
    matrix = {"b": {"a": 0.25, "b": 3.0}, "a": {"b": 0.25, "a": 2.0}}
    _, weights = Relation(PAIR, matrix=matrix).objective(torch.tensor([1.0, 10.0]), [0, 1])
    np.testing.assert_allclose(weights.numpy(), [2 * (2 + 2.5), 2 * (0.25 + 30)])


@pytest.mark.parametrize(("losses", "expected"), [([1.0, 1.0], [1, 1]), ([1.0, 4.0], [-2, 7]), ([0.0, 1.0], [-1, 2])])
def test_negative_weights_are_allowed_or_clamped(losses: list[float], expected: list[float]) -> None:
    given_ = torch.tensor(losses, requires_grad=True)
    value, weights = Relation(PAIR, matrix=OPPOSED, negative="allow").objective(given_, [0, 1])
    np.testing.assert_allclose(weights.numpy(), expected)
    clamped_value, clamped = Relation(PAIR, matrix=OPPOSED, negative="clamp").objective(given_, [0, 1])
    np.testing.assert_allclose(clamped.numpy(), np.maximum(expected, 0))
    torch.testing.assert_close(gradient(clamped_value, given_), clamped)
    assert clamped_value.item() == value.item() == pytest.approx(losses[0] ** 2 + losses[1] ** 2 - np.prod(losses))


def test_negative_weights_are_errors_with_task_weight_and_step() -> None:
    weighting = Relation(PAIR, matrix=OPPOSED)
    weighting.check(1, {"a": 1.0, "b": 1.0})
    weighting.check(2, {"b": 1.0})
    weighting.check(3, {"a": -1e-9, "b": 1.0})  # 0 up to rounding
    with pytest.raises(MtlError, match=r"the weight of task 'a' is -2 at step 7: .*weighting\.negative=clamp"):
        weighting.check(7, {"a": -2.0, "b": 7.0})
    for other in ("allow", "clamp"):
        Relation(PAIR, matrix=OPPOSED, negative=other).check(7, {"a": -2.0, "b": 7.0})  # type: ignore[arg-type]


def test_weights_are_nonnegative_for_nonnegative_relations() -> None:
    weighting = Relation(tasks(6), matrix=np.abs(symmetric(3, 6)).tolist(), project="none")
    _, weights = weighting.objective(history(1, 6)[0], range(6))
    assert (weights > 0).all()


def test_indefinite_matrices_require_project() -> None:
    matrix = [[1.0, 2.0], [2.0, 1.0]]
    with pytest.raises(ValueError, match=r"from -1 to 3.*`project: psd`.*`project: none`"):
        Relation(PAIR, matrix=matrix)
    np.testing.assert_allclose(Relation(PAIR, matrix=matrix, project="psd").relations.numpy(), [[1.5, 1.5], [1.5, 1.5]])
    np.testing.assert_array_equal(Relation(PAIR, matrix=matrix, project="none").relations.numpy(), matrix)


def test_exactly_one_of_matrix_and_from_is_required() -> None:
    with pytest.raises(ValueError, match=r"one of `matrix` .*, got neither"):
        Relation(PAIR)
    with pytest.raises(ValueError, match=r"one of `matrix` .*, got both"):
        Relation(PAIR, matrix=OPPOSED, from_="data")
    assert Relation(PAIR, from_="data").objective(torch.ones(2), [0, 1])[0].isnan()  # prevents training


def test_a_python_keyword_can_be_an_option() -> None:
    component = weightings["relation"]
    assert list(component.options) == ["matrix", "from", "project", "negative"]
    assert all(option.description for option in component.options.values())
    assert component.create(PAIR, **{"from": "data", "negative": "clamp"}).negative == "clamp"


def test_has_no_state() -> None:
    assert Relation(PAIR, matrix=OPPOSED).state_dict() == {}
    assert not Relation.linear

"""Merging of models: every method by its oracle, and properties that hold for all of them."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.models.merging import GRIDS, METHODS, MergeMethod, Merger, MergeRule, _stable_seed
from tests.oracles import merging as oracle

SHAPES = {"trunk.weight": (7, 5), "trunk.bias": (7,)}
NAMES = ("a", "b", "c")
WITH_START: list[MergeMethod] = [method for method in METHODS if method != "mean"]


def random_state(seed: int, head: str | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    if head is not None:
        state[f"heads.{head}.weight"] = torch.randn(2, 7, generator=generator)
    return state


@pytest.fixture
def start() -> dict[str, Tensor]:
    return random_state(0)


@pytest.fixture
def states() -> dict[str, dict[str, Tensor]]:
    return {name: random_state(seed, name) for seed, name in enumerate(NAMES, 1)}


def flat(state: dict[str, Tensor]) -> oracle.Array:
    return np.concatenate([state[key].double().numpy().ravel() for key in SHAPES])


def merge(
    rule: MergeRule,
    states: dict[str, dict[str, Tensor]],
    start: dict[str, Tensor],
    coefficients: Sequence[float] = (0.3, 0.3, 0.3),
) -> dict[str, Tensor]:
    parameters = {key for state in states.values() for key in state}
    return Merger(rule, states, parameters, start).merge(dict(zip(states, coefficients, strict=True)))


def masks(rule: MergeRule) -> list[oracle.Array]:
    """Return the entries that DARE drops from the vectors of the models, in the order of the generator."""
    drawn = []
    for name in NAMES:
        generator = torch.Generator().manual_seed(_stable_seed(rule.seed, name))
        rows = [torch.rand(shape, generator=generator).numpy().ravel() for shape in SHAPES.values()]
        drawn.append((np.concatenate(rows) < rule.drop).astype(np.float64))
    return drawn


def assert_close(merged: dict[str, Tensor], expected: oracle.Array) -> None:
    np.testing.assert_allclose(flat(merged), expected, rtol=1e-6, atol=1e-6)  # task vectors are float32


def test_mean(states: dict[str, dict[str, Tensor]], start: dict[str, Tensor]) -> None:
    assert_close(merge(MergeRule("mean"), states, start), oracle.mean([*map(flat, states.values())]))


@pytest.mark.parametrize("coefficients", [(0.3, 0.3, 0.3), (0.2, 0.9, -0.4)])
def test_task_arithmetic(
    states: dict[str, dict[str, Tensor]], start: dict[str, Tensor], coefficients: Sequence[float]
) -> None:
    expected = oracle.task_arithmetic(flat(start), [*map(flat, states.values())], coefficients)
    assert_close(merge(MergeRule("task_arithmetic"), states, start, coefficients), expected)


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_ties(states: dict[str, dict[str, Tensor]], start: dict[str, Tensor], density: float) -> None:
    expected = oracle.ties(flat(start), [*map(flat, states.values())], density, 0.7)
    assert_close(merge(MergeRule("ties", density), states, start, [0.7] * 3), expected)


def test_dare(states: dict[str, dict[str, Tensor]], start: dict[str, Tensor]) -> None:
    rule = MergeRule("dare", drop=0.6, seed=5)
    models = oracle.dare(flat(start), [*map(flat, states.values())], masks(rule), 0.6)
    expected = oracle.task_arithmetic(flat(start), models, [0.3] * 3)
    assert_close(merge(rule, states, start), expected)


def test_dare_with_ties(states: dict[str, dict[str, Tensor]], start: dict[str, Tensor]) -> None:
    rule = MergeRule("dare_ties", density=0.3, drop=0.4, seed=5)
    models = oracle.dare(flat(start), [*map(flat, states.values())], masks(rule), 0.4)
    assert_close(merge(rule, states, start), oracle.ties(flat(start), models, 0.3, 0.3))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_models_makes_no_difference(
    states: dict[str, dict[str, Tensor]], start: dict[str, Tensor], method: MergeMethod
) -> None:
    backwards = dict(reversed(states.items()))
    first, second = merge(MergeRule(method), states, start), merge(MergeRule(method), backwards, start)
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "coefficient"),
    [
        (MergeRule("mean"), 1.0),
        (MergeRule("task_arithmetic"), 0.5),
        (MergeRule("ties", density=1.0), 1.0),
        (MergeRule("dare", drop=0.0), 0.5),
        (MergeRule("dare_ties", density=1.0, drop=0.0), 1.0),
    ],
    ids=METHODS,
)
def test_a_model_merged_with_itself_is_itself(
    states: dict[str, dict[str, Tensor]], start: dict[str, Tensor], rule: MergeRule, coefficient: float
) -> None:
    model, start = states["a"], {**start, "heads.a.weight": torch.zeros(2, 7)}
    merged = merge(rule, {"first": model, "second": model}, start, [coefficient] * 2)
    for key, value in model.items():
        torch.testing.assert_close(merged[key], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", WITH_START)
def test_coefficients_of_zero_give_the_start(
    states: dict[str, dict[str, Tensor]], start: dict[str, Tensor], method: MergeMethod
) -> None:
    merged = merge(MergeRule(method), states, start, [0.0] * 3)
    for key, value in start.items():
        assert torch.equal(merged[key], value)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_of_one_model_are_kept(
    states: dict[str, dict[str, Tensor]], start: dict[str, Tensor], method: MergeMethod
) -> None:
    merged = merge(MergeRule(method), states, start)
    for name in NAMES:
        key = f"heads.{name}.weight"
        assert torch.equal(merged[key], states[name][key])


def test_buffers_are_averaged_and_counters_are_the_largest(start: dict[str, Tensor]) -> None:
    states = {
        name: {**random_state(seed), "norm.running_var": torch.full((3,), float(seed)), "norm.batches": torch.tensor(n)}
        for seed, (name, n) in enumerate({"a": 7, "b": 9}.items(), 1)
    }
    merged = Merger(MergeRule("task_arithmetic"), states, set(SHAPES), start).merge({"a": 0.0, "b": 0.0})
    assert merged["norm.running_var"].tolist() == [1.5] * 3
    assert merged["norm.batches"] == 9


def test_ties_leaves_a_parameter_whose_sum_is_zero_at_the_start() -> None:
    start = {"w": torch.tensor([1.0, 1.0])}
    states = {"a": {"w": torch.tensor([2.0, 3.0])}, "b": {"w": torch.tensor([0.0, 2.0])}}
    merged = Merger(MergeRule("ties", density=1.0), states, {"w"}, start).merge({"a": 1.0, "b": 1.0})
    assert merged["w"].tolist() == [1.0, 2.5]


def test_every_method_with_a_coefficient_has_a_grid() -> None:
    assert set(GRIDS) == set(METHODS) - {"mean"}
    assert get_args(MergeMethod) == METHODS

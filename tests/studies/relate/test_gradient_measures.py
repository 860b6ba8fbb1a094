"""Cosines and affinities, from numbers by hand and from a linear model with a closed form."""

import numpy as np
import pytest
import torch

from mtlcli.data.loader import Batch
from mtlcli.studies.relate.gradient_measures import affinity_relation, gradient_relation
from mtlcli.studies.relate.gradient_probe import ProbedSteps, probe_gradients
from mtlcli.training.assembly.build import build
from mtlcli.training.run import Run
from tests.oracles import relations as oracle
from tests.studies.fake_data import experiment, made, task

__all__ = ["made"]

NAN = np.nan


def test_cosines_by_hand() -> None:
    gradients = np.array([[[1.0, 0], [2, 0], [0, 3]], [[1, 1], [-1, -1], [0, 0]]])  # [K, T, P]
    gramians = gradients @ gradients.transpose(0, 2, 1)
    found = gradient_relation(["a", "b", "c"], ProbedSteps(gramians[:, 0], gramians, gramians))
    assert found.matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # a and b: (1 − 1) / 2
    assert found.numbers["points"]["a"] == {"a": 2, "b": 2, "c": 1}  # c has no gradient at the second
    assert found.numbers["standard_deviation"]["a"]["b"] == 1


def test_a_task_that_is_absent_leaves_the_mean() -> None:
    gramians = np.array([[[1.0, 0.5], [0.5, 1]], [[1, NAN], [NAN, NAN]]])
    found = gradient_relation(["a", "b"], ProbedSteps(gramians[:, 0], gramians, gramians))
    assert found.matrix[0, 1] == 0.5
    never = gradient_relation(["a", "b"], ProbedSteps(gramians[1:, 0], gramians[1:], gramians[1:]))
    assert never.undefined_pairs() == ["a–b"]


def test_affinities_by_hand() -> None:
    """A step for a takes 1/2 off a's loss and 1/4 off b's; a step for b takes 1/5 off its own, and adds 1/10 to a's."""
    losses, after = np.array([[2.0, 4.0]]), np.array([[[1.0, 3.0], [2.2, 3.2]]])
    found = affinity_relation(["a", "b"], ProbedSteps(losses, after, after))
    assert found.raw is not None
    assert found.raw == pytest.approx(np.array([[0.5, 0.25], [-0.1, 0.2]]))
    assert found.matrix[0, 1] == found.matrix[1, 0] == pytest.approx((0.25 - 0.1) / 2 / np.sqrt(0.5 * 0.2))
    assert found.influence == pytest.approx(np.array([[1, 0.25 / 0.2], [-0.1 / 0.5, 1]]))
    assert found.numbers["symmetrized"]["a"]["b"] == pytest.approx(0.075)


def test_intervals_are_the_bootstraps_over_the_steps() -> None:
    """The mean of many independent cosines is all but normal: its percentiles are ∓ 1.96 standard errors."""
    cosines = np.clip(np.random.default_rng(0).normal(0.3, 0.2, 80), -1, 1)
    gramians = np.stack([np.array([[1.0, c], [c, 1.0]]) for c in cosines])
    found = gradient_relation(["a", "b"], ProbedSteps(gramians[:, 0], gramians, gramians))
    low, high = found.numbers["interval"]["a"]["b"]
    half = 1.96 * cosines.std() / np.sqrt(80)
    assert (low, high) == pytest.approx((cosines.mean() - half, cosines.mean() + half), abs=0.2 * half)
    assert found.numbers["interval_of"] == "bootstrap over 80 steps of one run"
    few = gradient_relation(["a", "b"], ProbedSteps(gramians[:2, 0], gramians[:2], gramians[:2]))
    assert np.isnan(few.numbers["interval"]["a"]["b"]).all()


def test_the_interval_of_an_affinity_is_of_what_is_in_the_matrix() -> None:
    random = np.random.default_rng(1)
    losses = np.ones((40, 2))
    after = 1 - np.array([[0.5, 0.2], [0.1, 0.4]]) - random.normal(0, 0.05, (40, 2, 2))
    found = affinity_relation(["a", "b"], ProbedSteps(losses, after, after))
    low, high = found.numbers["interval"]["a"]["b"]
    assert low < found.matrix[0, 1] < high
    assert found.numbers["interval"]["b"]["a"] == [low, high]
    assert high - low == pytest.approx(2 * 1.96 * 0.05 / np.sqrt(2 * 40) / np.sqrt(0.2), rel=0.4)  # of (Z + Zᵀ) / 2


def test_an_affinity_without_a_scale_is_undefined() -> None:
    losses, after = np.array([[2.0, 0.0]]), np.array([[[2.5, 3.0], [2.2, 0.0]]])  # a's own step makes it worse
    found = affinity_relation(["a", "b"], ProbedSteps(losses, after, after))
    assert found.undefined_pairs() == ["a–b"]
    assert found.filled.tolist() == [[1, 0], [0, 1]]


@pytest.fixture
def linear(made: None) -> Run:
    tasks = {name: task(target) for name, target in {"a": "sum", "b": "sum", "c": "minus_sum"}.items()}
    run = build(experiment(tasks, trunk={"name": "linear_map"}))
    heads = run.model.heads
    for name in tasks:  # equal, and without bias
        heads[name].weight.data.copy_(heads["a"].weight)
        heads[name].bias.data.zero_()
    return run


def batch_of(run: Run, rows: int = 20) -> Batch:
    examples = run.examples("train")["made"]
    assert isinstance(examples.inputs, torch.Tensor)
    targets = {name: examples.targets[target][:rows] for name, (_, target) in run.sources.items()}
    return Batch({"made": examples.inputs[:rows]}, targets, dict.fromkeys(targets, rows))


def test_a_point_is_what_the_closed_form_says(linear: Run) -> None:
    linear.model.heads["b"].weight.data.mul_(-0.5).add_(0.3)
    batch = batch_of(linear)
    heads = torch.cat([head.weight for head in linear.model.heads.values()]).detach().double().numpy()
    trunk = next(iter(linear.model.sharing.trunks().values()))
    weight = trunk.get_parameter("map.weight")
    before = weight.detach().clone()
    targets = torch.stack(list(batch.targets.values()), 1).double().numpy()
    found = probe_gradients(linear, batch, lr=0.1).numpy()
    losses, gramian, after = oracle.linear_model(
        batch.inputs["made"].double().numpy(), targets, heads, before.double().numpy(), 0.1
    )
    assert found[0] == pytest.approx(losses, rel=1e-5)
    assert found[1:4] == pytest.approx(gramian, rel=1e-4, abs=1e-5)
    assert found[4:] == pytest.approx(after, rel=1e-5)
    assert torch.equal(weight, before)


def test_copies_have_1_and_flipped_labels_minus_1(linear: Run) -> None:
    """At predictions of 0 and with equal heads, the gradients of y and −y are opposite."""
    next(iter(linear.model.sharing.trunks().values())).get_parameter("map.weight").data.zero_()
    seen = probe_gradients(linear, batch_of(linear), lr=0.05).double().numpy()[None]
    points = ProbedSteps(seen[:, 0], seen[:, 1:4], seen[:, 4:])
    cosines, affinities = gradient_relation(list("abc"), points), affinity_relation(list("abc"), points)
    assert cosines.matrix[0].tolist() == [1, 1, -1]
    assert affinities.matrix[0, 1] == pytest.approx(1, abs=1e-12)
    assert affinities.matrix[0, 2] < -0.5
    assert affinities.raw is not None
    assert affinities.raw[0, 2] < 0 < affinities.raw[0, 1] == affinities.raw[0, 0]


def test_unlabelled_tasks_are_nan_and_looking_changes_nothing(made: None) -> None:
    tasks = {"a": task("sign"), "b": task("sum")}
    trunk = {"name": "mlp", "hidden": [8], "features": 6, "dropout": 0.5}
    run = build(experiment(tasks, trunk=trunk))
    batch = batch_of(run)
    absent = Batch(batch.inputs, batch.targets, {"a": 20, "b": 0})
    run.model.train()
    state = {name: value.clone() for name, value in run.model.state_dict().items()}
    random = torch.get_rng_state()
    seen = probe_gradients(run, absent, 0.1)
    assert seen.isnan().tolist() == [[False, True], [False, True], [True, True], [False, True], [True, True]]
    torch.testing.assert_close(probe_gradients(run, absent, 0.1), seen, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(value, state[name]) for name, value in run.model.state_dict().items())
    assert all(p.grad is None for p in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert run.model.training

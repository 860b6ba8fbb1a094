"""Cosines and affinities of known values, and of a linear model with a closed form."""

import numpy as np
import pytest
import torch

from mtlcli.data.loader import Batch
from mtlcli.studies.relate.gradient_measures import affinity_relation, gradient_relation
from mtlcli.studies.relate.gradient_probe import ProbedSteps, probe_gradients
from mtlcli.training.assembly.build import build
from mtlcli.training.run import Run
from tests.oracles import relations as oracle
from tests.studies.fake_data import experiment, fake_dataset, task

__all__ = ["fake_dataset"]

NAN = np.nan


def test_cosines_of_known_values() -> None:
    gradients = np.array([[[1.0, 0], [2, 0], [0, 3]], [[1, 1], [-1, -1], [0, 0]]])  # [K, T, P]
    gramians = gradients @ gradients.transpose(0, 2, 1)
    result = gradient_relation(["a", "b", "c"], ProbedSteps(gramians[:, 0], gramians, gramians))
    assert result.matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # a and b: (1 − 1) / 2
    assert result.numbers["points"]["a"] == {"a": 2, "b": 2, "c": 1}  # c has no gradient at the second step
    assert result.numbers["standard_deviation"]["a"]["b"] == 1


def test_absent_task_does_not_change_the_mean() -> None:
    gramians = np.array([[[1.0, 0.5], [0.5, 1]], [[1, NAN], [NAN, NAN]]])
    result = gradient_relation(["a", "b"], ProbedSteps(gramians[:, 0], gramians, gramians))
    assert result.matrix[0, 1] == 0.5
    never = gradient_relation(["a", "b"], ProbedSteps(gramians[1:, 0], gramians[1:], gramians[1:]))
    assert never.undefined_pairs() == ["a–b"]


def test_affinities_of_known_values() -> None:
    """A step for a reduces a's loss by 1/2 and b's by 1/4; one for b reduces b's by 1/5 and raises a's by 1/10."""
    losses, after = np.array([[2.0, 4.0]]), np.array([[[1.0, 3.0], [2.2, 3.2]]])
    result = affinity_relation(["a", "b"], ProbedSteps(losses, after, after))
    assert result.raw is not None
    assert result.raw == pytest.approx(np.array([[0.5, 0.25], [-0.1, 0.2]]))
    assert result.matrix[0, 1] == result.matrix[1, 0] == pytest.approx((0.25 - 0.1) / 2 / np.sqrt(0.5 * 0.2))
    assert result.influence == pytest.approx(np.array([[1, 0.25 / 0.2], [-0.1 / 0.5, 1]]))
    assert result.numbers["symmetrized"]["a"]["b"] == pytest.approx(0.075)


def test_interval_is_a_bootstrap_over_steps() -> None:
    """The mean of many independent cosines is almost normal: its percentiles are ∓ 1.96 standard errors."""
    cosines = np.clip(np.random.default_rng(0).normal(0.3, 0.2, 80), -1, 1)
    gramians = np.stack([np.array([[1.0, c], [c, 1.0]]) for c in cosines])
    result = gradient_relation(["a", "b"], ProbedSteps(gramians[:, 0], gramians, gramians))
    low, high = result.numbers["interval"]["a"]["b"]
    half = 1.96 * cosines.std() / np.sqrt(80)
    assert (low, high) == pytest.approx((cosines.mean() - half, cosines.mean() + half), abs=0.2 * half)
    assert result.numbers["interval_of"] == "bootstrap over 80 steps of one run"
    few = gradient_relation(["a", "b"], ProbedSteps(gramians[:2, 0], gramians[:2], gramians[:2]))
    assert np.isnan(few.numbers["interval"]["a"]["b"]).all()


def test_affinity_interval_is_normalized() -> None:
    random = np.random.default_rng(1)
    losses = np.ones((40, 2))
    after = 1 - np.array([[0.5, 0.2], [0.1, 0.4]]) - random.normal(0, 0.05, (40, 2, 2))
    result = affinity_relation(["a", "b"], ProbedSteps(losses, after, after))
    low, high = result.numbers["interval"]["a"]["b"]
    assert low < result.matrix[0, 1] < high
    assert result.numbers["interval"]["b"]["a"] == [low, high]
    assert high - low == pytest.approx(2 * 1.96 * 0.05 / np.sqrt(2 * 40) / np.sqrt(0.2), rel=0.4)  # of (Z + Zᵀ) / 2


def test_affinity_without_a_scale_is_undefined() -> None:
    losses, after = np.array([[2.0, 0.0]]), np.array([[[2.5, 3.0], [2.2, 0.0]]])  # a step for a increases its own loss
    result = affinity_relation(["a", "b"], ProbedSteps(losses, after, after))
    assert result.undefined_pairs() == ["a–b"]
    assert result.filled.tolist() == [[1, 0], [0, 1]]


@pytest.fixture
def linear(fake_dataset: None) -> Run:
    tasks = {name: task(target) for name, target in {"a": "sum", "b": "sum", "c": "minus_sum"}.items()}
    run = build(experiment(tasks, trunk={"name": "linear_map"}))
    heads = run.model.heads
    for name in tasks:  # equal heads without bias
        heads[name].weight.data.copy_(heads["a"].weight)
        heads[name].bias.data.zero_()
    return run


def batch_of(run: Run, rows: int = 20) -> Batch:
    examples = run.examples("train")["fake"]
    assert isinstance(examples.inputs, torch.Tensor)
    targets = {name: examples.targets[target][:rows] for name, (_, target) in run.sources.items()}
    return Batch({"fake": examples.inputs[:rows]}, targets, dict.fromkeys(targets, rows))


def test_probe_matches_the_closed_form(linear: Run) -> None:
    linear.model.heads["b"].weight.data.mul_(-0.5).add_(0.3)
    batch = batch_of(linear)
    heads = torch.cat([head.weight for head in linear.model.heads.values()]).detach().double().numpy()
    trunk = next(iter(linear.model.sharing.trunks().values()))
    weight = trunk.get_parameter("map.weight")
    before = weight.detach().clone()
    targets = torch.stack(list(batch.targets.values()), 1).double().numpy()
    result = probe_gradients(linear, batch, lr=0.1).numpy()
    losses, gramian, after = oracle.linear_model(
        batch.inputs["fake"].double().numpy(), targets, heads, before.double().numpy(), 0.1
    )
    assert result[0] == pytest.approx(losses, rel=1e-5)
    assert result[1:4] == pytest.approx(gramian, rel=1e-4, abs=1e-5)
    assert result[4:] == pytest.approx(after, rel=1e-5)
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


def test_probe_has_no_side_effects_and_nan_for_unlabelled_tasks(fake_dataset: None) -> None:
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

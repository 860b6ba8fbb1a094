"""The contributions of regularizers to a step on every path, against autograd on the complete objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.config import experiment_from_dict
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.registry import regularizers, weightings
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer
from tests.training.backward.test_gradient_backward import (
    DISJOINT,
    MIXED,
    MLP,
    SAME,
    WEIGHTS,
    Spy,
    Thrice,
    Whole,
    batch,
)
from tests.training.experiments import digits, training

TRUNK, DECODER, HEADS = "trunk", "decoder", "heads"


class Pull(Regularizer):
    """The sum of the squares of all weights of the trunk and the heads."""

    default_strength = 0.1

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.weights = tuple(
            p for module in [*subject.trunks.values(), *subject.heads.values()] for p in module.parameters()
        )

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        return torch.stack([p.square().sum() for p in self.weights]).sum()


class Guess(Regularizer):
    """Predict the mean of the input from the first activation by an additional linear layer, and count the steps."""

    default_strength = 0.5
    sees_examples = True

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.name = list(subject.shapes)[1]
        self.guess = nn.Linear(subject.shapes[self.name][0], 1)
        self.register_buffer("calls", torch.zeros(()))

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        self.calls += 1
        x = torch.cat([trunk_pass.activations["input"] for trunk_pass in passes]).flatten(1).mean(1)
        hidden = torch.cat([trunk_pass.activations[self.name] for trunk_pass in passes])
        return (self.guess(hidden)[:, 0] - x).square().mean()

    def metrics(self) -> dict[str, float]:
        calls = float(self.calls)
        self.calls.zero_()
        return {"calls": calls}


@pytest.fixture(autouse=True)
def plugins() -> None:
    for name, spy in (("spy", Spy), ("whole", Whole), ("thrice", Thrice)):
        weightings.register(name)(spy)
    regularizers.register("pull")(Pull)
    regularizers.register("guess")(Guess)


def make(tasks: dict[str, Any], weighting: Any, as_task: bool = False, **changes: Any) -> tuple[Run, Step]:
    aliases = {task["dataset"]: {"name": "digits", "val": 0.2} for task in tasks.values()}
    terms = [{"name": "pull"}, {"name": "guess", "as_task": as_task}]
    experiment = digits(datasets=aliases, tasks=tasks, trunk=MLP, weighting=weighting, regularizers=terms,
                        optimizer={"name": "SGD", "lr": 0.1}, **changes)  # fmt: skip
    run = build(experiment)
    run.model.train()
    return run, Step(run, make_optimizer(run))


def parameters(run: Run) -> dict[str, list[nn.Parameter]]:
    return {
        TRUNK: run.model.shared_parameters(),
        HEADS: list(run.model.heads.parameters()),
        DECODER: list(run.regularization.parameters()),
    }


def expected(run: Run, full_batch: Batch, weights: dict[str, float]) -> list[Tensor]:
    """Return the expected gradients of the trunk, the heads and the regularizers.

    The objective of the trunk is Σ w_t L_t + Σ strength Ω; that of the heads and the regularizers has all w_t = 1.
    """
    passes: list[TrunkPass] = []
    predictions = run.model(full_batch.inputs, None, SharingRecord(passes))
    losses = {task: kind.loss(predictions[task], full_batch.targets[task]) for task, kind in run.kinds.items()}
    terms = {t.name: t.strength * regularizer.term(passes) for t, regularizer in run.regularization.regularizers()}
    everything = {**losses, **terms}
    trunk = sum(weights.get(name, 1.0) * loss for name, loss in everything.items())
    groups = parameters(run)
    gradients = list(torch.autograd.grad(trunk, groups[TRUNK], retain_graph=True))
    rest = [*groups[HEADS], *groups[DECODER]]
    return [*gradients, *torch.autograd.grad(sum(everything.values()), rest)]


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("tasks", [SAME, DISJOINT, MIXED])
@pytest.mark.parametrize(
    "weighting",
    ["spy", "whole", "thrice", {"name": "spy", "gradients": "last_layer"}, {"name": "spy", "gradients": "features"}],
)
def test_gradients_of_gradient_weightings_match_autograd(weighting: Any, tasks: dict[str, Any], micro: int) -> None:
    torch.manual_seed(0)
    run, step = make(tasks, weighting)
    full_batch = batch(run, 0, 48)
    weights = dict(zip(run.kinds, WEIGHTS.tolist(), strict=False))
    reference = expected(run, full_batch, weights)
    batches = [batch(run, 0, 48)] if micro == 1 else [batch(run, 0, 12), batch(run, 12, 48)]
    step([repeat_examples(micro_batch) for micro_batch in batches] if weighting == "thrice" else batches)
    assert_gradients(run, reference)


def repeat_examples(micro_batch: Batch) -> Batch:
    """Repeat the examples three times, so that each of three samples contains all of them."""
    inputs = {alias: x.repeat(3, 1, 1, 1) for alias, x in micro_batch.inputs.items()}
    targets = {task: y.repeat(3) for task, y in micro_batch.targets.items()}
    return Batch(inputs, targets, {task: 3 * count for task, count in micro_batch.counts.items()})


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("weighting", ["spy", "whole", {"name": "spy", "gradients": "last_layer"}])
def test_term_as_a_task_is_weighted(weighting: Any, micro: int) -> None:
    """Its gradient of shared parameters is weighted; its own parameters get an unweighted gradient, like a head."""
    torch.manual_seed(0)
    run, step = make(SAME, weighting, as_task=True)
    assert [task.name for task in run.weighting.tasks] == [*SAME, "regularizers.guess"]
    full_batch = batch(run, 0, 48)
    reference = expected(run, full_batch, dict(zip([*run.kinds, "regularizers.guess"], WEIGHTS.tolist(), strict=True)))
    result, counts = step([full_batch] if micro == 1 else [batch(run, 0, 12), batch(run, 12, 48)])  # type: ignore[misc]
    assert_gradients(run, reference)
    assert counts == [48] * 5 and result.losses.shape == (5,)
    torch.testing.assert_close(result.weights.double(), torch.tensor([*WEIGHTS, 1.0]).double())


@pytest.mark.parametrize(
    ("term", "weight"),
    [("reconstruction", 0.5), ("l2", 0.5), ("orthogonality", 0.5), ("adversarial", 1.0), ("l1", 1.0),
     ("nuclear_norm", 1.0), ("guess", 1.0)],
)  # fmt: skip
def test_uncertainty_halves_terms_that_are_sums_of_squares(term: str, weight: float) -> None:
    """Kendall's equation 7 has 1/(2σ²) for a squared error. `guess`, of a plugin, declares no likelihood."""
    options = {"layers": ["fc1"]} if term in ("orthogonality", "nuclear_norm") else {}
    terms = [{"name": "l1"}, {"name": term, "as_task": True, **options}]
    datasets = {alias: {"name": "digits", "val": 0.2} for alias in ("a", "b")}
    run = build(digits(datasets=datasets, tasks=DISJOINT, trunk=MLP, weighting="uncertainty", regularizers=terms))
    result = Step(run, make_optimizer(run))([batch(run, 0, 48)])
    assert result is not None
    torch.testing.assert_close(result[0].weights, torch.tensor([1.0, 0.5, weight, 1.0]))


@pytest.mark.parametrize("as_task", [False, True])
@pytest.mark.parametrize("weighting", ["uniform", "gls", "uncertainty", "famo"])
def test_gradients_of_loss_weightings(weighting: str, as_task: bool) -> None:
    torch.manual_seed(0)
    run, step = make(SAME, weighting, as_task)
    full_batch, accumulated = batch(run, 0, 48), [batch(run, 0, 12), batch(run, 12, 48)]
    if weighting == "uniform":
        reference = expected(run, full_batch, {})
        result, _ = step([full_batch])  # type: ignore[misc]
        assert_gradients(run, reference)
        assert result.weights.tolist() == [1.0] * 5
    other, other_step = make(SAME, weighting, as_task)
    other.model.load_state_dict(run.model.state_dict())
    other.regularization.load_state_dict(run.regularization.state_dict())
    other_step(accumulated)
    if weighting != "uniform":
        step([full_batch])
        assert_gradients(run, [p.grad for group in parameters(other).values() for p in group])  # type: ignore[misc]


def assert_gradients(run: Run, reference: list[Tensor]) -> None:
    parameters_of_run = [p for group in parameters(run).values() for p in group]
    for parameter, gradient in zip(parameters_of_run, reference, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("weighting", ["spy", "whole", {"name": "spy", "gradients": "last_layer"}])
def test_term_as_a_task_works_with_a_frozen_trunk(weighting: Any) -> None:
    tasks = [{"name": "guess", "as_task": True}, {"name": "pull"}]
    run = build(digits(tasks=SAME, datasets={"a": {"name": "digits", "val": 0.2}}, trunk={**MLP, "frozen": True},
                       weighting=weighting, regularizers=tasks))  # fmt: skip
    Step(run, make_optimizer(run))([batch(run, 0, 48)])
    groups = parameters(run)
    assert all(p.grad is None for p in groups[TRUNK]) and all(p.grad is not None for p in groups[DECODER])


def test_weights_are_reused_between_solutions() -> None:
    torch.manual_seed(0)
    run, step = make(SAME, {"name": "spy", "every": 2}, as_task=True)
    step([batch(run, 0, 48)])
    weights = dict(zip([*run.kinds, "regularizers.guess"], WEIGHTS.tolist(), strict=True))
    reference = expected(run, batch(run, 0, 48), weights)
    step([batch(run, 0, 48)])
    assert_gradients(run, reference)


@pytest.mark.matrix
def test_compiled_steps_give_the_same_results() -> None:
    for weighting in ("uniform", {"name": "spy", "every": 2}):
        results = []
        for compiled in (False, True):
            torch.manual_seed(0)
            run, step = make(SAME, weighting, training=training(compile=compiled))
            for _ in range(2):
                step([batch(run, 0, 48)])
            results.append([p.detach().clone() for p in run.model.parameters()])
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_gradients_of_features_refuse_terms_as_tasks() -> None:
    with pytest.raises(ConfigError, match=r"as_task.*no gradient of the features; use `parameters`"):
        make(SAME, {"name": "spy", "gradients": "features"}, as_task=True)


def test_run_reports_its_terms(tmp_path: Any) -> None:
    experiment = digits(regularizers=[{"name": "guess"}, {"name": "pull"}, {"name": "guess", "strength": 2.0}])
    trainer = Trainer(build(experiment), tmp_path / "run")
    summary = trainer.fit()
    assert list(summary["regularizers"]) == ["guess", "pull", "guess#2"]
    assert summary["regularizers"]["guess"]["strength"] == 0.5
    assert summary["regularizers"]["guess"]["calls"] == 6 and summary["regularizers"]["guess"]["parameters"] == 17
    table = (tmp_path / "run" / "metrics.csv").read_text()
    assert "1,6,train,regularizers.guess,loss," in table and "2,12,train,regularizers.pull,weight,1.0" in table
    assert set(summary["metrics"]["val"]) == {"digit", "ink"}


def test_terms_do_not_change_initial_weights() -> None:
    plain, with_terms = build(digits()), build(digits(regularizers=["guess", "pull"]))
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, with_terms.model.state_dict()[name])


def test_invalid_terms_are_refused() -> None:
    with pytest.raises(ConfigError, match="strength above 0"):
        build(digits(regularizers=[{"name": "guess", "as_task": True, "strength": 0}]))
    proximal = {"name": "multi_nuclear_norm", "proximal": True, "as_task": True}
    with pytest.raises(ConfigError, match="needs a differentiable term"):
        build(digits(regularizers=[proximal]))
    with pytest.raises(ConfigError, match=r"regularizers\.0\.strength"):
        experiment_from_dict(digits().resolved() | {"regularizers": [{"name": "guess", "strength": -1}]})


def test_batches_without_labels_are_ignored() -> None:
    for weighting in ("uniform", "spy", {"name": "spy", "gradients": "last_layer"}):
        run, step = make(SAME, weighting)
        empty = batch(run, 12, 48)
        empty = Batch(empty.inputs, empty.targets, dict.fromkeys(empty.counts, 0))
        result, counts = step([batch(run, 0, 12), empty])  # type: ignore[misc]
        assert counts == [12] * 5
        pull = run.regularization.terms[0]
        assert pull.name == "regularizers.pull"
        weights = [p.detach() for group in (TRUNK, HEADS) for p in parameters(rebuild_run(run)).get(group, [])]
        expected = pull.strength * sum(float(p.square().sum()) for p in weights)
        assert float(result.losses[3]) == pytest.approx(expected, rel=1e-5)


def rebuild_run(run: Run) -> Run:
    """Build the run as it was before the step."""
    return build(run.experiment)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_reconstructions_are_plotted_for_every_term_and_precision(precision: str, tmp_path: Any) -> None:
    terms = [{"name": "reconstruction", "layer": "fc1"}, {"name": "reconstruction"}]
    experiment = digits(regularizers=terms, training=training(epochs=1, precision=precision))
    assert Trainer(build(experiment), tmp_path / "run").fit()["status"] == "completed"
    assert {path.name for path in (tmp_path / "run" / "plots").glob("recon*")} == {
        "reconstruction.png", "reconstruction#2.png",
    }  # fmt: skip

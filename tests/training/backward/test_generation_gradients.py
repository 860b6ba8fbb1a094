"""Gradients of tasks that generate texts against autograd through the whole model in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.config import experiment_from_dict
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.data_checks import open_data
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import WEIGHTS, Spy, spies  # noqa: F401  (a fixture)
from tests.training.instructions import CLASSIFICATION, GENERATION, TASKS, experiment, write_table

pytest.importorskip("transformers")
ONE = {"reverse": GENERATION["reverse"], **CLASSIFICATION}
CASES: dict[str, tuple[str, dict[str, Any], set[str]]] = {  # model, tasks, tasks with parameters of their own
    "tied": ("gpt2", TASKS, {"last"}),
    "untied": ("llama", GENERATION, set()),
    "one untied": ("llama", ONE, {"reverse", "last"}),
    "decoder": ("t5", TASKS, {"last"}),
    "one decoder": ("t5", ONE, {"reverse", "last"}),
}
over_cases = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words")
    write_table(path)
    return path


def make(folder: Path, case: str, weighting: Any, **changes: Any) -> tuple[Run, Step, list[Batch]]:
    """Return a run in float64, and the batches of an epoch."""
    model, tasks, _ = CASES[case]
    plain = experiment(folder, tasks, model, weighting=weighting, optimizer={"name": "SGD", "lr": 0.1}, **changes)
    run = build(experiment_from_dict(plain))
    batches = list(open_data(run).epoch(0))
    run.model.double().train()
    run.weighting.double()
    return run, Step(run, make_optimizer(run)), batches


def gradients(run: Run, batch: Batch) -> tuple[list[nn.Parameter], Tensor, dict[str, Tensor]]:
    """Return the shared parameters, J by them, and the sums of the gradients of the others, by plain autograd."""
    named = [(name, p) for name, p in run.model.named_parameters() if p.requires_grad]
    names, parameters = zip(*named, strict=True)
    shared = {id(p) for p in run.model.shared_parameters()}
    rows = []
    for task in run.kinds:
        loss = run.loss(task, run.model(batch.inputs, [task])[task], batch)
        of_task = torch.autograd.grad(loss, parameters, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, of_task, strict=True)])
    at_shared = [at for at, p in enumerate(parameters) if id(p) in shared]
    jacobian = torch.stack([torch.cat([row[at].flatten() for at in at_shared]) for row in rows])
    own = {names[at]: sum(row[at] for row in rows) for at in range(len(names)) if at not in at_shared}
    return [parameters[at] for at in at_shared], jacobian, own  # type: ignore[return-value]


def check(run: Run, parameters: list[nn.Parameter], update: Tensor, own: dict[str, Tensor]) -> None:
    actual = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    torch.testing.assert_close(actual, update, rtol=1e-5, atol=1e-7)
    named = dict(run.model.named_parameters())
    for name, gradient in own.items():
        actual = named[name].grad  # None for the adapters of the decoder of a task that has no answers
        actual = torch.zeros_like(gradient) if actual is None else actual
        torch.testing.assert_close(actual, gradient, rtol=1e-5, atol=1e-7, msg=name)


@over_cases
def test_gramian_and_update_and_ownership_agree_with_autograd(folder: Path, case: str) -> None:
    run, step, (batch, *_) = make(folder, case, {"name": "spy"})
    parameters, jacobian, own = gradients(run, batch)
    step([batch])
    check(run, parameters, WEIGHTS[: len(run.kinds)] @ jacobian, own)
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], jacobian @ jacobian.T, rtol=1e-5, atol=1e-8)
    reached = {
        task: {at for at, g in enumerate(torch.autograd.grad(
            run.model(batch.inputs, [task])[task].sum(), list(run.model.parameters()), allow_unused=True)
        ) if g is not None}
        for task in run.kinds
    }  # fmt: skip
    ids = [id(p) for p in run.model.parameters()]
    for task in run.kinds:
        others = set().union(*(reached[other] for other in reached if other != task))
        declared = {ids.index(id(p)) for module in run.model.own_modules(task) for p in module.parameters()}
        assert declared == reached[task] - others and bool(declared) == (task in CASES[case][2])


@pytest.mark.parametrize("case", ["tied", "decoder"])
def test_adapters_of_tasks(folder: Path, case: str) -> None:
    adapters = {"name": "lora", "rank": 2, "arrangement": "shared_and_per_task"}
    run, step, (batch, *_) = make(folder, case, {"name": "spy"}, adapters=adapters)
    with torch.no_grad():
        for parameter in run.model.parameters():
            if parameter.requires_grad:  # among them the matrices that are 0 at first
                parameter.add_(0.1 * torch.randn_like(parameter))
    parameters, jacobian, own = gradients(run, batch)
    assert {name.split(".")[-2] for name in own if ".tasks." in name} >= {"reverse", "first"}
    if case == "decoder":
        assert any("language_model" in name for name in own)
    step([batch])
    check(run, parameters, WEIGHTS[:3] @ jacobian, own)


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize("weighting", ["uniform", "spy"])
def test_batches_of_a_step_are_combined_as_one(folder: Path, average: str, weighting: str) -> None:
    tasks = {
        task: {**entry, "kind": {**entry["kind"], "average": average}} for task, entry in GENERATION.items()
    } | CLASSIFICATION
    plain = experiment(folder, tasks, weighting=weighting, optimizer={"name": "SGD", "lr": 0.1})
    run = build(experiment_from_dict(plain))
    whole = next(iter(open_data(run).epoch(0)))
    run.model.double().train()
    run.weighting.double()
    step = Step(run, make_optimizer(run))
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    step([whole])
    expected = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        for name, p in run.model.named_parameters():
            p.copy_(before[name])
    parts = [part(run, whole, slice(0, 5)), part(run, whole, slice(5, 16))]
    step([*parts])
    for name, p in run.model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected[name], rtol=1e-5, atol=1e-7, msg=name)


def part(run: Run, batch: Batch, rows: slice) -> Batch:
    """Return some rows of a batch, with the sums of the weights of their labels."""
    targets = {task: target[rows] for task, target in batch.targets.items()}
    counts = {}
    for task, target in targets.items():
        amounts = (target >= 0).double() if target.ndim == 1 else (target >= 0).double().sum(1)
        weight = batch.weights[task][rows] if task in batch.weights else 1.0
        counts[task] = float((amounts * weight).sum())
    weights = {task: weight[rows] for task, weight in batch.weights.items()}
    return Batch({alias: x[rows] for alias, x in batch.inputs.items()}, targets, counts, weights)


def test_features_are_the_logits_of_the_answers(folder: Path) -> None:
    """With `gradients: features` the update is that of the weighted losses, since no two tasks share features."""
    run, step, (batch, *_) = make(folder, "tied", {"name": "spy", "gradients": "features"})
    parameters, jacobian, own = gradients(run, batch)
    step([batch])
    check(run, parameters, WEIGHTS[:3] @ jacobian, own)


def test_gradients_of_sequences_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="tasks that generate texts have no"):
        make(folder, "tied", {"name": "pcgrad", "gradients": "sequence"})

"""Gradients of tasks that depend on each other against autograd through the whole model in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import WEIGHTS, Spy, spies  # noqa: F401  (a fixture)
from tests.training.experiments import digits

TASKS: dict[str, Any] = {
    "digit": {"dataset": "a", "target": "digit", "kind": "classification"},
    "parity": {"dataset": "a", "target": "parity", "kind": "binary", "head": {"name": "mlp", "hidden": [3]}},
    "even": {"dataset": "a", "target": "parity", "kind": "binary"},
    "other": {"dataset": "b", "target": "parity", "kind": "binary"},
}


def after(**parents: Any) -> dict[str, Any]:
    return {task: {**entry, **({"after": parents[task]} if task in parents else {})} for task, entry in TASKS.items()}


CASES: dict[str, dict[str, Any]] = {
    "after": {"tasks": after(even="digit")},
    "detached": {"tasks": after(even={"task": "digit", "detach": True})},
    "chain": {"tasks": after(even="parity", parity={"task": "digit", "detach": True})},
    "mmoe": {"tasks": after(even="digit"), "sharing": {"name": "mmoe", "experts": 2}},
    "shared_private": {"tasks": after(parity="even"), "sharing": "shared_private"},
    "esmm": {"sharing": {"name": "esmm", "order": ["parity", "even"]}},
    "esmm and after": {"sharing": {"name": "esmm", "order": ["parity", "even"]}, "tasks": after(digit="even")},
    "aitm": {"sharing": {"name": "aitm", "order": ["even", "parity"], "tower": [5, 4], "calibrator": 0.7}},
    "aitm and after": {"sharing": {"name": "aitm", "order": ["even", "parity"], "tower": [4]},
                       "tasks": after(digit={"task": "parity", "detach": True})},
}  # fmt: skip
OWN = {  # tasks that have parameters of their own
    "after": {"parity", "even", "other"},
    "detached": {"digit", "parity", "even", "other"},
    "chain": {"digit", "even", "other"},
    "mmoe": {"parity", "even", "other"},
    "shared_private": {"digit", "parity", "other"},
    "esmm": {"digit", "even", "other"},
    "esmm and after": {"digit", "other"},
    "aitm": {"digit", "even", "parity", "other"},
    "aitm and after": {"digit", "even", "parity", "other"},
}
OVER_CASES = pytest.mark.parametrize("case", CASES)


def make(case: str, weighting: Any, **changes: Any) -> tuple[Run, Step, Batch]:
    """Return a run in float64, on inputs that are normalized already, and a batch without labels of some examples."""
    experiment = digits(**{
        "datasets": {alias: {"name": "digits", "val": 0.2} for alias in "ab"}, "tasks": TASKS, "weighting": weighting,
        "trunk": {"name": "mlp", "hidden": [7], "features": 6}, "optimizer": {"name": "SGD", "lr": 0.1},
        **CASES[case], **changes,
    })  # fmt: skip
    run = build(experiment)
    run.model.double().train()
    run.weighting.double()
    for alias in run.specs:
        run.model.normalize[alias] = nn.Identity()
    with torch.no_grad():  # a later task is more probable, as the calibrator requires to be active
        list(run.model.heads["parity"].parameters())[-1].add_(1)
    object.__setattr__(run.kinds["even"].target, "missing", True)
    generator = torch.Generator().manual_seed(0)
    inputs = {a: torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64) for a, n in (("a", 9), ("b", 5))}
    labels = {task: torch.randint(0, 2, (9,), generator=generator).float() for task in ("parity", "even", "other")}
    labels["even"][:4] = torch.nan
    labels["other"] = labels["other"][:5]
    labels["digit"] = torch.randint(0, 10, (9,), generator=generator)
    counts = {"digit": 9, "parity": 9, "even": 5, "other": 5}
    return run, Step(run, make_optimizer(run)), Batch(inputs, labels, counts)


def calibrator(run: Run, predictions: dict[str, Tensor]) -> Tensor | float:
    if run.model.sharing.sequence[:1] != ("even",):
        return 0.0
    strength = run.experiment.sharing.options["calibrator"]
    return strength * (predictions["parity"].sigmoid() - predictions["even"].sigmoid()).clamp(min=0).mean()  # type: ignore[no-any-return]


def expected(run: Run, batch: Batch) -> tuple[list[nn.Parameter], Tensor, Tensor, dict[str, Tensor]]:
    """Return the shared parameters, J by them, the gradient of the calibrator, and those of the other parameters."""
    model = run.model
    predictions = model(batch.inputs, list(run.kinds))
    names, parameters = zip(*model.named_parameters(), strict=True)
    shared = model.shared_parameters()
    ids = {id(p) for p in shared}

    def gradients(loss: Any) -> list[Tensor]:
        if not isinstance(loss, Tensor):
            return [torch.zeros_like(p) for p in parameters]
        of_loss = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, of_loss, strict=True)]

    def pick(of_loss: list[Tensor]) -> Tensor:
        return torch.cat([g.flatten() for g, p in zip(of_loss, parameters, strict=True) if id(p) in ids])

    rows = [gradients(run.loss(task, predictions[task], batch)) for task in run.kinds]
    term = gradients(calibrator(run, predictions))
    own = {
        name: sum(row[i] for row in rows) + term[i]
        for i, (name, p) in enumerate(zip(names, parameters, strict=True)) if id(p) not in ids
    }  # fmt: skip
    order = [p for p in parameters if id(p) in ids]
    return order, torch.stack([pick(row) for row in rows]), pick(term), own


def check(run: Run, parameters: list[nn.Parameter], update: Tensor, own: dict[str, Tensor]) -> None:
    actual = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    torch.testing.assert_close(actual, update, rtol=1e-5, atol=1e-7)
    named = dict(run.model.named_parameters())
    for name, gradient in own.items():
        torch.testing.assert_close(named[name].grad, gradient, rtol=1e-5, atol=1e-7, msg=name)


@OVER_CASES
def test_ownership_agrees_with_autograd(case: str) -> None:
    run, _, batch = make(case, "uniform")
    predictions = run.model(batch.inputs, list(run.kinds))
    named = dict(run.model.named_parameters())
    reached: dict[str, set[str]] = {}
    for task, prediction in predictions.items():
        of_task = torch.autograd.grad(
            prediction.square().sum(), list(named.values()), retain_graph=True, allow_unused=True
        )
        reached[task] = {name for name, g in zip(named, of_task, strict=True) if g is not None}
    names = {id(p): name for name, p in named.items()}
    for task in run.kinds:
        others = set().union(*(reached[other] for other in reached if other != task))
        own = {names[id(p)] for module in run.model.own_modules(task) for p in module.parameters()}
        assert own == reached[task] - others
        assert bool(own) == (task in OWN[case])
    several = {name for name in named if sum(name in actual for actual in reached.values()) > 1}
    assert {names[id(p)] for p in run.model.shared_parameters()} == several
    counts = run.model.count_parameters()
    assert counts["total"] == counts["shared"] + sum(counts["tasks"].values())


@OVER_CASES
def test_loss_level(case: str) -> None:
    run, step, batch = make(case, "uniform")
    parameters, jacobian, term, own = expected(run, batch)
    assert term.any() == case.startswith("aitm")
    step([batch])
    check(run, parameters, jacobian.sum(0) + term, own)


@pytest.mark.parametrize(("case", "every"), [*((case, 1) for case in CASES), ("after", 2), ("aitm", 2)])
def test_gramian_level(case: str, every: int) -> None:
    run, step, batch = make(case, {"name": "spy", "every": every})
    for _ in range(every):
        parameters, jacobian, term, own = expected(run, batch)
        step([batch])
        check(run, parameters, WEIGHTS @ jacobian + term, own)
    assert isinstance(run.weighting, Spy)
    if every == 1:
        torch.testing.assert_close(run.weighting.seen[0], jacobian @ jacobian.T, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", ["after", "chain", "esmm", "aitm"])
def test_jacobian_level(case: str) -> None:
    run, step, batch = make(case, "whole")
    parameters, jacobian, term, own = expected(run, batch)
    weighting: Any = run.weighting
    weighting.update = lambda j, gramian, losses, present: (
        WEIGHTS @ j,
        setattr(weighting, "seen", j.clone()) or WEIGHTS,
    )
    step([batch])
    torch.testing.assert_close(weighting.seen, jacobian, rtol=1e-5, atol=1e-8)
    check(run, parameters, WEIGHTS @ jacobian + term, own)


@pytest.mark.parametrize("case", ["after", "mmoe", "esmm", "aitm"])
def test_last_layer(case: str) -> None:
    run, step, batch = make(case, {"name": "spy", "gradients": "last_layer"})
    parameters, jacobian, term, own = expected(run, batch)
    step([batch])
    check(run, parameters, WEIGHTS @ jacobian + term, own)


@pytest.mark.parametrize("case", ["after", "detached", "chain", "esmm", "esmm and after"])
def test_features(case: str) -> None:
    """The gradients of the features are balanced; all heads, also shared ones, receive unweighted gradients."""
    run, step, batch = make(case, {"name": "spy", "gradients": "features"})
    parameters, jacobian, _, own = expected(run, batch)
    trunk = {id(p) for p in run.model.sharing.trunks()["trunk"].parameters()}
    step([batch])
    balanced, unweighted, start = WEIGHTS @ jacobian, jacobian.sum(0), 0
    for p in parameters:
        wanted = (balanced if id(p) in trunk else unweighted)[start : start + p.numel()].view_as(p)
        torch.testing.assert_close(p.grad, wanted, rtol=1e-5, atol=1e-7)
        start += p.numel()
    named = dict(run.model.named_parameters())
    for name, gradient in own.items():
        torch.testing.assert_close(named[name].grad, gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert isinstance(run.weighting, Spy)
    features = run.model.representations(batch.inputs, list(run.kinds))
    assert run.weighting.seen[0].shape == (4, 4) and len({id(x) for x in features.values()}) == 2


def test_features_of_aitm_are_refused() -> None:
    with pytest.raises(ConfigError, match="sharing 'aitm' gives no two tasks the same features; use `parameters`"):
        make("aitm", {"name": "spy", "gradients": "features"})


@pytest.mark.parametrize("case", ["after", "esmm", "aitm"])
@pytest.mark.parametrize("weighting", ["uniform", "spy"])
def test_a_parent_without_labels_in_the_batch(case: str, weighting: str) -> None:
    """The head of the parent receives the gradient of the task that depends on it."""
    run, step, batch = make(case, weighting)
    parent = {"after": "digit", "esmm": "parity", "aitm": "even"}[case]
    missing = torch.full_like(batch.targets[parent], -100 if parent == "digit" else torch.nan)
    without = Batch(batch.inputs, {**batch.targets, parent: missing}, {**batch.counts, parent: 0})
    parameters, jacobian, term, _ = expected(run, batch)
    present = [i for i, task in enumerate(run.kinds) if task != parent]
    step([without])
    weights = WEIGHTS if weighting == "spy" else torch.ones(4, dtype=torch.float64)
    check(run, parameters, weights[present] @ jacobian[present] + term, {})


@pytest.mark.parametrize("case", ["after", "aitm"])
def test_accumulated_batches_match_one_large_batch(case: str) -> None:
    """All examples of both datasets are in the first batch or the second one, in equal shares."""
    (whole_run, whole, batch), (parts_run, parts, _) = make(case, "spy"), make(case, "spy")
    batch = Batch(
        {alias: x[-4:] for alias, x in batch.inputs.items()},
        {task: y[-4:] for task, y in batch.targets.items()},
        dict.fromkeys(batch.counts, 4),
    )

    def cut(part: slice) -> Batch:
        inputs = {alias: x[part] for alias, x in batch.inputs.items()}
        return Batch(inputs, {task: y[part] for task, y in batch.targets.items()}, dict.fromkeys(batch.counts, 2))

    whole([batch])
    parts([cut(slice(0, 2)), cut(slice(2, 4))])
    for ours, theirs in zip(parts_run.model.parameters(), whole_run.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_the_calibrator_as_a_task() -> None:
    regularizers = [{"name": "expectation_calibrator", "strength": 0.7, "as_task": True}]
    run, step, batch = make("aitm", "mgda", regularizers=regularizers)
    assert [term.name for term in run.regularization.terms] == ["regularizers.expectation_calibrator"]
    result = step([batch])
    assert result is not None and len(result[0].losses) == 5 and result[0].losses.isfinite().all()

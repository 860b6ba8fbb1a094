"""Gradients of a model with stems against autograd in float64 through a forward pass that is written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.data.loader import Batch
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import WEIGHTS, Spy, Whole, spies  # noqa: F401  (a fixture)
from tests.training.experiments import digits

TASKS = {
    "digit": {"dataset": "a", "target": "digit", "kind": "classification"},
    "ink": {"dataset": "a", "target": "ink", "kind": "regression"},
    "parity": {"dataset": "b", "target": "parity", "kind": "binary"},
    "other": {"dataset": "c", "target": "parity", "kind": "binary"},
}
ALIASES = {"a": ["digit", "ink"], "b": ["parity"], "c": ["other"]}
ROWS = {"a": 7, "b": 5, "c": 6}


def make(weighting: Any) -> tuple[Run, Step, Batch]:
    """Return a run in float64 on inputs that are normalized already: two stems, and a dataset that is resized."""
    run = build(digits(
        datasets={alias: {"name": "digits", "val": 0.2} for alias in ALIASES}, tasks=TASKS, weighting=weighting,
        stems={"a": {"name": "conv", "channels": 2, "features": 12}, "b": {"name": "linear"}, "c": {"name": "linear"}},
        trunk={"name": "mlp", "hidden": [16], "features": 8}, optimizer={"name": "SGD", "lr": 0.1},
    ))  # fmt: skip
    run.model.double().train()
    for alias in run.specs:
        run.model.normalize[alias] = nn.Identity()
    generator = torch.Generator().manual_seed(0)
    inputs = {a: torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64) for a, n in ROWS.items()}
    targets = {
        "digit": torch.randint(0, 10, (7,), generator=generator),
        "ink": 0.3 + 0.03 * torch.randn(7, generator=generator, dtype=torch.float64),
        "parity": torch.randint(0, 2, (5,), generator=generator).float(),
        "other": torch.randint(0, 2, (6,), generator=generator).float(),
    }
    counts = {task: len(target) for task, target in targets.items()}
    return run, Step(run, make_optimizer(run)), Batch(inputs, targets, counts)


def losses_by_hand(run: Run, batch: Batch) -> list[Tensor]:
    p = dict(run.model.named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = batch.inputs["a"]
    maps = F.conv2d(x, p["stems.a.convolutions.0.weight"], p["stems.a.convolutions.0.bias"], padding=1).relu()
    small = F.interpolate(maps, (7, 7), mode="bilinear", antialias=True)
    encoded = {"a": linear("stems.a.projection.1", small.flatten(1))}
    encoded |= {alias: linear(f"stems.{alias}.projection", batch.inputs[alias].flatten(1)) for alias in ("b", "c")}
    losses = []
    for task, entry in TASKS.items():
        hidden = linear("sharing.trunk.fc1", encoded[entry["dataset"]]).relu()
        features = linear("sharing.trunk.fc2", hidden).relu()
        target = batch.targets[task]
        if task == "digit":
            losses.append(F.cross_entropy(linear("sharing.heads.digit", features), target))
        elif task == "ink":
            kind: Any = run.kinds["ink"]
            losses.append((linear("sharing.heads.ink.0", features)[:, 0] - (target - kind.mean) / kind.std)
                          .square().mean())  # fmt: skip
        else:
            logits = linear(f"sharing.heads.{task}", features)[:, 0]
            losses.append(F.binary_cross_entropy_with_logits(logits, target.double()))
    return losses


def by_hand(run: Run, batch: Batch) -> tuple[list[str], Tensor, dict[str, Tensor]]:
    """Return the names of the shared parameters, J by them, and the gradient of each other parameter by its loss."""
    names, parameters = zip(*run.model.named_parameters(), strict=True)
    shared = [n for n in names if n.startswith(("sharing.trunk.", "stems.a."))]  # two tasks are on dataset a
    rows, own = [], {}
    for loss in losses_by_hand(run, batch):
        gradients = dict(zip(names, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True),
                             strict=True))  # fmt: skip
        rows.append(torch.cat([
            torch.zeros(p.numel(), dtype=p.dtype) if gradients[n] is None else gradients[n].flatten()
            for n, p in zip(names, parameters, strict=True) if n in shared
        ]))  # fmt: skip
        own |= {n: g for n, g in gradients.items() if g is not None and n not in shared}
    return shared, torch.stack(rows), own


def flat(run: Run, names: list[str]) -> Tensor:
    gradients = dict(run.model.named_parameters())
    return torch.cat([gradients[name].grad.flatten() for name in names])  # type: ignore[union-attr]


def check(run: Run, names: list[str], update: Tensor, own: dict[str, Tensor], factor: float = 1.0) -> None:
    torch.testing.assert_close(flat(run, names), update, rtol=1e-5, atol=1e-7)
    parameters = dict(run.model.named_parameters())
    assert {n for n in own if n.startswith("stems.")} == {
        f"stems.{alias}.projection.{part}" for alias in ("b", "c") for part in ("weight", "bias")
    }
    for name, gradient in own.items():
        torch.testing.assert_close(parameters[name].grad, factor * gradient, rtol=1e-5, atol=1e-7)


def test_loss_level() -> None:
    run, step, batch = make("uniform")
    names, jacobian, own = by_hand(run, batch)
    step([batch])
    check(run, names, jacobian.sum(0), own)


@pytest.mark.parametrize("every", [1, 2])
def test_gramian_level(every: int) -> None:
    """The rows of tasks on other datasets are 0 in the shared stem; a stem of one task is the task's own."""
    run, step, batch = make({"name": "spy", "every": every})
    for _ in range(every):
        names, jacobian, own = by_hand(run, batch)
        step([batch])
        check(run, names, WEIGHTS @ jacobian, own)
    assert isinstance(run.weighting, Spy)
    assert len(jacobian) == 4 and not jacobian[2:, : 2 * 9].any() and jacobian[:2, : 2 * 9].any()
    if every == 1:
        torch.testing.assert_close(run.weighting.seen[0], jacobian @ jacobian.T, rtol=1e-5, atol=1e-7)


def test_jacobian_level() -> None:
    run, step, batch = make("whole")
    run.weighting.double()
    names, jacobian, own = by_hand(run, batch)
    weighting: Any = run.weighting

    def update(j: Tensor, gramian: Tensor, losses: Tensor, present: Any) -> tuple[Tensor, Tensor]:
        weighting.seen = j.clone()
        return WEIGHTS @ j, WEIGHTS

    weighting.update = update
    step([batch])
    assert isinstance(run.weighting, Whole)
    order = [n for n, p in run.model.named_parameters() if n in names]
    assert order == names
    torch.testing.assert_close(run.weighting.seen, jacobian, rtol=1e-5, atol=1e-7)
    check(run, names, WEIGHTS @ jacobian, own)


@pytest.mark.parametrize("gradients", ["features", "last_layer"])
def test_one_weighted_pass_through_trunk_and_stems(gradients: str) -> None:
    run, step, batch = make({"name": "spy", "gradients": gradients})
    names, jacobian, own = by_hand(run, batch)
    step([batch])
    check(run, names, WEIGHTS @ jacobian, own)

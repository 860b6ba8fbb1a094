"""Losses divided by the logarithm of the number of classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mtlcli.config import Experiment
from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.state import new_state
from mtlcli.training.step import Step
from tests.training.experiments import digits, training
from tests.training.test_step import batch


@pytest.mark.parametrize(
    ("kind", "target", "logits", "label", "classes"),
    [
        ("classification", TargetSpec("classes", 7), [0.0] * 7, 3, 7),
        ("binary", TargetSpec("binary"), [0.0], 1.0, 2),
        ("multilabel", TargetSpec("multilabel", 3), [0.0] * 3, [1.0, 0.0, 1.0], 2),
        # the conditional probabilities of a uniform distribution over 4 ranks: 3/4, 2/3, 1/2
        ("ordinal", TargetSpec("classes", 4), np.log([3.0, 2.0, 1.0]).tolist(), 2, 4),
        ("tagging", TargetSpec("tags", 5), [[0.0] * 5] * 2, [4, 1], 5),
    ],
)
def test_the_chance_loss_is_that_of_a_uniform_prediction(
    kind: str, target: TargetSpec, logits: Any, label: Any, classes: int
) -> None:
    created = kinds[kind].target(target)
    loss = created.loss(torch.tensor([logits, logits]), torch.tensor([label, label]))
    assert created.chance_loss == pytest.approx(math.log(classes))
    assert loss.item() == pytest.approx(created.chance_loss, rel=1e-6)


def test_other_losses_have_none() -> None:
    assert kinds["regression"].target(TargetSpec("real")).chance_loss is None
    assert kinds["classification"].target(TargetSpec("classes", 1)).chance_loss is None


def experiment(normalize: str, weighting: Any = "fixed") -> Experiment:
    options = training(normalize_losses=normalize)
    return digits(weighting=weighting, training=options, optimizer={"name": "SGD", "lr": 0.1})


def updated(run: Run) -> dict[str, torch.Tensor]:
    step = Step(run, make_optimizer(run))
    torch.manual_seed(0)
    run.model.train()
    for start in (0, 32):
        step([batch(start, start + 32)])
    return {name: value.clone() for name, value in run.model.state_dict().items()}


@pytest.mark.parametrize("weighting", ["uncertainty", "mgda", {"name": "pcgrad", "gradients": "features"}])
def test_the_weighting_receives_the_divided_loss(weighting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The updates are those with a loss function that divides."""
    actual = updated(build(experiment("entropy", weighting)))
    run = build(experiment("none", weighting))
    plain = run.kinds["digit"].loss
    monkeypatch.setattr(run.kinds["digit"], "loss", lambda *given: plain(*given) / math.log(10))
    expected = updated(run)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    unchanged = updated(build(experiment("none", weighting)))
    assert not torch.equal(actual["sharing.heads.digit.weight"], unchanged["sharing.heads.digit.weight"])


def test_the_log_has_the_plain_loss() -> None:
    run = build(experiment("entropy"))
    state, examples = new_state(run, "max"), batch(0, 64)
    run.model.eval()  # no dropout
    with torch.no_grad():
        logits = run.model(examples.inputs)["digit"].double().numpy()
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    entropy = -log_probabilities[np.arange(64), examples.targets["digit"].numpy()].mean()
    step = state.step([examples])
    assert step is not None
    result, counts = step
    assert result.losses[0].item() == pytest.approx(entropy / math.log(10), rel=1e-5)
    state.log.record(1, result, counts)
    state.log.flush()
    assert state.log.means()["digit"]["loss"] == state.log.latest["digit"] == pytest.approx(entropy, rel=1e-5)
    assert state.log.means()["ink"]["loss"] == state.log.mean_losses()[1] == pytest.approx(result.losses[1].item())


def test_the_default_is_not_in_the_resolved_experiment() -> None:
    assert "normalize_losses" not in digits().resolved()["training"]
    assert experiment("entropy").resolved()["training"]["normalize_losses"] == "entropy"

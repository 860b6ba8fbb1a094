"""Entropy of gates: values, gradients, and its role in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtlcli.errors import ConfigError
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.models.sharing.dselect_k import select
from mtlcli.registry import weightings
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.terms.gate_entropy import GateEntropy
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from tests.oracles import experts as oracle
from tests.training.backward.test_gradient_backward import MIXED, WEIGHTS, Spy, batch
from tests.training.experiments import digits


def make(**options: Any) -> GateEntropy:
    return GateEntropy(Subject({}, {}, {}, {}), **options)


def passed(**selectors: Tensor) -> TrunkPass:
    return TrunkPass({}, {}, selectors=selectors)


@given(st.integers(2, 9), st.integers(1, 3), st.floats(0, 3), st.integers(0, 10**6))
def test_term_matches_the_paper_over_all_gates_and_passes(experts: int, k: int, reachable: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = (torch.rand(n, k, (experts - 1).bit_length(), dtype=torch.float64, generator=generator) for n in (5, 3))
    digit, garment = (select(0.8 * (z - 0.5), experts, 1.0) for z in codes)
    expected = sum(
        sum(oracle.gate_entropy(selectors, reachable) for selectors in gate.numpy()) / len(gate)
        for gate in (digit, garment)
    )
    term = make(reachable=reachable)
    assert term.term([passed(digit=digit, garment=garment)]).item() == pytest.approx(expected, rel=1e-9)
    apart = [passed(digit=digit[:2], garment=garment), passed(digit=digit[2:])]
    assert term.term(apart).item() == pytest.approx(expected, rel=1e-9)


def test_values_of_decided_and_undecided_gates() -> None:
    decided, even = torch.eye(4)[None, :2], torch.full((1, 2, 4), 0.25)
    assert make().term([passed(gate=decided)]).item() == 0.0
    assert make().term([passed(gate=even)]).item() == pytest.approx(2 * torch.tensor(4.0).log().item())
    half = torch.tensor([[[0.5, 0.0, 0.0]]])  # the other half belongs to a code of no expert
    assert (make().term([passed(gate=half)]) - make(reachable=0.0).term([passed(gate=half)])).item() == 1.0
    assert make().term([passed(gate=torch.zeros(1, 1, 3))]).isfinite()


def test_gradient_is_finite_everywhere() -> None:
    z = torch.tensor([[[5.0, 5.0]], [[-5.0, 0.2]], [[5.0, -5.0]]], requires_grad=True)
    make().term([passed(gate=select(z, 3, 1.0))]).backward()  # type: ignore[no-untyped-call]
    logits = torch.tensor([[1000.0, 0.0, -1000.0]], requires_grad=True)
    make().term([passed(gate=logits.softmax(1).unsqueeze(1))]).backward()  # type: ignore[no-untyped-call]
    for x in (z, logits):
        assert x.grad is not None and x.grad.isfinite().all()
    assert z.grad is not None and z.grad[1].abs().sum() > 0


def test_selector_avoids_codes_of_no_expert() -> None:
    z = torch.full((1, 1, 2), 0.2, requires_grad=True)  # moving to the fourth code of three experts
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        make().term([passed(gate=select(z, 3, 1.0))]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(select(z, 3, 1.0).sum(), torch.tensor(1.0))


def test_sharing_without_gates_is_rejected() -> None:
    with pytest.raises(
        ConfigError,
        match=r"regularizers\.0: needs gates, .*`sharing: hard`.* gates: cgc, dselect_k, mmoe, omoe, ple",
    ):
        check_experiment(digits(regularizers=[{"name": "gate_entropy"}]))


def test_no_synchronization_with_the_device() -> None:
    with torch.device("meta"):
        selectors = torch.randn(5, 2, 3, requires_grad=True)
        make().term([passed(gate=selectors), passed(gate=selectors)]).backward()  # type: ignore[no-untyped-call]
    assert selectors.grad is not None


@pytest.mark.parametrize(
    ("sharing", "weighting"),
    [("omoe", "spy"), ("mmoe", "uniform"), ("ple", "spy"), ({"name": "dselect_k", "experts": 3}, "spy")],
)
def test_term_is_not_weighted_in_a_step(sharing: Any, weighting: str) -> None:
    weightings.register("spy")(Spy)
    run = build(
        digits(
            datasets={alias: {"name": "digits", "val": 0.2} for alias in "ab"},
            tasks=MIXED,
            trunk={"name": "mlp", "hidden": [6], "features": 4},
            sharing=sharing,
            weighting=weighting,
            regularizers=[{"name": "gate_entropy", "strength": 0.3}],
            optimizer={"name": "SGD", "lr": 0.1},
        )
    )
    whole, seen = batch(run, 0, 32), list[TrunkPass]()
    predictions = run.model(whole.inputs, None, SharingRecord(seen))
    losses = torch.stack([kind.loss(predictions[task], whole.targets[task]) for task, kind in run.kinds.items()])
    (extra,) = run.regularization.losses(seen, run.autocast())
    weights = torch.ones(4) if weighting == "uniform" else WEIGHTS.float()
    shared = run.model.shared_parameters()
    own = [p for p in run.model.parameters() if all(p is not q for q in shared)]
    wanted = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    expected = [
        *torch.autograd.grad(weights @ losses + extra, shared, **wanted),
        *torch.autograd.grad(losses.sum() + extra, own, **wanted),
    ]
    Step(run, make_optimizer(run))([whole])
    for parameter, gradient in zip([*shared, *own], expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)

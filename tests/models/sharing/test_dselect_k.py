"""Gates that come to select k experts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtlcli.models.sharing.base import SharingRecord
from mtlcli.models.sharing.dselect_k import DSelectK, SelectorGate, select, smooth_step
from mtlcli.registry import sharings
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.terms.gate_entropy import GateEntropy
from mtlcli.specs import TrunkPass
from tests.models.sharing.mixtures import INPUTS, batches, expert, make
from tests.oracles import experts as oracle

GAMMAS = st.floats(0.1, 10)


# The smooth step


@given(st.floats(-20, 20), GAMMAS)
def test_the_smooth_step_is_the_papers(t: float, gamma: float) -> None:
    found = smooth_step(torch.tensor(t, dtype=torch.float64), gamma).item()
    assert found == pytest.approx(oracle.smooth_step(t, gamma), abs=1e-12)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 7.0])
def test_the_smooth_step_is_flat_and_exact_where_it_ends(gamma: float) -> None:
    t = torch.linspace(-1.2 * gamma, 1.2 * gamma, 10_001, requires_grad=True)
    found = smooth_step(t, gamma)
    (slope,) = torch.autograd.grad(found.sum(), t)
    assert ((found >= 0) & (found <= 1)).all() and (found.diff() >= -1e-7).all()
    below, above = t <= -gamma / 2, t >= gamma / 2
    assert (found[below] == 0).all() and (found[above] == 1).all()
    assert (slope[below | above].abs() < 1e-3 / gamma).all()
    assert slope.max().item() == pytest.approx(1.5 / gamma, rel=1e-3)
    assert slope.diff().abs().max() < 0.01 / gamma  # no jump


# The selectors


@pytest.mark.parametrize("experts", range(2, 10))
def test_selectors_are_the_papers(experts: int) -> None:
    z = 0.4 * torch.randn(5, 3, (experts - 1).bit_length(), dtype=torch.float64)
    found = select(z, experts, 1.3)
    for row, expected in zip(found.flatten(0, 1).numpy(), z.flatten(0, 1).numpy(), strict=True):
        np.testing.assert_allclose(row, oracle.selector(expected, experts, 1.3), atol=1e-14)
    full = experts & (experts - 1) == 0
    assert torch.allclose(found.sum(-1), torch.ones(5, 3, dtype=torch.float64)) == full
    assert (found.sum(-1) <= 1 + 1e-12).all()


def test_their_gradients_are_right_also_where_a_factor_is_zero() -> None:
    z = torch.tensor([[0.1, -0.3, 0.2], [0.9, 0.1, -0.8], [-2.0, 2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: select(z, 8, 1.0), (z,))
    assert torch.autograd.gradcheck(lambda z: select(z, 5, 1.0), (z,))


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("experts", [4, 6])
def test_what_the_heads_are_given_is_the_papers(per_example: bool, experts: int) -> None:
    sharing = make(DSelectK, experts=experts, k=3, per_example=per_example, gamma=2.0).double()
    with torch.no_grad():  # far from where all count alike
        for parameter in sharing.gates.parameters():
            parameter.normal_(0, 0.3)
    inputs = {alias: x.double() for alias, x in batches(mnist=4, fashion=3).items()}
    found = sharing.representations(inputs, INPUTS)
    functions = [expert(trunk) for trunk in sharing.experts]
    for task, alias in INPUTS.items():
        gate = sharing.gates[task]
        for x, row in zip(inputs[alias], found[task].detach().numpy(), strict=True):
            z, alpha = (part(x.flatten()[None]).detach().numpy() for part in (gate.code, gate.share))
            weights, _ = oracle.dselect_k(z.reshape(3, -1), alpha[0], experts, 2.0)
            np.testing.assert_allclose(row, oracle.mixture(weights, functions, x.numpy()), rtol=1e-10)


# What the gates come to


@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 10**6), GAMMAS)
def test_far_from_zero_at_most_k_experts_have_weight(experts: int, k: int, seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    gate = SelectorGate(3, experts, k, gamma, per_example=False)
    with torch.no_grad():
        signs = torch.randint(0, 2, (k, gate.bits), generator=generator) * 2.0 - 1
        gate.code.value.copy_((signs * gamma * (0.5 + torch.rand(signs.shape, generator=generator))).view(1, -1))
        gate.share.value.copy_(torch.randn(1, k, generator=generator))
    weights, selectors = gate(torch.zeros(1, 3))
    assert ((selectors == 0) | (selectors == 1)).all()
    assert (weights > 0).sum() <= k
    assert (weights.sum() < 1 + 1e-6) and (weights >= 0).all()
    codes = [int("".join("1" if s > 0 else "0" for s in row), 2) for row in signs]
    assert {int(e) for e in weights[0].nonzero()} == {code for code in codes if code < experts}


@pytest.mark.parametrize("experts", [2, 3, 4])
def test_every_expert_can_be_selected_and_all_of_them(experts: int) -> None:
    gate = SelectorGate(3, experts, experts, 1.0, per_example=False)
    for codes in itertools.permutations(range(experts)):
        bits = [[float(digit) - 0.5 for digit in f"{code:0{gate.bits}b}"] for code in codes]
        with torch.no_grad():
            gate.code.value.copy_(torch.tensor(bits).view(1, -1))
            gate.share.value.zero_()
        weights, selectors = gate(torch.zeros(1, 3))
        assert selectors[0].argmax(1).tolist() == list(codes)
        torch.testing.assert_close(weights, torch.full((1, experts), 1 / experts))


def test_all_experts_count_nearly_alike_at_the_start() -> None:
    for per_example in (False, True):
        gate = SelectorGate(16, 8, 2, 1.0, per_example)
        weights = gate(torch.randn(20, 16)).weights
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / 8), rtol=0, atol=0.06)
        assert len(weights) == (20 if per_example else 1)


def test_a_gate_finds_the_two_experts_that_are_needed() -> None:
    """The target is 0.3 times the second output and 0.7 times the third; the entropy makes the choice sharp."""
    torch.manual_seed(1)
    outputs = torch.randn(4, 64)
    target = 0.3 * outputs[1] + 0.7 * outputs[2]
    gate, term = SelectorGate(1, 4, 2, 1.0, per_example=False), GateEntropy(Subject({}, {}, {}, {}))
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        weights, selectors = gate(torch.zeros(1, 1))
        penalty = term.term([TrunkPass({}, {}, selectors={"gate": selectors})])
        ((weights @ outputs - target).square().mean() + 0.005 * penalty).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights = gate(torch.zeros(1, 1)).weights[0]
    assert weights.nonzero().flatten().tolist() == [1, 2]
    torch.testing.assert_close(weights[[1, 2]], torch.tensor([0.3, 0.7]), atol=0.02, rtol=0)


# Elsewhere, and what doesn't fit


def test_static_gates_say_the_same_of_all_examples() -> None:
    sharing, inputs, seen = make(DSelectK), batches(mnist=5, fashion=3), list[TrunkPass]()
    sharing(inputs, INPUTS, SharingRecord(seen))
    assert {name: tuple(x.shape) for name, x in seen[0].selectors.items()} == dict.fromkeys(INPUTS, (1, 2, 4))
    seen.clear()
    make(DSelectK, per_example=True)(inputs, ["garment"], SharingRecord(seen))
    assert seen[0].selectors["garment"].shape == (3, 2, 4)


def test_low_precision_is_near() -> None:
    sharing, inputs = make(DSelectK, per_example=True), batches(mnist=5, fashion=3)
    with torch.autocast("cpu", torch.bfloat16):
        rough: dict[str, Tensor] = sharing(inputs, INPUTS)
    for task, exact in sharing(inputs, INPUTS).items():
        torch.testing.assert_close(rough[task].float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"k": 5}, "k: expected at most 4, the number of experts, got 5"),
        ({"experts": 2, "k": 3}, "at most 2, the number of experts, got 3"),
    ],
)
def test_more_than_there_are(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(DSelectK, **options)


def test_its_options() -> None:
    defaults = {name: option.default for name, option in sharings["dselect_k"].options.items()}
    assert defaults == {"experts": 4, "k": 2, "gamma": 1.0, "per_example": False}
    assert all(option.description for option in sharings["dselect_k"].options.values())

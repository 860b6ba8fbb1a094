"""DSelect-k: smooth step, selectors and gates."""

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
def test_smooth_step_matches_the_paper(t: float, gamma: float) -> None:
    actual = smooth_step(torch.tensor(t, dtype=torch.float64), gamma).item()
    assert actual == pytest.approx(oracle.smooth_step(t, gamma), abs=1e-12)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 7.0])
def test_smooth_step_is_constant_and_exact_outside_its_interval(gamma: float) -> None:
    t = torch.linspace(-1.2 * gamma, 1.2 * gamma, 10_001, requires_grad=True)
    actual = smooth_step(t, gamma)
    (slope,) = torch.autograd.grad(actual.sum(), t)
    assert ((actual >= 0) & (actual <= 1)).all() and (actual.diff() >= -1e-7).all()
    below, above = t <= -gamma / 2, t >= gamma / 2
    assert (actual[below] == 0).all() and (actual[above] == 1).all()
    assert (slope[below | above].abs() < 1e-3 / gamma).all()
    assert slope.max().item() == pytest.approx(1.5 / gamma, rel=1e-3)
    assert slope.diff().abs().max() < 0.01 / gamma  # continuous


# The selectors


@pytest.mark.parametrize("experts", range(2, 10))
def test_selectors_match_the_paper(experts: int) -> None:
    z = 0.4 * torch.randn(5, 3, (experts - 1).bit_length(), dtype=torch.float64)
    actual = select(z, experts, 1.3)
    for row, expected in zip(actual.flatten(0, 1).numpy(), z.flatten(0, 1).numpy(), strict=True):
        np.testing.assert_allclose(row, oracle.selector(expected, experts, 1.3), atol=1e-14)
    full = experts & (experts - 1) == 0
    assert torch.allclose(actual.sum(-1), torch.ones(5, 3, dtype=torch.float64)) == full
    assert (actual.sum(-1) <= 1 + 1e-12).all()


def test_selector_gradients_are_correct_even_if_a_factor_is_zero() -> None:
    z = torch.tensor([[0.1, -0.3, 0.2], [0.9, 0.1, -0.8], [-2.0, 2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: select(z, 8, 1.0), (z,))
    assert torch.autograd.gradcheck(lambda z: select(z, 5, 1.0), (z,))


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("experts", [4, 6])
def test_representations_match_the_paper(per_example: bool, experts: int) -> None:
    sharing = make(DSelectK, experts=experts, k=3, per_example=per_example, gamma=2.0).double()
    with torch.no_grad():  # far from equal weights
        for parameter in sharing.gates.parameters():
            parameter.normal_(0, 0.3)
    inputs = {alias: x.double() for alias, x in batches(mnist=4, fashion=3).items()}
    actual = sharing.representations(inputs, INPUTS)
    functions = [expert(trunk) for trunk in sharing.experts]
    for task, alias in INPUTS.items():
        gate = sharing.gates[task]
        for x, row in zip(inputs[alias], actual[task].detach().numpy(), strict=True):
            z, alpha = (layer(x.flatten()[None]).detach().numpy() for layer in (gate.code, gate.share))
            weights, _ = oracle.dselect_k(z.reshape(3, -1), alpha[0], experts, 2.0)
            np.testing.assert_allclose(row, oracle.mixture(weights, functions, x.numpy()), rtol=1e-10)


# Trained gates


@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 10**6), GAMMAS)
def test_at_most_k_experts_have_weight_far_from_zero(experts: int, k: int, seed: int, gamma: float) -> None:
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
def test_every_expert_can_be_selected(experts: int) -> None:
    gate = SelectorGate(3, experts, experts, 1.0, per_example=False)
    for codes in itertools.permutations(range(experts)):
        bits = [[float(digit) - 0.5 for digit in f"{code:0{gate.bits}b}"] for code in codes]
        with torch.no_grad():
            gate.code.value.copy_(torch.tensor(bits).view(1, -1))
            gate.share.value.zero_()
        weights, selectors = gate(torch.zeros(1, 3))
        assert selectors[0].argmax(1).tolist() == list(codes)
        torch.testing.assert_close(weights, torch.full((1, experts), 1 / experts))


def test_all_experts_have_nearly_equal_weights_at_initialization() -> None:
    for per_example in (False, True):
        gate = SelectorGate(16, 8, 2, 1.0, per_example)
        weights = gate(torch.randn(20, 16)).weights
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / 8), rtol=0, atol=0.06)
        assert len(weights) == (20 if per_example else 1)


def test_gate_learns_to_select_the_two_required_experts() -> None:
    """The target is 0.3 times the second output plus 0.7 times the third; the entropy term sharpens the selection."""
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


# Other devices and precisions, invalid options


def test_static_gates_have_the_same_weights_for_all_examples() -> None:
    sharing, inputs, seen = make(DSelectK), batches(mnist=5, fashion=3), list[TrunkPass]()
    sharing(inputs, INPUTS, SharingRecord(seen))
    assert {name: tuple(x.shape) for name, x in seen[0].selectors.items()} == dict.fromkeys(INPUTS, (1, 2, 4))
    seen.clear()
    make(DSelectK, per_example=True)(inputs, ["garment"], SharingRecord(seen))
    assert seen[0].selectors["garment"].shape == (3, 2, 4)


def test_bfloat16_is_close_to_float32() -> None:
    sharing, inputs = make(DSelectK, per_example=True), batches(mnist=5, fashion=3)
    with torch.autocast("cpu", torch.bfloat16):
        rough: dict[str, Tensor] = sharing(inputs, INPUTS)
    for task, exact in sharing(inputs, INPUTS).items():
        torch.testing.assert_close(rough[task].float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 5}, "k: expected at most 4, the number of experts, got 5"),
        ({"experts": 2, "k": 3}, "at most 2, the number of experts, got 3"),
    ],
)
def test_k_above_the_number_of_experts_is_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(DSelectK, **options)


def test_options_are_validated() -> None:
    defaults = {name: option.default for name, option in sharings["dselect_k"].options.items()}
    assert defaults == {"experts": 4, "k": 2, "gamma": 1.0, "per_example": False}
    assert all(option.description for option in sharings["dselect_k"].options.values())

"""The task discriminator and the gradient reversal in front of it."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.terms.adversarial import Adversarial, compute_overlap, ganin_factor, reverse_gradient
from mtlcli.specs import TrunkPass
from tests.oracles import auxiliary

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
FEATURES = 4


def make(inputs: dict[str, str] = INPUTS, private: bool = False, **options: Any) -> Adversarial:
    torch.manual_seed(0)
    shapes = {"input": (1, 8, 8), "conv": (2, 3, 3), "features": (FEATURES,)}
    return Adversarial(Subject({}, {}, inputs, shapes, private), **options)


def passed(features: Tensor, private: dict[str, Tensor] | None = None, **rows: int) -> TrunkPass:
    return TrunkPass(rows, {"features": features}, private or {})


# The gradient reversal


@given(st.floats(0, 1))
def test_the_schedule_is_the_papers(progress: float) -> None:
    assert ganin_factor(progress) == pytest.approx(auxiliary.reversal_factor(progress), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_stay_and_the_gradient_turns(dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, dtype=dtype, requires_grad=True)
    out = reverse_gradient(x, torch.tensor(0.25))
    assert torch.equal(out, x)
    out.backward(torch.full_like(x, 2.0))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full_like(x, -0.5))


@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("schedule", ["ganin", "constant"])
def test_the_trunk_ascends_by_lambda_and_the_discriminator_descends(schedule: str, progress: float) -> None:
    term = make(hidden=[], schedule=schedule)
    trunk, x = nn.Linear(3, FEATURES, bias=False), torch.randn(7, 3)
    linear = term.discriminator[-1]
    oracle = auxiliary.LinearAdversary(*(p.detach().double().numpy() for p in (trunk.weight, *linear.parameters())))
    labels = np.array([0, 0, 1, 1, 1, 0, 0])
    factor = 1.0 if schedule == "constant" else auxiliary.reversal_factor(progress)
    loss, *gradients = oracle.gradients(x.double().numpy(), labels, factor)

    term.start_step(progress)
    passes = [passed(trunk(x[:5]), mnist=2, fashion=3), passed(trunk(x[5:]), mnist=2)]
    found = term.term(passes)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(loss, rel=1e-4)
    for parameter, expected in zip((trunk.weight, *linear.parameters()), gradients, strict=True):
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_larger_features_do_not_raise_it() -> None:
    term, features = make(), torch.randn(5, FEATURES, requires_grad=True)
    seen = passed(features, mnist=3, fashion=2)
    found = term.term([seen])
    torch.testing.assert_close(term.term([passed(100 * features, mnist=3, fashion=2)]), found)
    (gradient,) = torch.autograd.grad(found, features)
    torch.testing.assert_close((gradient * features).sum(1), torch.zeros(5), rtol=0, atol=1e-5)


# What is learned


def blobs(count: int, seed: int) -> tuple[Tensor, TrunkPass]:
    """Two Gaussians in the plane, three apart along the first axis."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * count, 2, generator=generator)
    x[:, 0] += torch.tensor([-1.5, 1.5]).repeat_interleave(count)
    return x, TrunkPass({"mnist": count, "fashion": count}, {"features": x})


def plain(**options: Any) -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(Subject({}, {}, INPUTS, {"input": (2,), "features": (2,)}), **options)


def test_a_discriminator_alone_learns_to_tell_two_gaussians_apart() -> None:
    term = plain()
    term.start_step(0.0)  # λ is 0
    optimizer = torch.optim.Adam(term.parameters(), lr=0.02)
    for step in range(60):
        optimizer.zero_grad()
        term.term([blobs(64, step)[1]]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    term.metrics()
    term.term([blobs(500, 1000)[1]])
    told = term.metrics()
    assert told["accuracy"] == pytest.approx(0.933, abs=0.03)  # the best there is: Φ(1.5)
    assert told["chance"] == 0.5
    assert told["reversal"] == 0.0


def test_a_linear_trunk_loses_the_direction_that_tells_them_apart() -> None:
    term = plain(hidden=[], schedule="constant")
    trunk = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        trunk.weight.copy_(torch.eye(2))
    groups = [{"params": trunk.parameters(), "lr": 0.02}, {"params": term.parameters(), "lr": 1.0, "weight_decay": 0.3}]
    optimizer = torch.optim.SGD(groups)
    for step in range(400):
        x, seen = blobs(64, step)
        optimizer.zero_grad()
        term.term([passed(trunk(x), **seen.rows)]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weight = trunk.weight.detach()
    assert weight[:, 0].norm() < 0.1  # how far apart the means are, of 1 at the start
    assert weight[:, 1].norm() > 1  # what says nothing of them stays
    term.metrics()
    x, seen = blobs(500, 1000)
    term.term([passed(trunk(x), **seen.rows)])
    assert term.metrics()["accuracy"] < 0.6  # it may be behind, and say the contrary


# What it tells


def test_accuracy_and_chance_are_of_all_examples_since_it_was_last_asked() -> None:
    term = make(hidden=[])
    linear = term.discriminator[-1]
    with torch.no_grad():  # says fashion where the first feature is above 0
        linear.weight.zero_()
        linear.weight[1, 0] = 1.0
        linear.bias.zero_()
    features = torch.tensor([[-1.0], [-2.0], [3.0], [4.0], [-5.0]]) * torch.eye(FEATURES)[0]
    term.start_step(0.5)
    term.term([passed(features, mnist=3, fashion=2)])
    term.term([passed(features[:1], mnist=1), passed(features[3:4], fashion=1)])
    expected = {"accuracy": 5 / 7, "chance": 4 / 7, "reversal": ganin_factor(0.5)}
    assert term.metrics() == pytest.approx(expected)
    term.term([passed(features[:1], fashion=1)])
    with torch.no_grad():  # a second look at a step
        term.term([passed(features, mnist=3, fashion=2)])
    assert term.metrics() == pytest.approx({"accuracy": 0.0, "chance": 1.0, "reversal": ganin_factor(0.5)})
    assert np.isnan(term.metrics()["accuracy"])


def test_what_it_has_counted_is_saved() -> None:
    term, other = make(), make()
    term.start_step(0.3)
    term.term([passed(torch.randn(5, FEATURES), mnist=3, fashion=2)])
    other.load_state_dict(term.state_dict())
    assert other.metrics() == term.metrics()


def test_maps_are_flattened_and_low_precision_is_near() -> None:
    term, maps = make(layer="conv"), torch.randn(5, 2, 3, 3)
    seen = TrunkPass({"mnist": 3, "fashion": 2}, {"conv": maps})
    with torch.autocast("cpu", torch.bfloat16):
        rough = term.term([seen])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, term.term([seen]), rtol=0.02, atol=0)


def test_nothing_waits_for_the_device() -> None:
    with torch.device("meta"):
        term = make(private=True, orthogonality=0.1)
        features = torch.randn(5, FEATURES, requires_grad=True)
        term.start_step(0.5)
        term.term([passed(features, {"digit": torch.randn(3, 2)}, mnist=3, fashion=2)]).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None


# Orthogonality


def test_orthogonality_is_that_of_numpy() -> None:
    shared, private = torch.randn(6, 3), torch.randn(6, 5).square()
    expected = auxiliary.overlap(shared.double().numpy(), private.double().numpy())
    assert compute_overlap(shared, private).item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_overlap(shared, private.bfloat16()).item() == pytest.approx(expected, rel=0.02)


def test_orthogonality_knows_the_ends_of_its_scale() -> None:
    line = torch.linspace(-1, 1, 8).unsqueeze(1)
    assert compute_overlap(line, 3 * line + 5).item() == pytest.approx(1.0)
    one, other = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]).unsqueeze(-1)
    assert compute_overlap(one, other).item() == 0.0


@pytest.mark.parametrize("blank", [torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(1, 3)])
def test_features_that_are_all_the_same_have_no_gradient(blank: Tensor) -> None:
    shared, private = blank.clone().requires_grad_(), torch.randn(len(blank), 2, requires_grad=True)
    compute_overlap(shared, private).backward()  # type: ignore[no-untyped-call]
    for x in (shared, private):
        assert x.grad is not None
        assert torch.equal(x.grad, torch.zeros_like(x))


def test_every_tasks_private_features_are_set_beside_its_examples_shared_ones() -> None:
    term, without = make(private=True, orthogonality=0.5), make()
    features = torch.randn(9, FEATURES, requires_grad=True)
    own = {"digit": torch.randn(4, 2), "parity": torch.randn(4, 3), "garment": torch.randn(5, 2)}
    rows = {"digit": slice(0, 4), "parity": slice(0, 4), "garment": slice(4, 9)}
    seen = passed(features, own, mnist=4, fashion=5)
    expected = sum(compute_overlap(features[rows[task]], own[task]) for task in own)
    found = term.term([seen]) - without.term([seen])
    torch.testing.assert_close(found, 0.5 * expected)
    apart = [
        passed(features[:4], {task: own[task] for task in ("digit", "parity")}, mnist=4),
        passed(features[4:7], {"garment": own["garment"][:3]}, fashion=3),
        passed(features[7:], {"garment": own["garment"][3:]}, fashion=2),
    ]
    torch.testing.assert_close(term.term(apart), term.term([seen]))
    given_to_the_trunk = torch.autograd.grad(0.5 * expected, features)[0]  # it is not reversed
    term.start_step(0.0)
    torch.testing.assert_close(torch.autograd.grad(term.term([seen]), features)[0], given_to_the_trunk)


# What doesn't fit


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"inputs": {"digit": "mnist", "parity": "mnist"}}, "all tasks are on the dataset 'mnist', so that"),
        ({"layer": "convs"}, "the trunk has no activation 'convs'. Did you mean 'conv'? Choose from: conv, features"),
        ({"layer": "input"}, "`input` is the input of the trunk"),
        ({"orthogonality": 0.1}, "use `sharing: shared_private`, or omit the option"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        make(**options)

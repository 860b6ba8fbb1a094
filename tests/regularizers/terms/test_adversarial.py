"""Adversarial regularization: gradient reversal, discriminator, orthogonality."""

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


# Gradient reversal


@given(st.floats(0, 1))
def test_schedule_matches_the_paper(progress: float) -> None:
    assert ganin_factor(progress) == pytest.approx(auxiliary.reversal_factor(progress), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reversal_keeps_values_and_negates_gradients(dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, dtype=dtype, requires_grad=True)
    out = reverse_gradient(x, torch.tensor(0.25))
    assert torch.equal(out, x)
    out.backward(torch.full_like(x, 2.0))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full_like(x, -0.5))


@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("schedule", ["ganin", "constant"])
def test_trunk_gradient_is_reversed_and_scaled_by_lambda(schedule: str, progress: float) -> None:
    term = make(hidden=[], schedule=schedule)
    trunk, x = nn.Linear(3, FEATURES, bias=False), torch.randn(7, 3)
    linear = term.discriminator[-1]
    oracle = auxiliary.LinearAdversary(*(p.detach().double().numpy() for p in (trunk.weight, *linear.parameters())))
    labels = np.array([0, 0, 1, 1, 1, 0, 0])
    factor = 1.0 if schedule == "constant" else auxiliary.reversal_factor(progress)
    loss, *gradients = oracle.gradients(x.double().numpy(), labels, factor)

    term.start_step(progress)
    passes = [passed(trunk(x[:5]), mnist=2, fashion=3), passed(trunk(x[5:]), mnist=2)]
    actual = term.term(passes)
    actual.backward()  # type: ignore[no-untyped-call]
    assert actual.item() == pytest.approx(loss, rel=1e-4)
    for parameter, expected in zip((trunk.weight, *linear.parameters()), gradients, strict=True):
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_scaling_the_features_does_not_change_the_term() -> None:
    term, features = make(), torch.randn(5, FEATURES, requires_grad=True)
    seen = passed(features, mnist=3, fashion=2)
    actual = term.term([seen])
    torch.testing.assert_close(term.term([passed(100 * features, mnist=3, fashion=2)]), actual)
    (gradient,) = torch.autograd.grad(actual, features)
    torch.testing.assert_close((gradient * features).sum(1), torch.zeros(5), rtol=0, atol=1e-5)


# Training


def blobs(count: int, seed: int) -> tuple[Tensor, TrunkPass]:
    """Draw two Gaussians in the plane, at a distance of 3 along the first axis."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * count, 2, generator=generator)
    x[:, 0] += torch.tensor([-1.5, 1.5]).repeat_interleave(count)
    return x, TrunkPass({"mnist": count, "fashion": count}, {"features": x})


def plain(**options: Any) -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(Subject({}, {}, INPUTS, {"input": (2,), "features": (2,)}), **options)


def test_discriminator_learns_to_separate_two_gaussians() -> None:
    term = plain()
    term.start_step(0.0)  # λ is 0
    optimizer = torch.optim.Adam(term.parameters(), lr=0.02)
    for step in range(60):
        optimizer.zero_grad()
        term.term([blobs(64, step)[1]]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    term.metrics()
    term.term([blobs(500, 1000)[1]])
    message = term.metrics()
    assert message["accuracy"] == pytest.approx(0.933, abs=0.03)  # the optimum, Φ(1.5)
    assert message["chance"] == 0.5
    assert message["reversal"] == 0.0


def test_linear_trunk_removes_the_discriminative_direction() -> None:
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
    assert weight[:, 0].norm() < 0.1  # the distance of the means, initially 1
    assert weight[:, 1].norm() > 1  # the uninformative direction remains
    term.metrics()
    x, seen = blobs(500, 1000)
    term.term([passed(trunk(x), **seen.rows)])
    assert term.metrics()["accuracy"] < 0.6  # it may lag behind and predict the opposite


# Metrics


def test_accuracy_and_chance_cover_all_examples_of_the_epoch() -> None:
    term = make(hidden=[])
    linear = term.discriminator[-1]
    with torch.no_grad():  # predicts fashion if the first feature is positive
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
    with torch.no_grad():  # a second evaluation of the step
        term.term([passed(features, mnist=3, fashion=2)])
    assert term.metrics() == pytest.approx({"accuracy": 0.0, "chance": 1.0, "reversal": ganin_factor(0.5)})
    assert np.isnan(term.metrics()["accuracy"])


def test_counts_are_part_of_the_state_dict() -> None:
    term, other = make(), make()
    term.start_step(0.3)
    term.term([passed(torch.randn(5, FEATURES), mnist=3, fashion=2)])
    other.load_state_dict(term.state_dict())
    assert other.metrics() == term.metrics()


def test_feature_maps_are_flattened_and_bfloat16_is_close() -> None:
    term, maps = make(layer="conv"), torch.randn(5, 2, 3, 3)
    seen = TrunkPass({"mnist": 3, "fashion": 2}, {"conv": maps})
    with torch.autocast("cpu", torch.bfloat16):
        rough = term.term([seen])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, term.term([seen]), rtol=0.02, atol=0)


def test_no_synchronization_with_the_device() -> None:
    with torch.device("meta"):
        term = make(private=True, orthogonality=0.1)
        features = torch.randn(5, FEATURES, requires_grad=True)
        term.start_step(0.5)
        term.term([passed(features, {"digit": torch.randn(3, 2)}, mnist=3, fashion=2)]).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None


# Orthogonality


def test_overlap_matches_the_oracle() -> None:
    shared, private = torch.randn(6, 3), torch.randn(6, 5).square()
    expected = auxiliary.overlap(shared.double().numpy(), private.double().numpy())
    assert compute_overlap(shared, private).item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_overlap(shared, private.bfloat16()).item() == pytest.approx(expected, rel=0.02)


def test_overlap_is_between_0_and_1() -> None:
    line = torch.linspace(-1, 1, 8).unsqueeze(1)
    assert compute_overlap(line, 3 * line + 5).item() == pytest.approx(1.0)
    shared, private = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]).unsqueeze(-1)
    assert compute_overlap(shared, private).item() == 0.0


@pytest.mark.parametrize("blank", [torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(1, 3)])
def test_equal_features_have_a_zero_gradient(blank: Tensor) -> None:
    shared, private = blank.clone().requires_grad_(), torch.randn(len(blank), 2, requires_grad=True)
    compute_overlap(shared, private).backward()  # type: ignore[no-untyped-call]
    for x in (shared, private):
        assert x.grad is not None
        assert torch.equal(x.grad, torch.zeros_like(x))


def test_orthogonality_sums_over_tasks_and_passes() -> None:
    term, without = make(private=True, orthogonality=0.5), make()
    features = torch.randn(9, FEATURES, requires_grad=True)
    own = {"digit": torch.randn(4, 2), "parity": torch.randn(4, 3), "garment": torch.randn(5, 2)}
    rows = {"digit": slice(0, 4), "parity": slice(0, 4), "garment": slice(4, 9)}
    seen = passed(features, own, mnist=4, fashion=5)
    expected = sum(compute_overlap(features[rows[task]], own[task]) for task in own)
    actual = term.term([seen]) - without.term([seen])
    torch.testing.assert_close(actual, 0.5 * expected)
    apart = [
        passed(features[:4], {task: own[task] for task in ("digit", "parity")}, mnist=4),
        passed(features[4:7], {"garment": own["garment"][:3]}, fashion=3),
        passed(features[7:], {"garment": own["garment"][3:]}, fashion=2),
    ]
    torch.testing.assert_close(term.term(apart), term.term([seen]))
    given_to_the_trunk = torch.autograd.grad(0.5 * expected, features)[0]  # not reversed
    term.start_step(0.0)
    torch.testing.assert_close(torch.autograd.grad(term.term([seen]), features)[0], given_to_the_trunk)


# Invalid options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": {"digit": "mnist", "parity": "mnist"}}, "all tasks are on the dataset 'mnist', so that"),
        ({"layer": "convs"}, "the trunk has no activation 'convs'. Did you mean 'conv'? Choose from: conv, features"),
        ({"layer": "input"}, "`input` is the input of the trunk"),
        ({"orthogonality": 0.1}, "use `sharing: shared_private`, or omit the option"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**options)

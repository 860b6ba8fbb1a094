"""Nuclear and trace norms, l1, l2, orthogonality: values, gradients, affected weights."""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlcli.models.trunks.lenet import LeNet
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.terms.l1 import L1
from mtlcli.regularizers.terms.l2 import L2
from mtlcli.regularizers.terms.multi_nuclear_norm import MultiNuclearNorm
from mtlcli.regularizers.terms.nuclear_norm import NuclearNorm, nuclear_norm
from mtlcli.regularizers.terms.orthogonality import Orthogonality
from mtlcli.regularizers.terms.trace_norm_across_tasks import TraceNormAcrossTasks
from tests.oracles import norms


def subject() -> Subject:
    heads: dict[str, nn.Module] = {"digit": nn.Linear(5, 10), "garment": nn.Sequential(nn.Linear(5, 10), nn.ReLU())}
    return Subject({"trunk": LeNet((1, 16, 16), features=5)}, heads, {}, {})


def matrices(module: nn.Module) -> list[norms.Array]:
    return [p.detach().flatten(1).double().numpy() for p in module.parameters() if p.ndim > 1]


def gradient(term: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(term, of))


# Nuclear norm


def test_nuclear_norm_of_layers() -> None:
    seen = subject()
    term = NuclearNorm(seen)
    assert term.term([]).item() == pytest.approx(sum(map(norms.nuclear, matrices(seen.trunks["trunk"]))), rel=1e-5)
    only = NuclearNorm(seen, layers=["fc*"]).term([])
    assert only.item() == pytest.approx(sum(map(norms.nuclear, matrices(seen.trunks["trunk"])[2:])), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_gradient_matches_torch_if_it_exists(m: int, n: int, seed: int) -> None:
    w = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    (expected,) = gradient(torch.linalg.svdvals(w).sum(), w)
    (actual,) = gradient(3 * nuclear_norm(w), w)
    torch.testing.assert_close(actual, 3 * expected)


@pytest.mark.parametrize(
    ("w", "expected"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 4)),
        (2 * torch.eye(3), torch.eye(3)),  # equal singular values
        (torch.diag(torch.tensor([2.0, 1e-3, 0.0])), torch.diag(torch.tensor([1.0, 1.0, 0.0]))),
        (torch.ones(2, 2), torch.full((2, 2), 0.5)),
    ],
)
def test_gradient_for_equal_or_zero_singular_values(w: Tensor, expected: Tensor) -> None:
    w.requires_grad_()
    torch.testing.assert_close(gradient(nuclear_norm(w), w)[0], expected)


def test_gradient_descent_reaches_the_soft_threshold() -> None:
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = torch.zeros_like(x, requires_grad=True)
    for step in range(2000):
        (direction,) = gradient(0.5 * (x - w).square().sum() + nuclear_norm(w), w)
        with torch.no_grad():
            w -= direction / (step + 2)
    np.testing.assert_allclose(w.detach().numpy(), norms.soft_thresholded(x.numpy(), 1.0), atol=2e-3)


def test_norm_of_a_matrix_that_is_not_finite_is_nan() -> None:
    w = torch.full((2, 3), float("inf"), requires_grad=True)
    assert nuclear_norm(w).isnan()


# Trace norm across tasks


def head(*widths: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(widths)))


def across(unfolding: Any = "tasks", **heads: nn.Module) -> TraceNormAcrossTasks:
    return TraceNormAcrossTasks(Subject({}, heads, {}, {}), unfolding=unfolding)


def test_trace_norm_of_the_stacked_weights() -> None:
    a, b, c = head(5, 4, 3), head(5, 4, 3), head(5, 4)
    w = [matrices(head_) for head_ in (a, b, c)]
    tasks = norms.nuclear(np.stack([w[0][0].ravel(), w[1][0].ravel(), w[2][0].ravel()])) + norms.nuclear(
        np.stack([w[0][1].ravel(), w[1][1].ravel()])
    )
    assert across(a=a, b=b, c=c).term([]).item() == pytest.approx(tasks, rel=1e-5)
    features = norms.nuclear(np.concatenate([of_head[0] for of_head in w])) + norms.nuclear(
        np.concatenate([w[0][1], w[1][1]])
    )
    assert across("features", a=a, b=b, c=c).term([]).item() == pytest.approx(features, rel=1e-5)


def test_unfoldings_are_equal_for_tasks_with_one_output() -> None:
    heads = {name: head(5, 1) for name in "abc"}
    torch.testing.assert_close(across(**heads).term([]), across("features", **heads).term([]))


def test_heads_without_a_match_are_ignored() -> None:
    a, b, c = head(5, 1), head(5, 1), head(5, 10)
    expected = norms.nuclear(np.concatenate([*matrices(a), *matrices(b)]))
    assert across(a=a, c=c, b=b).term([]).item() == pytest.approx(expected, rel=1e-5)
    assert across("features", a=a, b=b, c=c).stacks == [[head_[0].weight for head_ in (a, b, c)]]  # type: ignore[index]


def test_heads_become_multiples_of_one() -> None:
    torch.manual_seed(0)
    heads = {name: head(5, 2) for name in "abc"}
    term, weights = across(**heads), [p for head_ in heads.values() for p in head_.parameters() if p.ndim > 1]
    goal = [torch.randn_like(p) / 2 + 1 for p in weights]
    for step in range(300):
        fit = torch.stack([(p - g).square().sum() for p, g in zip(weights, goal, strict=True)]).sum()
        for p, direction in zip(weights, gradient(fit / 2 + 2 * term.term([]), *weights), strict=True):
            p.data -= direction / (step + 2)
    values = torch.linalg.svdvals(torch.stack([p.detach().flatten() for p in weights]))
    assert values[0] > 1 and (values[1:] < 0.02).all()


@pytest.mark.parametrize(
    ("unfolding", "heads", "message"),
    [
        ("tasks", {"a": head(5, 1)}, "expected at least two tasks, whose heads' weights are stacked, got one (a: 1×5)"),
        ("tasks", {"a": head(5, 1), "b": head(5, 2, 3)},
         "no two heads have weights of the same shape at the same position, so none can be stacked (a: 1×5; b: 2×5, "
         "3×2); `unfolding: features` only needs the same width"),
        ("features", {"a": head(5, 1), "b": head(6, 1)}, "no two heads have weights of the same width at the same"),
        ("features", {"a": nn.Identity(), "b": nn.Identity()}, "(a: none; b: none)"),
    ],
)  # fmt: skip
def test_heads_without_matching_weights_are_rejected(unfolding: Any, heads: dict[str, nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        across(unfolding, **heads)


# l1 and l2


@pytest.mark.parametrize(("on", "parts"), [("shared", "t"), ("heads", "h"), ("all", "th")])
def test_l1_and_l2_of_the_weights(on: Any, parts: str) -> None:
    seen = subject()
    modules = [*(seen.trunks.values() if "t" in parts else ()), *(seen.heads.values() if "h" in parts else ())]
    w = np.concatenate([m.ravel() for module in modules for m in matrices(module)])
    assert L1(seen, on=on).term([]).item() == pytest.approx(np.abs(w).sum(), rel=1e-5)
    assert L2(seen, on=on).term([]).item() == pytest.approx((w**2).sum(), rel=1e-5)


def test_gradients_of_l1_and_l2() -> None:
    seen = subject()
    weight = seen.heads["digit"].weight
    assert isinstance(weight, nn.Parameter)
    weight.data[0] = 0
    torch.testing.assert_close(gradient(L1(seen).term([]), weight)[0], weight.sign())
    torch.testing.assert_close(gradient(L2(seen).term([]), weight)[0], 2 * weight)


def test_l2_of_balanced_factors_is_twice_their_multi_nuclear_norm() -> None:
    seen = subject()
    term = MultiNuclearNorm(seen)
    torch.testing.assert_close(L2(seen, on="shared").term([]), 2 * term.term([]))


# Orthogonality


def test_orthogonality_of_layers() -> None:
    seen = subject()
    expected = sum(map(norms.soft_orthogonality, matrices(seen.trunks["trunk"])))
    assert Orthogonality(seen).term([]).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4)])
def test_both_gram_matrices_have_the_same_gradient(shape: tuple[int, int]) -> None:
    layer = nn.Linear(*shape)
    term = Orthogonality(Subject({"trunk": nn.Sequential(layer)}, {}, {}, {}))
    w = layer.weight
    for gram in (w @ w.T, w.T @ w):
        whole = (gram - torch.eye(len(gram))).square().sum()
        assert whole.item() - term.term([]).item() == pytest.approx(len(gram) - min(shape), abs=1e-4)
        torch.testing.assert_close(gradient(whole, w), gradient(term.term([]), w), rtol=1e-4, atol=1e-5)
    nn.init.orthogonal_(w)
    assert term.term([]).item() == pytest.approx(0, abs=1e-9)


# All terms

EVERY: list[tuple[type[Regularizer], dict[str, Any]]] = [
    (NuclearNorm, {}),
    (TraceNormAcrossTasks, {}),
    (TraceNormAcrossTasks, {"unfolding": "features"}),
    (L1, {}),
    (L2, {}),
    (Orthogonality, {}),
    (MultiNuclearNorm, {}),
]


@pytest.mark.parametrize(("make", "options"), EVERY)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, None])
def test_gradients_are_finite_everywhere(make: Any, options: dict[str, Any], value: float | None) -> None:
    seen = subject()
    term = make(seen, **options)
    assert not list(term.parameters())
    parameters = [p for module in (*seen.trunks.values(), *seen.heads.values()) for p in module.parameters()]
    if value is not None:
        for p in parameters:
            nn.init.constant_(p, value)
    omega = term.term([])
    assert omega.shape == () and omega.isfinite()
    omega.backward()
    touched = [p for p in parameters if p.grad is not None]
    assert touched
    for p in touched:
        assert p.grad is not None and p.grad.isfinite().all()
        assert in_memory(p.grad) == in_memory(p)


def in_memory(x: Tensor) -> list[int]:
    """Return the strides of the dimensions, except for those of size 1."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]


@pytest.mark.parametrize(("make", "options"), EVERY)
def test_no_synchronization_with_the_device(make: Any, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        make(subject(), **options).term([]).backward()


@pytest.mark.parametrize("make", [NuclearNorm, Orthogonality])
def test_factorized_layers_are_excluded(make: Any) -> None:
    seen = subject()
    MultiNuclearNorm(seen, layers=["fc1"])
    assert len(make(seen).layers) == 3
    with pytest.raises(ValueError, match="'fc1' matches no Linear or Conv2d except fc1, which is already factorized"):
        make(seen, layers=["fc1"])

"""Factorized layers: equivalence, truncation, properties of the layer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtlcli.regularizers.factorized import Factorized, FactorizedConv2d, FactorizedLinear
from tests.oracles import norms

CONVOLUTIONS: list[dict[str, Any]] = [
    {"in_channels": 3, "out_channels": 8, "kernel_size": 3},
    {"in_channels": 6, "out_channels": 4, "kernel_size": (5, 3), "stride": (2, 1), "padding": (2, 1)},
    {"in_channels": 2, "out_channels": 40, "kernel_size": 3, "dilation": 2, "padding": "same", "bias": False},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 2, "padding_mode": "reflect", "stride": 2},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 4, "padding": "same", "padding_mode": "circular"},
    {"in_channels": 1, "out_channels": 6, "kernel_size": 3, "padding": "valid"},
    {"in_channels": 5, "out_channels": 7, "kernel_size": 1, "stride": 2},
]


def factorized(layer: nn.Linear | nn.Conv2d, rank: int | None = None) -> Factorized:
    return FactorizedLinear(layer, rank) if isinstance(layer, nn.Linear) else FactorizedConv2d(layer, rank)


def matrix(layer: nn.Module) -> norms.Array:
    return layer.weight.detach().flatten(1).double().numpy()  # type: ignore[operator, union-attr, no-any-return]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "m"), [(7, 4), (4, 7), (5, 5), (3, 1), (1, 3)])
def test_linear_layer_at_full_rank_is_equivalent(n: int, m: int, bias: bool) -> None:
    layer, x = nn.Linear(n, m, bias=bias), torch.randn(2, 3, n)
    actual = factorized(layer)
    assert actual.rank == min(m, n) and actual.u.shape == (m, actual.rank) and actual.v.shape == (actual.rank, n)
    torch.testing.assert_close(actual(x), layer(x), rtol=0, atol=1e-5)
    assert actual.bias is layer.bias


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_convolution_at_full_rank_is_equivalent(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(**options)
    x, actual = torch.randn(2, layer.in_channels, 11, 10), factorized(layer)
    torch.testing.assert_close(actual(x), layer(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.weight, layer.weight, rtol=0, atol=1e-6)
    assert actual(x).stride() == layer(x).stride()


@pytest.mark.parametrize("layer", [nn.Linear(9, 6), nn.Conv2d(3, 5, 3)])
@pytest.mark.parametrize("rank", [1, 3])
def test_lower_rank_is_the_best_approximation(layer: Any, rank: int) -> None:
    actual = factorized(layer, rank)
    assert actual.rank == rank
    assert np.linalg.norm(matrix(layer) - matrix(actual)) == pytest.approx(norms.tail(matrix(layer), rank), rel=1e-4)
    u, v = actual.norms()
    torch.testing.assert_close(u, v)  # balanced
    expected = torch.linalg.svdvals(layer.weight.detach().flatten(1))[:rank]
    torch.testing.assert_close((u * v).detach(), expected)


def test_rank_is_at_most_full() -> None:
    assert factorized(nn.Linear(9, 6), 100).rank == 6


def test_decomposition_of_arbitrary_factors() -> None:
    actual = factorized(nn.Conv2d(3, 5, 3), 4)
    nn.init.normal_(actual.u)
    nn.init.normal_(actual.v)
    p, s, q = (x.numpy() for x in actual.svd())
    np.testing.assert_allclose((p * s) @ q, matrix(actual), atol=1e-5)
    np.testing.assert_allclose([p.T @ p, q @ q.T], [np.eye(4)] * 2, atol=1e-12)
    before = matrix(actual)
    actual.truncate(2)
    assert np.linalg.norm(before - matrix(actual)) == pytest.approx(norms.tail(before, 2), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_properties_of_the_layer_are_kept(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(3, 8, 3).to(dtype).requires_grad_(False)
    assert layer.bias is not None
    layer.bias.requires_grad_(True)
    actual = factorized(layer)
    for resized in (False, True):
        if resized:
            actual.resize(2)
        assert actual.u.dtype == actual.v.dtype == dtype
        assert [p.requires_grad for p in (actual.u, actual.v)] == [False, False]
    assert actual.bias is layer.bias and layer.bias.requires_grad
    assert list(actual.state_dict()) == ["bias", "u", "v"] or set(actual.state_dict()) == {"bias", "u", "v"}


@pytest.mark.parametrize("shape", [(3, 8, 3), (1, 8, 3), (8, 3, 1)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_convolutions_and_their_gradients_keep_the_memory_layout(shape: Any, layout: torch.memory_format) -> None:
    layer = nn.Conv2d(*shape).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(2, shape[0], 6, 6).to(memory_format=layout)
    actual = factorized(layer, 2)
    assert actual(x).stride() == layer(x).stride()
    for rank in (2, 1):
        actual.resize(rank)
        assert actual.v.stride() == torch.empty(actual.v.shape).to(memory_format=layout).stride()
        actual.zero_grad()
        actual(x).sum().backward()
        assert [p.grad.stride() for p in actual.parameters()] == [p.stride() for p in actual.parameters()]  # type: ignore[union-attr]


def test_resize_allows_loading_a_state_of_another_rank() -> None:
    large, small = factorized(nn.Linear(9, 6)), factorized(nn.Linear(9, 6), 2)
    state = small.state_dict()
    assert state["u"].shape[1] == 2
    kept = large.u
    large.resize(6)
    assert large.u is kept
    large.resize(state["u"].shape[1])
    assert not large.u.any() and not large.v.any()
    large.load_state_dict(state)
    x = torch.randn(2, 9)
    assert torch.equal(large(x), small(x))


def test_factors_on_the_meta_device() -> None:
    with torch.device("meta"):
        for layer in (nn.Linear(9, 6), nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)):  # type: ignore[call-overload]
            actual = factorized(layer, 4)
            assert actual.u.is_meta and actual.v.is_meta and actual.rank == 4
            assert actual(torch.empty(2, 9) if isinstance(layer, nn.Linear) else torch.empty(2, 3, 5, 5)).is_meta
    assert actual.v.stride() == (27, 1, 9, 3)


def test_grouped_convolution_is_rejected() -> None:
    with pytest.raises(ValueError, match="a convolution of 2 groups can't be factorized"):
        factorized(nn.Conv2d(4, 4, 3, groups=2))

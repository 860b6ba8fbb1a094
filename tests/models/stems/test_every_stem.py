"""Stems: shapes, oracles of each stem, independence of examples, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtlcli.models.stems.base import Stem
from mtlcli.models.trunks.tabular import Tabular as TabularTrunk
from mtlcli.registry import stems
from tests.models.columns import COLUMNS, rows

IMAGES, MAP, VECTOR = (2, 9, 7), (5, 4, 3), (6,)
CASES: list[tuple[str, Any, tuple[int, ...], dict[str, Any]]] = [
    ("conv", IMAGES, MAP, {"channels": 3, "layers": 2}),
    ("conv", IMAGES, (3, 9, 7), {"channels": 3}),
    ("conv", IMAGES, VECTOR, {"channels": 3, "grid": 4}),
    ("linear", IMAGES, MAP, {}),
    ("linear", (4,), VECTOR, {}),
    ("tabular", COLUMNS, VECTOR, {"hidden": [5], "dropout": 0.2}),
    ("tabular", COLUMNS, MAP, {}),
    ("resize", IMAGES, (2, 4, 12), {}),
]


def make(name: str, given: Any, shape: tuple[int, ...], options: dict[str, Any]) -> tuple[Stem, torch.Tensor]:
    torch.manual_seed(0)
    stem: Stem = stems[name].create(given, shape, **options)
    x = rows(8) if given is COLUMNS else torch.randn(8, *given)
    return stem, x


@pytest.mark.parametrize(("name", "given", "shape", "options"), CASES)
def test_shape_gradients_and_independence_of_examples(name: str, given: Any, shape: Any, options: Any) -> None:
    stem, x = make(name, given, shape, options)
    encoded = stem(x)
    assert encoded.shape == (8, *shape)
    if parameters := list(stem.parameters()):
        assert all(g is not None for g in torch.autograd.grad(encoded.square().sum(), parameters, allow_unused=True))
    stem.eval()
    torch.testing.assert_close(stem(x[2:4]), stem(x)[2:4])
    with torch.device("meta"):
        assert stems[name].create(given, shape, **options)(x.to("meta")).shape == (8, *shape)


def test_every_stem_is_tested() -> None:
    assert {case[0] for case in CASES} == set(stems.names())


@pytest.mark.parametrize("after", [(4, 3), (9, 3), (12, 20), (3, 11), (1, 1)])
def test_resize_is_the_antialiased_interpolation_of_torch(after: tuple[int, int]) -> None:
    stem, x = make("resize", IMAGES, (2, *after), {})
    assert not list(stem.parameters())
    expected = F.interpolate(x, after, mode="bilinear", antialias=True)
    torch.testing.assert_close(stem(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stem(torch.ones_like(x)), torch.ones(8, 2, *after))


def test_conv_to_maps_and_to_vectors() -> None:
    stem, x = make("conv", IMAGES, MAP, {"channels": 3, "layers": 2})
    first, second = (layer for layer in stem.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3))
    maps = F.conv2d(x, first.weight, first.bias, padding=1).relu()
    maps = F.conv2d(maps, second.weight, second.bias, padding=1).relu()
    small = F.interpolate(maps, (4, 3), mode="bilinear", antialias=True)
    expected = F.conv2d(small, stem.projection.weight, stem.projection.bias)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(stem(x), expected, rtol=1e-4, atol=1e-5)

    stem, x = make("conv", IMAGES, VECTOR, {"channels": 3, "grid": 8})
    (layer,) = (layer for layer in stem.modules() if isinstance(layer, nn.Conv2d))
    maps = F.conv2d(x, layer.weight, layer.bias, padding=1).relu()
    linear = next(layer for layer in stem.modules() if isinstance(layer, nn.Linear))
    flat = F.interpolate(maps, (8, 7), mode="bilinear", antialias=True).flatten(1)
    torch.testing.assert_close(stem(x), F.linear(flat, linear.weight, linear.bias), rtol=1e-4, atol=1e-5)


def test_tabular_is_a_linear_layer_on_the_encoding_of_the_trunk_tabular() -> None:
    stem, x = make("tabular", COLUMNS, VECTOR, {"numeric": "log1p"})
    trunk = TabularTrunk(COLUMNS, numeric="log1p")
    trunk.encoder.load_state_dict(stem.encoder.state_dict())  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(stem(x), stem.projection(trunk.encoder(x)))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "given", "shape", "options", "message"),
    [
        ("resize", (4,), MAP, {}, "resize needs images"),
        ("resize", (1, 8, 8), MAP, {}, "can't convert 1×8×8 to 5×4×3, the input of the trunk. Use the stem `conv`"),
        ("resize", (1, 8, 8), VECTOR, {}, "can't convert 1×8×8 to 6"),
        ("conv", (4,), MAP, {}, "conv converts images"),
    ],
)
def test_impossible_conversions(name: str, given: Any, shape: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stems[name].create(given, shape, **options)

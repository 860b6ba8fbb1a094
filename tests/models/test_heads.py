"""Heads."""

import pytest
import torch

from mtlcli.registry import heads


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("linear", {}, [6, 3]),
        ("mlp", {}, [6, 64, 3]),
        ("mlp", {"hidden": [5, 4], "dropout": 0.5}, [6, 5, 4, 3]),
        ("mlp", {"hidden": []}, [6, 3]),
    ],
)
def test_layer_widths(name, options, widths):
    head = heads[name].target(6, 3, **options)
    assert head(torch.randn(2, 6)).shape == (2, 3)
    weights = [p for key, p in head.named_parameters() if key.endswith("weight")]
    assert [tuple(p.shape) for p in weights] == list(zip(widths[1:], widths, strict=False))


def test_mlp_alternates_linear_layers_and_relu():
    head = heads["mlp"].target(4, 2, hidden=[3], dropout=0.9).eval()
    x = torch.randn(5, 4)
    torch.testing.assert_close(head(x), head[3](head[0](x).relu()))

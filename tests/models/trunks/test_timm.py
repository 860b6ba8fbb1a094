"""Models of timm as trunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtlcli.files import data_root
from mtlcli.models.trunks.timm import TimmTrunk

pytest.importorskip("timm")


def make(model: str, shape: tuple[int, ...] = (1, 64, 64), **options: Any) -> TimmTrunk:
    torch.manual_seed(0)
    trunk = TimmTrunk(shape, model=model, **options)
    trunk.input_shape = shape
    return trunk.eval()


@pytest.mark.parametrize(
    ("model", "stages", "layers"),
    [
        (
            "test_vit",
            ["embeddings", "layer.0", "layer.1", "layer.2", "layer.3", "layer.4", "layer.5", "norm", "pool"],
            8,
        ),
        ("test_efficientnet", ["stem", "blocks", "bn2", "pool"], 7),
    ],
)
def test_stages(model: str, stages: list[str], layers: int) -> None:
    trunk, x = make(model), torch.randn(2, 1, 64, 64)
    assert list(trunk.stages()) == stages
    out, activations = trunk.activations(x, stages)
    assert list(activations) == stages and torch.equal(activations[stages[-1]], out)
    expected = trunk.network(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(out, expected)
    assert torch.equal(trunk(x), out) and out.shape == (2, trunk.features)
    divided = {name: listed for name, listed in trunk.layer_parameters().items() if listed}
    assert len(divided) == layers
    assert sum(map(len, divided.values())) == len(list(trunk.parameters()))


def test_a_vision_transformer_is_built_for_the_size_of_the_images() -> None:
    assert make("test_vit", (3, 32, 48))(torch.randn(1, 3, 32, 48)).shape == (1, 64)


@pytest.mark.parametrize(
    ("shape", "model", "message"),
    [
        ((3, 64, 64), "tset_vit", r"timm has no model 'tset_vit'\. Did you mean 'test_vit"),
        ((3, 64, 64), "hf-hub:some/model", "timm has no model 'hf-hub:some/model'"),
        ((2, 64, 64), "test_vit", "timm models need images .* of 1 or 3 channels, got 2×64×64"),
        ((3, 10, 10), "test_vit", "test_vit can't process images of 3×10×10"),
    ],
)
def test_invalid_options_are_refused(shape: tuple[int, ...], model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(model, shape)


def test_the_fetched_efficientnet() -> None:
    if not (data_root(None) / "efficientnet_lite0").is_dir():
        pytest.skip("the weights aren't here: mtl data fetch efficientnet_lite0")
    trunk = make("tf_efficientnet_lite0", pretrained="efficientnet_lite0")
    trunk.load_pretrained()
    state = trunk.network.state_dict()
    assert all(bool((value >= 0).all()) for key, value in state.items() if key.endswith("running_var"))
    assert float(state["conv_stem.weight"].std()) > 0.1
    with pytest.raises(ValueError, match="no weights with the names of this network: its first is '_conv_stem"):
        make("test_efficientnet", pretrained="efficientnet_lite0").load_pretrained()

"""Layers of trunks: names, patterns, freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtlcli.models.named_layers import freeze_layers, layers_of, parameters_by_name, select
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.trunks.torchvision import TorchVision

NAMES = ["embeddings", "layer.0", "layer.1", "layer.10", "layer1", "layer1.0", "other"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("embeddings", ["embeddings"]),
        ("layer.1", ["layer.1"]),
        ("layer.*", ["layer.0", "layer.1", "layer.10"]),
        ("layer.[01]", ["layer.0", "layer.1"]),
        ("layer1", ["layer1", "layer1.0"]),
        ("layer", ["layer.0", "layer.1", "layer.10"]),
    ],
)
def test_a_pattern_selects_names(pattern: str, expected: list[str]) -> None:
    assert select(NAMES, pattern) == expected


def test_a_pattern_that_selects_nothing_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no stage or layer 'layer\.2'\. Did you mean 'layer\.0'.*Choose from: emb"):
        select(NAMES, "layer.2")


class Encoder(nn.Module):
    """A network as torchvision's vision transformers are built."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.patches = nn.Conv2d(3, 4, 2)
        self.encoder = nn.ModuleDict({
            "layers": nn.Sequential(*(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(3))),
            "norm": nn.LayerNorm(4),
        })  # fmt: skip


def test_layers_of_a_network() -> None:
    network = Encoder()
    layers = layers_of(network)
    assert {name: len(parameters) for name, parameters in layers.items()} == {
        "patches": 3, "encoder.layers.0": 4, "encoder.layers.1": 4, "encoder.layers.2": 6
    }  # fmt: skip
    assert [id(p) for listed in layers.values() for p in listed] == [id(p) for p in network.parameters()]


@pytest.mark.parametrize(
    ("model", "first", "last", "amount"),
    [
        ("resnet18", "conv1", "layer4.1", 9),
        ("mobilenet_v2", "features.0", "features.18", 19),
        ("vit_b_16", "conv_proj", "encoder.layers.encoder_layer_11", 13),
        ("googlenet", "conv1", "inception5b", 12),
    ],
)
def test_layers_of_torchvisions_models(model: str, first: str, last: str, amount: int) -> None:
    with torch.device("meta"):
        trunk = TorchVision((3, 224, 224), model=model)
    names = list(trunk.layer_parameters())
    assert (names[0], names[-1], len(names)) == (first, last, amount)


def test_frozen_layers_keep_their_weights_and_statistics() -> None:
    torch.manual_seed(0)
    trunk = CNN((1, 8, 8), widths=[4, 8], features=5, dropout=0.5)
    trunk.input_shape = (1, 8, 8)
    named = parameters_by_name(trunk)
    freeze_layers(trunk, named["block1"])
    assert [name for name, p in trunk.named_parameters() if not p.requires_grad] == [
        f"block1.{name}" for name, _ in trunk.get_submodule("block1").named_parameters()
    ]
    model = nn.Sequential(trunk, nn.Linear(5, 1))
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for mode in (False, True):
        model.train(mode)
        assert {name: module.training for name, module in trunk.named_children()} == {
            "encoder": mode, "block1": False, "block2": mode, "fc": mode
        }  # fmt: skip
    assert not any(module.training for module in trunk.get_submodule("block1").modules())
    x = torch.randn(6, 1, 8, 8)
    first = trunk.stages()["block1"](x)
    assert first.grad_fn is None  # no graph is recorded below the trained stages
    model(x).square().sum().backward()
    optimizer.step()
    changed = {
        key.partition(".")[0] for key, value in trunk.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"block2", "fc"}
    assert torch.equal(trunk.stages()["block1"](x), first)


def test_a_dropout_that_trained_stages_use_stays_active() -> None:
    trunk = MLP((4,), hidden=[50, 50], features=50, dropout=0.5)
    trunk.input_shape = (4,)
    freeze_layers(trunk, parameters_by_name(trunk)["fc1"])
    assert trunk.train().dropout.training and not trunk.get_submodule("fc1").training
    freeze_layers(trunk, trunk.parameters())
    assert not any(module.training for module in trunk.train().modules())

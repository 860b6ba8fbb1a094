"""Selection of layers and weights by patterns and groups."""

import re

import pytest
import torch
from torch import nn

from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.trunks.torchvision import TorchVision
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.factorized import FactorizedLinear
from mtlcli.regularizers.layers import WeightGroup, collect_weights, find_layers


def subject(*trunks: nn.Module, heads: dict[str, nn.Module] | None = None) -> Subject:
    named = {"trunk": trunks[0], **{f"private.{i}": trunk for i, trunk in enumerate(trunks[1:])}}
    return Subject(named, heads or {}, {}, {})


def names(trunk: nn.Module, *patterns: str) -> list[str]:
    return [layer.name for layer in find_layers(subject(trunk), patterns)]


def test_patterns_match_layers_of_every_trunk() -> None:
    with torch.device("meta"):
        lenet, mlp, cnn = LeNet((1, 28, 28)), MLP((1, 8, 8)), CNN((1, 8, 8), widths=[4, 8])
        resnet = TorchVision((3, 32, 32), model="resnet18")
    assert names(lenet, "*") == ["conv1", "conv2", "fc1", "fc2"]
    assert names(lenet, "fc1", "conv*", "fc?") == ["conv1", "conv2", "fc1", "fc2"]
    assert names(lenet, "fc1") == ["fc1"]
    assert names(mlp, "fc2") == ["fc2"]
    assert names(cnn, "block1*", "fc*") == ["block1.0", "block1.4", "fc.2"]
    assert names(resnet, "*layer4.?.conv2") == ["network.layer4.0.conv2", "network.layer4.1.conv2"]
    assert len(names(resnet, "*")) == 20


def test_layers_of_several_trunks_have_the_name_of_their_trunk() -> None:
    actual = find_layers(subject(MLP((4,)), MLP((4,))), ["fc1"])
    assert [layer.name for layer in actual] == ["trunk.fc1", "private.0.fc1"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("convs1", "matches no Linear or Conv2d of the trunk. Did you mean 'conv1'? Choose from: conv1, conv2"),
        ("x*", "layers: 'x*' matches no Linear or Conv2d of the trunk. Choose from: conv1, conv2, fc1"),
        ("fc2", "'fc2' matches no Linear or Conv2d except fc2, which is already factorized. Choose from: conv1"),
    ],
)
def test_pattern_without_a_match_is_rejected(pattern: str, message: str) -> None:
    trunk = LeNet((1, 28, 28))
    trunk.set_submodule("fc2", FactorizedLinear(trunk.fc2))
    with pytest.raises(ValueError, match=re.escape(message)):
        find_layers(subject(trunk), ["conv1", pattern])


def test_layer_used_twice_is_replaced_at_both_paths() -> None:
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    trunk = nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))
    (actual,) = find_layers(subject(trunk), ["*"])
    actual.replace(other)
    assert trunk[0] is other and trunk[2][0] is other


@pytest.mark.parametrize(("group", "expected"), [("shared", 2), ("heads", 1), ("all", 3)])
def test_weights_exclude_biases_and_norm_layers(group: WeightGroup, expected: int) -> None:
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    actual = collect_weights(subject(trunk, heads={"digit": nn.Linear(3, 4)}), group)
    assert len(actual) == expected and all(p.ndim > 1 for p in actual)


def test_group_without_weights_is_rejected() -> None:
    with pytest.raises(ValueError, match="on: heads contains no weights"):
        collect_weights(subject(MLP((4,)), heads={"digit": nn.Identity()}), "heads")

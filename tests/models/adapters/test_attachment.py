"""Selection of the modules that have an adapter, and freezing of a trunk's own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.adapters.attachment import attach
from mtlcli.models.adapters.base import adapters_in, frozen_keys
from mtlcli.models.adapters.houlsby import Houlsby
from mtlcli.models.adapters.lora import LoRA
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.trunks.torchvision import TorchVision

TASKS = ("digit", "ink")


def mlp() -> MLP:
    trunk = MLP((1, 8, 8), hidden=[6, 5], features=4)
    trunk.input_shape = (1, 8, 8)
    return trunk


def cnn() -> CNN:
    trunk = CNN((1, 8, 8), widths=[3, 4], features=4)
    trunk.input_shape = (1, 8, 8)
    return trunk


class Attention(Trunk):
    """A trunk with torch's attention, whose output projection is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.features, self.input_shape = 3, (5, 4)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"attention": lambda x: self.attention(x, x, x)[0], "last": lambda x: self.last(x.mean(1))}


def adapted(trunk: Trunk, **options: Any) -> list[str]:
    """Attach low-rank adapters, and return the names of the adapted layers."""
    attach(LoRA(TASKS, **options), trunk)
    return list(adapters_in(trunk))


def trained(trunk: Trunk) -> set[str]:
    """Return the names of the trunk's own parameters that are trained."""
    return {name for name, p in trunk.named_parameters() if p.requires_grad and "adapter" not in name}


def test_patterns_select_layers_in_the_order_of_the_trunk() -> None:
    assert adapted(mlp(), targets=["fc3", "fc[12]"]) == ["fc1", "fc2", "fc3"]
    assert adapted(mlp(), targets=["*2"]) == ["fc2"]
    assert adapted(cnn(), targets=["block2.*", "fc.*"]) == ["block2.0", "block2.4", "fc.2"]
    trunk = TorchVision((3, 32, 32), model="resnet18")
    trunk.input_shape = (3, 32, 32)
    assert adapted(trunk, targets=["layer4.1.*"]) == ["network.layer4.1.conv1", "network.layer4.1.conv2"]


def test_unknown_pattern_is_rejected_with_the_names_of_the_layers() -> None:
    with pytest.raises(
        ValueError, match=r"'fc9' matches no Linear or Conv2d layer of the trunk\. Did you mean 'fc"
    ) as e:
        adapted(mlp(), targets=["fc1", "fc9"])
    assert str(e.value).endswith("Choose from: fc1, fc2, fc3")


def test_layers_that_are_not_called_or_not_adaptable_are_rejected_by_name() -> None:
    with pytest.raises(ValueError, match=r"matches only attention\.out_proj, which can't have adapters.*from: last$"):
        adapted(Attention(), targets=["attention.out_proj"])
    assert adapted(Attention(), targets=["*"]) == ["last"]


def test_own_weights_are_frozen_and_keep_their_names() -> None:
    trunk = cnn()
    names = dict(trunk.named_parameters()).keys()
    adapted(trunk)
    assert trained(trunk) == set()
    assert names < dict(trunk.named_parameters()).keys()
    assert set(frozen_keys(trunk)) == {key for key in trunk.state_dict() if "adapter" not in key}


def test_biases_and_norms_are_trained_on_request() -> None:
    biases, norms, both = cnn(), cnn(), cnn()
    adapted(biases, train=["biases"])
    assert trained(biases) == {name for name, _ in biases.named_parameters() if name.endswith("bias")}
    adapted(norms, train=["norms"])
    assert trained(norms) == {f"block{b}.{at}.{key}" for b in (1, 2) for at in (2, 5) for key in ("weight", "bias")}
    adapted(both, train=["biases", "norms"])
    assert trained(both) == trained(biases) | trained(norms)


def test_batch_norm_keeps_its_statistics_and_dropout_stays_active() -> None:
    trunk = cnn()
    adapted(trunk, train=["norms"])
    before = {key: value.clone() for key, value in trunk.named_buffers()}
    trunk.train()
    x = torch.randn(8, 1, 8, 8)
    assert not torch.equal(trunk(x), trunk(x))
    assert all(torch.equal(before[key], value) for key, value in trunk.named_buffers())


def test_bottlenecks_follow_any_module() -> None:
    trunk = cnn()
    attach(Houlsby(TASKS, targets=["block1", "fc.2"], bottleneck=2), trunk)
    assert list(adapters_in(trunk)) == ["block1", "fc.2"]
    widths = [p.shape[0] for name, p in trunk.named_parameters() if name.endswith("up.weight")]
    assert widths == [3, 4]
    with pytest.raises(ValueError, match="'bloc1' matches no module"):
        attach(Houlsby(TASKS, targets=["bloc1"]), cnn())


def test_adapters_on_meta_are_the_same_as_on_the_cpu() -> None:
    with torch.device("meta"):
        trunk = cnn()
        adapted(trunk)
    real = cnn()
    adapted(real)
    assert {k: v.shape for k, v in trunk.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}

"""Networks that are too large, detected on the device `meta`."""

import pytest
from torch import nn

from mtlcli.errors import ConfigError
from mtlcli.training.assembly import build
from mtlcli.training.assembly.build import within_memory


def create_layers(*shapes: tuple[int, int]) -> list[nn.Linear]:
    """Create layers of these shapes within the memory of the machine."""
    layers: list[nn.Linear] = []
    with within_memory():
        for shape in shapes:
            layers.append(nn.Linear(*shape, device="meta"))  # noqa: PERF401 (each layer may raise)
    return layers


def test_network_may_use_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "physical_memory", lambda: 4 * 20)
    assert len(create_layers((3, 5))) == 1
    with pytest.raises(ConfigError, match=r"^too large: 21 or more parameters take 0\.0 GiB, but this machine"):
        create_layers((3, 5), (1, 1))


def test_shared_parameter_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "physical_memory", lambda: 4 * 20)
    with within_memory():
        layer = nn.Linear(3, 5, device="meta")
        nn.Sequential(layer).tied = layer.weight
        nn.BatchNorm1d(5, affine=False, device="meta")


def test_network_larger_than_any_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"too large: 1,099,511,627,776 or more parameters take 4,096\.0 GiB"):
        create_layers((2**20, 2**20))


def test_network_of_too_many_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MOST_TENSORS", 8)
    assert len(create_layers(*[(1, 1)] * 4)) == 4
    with pytest.raises(ConfigError, match="too many layers: more than 8 weights and biases"):
        create_layers(*[(1, 1)] * 5)


def test_nothing_is_counted_after_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        create_layers((2**20, 2**20))
    monkeypatch.setattr(build, "physical_memory", lambda: 0)
    nn.Linear(3, 5, device="meta")

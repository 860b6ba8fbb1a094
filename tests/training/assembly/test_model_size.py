"""Networks that are too large, found out on the device `meta`."""

import pytest
from torch import nn

from mtlcli.errors import ConfigError
from mtlcli.training.assembly import model_size
from mtlcli.training.assembly.model_size import physical_memory, within_memory


def build(*shapes: tuple[int, int]) -> list[nn.Linear]:
    """Layers of these shapes, as far as there is memory for them."""
    made: list[nn.Linear] = []
    with within_memory():
        for shape in shapes:
            made.append(nn.Linear(*shape, device="meta"))  # noqa: PERF401 (one by one: the next may be too many)
    return made


def test_this_machine_has_memory() -> None:
    assert 2**28 < physical_memory() < 2**50


def test_a_network_may_have_all_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_size, "physical_memory", lambda: 4 * 20)
    assert len(build((3, 5))) == 1
    with pytest.raises(ConfigError, match=r"^too large: 21 or more parameters take 0\.0 GiB, but this machine"):
        build((3, 5), (1, 1))


def test_a_parameter_in_several_places_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_size, "physical_memory", lambda: 4 * 20)
    with within_memory():
        layer = nn.Linear(3, 5, device="meta")
        nn.Sequential(layer).tied = layer.weight
        nn.BatchNorm1d(5, affine=False, device="meta")


def test_a_network_beyond_any_memory() -> None:
    with pytest.raises(ConfigError, match=r"too large: 1,099,511,627,776 or more parameters take 4,096\.0 GiB"):
        build((2**20, 2**20))


def test_a_network_of_too_many_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_size, "MOST_TENSORS", 8)
    assert len(build(*[(1, 1)] * 4)) == 4
    with pytest.raises(ConfigError, match="too many layers: more than 8 weights and biases"):
        build(*[(1, 1)] * 5)


def test_afterwards_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        build((2**20, 2**20))
    monkeypatch.setattr(model_size, "physical_memory", lambda: 0)
    nn.Linear(3, 5, device="meta")

"""Loading of trunks from checkpoints."""

import pytest
import torch
from torch import nn

from mtlcli.models.inputs import Normalize
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.warm_start import warm_start


def make(seed: int, tasks: list[str], **options) -> MultiTaskModel:
    torch.manual_seed(seed)
    shape = (1, 8, 8)
    sharing = HardSharing(
        lambda: CNN(shape, depth=1, **options), lambda task, width: nn.Linear(width, 3), dict.fromkeys(tasks, "data")
    )
    return MultiTaskModel(sharing, {"data": Normalize(shape, [0.0], [1.0])})


def test_only_the_trunk_is_loaded():
    source, target = make(0, ["a", "b"], widths=[4]), make(1, ["b", "c"], widths=[4])
    source({"data": torch.randn(4, 1, 8, 8)})  # changes the statistics of batch norm
    heads = {key: value.clone() for key, value in target.sharing.heads.state_dict().items()}
    warm_start(target.sharing, source.state_dict(), "first.pt")
    there = source.sharing.trunk.state_dict()
    assert all(torch.equal(value, there[key]) for key, value in target.sharing.trunk.state_dict().items())
    assert all(torch.equal(value, heads[key]) for key, value in target.sharing.heads.state_dict().items())


def test_different_trunk_is_rejected_with_all_differences():
    source, target = make(0, ["a"], widths=[4]), make(1, ["a"], widths=[5, 6])
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"the trunk in first\.pt differs from this one") as caught:
        warm_start(target.sharing, source.state_dict(), "first.pt")
    message = str(caught.value)
    assert "trunk.block1.0.weight is 4×1×3×3, expected 5×1×3×3" in message
    assert "trunk.block2.0.weight is missing" in message
    assert "heads" not in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_unexpected_keys_are_listed():
    with pytest.raises(ValueError, match=r"trunk\.block2\.0\.weight is unexpected"):
        warm_start(make(0, ["a"], widths=[4]).sharing, make(0, ["a"], widths=[4, 4]).state_dict(), "first.pt")


def test_state_dict_without_a_trunk_is_rejected():
    with pytest.raises(ValueError, match=r"trunk\.fc\.2\.weight is missing"):
        warm_start(make(0, ["a"], widths=[4]).sharing, {"other": torch.zeros(1)}, "first.pt")


def test_weights_of_another_type_or_not_finite_are_rejected():
    source, target = make(0, ["a"]), make(1, ["a"])
    state = dict(source.state_dict())
    key = next(key for key, value in state.items() if key.startswith("sharing.trunk") and value.is_floating_point())
    with pytest.raises(ValueError, match=f"{key.removeprefix('sharing.')} contains NaN or infinity"):
        warm_start(target.sharing, {**state, key: state[key] * float("inf")}, "first.pt")
    with pytest.raises(ValueError, match=r"is torch\.float64, expected torch\.float32"):
        warm_start(target.sharing, {**state, key: state[key].double()}, "first.pt")

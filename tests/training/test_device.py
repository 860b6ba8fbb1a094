import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.training.device import choose_device, physical_memory
from tests.training.experiments import digits, training


@pytest.mark.parametrize("device", ["cpu:1", "cpu:128", "cpu:99999999", "cuda:99", "cuda:99999999", "mps:7", "cpu:-1"])
def test_a_missing_index_is_refused(device: str) -> None:
    """torch accepts every index of the CPU, and cuts large ones to their last 8 bits."""
    with pytest.raises(ConfigError, match=rf"^training\.device: device '{device}' can't be used here: .*auto, cpu"):
        choose_device(digits(training=training(device=device)))


@pytest.mark.parametrize(("device", "meant"), [
    ("gpu", True), ("GPU:0", True), ("0", True), ("CUDA", True), ("tpu", False), ("meta", False), ("null", False),
])  # fmt: skip
def test_unsupported_devices_are_refused(device: str, meant: bool) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda, cuda:INDEX or mps") as caught:
        choose_device(digits(training=training(device=device)))
    assert ("(a GPU is `cuda`, or `cuda:0`)" in str(caught.value)) == meant


def test_existing_devices_are_accepted() -> None:
    assert choose_device(digits(training=training(device="cpu"))) == torch.device("cpu")
    assert choose_device(digits(training=training(device="cpu:0"))).type == "cpu"


def test_indices_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="the largest index is 1"):
        choose_device(digits(training=training(device="cuda:2")))


def test_physical_memory_is_plausible() -> None:
    assert 2**28 < physical_memory() < 2**50

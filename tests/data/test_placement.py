from __future__ import annotations

import pytest
import torch

from mtlcli.data import placement
from mtlcli.data.placement import Placement
from tests.data.batches import CPU, Lazy

INPUTS = torch.arange(600, dtype=torch.uint8).view(100, 6)


def test_inputs_in_memory_are_resident() -> None:
    resident = Placement(CPU).resident(INPUTS)
    assert resident is not None and resident.data_ptr() == INPUTS.data_ptr()


def test_streaming_can_be_set() -> None:
    assert Placement(CPU, "stream").resident(INPUTS) is None


def test_small_lazy_inputs_are_read_once() -> None:
    lazy, where = Lazy(INPUTS), Placement(CPU)
    resident = where.resident(lazy)
    assert resident is not None and torch.equal(resident, INPUTS)
    assert where.resident(lazy) is resident


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_small_lazy_inputs_are_read_once_to_be_augmented(device: str) -> None:
    lazy, where = Lazy(INPUTS), Placement(torch.device(device))
    inputs = where.in_memory(lazy)
    assert isinstance(inputs, torch.Tensor) and torch.equal(inputs, INPUTS) and where.in_memory(lazy) is inputs
    assert where.in_memory(INPUTS) is INPUTS
    assert Placement(torch.device(device), "stream").in_memory(lazy) is lazy


def test_large_lazy_inputs_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "READ_WHOLE", 599)
    assert Placement(CPU).resident(Lazy(INPUTS)) is None
    assert Placement(CPU, "resident").resident(Lazy(INPUTS)) is not None


def test_inputs_are_resident_in_a_quarter_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 599, 10**9))
    assert Placement(torch.device("cuda")).resident(INPUTS) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 600, 10**9))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: ("moved", device.type))
    assert Placement(torch.device("cuda")).resident(INPUTS) == ("moved", "cuda")


def test_workers() -> None:
    assert Placement(CPU, workers=3).workers == 3
    assert 0 <= Placement(CPU).workers < max(2, placement.usable_cores())

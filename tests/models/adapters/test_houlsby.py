"""Bottleneck adapters against the equation of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mtlcli.models.adapters.houlsby import Bottleneck, Houlsby, HoulsbyAdapter
from tests.oracles import adapters as oracle

TASKS = ("digit", "ink")


@pytest.mark.parametrize("shape", [(5,), (3, 5), (5, 2, 3)], ids=["vector", "sequence", "map"])
@pytest.mark.parametrize("arrangement", ["shared", "per_task"])
@torch.no_grad()
def test_outputs_are_those_of_the_equation(shape: tuple[int, ...], arrangement: str) -> None:
    layer = nn.Linear(2, 2).double()  # only its type matters
    adapter = Houlsby(TASKS, targets=["*"], bottleneck=2, activation="relu", arrangement=arrangement).make(layer, shape)
    assert isinstance(adapter, HoulsbyAdapter)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    h = torch.randn(4, *shape, dtype=torch.float64)
    for task in TASKS:
        adapter.route.task = task
        bottleneck = adapter.shared if arrangement == "shared" else adapter.tasks[task]
        assert isinstance(bottleneck, Bottleneck)
        down, up = (layer.weight.flatten(1).numpy() for layer in (bottleneck.down, bottleneck.up))
        biases = [layer.bias.numpy() for layer in (bottleneck.down, bottleneck.up)]
        rows, out = (t.movedim(1, -1) if len(shape) == 3 else t for t in (h, adapter(h, h)))
        by_hand = [oracle.bottleneck(row, down, biases[0], up, biases[1]) for row in rows.reshape(-1, 5).numpy()]
        np.testing.assert_allclose(out.reshape(-1, 5).numpy(), np.stack(by_hand), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_outputs_are_nearly_unchanged_at_the_start() -> None:
    adapter = Houlsby(TASKS, targets=["*"], bottleneck=8).make(nn.Linear(16, 16), (16,))
    h = torch.randn(4, 16)
    change = adapter(h, h) - h
    assert 0 < float(change.abs().max()) < 0.01 * float(h.abs().max())
    assert max(float(p.abs().max()) for p in adapter.parameters()) <= 0.02


def test_outputs_of_other_shapes_have_no_adapter() -> None:
    adapters = Houlsby(TASKS, targets=["*"])
    assert not adapters.can_adapt(nn.Identity(), ())
    assert not adapters.can_adapt(nn.Identity(), (1, 2, 3, 4))

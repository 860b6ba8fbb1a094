"""Helpers for the tests of the sharings with experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtlcli.models.sharing.base import Sharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.mlp import MLP

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
SHAPE = (1, 4, 3)
Array = NDArray[np.float64]


def make(kind: Any, trunk: Any = MLP, inputs: Mapping[str, str] = INPUTS, shape: Any = SHAPE, **options: Any) -> Any:
    """Create a sharing with small trunks; the widths of an mlp are 12, 5 and 6."""
    torch.manual_seed(0)

    def make_trunk() -> Trunk:
        created: Trunk = trunk(shape, features=6, hidden=[5]) if trunk is MLP else trunk(shape)
        created.input_shape = shape
        return created

    return kind(make_trunk, lambda task, features: nn.Linear(features, len(task)), inputs, **options)


def batches(shape: Any = SHAPE, **rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *shape) for alias, n in rows.items()}


def layer(linear: Any) -> Callable[[Array], Array]:
    """Return relu(W x + b), a layer of a fully connected trunk, in NumPy."""
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    return lambda x: np.maximum(weight @ x.ravel() + bias, 0)


def expert(trunk: Any) -> Callable[[Array], Array]:
    """Return a fully connected trunk of two layers in NumPy."""
    first, second = layer(trunk.fc1), layer(trunk.fc2)
    return lambda x: second(first(x))


def reached(sharing: Sharing, inputs: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Return name of a parameter → tasks whose output has a gradient with respect to it."""
    actual: dict[str, set[str]] = {name: set() for name, _ in sharing.named_parameters()}
    names, parameters = zip(*sharing.named_parameters(), strict=True)
    for task, out in sharing(inputs, list(sharing.inputs)).items():
        gradients = torch.autograd.grad(out.sum(), parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                actual[name].add(task)
    return actual


def owners(sharing: Sharing) -> dict[str, set[str]]:
    """Return name of a parameter → the task that it belongs to by `own_modules`, or all tasks if it is shared."""
    own = {id(p): task for task in sharing.inputs for m in sharing.own_modules(task) for p in m.parameters()}
    return {name: {own[id(p)]} if id(p) in own else set(sharing.inputs) for name, p in sharing.named_parameters()}


class Encoded(Trunk):
    """Trunk with an encoder of two columns to three numbers, with dropout, and two stages with batch norm."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
        self.first = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.second = nn.Linear(4, 6)
        self.features = 6

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"first": self.first, "second": self.second}

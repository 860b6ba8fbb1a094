"""What the tests of the sharings with experts have in common."""

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
    """A sharing of small trunks; an mlp's widths are 12, 5, 6, or those of its layers that `trunk` stands for."""
    torch.manual_seed(0)

    def make_trunk() -> Trunk:
        made: Trunk = trunk(shape, features=6, hidden=[5]) if trunk is MLP else trunk(shape)
        made.input_shape = shape
        return made

    return kind(make_trunk, lambda task, features: nn.Linear(features, len(task)), inputs, **options)


def batches(shape: Any = SHAPE, **rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *shape) for alias, n in rows.items()}


def layer(linear: Any) -> Callable[[Array], Array]:
    """relu(W x + b) in NumPy, as a fully connected trunk has it."""
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    return lambda x: np.maximum(weight @ x.ravel() + bias, 0)


def expert(trunk: Any) -> Callable[[Array], Array]:
    """A fully connected trunk of two layers in NumPy."""
    first, second = layer(trunk.fc1), layer(trunk.fc2)
    return lambda x: second(first(x))


def reached(sharing: Sharing, inputs: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Name of a parameter → the tasks whose output has a gradient with respect to it."""
    found: dict[str, set[str]] = {name: set() for name, _ in sharing.named_parameters()}
    names, parameters = zip(*sharing.named_parameters(), strict=True)
    for task, out in sharing(inputs, list(sharing.inputs)).items():
        gradients = torch.autograd.grad(out.sum(), parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                found[name].add(task)
    return found


def owners(sharing: Sharing) -> dict[str, set[str]]:
    """Name of a parameter → the task that it is said to belong to, or all tasks where it is shared."""
    own = {id(p): task for task in sharing.inputs for m in sharing.own_modules(task) for p in m.parameters()}
    return {name: {own[id(p)]} if id(p) in own else set(sharing.inputs) for name, p in sharing.named_parameters()}


class Encoded(Trunk):
    """Two columns, turned into three numbers by an encoder with dropout, and two stages with batch norm."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
        self.first = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.second = nn.Linear(4, 6)
        self.features = 6

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"first": self.first, "second": self.second}

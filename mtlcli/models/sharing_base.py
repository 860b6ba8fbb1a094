"""What every sharing is: how one or several trunks and the tasks' heads are wired."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from mtlcli.models.by_name import ByName
from mtlcli.models.trunk import Trunk

MakeTrunk = Callable[[], Trunk]
MakeHead = Callable[[str, int], nn.Module]


class Sharing(nn.Module, ABC):
    """Base of the sharings.

    make_trunk: makes a trunk, freshly initialized at each call.
    make_head: (task, features) → a head for representations of that width; the subclass fills `heads` with them.
    inputs: task → alias of the dataset its examples come from, in the tasks' order.
    common_features: whether all tasks on the same dataset are given the same representation.
    """

    common_features: ClassVar[bool] = False

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__()
        self.inputs = dict(inputs)
        self.heads = ByName()

    @abstractmethod
    def representations(self, inputs: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """What each task's head is given, [B, features]; the same tensor for tasks that share it.

        inputs: alias → normalized [B, *input_shape]. tasks: those wanted.
        """

    def forward(self, inputs: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """task → prediction [B, outputs], for the tasks asked for."""
        found = self.representations(inputs, tasks)
        return {task: self.heads[task](representation) for task, representation in found.items()}

    def shared_parameters(self) -> list[nn.Parameter]:
        """All parameters that don't belong to a head."""
        own = {id(p) for p in self.heads.parameters()}
        return [p for p in self.parameters() if id(p) not in own]

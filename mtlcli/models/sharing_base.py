"""What every sharing is: how one or several trunks and the tasks' heads are wired."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from mtlcli.models.trunk import Trunk


class Sharing(nn.Module, ABC):
    """Base of the sharings.

    make_trunk: makes a trunk, freshly initialized at each call.
    heads: task → its head, in the tasks' order.
    inputs: task → alias of the dataset its examples come from.
    """

    def __init__(
        self, make_trunk: Callable[[], Trunk], heads: Mapping[str, nn.Module], inputs: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(dict(heads))
        self.inputs = dict(inputs)

    @abstractmethod
    def representations(self, inputs: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """What each task's head is given, [B, features]. inputs: alias → normalized [B, *input_shape]."""

    def forward(self, inputs: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """task → prediction [B, outputs], for the tasks asked for."""
        found = self.representations(inputs, tasks)
        return {task: self.heads[task](representation) for task, representation in found.items()}

    def shared_parameters(self) -> list[nn.Parameter]:
        """All parameters that don't belong to a head."""
        own = {id(p) for p in self.heads.parameters()}
        return [p for p in self.parameters() if id(p) not in own]

"""What every sharing is: how one or several trunks and the tasks' heads are wired."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from mtlcli.models.by_name import ByName
from mtlcli.models.experts import joined, parted
from mtlcli.models.trunk import Trunk
from mtlcli.models.watch import Watch
from mtlcli.specs import TrunkPass

MakeTrunk = Callable[[], Trunk]
MakeHead = Callable[[str, int], nn.Module]


class Sharing(nn.Module, ABC):
    """Base of the sharings.

    make_trunk: makes a trunk, freshly initialized at each call.
    make_head: (task, features) → a head for representations of that width; the subclass fills `heads` with them.
    inputs: task → alias of the dataset its examples come from, in the tasks' order.
    common_features: whether all tasks on the same dataset are given the same representation.
    private: whether each task has features of its own beside the shared ones.
    one_trunk: whether all examples pass one trunk, the first of `trunks`, whose activations `seen` takes in.
    gated: whether gates mix experts; `seen` takes in their selectors.
    watch: takes in what is to be seen of the sharing at work (gates, stitches, masks), where one is set.
    """

    common_features: ClassVar[bool] = False
    private: ClassVar[bool] = False
    one_trunk: ClassVar[bool] = False
    gated: ClassVar[bool] = False
    watch: Watch | None = None

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__()
        self.inputs = dict(inputs)
        self.heads = ByName()

    @abstractmethod
    def trunks(self) -> dict[str, Trunk]:
        """Name → trunk; the shared one first."""

    @abstractmethod
    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """What each task's head is given, [B, features]; the same tensor for tasks that share it.

        inputs: alias → normalized [B, *input_shape]. tasks: those wanted.
        seen: takes in what the shared trunk computes on the way, for the regularizers.
        """

    def forward(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """task → prediction [B, outputs], for the tasks asked for. seen: as in `representations`."""
        found = self.representations(inputs, tasks, seen)
        return {task: self.heads[task](representation) for task, representation in found.items()}

    def own_modules(self, task: str) -> list[nn.Module]:
        """The modules that serve this task alone, its head first."""
        return [self.heads[task]]

    @staticmethod
    def through(trunk: Trunk, inputs: Mapping[str, Tensor], seen: list[TrunkPass] | None) -> dict[str, Tensor]:
        """alias → features: the examples of all datasets in one pass through a trunk."""
        x, rows = joined(inputs)
        if seen is None:
            features = trunk(x)
        else:
            features, activations = trunk.activations(x, trunk.activation_names())
            seen.append(TrunkPass(rows, {"input": x, **activations, "features": features}))
        return parted(features, rows)

    def shared_parameters(self) -> list[nn.Parameter]:
        """All parameters that don't belong to one task alone."""
        own = {id(p) for task in self.inputs for module in self.own_modules(task) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in own]

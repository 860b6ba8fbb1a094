"""What every sharing is: how one or several trunks and the tasks' heads are wired."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtlcli.models.modules import ByName
from mtlcli.models.trunks.base import Trunk
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
    watch: SharingStats | None = None

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
        x, rows = concat_datasets(inputs)
        if seen is None:
            features = trunk(x)
        else:
            features, activations = trunk.activations(x, trunk.activation_names())
            seen.append(TrunkPass(rows, {"input": x, **activations, "features": features}))
        return split_datasets(features, rows)

    def shared_parameters(self) -> list[nn.Parameter]:
        """All parameters that don't belong to one task alone."""
        own = {id(p) for task in self.inputs for module in self.own_modules(task) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in own]


class SharingStats:
    """Means over examples, summed up on their device; read once, at the end.

    A sharing whose `watch` is set adds to it, in `representations`, what each task makes of the shared network.
    """

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, task: str, name: str, value: Tensor, examples: int) -> None:
        """Take in `value`, 0-d, the mean over so many examples of a figure of the task: such as `expert0`."""
        figures = self._sums.setdefault(task, {})
        part = value.detach().float() * examples
        figures[name] = figures[name] + part if name in figures else part
        self._counts[task, name] = self._counts.get((task, name), 0) + examples

    def means(self) -> dict[str, dict[str, float]]:
        """task → name → mean over all examples."""
        return {
            task: {name: float(total) / self._counts[task, name] for name, total in figures.items()}
            for task, figures in self._sums.items()
        }


def concat_datasets(inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, int]]:
    """The examples of all datasets in one batch, and alias → how many of the rows are its, in their order."""
    rows = {alias: x.shape[0] for alias, x in inputs.items()}  # len() would fix it in an exported program
    return (next(iter(inputs.values())) if len(inputs) == 1 else torch.cat(list(inputs.values()))), rows


def split_datasets(x: Tensor, rows: Mapping[str, int]) -> dict[str, Tensor]:
    """alias → its rows of x: the opposite of `concat_datasets`."""
    return dict(zip(rows, [x] if len(rows) == 1 else torch.split(x, list(rows.values())), strict=True))

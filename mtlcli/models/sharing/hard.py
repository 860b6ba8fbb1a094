"""Hard parameter sharing: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass


@sharings.register("hard")
class Hard(Sharing):
    """One trunk for all tasks, a head for each.

    The inputs of all datasets in the batch go through the trunk in one pass, so they have one shape; tasks on the same
    dataset are given the same features. A trunk with batch norm therefore sees the statistics of the joint batch in
    training, not those of each dataset apart.

    Source: Caruana, Multitask learning: a knowledge-based source of inductive bias, 1993.
    """

    common_features = True
    one_trunk = True

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.trunk = make_trunk()
        self.heads.update({task: make_head(task, self.trunk.features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {"trunk": self.trunk}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        alias_of = {task: self.inputs[task] for task in tasks}
        if not alias_of:
            return {}
        features = self.through(self.trunk, {alias: inputs[alias] for alias in alias_of.values()}, seen)
        return {task: features[alias] for task, alias in alias_of.items()}

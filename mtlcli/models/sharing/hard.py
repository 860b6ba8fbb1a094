"""Hard parameter sharing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mtlcli.models.sharing.base import (
    MakeHead,
    MakeTrunk,
    Sharing,
    SharingRecord,
    concat_datasets,
    differ_in_length,
    split_datasets,
)
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass


@sharings.register("hard")
class HardSharing(Sharing):
    """Hard parameter sharing: one trunk for all tasks, and a head for each task.

    The inputs of all datasets in a batch pass through the trunk together, so they must have the same shape, or stems in
    front of the trunk; texts of different lengths pass one dataset after the other. Tasks on the same dataset have the
    same representation. In training, batch norm in the trunk uses the statistics of the joint batch, not those of each
    dataset.

    References:
        Caruana, Multitask learning: a knowledge-based source of inductive bias, ICML 1993.

    Args:
        make_trunk: creates a trunk; called once.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
    """

    common_features = True
    one_trunk = True

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.trunk = make_trunk()
        self.heads.update({task: make_head(task, self.trunk.features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {"trunk": self.trunk}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        if len(inputs) > 1 and record.passes is None and differ_in_length(inputs):
            separate = {alias: self.trunk(x) for alias, x in inputs.items()}  # rather than padded to the longest
            return {task: separate[alias] for task, alias in alias_of.items()}
        x, rows = concat_datasets(inputs)
        if record.passes is None:
            features = self.trunk(x)
        else:
            features, activations = self.trunk.activations(x, self.trunk.activation_names())
            record.passes.append(TrunkPass(rows, self.trunk.recorded(x, features, activations)))
        of_dataset = split_datasets(features, rows)
        return {task: of_dataset[alias] for task, alias in alias_of.items()}

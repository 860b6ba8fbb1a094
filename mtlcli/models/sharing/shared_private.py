"""A shared trunk for all tasks, and a private trunk for each task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtlcli.models.sharing.base import AnyNameModuleDict, MakeHead, MakeTrunk, SharingRecord
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings


@sharings.register("shared_private")
class SharedPrivate(HardSharing):
    """Shared-private model: the head of each task receives shared and private features, concatenated.

    All trunks are built from the experiment's `trunk:` and have separate parameters, so the head of a task receives
    [shared, private] features, twice the width of one trunk. The examples of all datasets pass through the shared trunk
    as in `hard` sharing. The private trunk of a task processes only the examples of the task's dataset and receives
    only the gradient of this task: like the head, it counts as the task's own for every weighting.

    The model alone doesn't keep what tasks have in common out of the private trunks, or what they don't have in common
    out of the shared trunk; the regularizer `adversarial` with its option `orthogonality` does.

    With T tasks the model has T + 1 times the parameters of a trunk, and an example passes through 1 + (number of tasks
    on its dataset) trunks. `trunk.frozen` freezes all of them; `trunk.init_from` needs a checkpoint of the same
    sharing.

    References:
        Liu, Qiu and Huang, Adversarial multi-task learning for text classification, ACL 2017, arXiv:1704.05742,
            section 3: the shared-private model, there with LSTMs.
        Bousmalis, Trigeorgis, Silberman, Krishnan and Erhan, Domain separation networks, NeurIPS 2016,
            arXiv:1608.06019: private encoders of domains.

    Args:
        make_trunk: creates a trunk; called for the shared trunk, then for each task.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
    """

    private = True
    common_features = False

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__(make_trunk, lambda task, features: make_head(task, 2 * features), inputs)
        self.private_trunks = AnyNameModuleDict({task: make_trunk() for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        private = {f"private.{task}": self._private_trunk(task) for task in self.inputs}
        return {"trunk": self.trunk, **private}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        """See `Sharing.encode`; the representations are [B, 2 F], the shared features first."""
        representations = super().encode(inputs, alias_of, record)
        for task, shared in representations.items():
            private = self.private_trunks[task](inputs[alias_of[task]])
            if shared.ndim == 3:  # possibly padded to the longest texts of all datasets
                padded = functional.pad(private, (0, 0, 0, shared.shape[1] - private.shape[1]))
                representations[task] = torch.cat([shared, padded], 2)
            else:
                representations[task] = torch.cat([shared, private], 1)
            if record.passes is not None:
                trunk = self._private_trunk(task)
                record.passes[-1].private[task] = trunk.recorded(inputs[alias_of[task]], private, {})["features"]
        return representations

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self._private_trunk(task)]

    def _private_trunk(self, task: str) -> Trunk:
        trunk = self.private_trunks[task]
        assert isinstance(trunk, Trunk)
        return trunk

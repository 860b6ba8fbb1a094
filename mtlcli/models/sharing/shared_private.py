"""A shared trunk for all tasks, and a private one for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.hard import Hard
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass


@sharings.register("shared_private")
class SharedPrivate(Hard):
    """A shared trunk, and a private one for each task: a head is given both features, side by side.

    All trunks are the experiment's `trunk:`, each with its own weights, so a task's head gets [shared, private]
    features, twice as many as a trunk has. The shared trunk is passed as under `hard` sharing; a private trunk sees
    only the examples of its task's dataset, and gets no other task's gradient, like a head: it belongs to the task in
    every count and in every weighting.
    Alone, nothing keeps what tasks have in common out of the private trunks, or what they haven't out of the shared
    one; the regularizer `adversarial` with its `orthogonality` does.

    Sources: Liu, Qiu and Huang, Adversarial multi-task learning for text classification, ACL 2017, section 3 (the
    shared-private model, there of LSTMs); Bousmalis et al., Domain separation networks, NeurIPS 2016 (private encoders
    of domains). With T tasks it has T + 1 times the trunk's parameters, and passes each example through 1 + (the tasks
    on its dataset) trunks. `trunk.frozen` freezes all of them; `trunk.init_from` wants a checkpoint of this sharing.
    """

    private = True
    common_features = False

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__(make_trunk, lambda task, features: make_head(task, 2 * features), inputs)
        self.private_trunks = ByName({task: make_trunk() for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        private = {f"private.{task}": self._private_trunk(task) for task in self.inputs}
        return {"trunk": self.trunk, **private}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """See `Sharing`. [B, 2 features], the shared ones first; the private ones are in what `seen` takes in."""
        found = super().representations(inputs, tasks, seen)
        for task, shared in found.items():
            private = self.private_trunks[task](inputs[self.inputs[task]])
            found[task] = torch.cat([shared, private], 1)
            if seen is not None:
                seen[-1].private[task] = private
        return found

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self._private_trunk(task)]

    def _private_trunk(self, task: str) -> Trunk:
        trunk = self.private_trunks[task]
        assert isinstance(trunk, Trunk)
        return trunk

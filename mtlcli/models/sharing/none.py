"""No sharing: a trunk of its own for each task, all in one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass


@sharings.register("none")
class NoSharing(Sharing):
    """No sharing: each task has a trunk and a head of its own, all trained in one run.

    What sharing is measured against. Every trunk is the experiment's `trunk:`, with its own weights, and passes the
    examples of its task's dataset alone: T tasks have T times the trunk's parameters, and an example passes as many
    trunks as there are tasks on its dataset. No parameter gets the gradients of two tasks, so a weighting of gradients
    has nothing to weigh, and one of losses only scales each task's learning rate.
    Tasks trained in runs of their own differ in what they have one of here: the optimizer's clipping of the gradient,
    the number of steps (that of all tasks together), the epoch that is best, which is that of the monitored metric.
    `trunk.frozen` freezes all trunks; `trunk.init_from` wants a checkpoint of this sharing with the same tasks.
    """

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.task_trunks = ByName({task: make_trunk() for task in inputs})
        self.heads.update({task: make_head(task, self._trunk(task).features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {task: self._trunk(task) for task in self.inputs}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """See `Sharing`. There is no shared trunk that `seen` could take in."""
        return {task: self._trunk(task)(inputs[self.inputs[task]]) for task in tasks}

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self._trunk(task)]

    def _trunk(self, task: str) -> Trunk:
        trunk = self.task_trunks[task]
        assert isinstance(trunk, Trunk)
        return trunk

"""Separate trunks: no parameters are shared."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mtlcli.models.sharing.base import AnyNameModuleDict, MakeHead, MakeTrunk, Sharing, SharingRecord
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings


@sharings.register("none")
class NoSharing(Sharing):
    """No sharing: each task has its own trunk and head, trained in one run.

    This is the baseline for the other sharings. Every trunk is built from the experiment's `trunk:`, has its own
    parameters, and processes only the examples of its task's dataset. T tasks therefore have T times the parameters of
    a trunk, and an example passes through as many trunks as its dataset has tasks. No parameter receives the gradients
    of two tasks: a gradient-level weighting has nothing to combine, and a loss-level weighting only scales the learning
    rate of each task.

    Tasks that are trained in separate runs differ in what they share here: the gradient clipping of the optimizer, the
    number of steps (that of all tasks together), and the best epoch, which is chosen by the monitored metric.
    `trunk.frozen` freezes all trunks; `trunk.init_from` needs a checkpoint of this sharing with the same tasks.

    Args:
        make_trunk: creates a trunk; called for each task.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
    """

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.task_trunks = AnyNameModuleDict({task: make_trunk() for task in inputs})
        self.heads.update({task: make_head(task, self._trunk(task).features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {task: self._trunk(task) for task in self.inputs}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        return {task: self._trunk(task)(inputs[alias]) for task, alias in alias_of.items()}

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self._trunk(task)]

    def _trunk(self, task: str) -> Trunk:
        trunk = self.task_trunks[task]
        assert isinstance(trunk, Trunk)
        return trunk

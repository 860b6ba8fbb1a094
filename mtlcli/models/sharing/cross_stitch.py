"""Cross-stitch networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlcli.errors import suggest
from mtlcli.models.sharing.base import (
    AnyNameModuleDict,
    MakeHead,
    MakeTrunk,
    Sharing,
    SharingRecord,
    SharingStats,
    concat_datasets,
    split_datasets,
)
from mtlcli.models.sharing.experts import share_encoder
from mtlcli.models.stage_shapes import Stage, stage_key, trace_stages
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings


@sharings.register("cross_stitch")
class CrossStitch(Sharing):
    """Cross-stitch network: a trunk for each task, and learned linear combinations of their activations.

        x̃_t = Σ_s α_ts x_s    x_s: output of the stage of task s's trunk; α_ts: learned, one scalar per channel

    A cross-stitch unit follows every stage. The next stage of task t's trunk receives x̃_t, and t's head receives x̃_t
    of the last stage. α starts as `init` for a trunk's own task, and the rest is divided equally among the other
    tasks, so that a combination has the magnitude of its inputs, as the paper recommends. A channel is a feature map,
    or a feature of a vector or of a sequence. The paper places units after the pools and after the fully connected
    layers, including the last hidden one; accordingly, the units here follow all stages, including the last one.

    All examples pass through all trunks, including the examples of datasets other than that of a trunk's own task: a
    task's x̃ takes its dataset's rows of every x_s. With T tasks there are T times the parameters of a trunk and T²
    scalars per channel for the units, and an example passes through T trunks. The loss of every task reaches every
    trunk and unit, so they are shared. What follows the last unit (a task's row of that unit, and its trunk in later
    stages) belongs to the task and processes only its own examples. α is logged as the mean over the channels for each
    stage and pair of tasks.

    Note:
        Deviations from the paper: the paper initializes the trunks from networks trained for each task, and gives α a
        learning rate a hundred to a thousand times that of the trunks; here the trunks start as `trunk:` defines and α
        has the learning rate of the trunks. The paper combines two tasks; here any number. All trunks share one encoder
        of tables, which is not stitched. With one task, α starts as 1. `trunk.frozen` freezes the trunks, not the
        units.

    References:
        Misra, Shrivastava, Gupta and Hebert, Cross-stitch networks for multi-task learning, CVPR 2016,
            arXiv:1604.03539, sections 3 and 4, equation 1.

    Args:
        make_trunk: creates a trunk; called for each task.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        init: initial α of a task's own trunk.
        per_channel: whether α has a scalar for each channel, or one for the whole activation.
        stages: names of the trunk's stages that are followed by a unit; null: all stages.
    """

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        init: Annotated[float, Field(ge=0, le=1)] = 0.9,
        per_channel: bool = True,
        stages: Annotated[list[str], Field(min_length=1)] | None = None,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.task_trunks = AnyNameModuleDict({task: make_trunk() for task in inputs})
        first = self._trunk(next(iter(inputs)))
        traced = trace_stages(first)
        share_encoder(list(self.trunks().values()))
        self.stitched = _select_stages(stages, list(traced))
        self.tail = _layers_after(first, traced, self.stitched[-1])
        shapes = {name: traced[name].shape for name in self.stitched}
        channels = {
            name: (shape[-1] if len(shape) == 2 else shape[0]) if per_channel else 1 for name, shape in shapes.items()
        }

        def make_units(width: int) -> AnyNameModuleDict:
            return AnyNameModuleDict(
                {task: CrossStitchUnit(index, len(inputs), width, init) for index, task in enumerate(inputs)}
            )

        self.stitches = AnyNameModuleDict({stage_key(stage): make_units(width) for stage, width in channels.items()})
        self.heads.update({task: make_head(task, self._trunk(task).features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {task: self._trunk(task) for task in self.inputs}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        x, rows = concat_datasets(inputs)
        stages = {task: trunk.stages() for task, trunk in self.trunks().items()}
        first = self._trunk(next(iter(self.inputs)))
        linked = len(inputs) > 1 and first.stages_are_linked  # so that all stages take the same examples
        activations = dict.fromkeys(self.inputs, first.encoder(x))
        for name in next(iter(stages.values())):
            activations = {task: stages[task][name](y) for task, y in activations.items()}
            if name == self.stitched[-1] and not linked:
                of_dataset = [split_datasets(y, rows) for y in activations.values()]
                activations = {
                    task: self._stitch(name, task, [y[alias] for y in of_dataset]) for task, alias in alias_of.items()
                }
            elif name in self.stitched:
                activations = {task: self._stitch(name, task, list(activations.values())) for task in activations}
        if record.stats is not None:
            self._add_stats(record.stats, alias_of, rows)
        if linked:
            return {task: split_datasets(activations[task], rows)[alias] for task, alias in alias_of.items()}
        return {task: activations[task] for task in alias_of}

    def own_modules(self, task: str) -> list[nn.Module]:
        trunk, head = self._trunk(task), super().own_modules(task)
        if len(self.inputs) == 1:
            return [*head, trunk, self.stitches]
        last = self._unit(self.stitched[-1], task)
        return [*head, last, *(trunk.get_submodule(layer) for layer in self.tail)]

    def _stitch(self, stage: str, task: str, activations: Sequence[Tensor]) -> Tensor:
        stitched: Tensor = self._unit(stage, task)(activations)
        return stitched

    def _unit(self, stage: str, task: str) -> CrossStitchUnit:
        unit = self.stitches[stage_key(stage)][task]  # type: ignore[index]
        assert isinstance(unit, CrossStitchUnit)
        return unit

    def _add_stats(self, stats: SharingStats, alias_of: Mapping[str, str], rows: Mapping[str, int]) -> None:
        for task, alias in alias_of.items():
            for stage in self.stitched:
                means = self._unit(stage, task).alpha.mean(1).unbind()
                for source, mean in zip(self.inputs, means, strict=True):
                    stats.add(task, f"{stage}.{source}", mean, rows[alias])

    def _trunk(self, task: str) -> Trunk:
        trunk = self.task_trunks[task]
        assert isinstance(trunk, Trunk)
        return trunk


class CrossStitchUnit(nn.Module):
    """One task's row of a cross-stitch unit: x̃ = Σ_s α_s x_s.

    Args:
        own: index of the task among the T tasks; its α starts as `init`.
        tasks: number of tasks T.
        channels: number of channels C, or 1 for one scalar per activation.
        init: initial α of the task's own trunk.
    """

    def __init__(self, own: int, tasks: int, channels: int, init: float) -> None:
        super().__init__()
        alpha = torch.full((tasks, channels), (1 - init) / max(tasks - 1, 1))
        alpha[own] = init if tasks > 1 else 1.0
        self.alpha = nn.Parameter(alpha)  # [T, C]

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        """Combine the activations of all trunks.

        Args:
            activations: T activations, [B, C], [B, C, H, W] or [B, L, C] each.

        Returns:
            The combination, of the same shape.
        """
        first, *others = activations
        behind = first.shape[2:] if first.ndim == 4 else ()  # dimensions after the channels
        alpha = self.alpha.to(first.dtype).view(*self.alpha.shape, *(1 for _ in behind))
        total = first * alpha[0]
        for source, x in enumerate(others, 1):
            total = torch.addcmul(total, x, alpha[source])
        return total


def _select_stages(stages: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Return the stages to stitch, in the order of the trunk."""
    wanted = available if stages is None else stages
    for name in wanted:
        if name not in available:
            raise ValueError(
                f"stages: the trunk has no stage {name!r}.{suggest(name, available)} "
                f"Choose from: {', '.join(available)}"
            )
    return [name for name in available if name in wanted]


def _layers_after(trunk: Trunk, stages: Mapping[str, Stage], last: str) -> list[str]:
    """Return the layers with parameters that the stages after the stage `last` call, and no stage before."""
    cut = list(stages).index(last) + 1
    called = [stage.modules for stage in stages.values()]
    after = frozenset[str]().union(*called[cut:]).difference(*called[:cut])
    return sorted(name for name in after if trunk.get_submodule(name)._parameters)
